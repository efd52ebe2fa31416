//! `broadcast-operator export`: the log of a Broadcast, from the cluster to standard output.
//!
//! In: a name, a cluster. Out: all its pages as one CSV; or nothing, and what is wrong. A CSV that lacks a page looks like the
//! whole one of a smaller Broadcast, so nothing is printed before everything is read.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Config, ResourceExt};

use crate::api::{Broadcast, BroadcastBatch};
use crate::cluster::{ApiError, chain, within};
use crate::domain::export::{Cells, LogError, csv, whole_log};
use crate::domain::ids::ObjectKey;
use crate::ledger::pages_under;

/// Arguments of `broadcast-operator export`. The cluster is found as kubectl finds it.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Name of the Broadcast.
    #[arg(value_name = "BROADCAST")]
    pub broadcast: String,
    /// Its namespace. None: that of the kubeconfig's context, or of the pod.
    #[arg(long, short = 'n', value_name = "NAME")]
    pub namespace: Option<String>,
    /// Print all texts as they are, for programs. Without it, a text that a spreadsheet could run as a formula has a single
    /// quote in front.
    #[arg(long)]
    pub raw: bool,
}

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No threads.
    #[error("failed to start the runtime")]
    Runtime(#[source] std::io::Error),
    /// No cluster to connect to.
    #[error("failed to find a cluster: set KUBECONFIG, or run in a pod with a service account")]
    Config(#[source] kube::config::InferConfigError),
    /// The client cannot be made.
    #[error("failed to set up the client of the cluster")]
    Client(#[source] kube::Error),
    /// There is no such Broadcast.
    #[error("Broadcast {0} does not exist")]
    NotFound(ObjectKey),
    /// The Broadcast cannot be read.
    #[error("failed to read Broadcast {broadcast}")]
    Broadcast {
        /// The Broadcast.
        broadcast: ObjectKey,
        /// What the API server said.
        #[source]
        source: ApiError,
    },
    /// Its pages cannot be read.
    #[error("failed to list the pages of Broadcast {broadcast}")]
    Pages {
        /// The Broadcast.
        broadcast: ObjectKey,
        /// What the API server said.
        #[source]
        source: ApiError,
    },
    /// A page is not of this kind any more.
    #[error("page {page} does not fit its schema: {problem}")]
    Schema {
        /// The page.
        page: ObjectKey,
        /// What is wrong with it.
        problem: String,
    },
    /// The pages are no whole log.
    #[error("the log of Broadcast {broadcast} cannot be exported")]
    Log {
        /// The Broadcast.
        broadcast: ObjectKey,
        /// Which page, and what is wrong with it.
        #[source]
        source: LogError,
    },
    /// Nobody takes the text.
    #[error("failed to write to standard output")]
    Write(#[source] std::io::Error),
}

/// Prints the log, or what is wrong.
#[must_use]
pub fn main(args: &ExportArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let text = runtime.map_err(ExportError::Runtime).and_then(|runtime| runtime.block_on(export(args)));
    match text.and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), ExportError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ExportError::Write)
}

/// The log as CSV.
///
/// # Errors
/// When there is none, or it cannot be read as a whole.
pub async fn export(args: &ExportArgs) -> Result<String, ExportError> {
    // The first one to install it wins; it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = Config::infer().await.map_err(ExportError::Config)?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let key = ObjectKey::new(namespace, args.broadcast.clone());
    let client = Client::try_from(config).map_err(ExportError::Client)?;

    let broadcasts: Api<Broadcast> = Api::namespaced(client.clone(), &key.namespace);
    let broadcast =
        within(broadcasts.get(&key.name)).await.map_err(|source| match source.is_not_found() {
            true => ExportError::NotFound(key.clone()),
            false => ExportError::Broadcast { broadcast: key.clone(), source },
        })?;
    let pages: Api<DeserializeGuard<BroadcastBatch>> = Api::namespaced(client, &key.namespace);
    let pages = pages_under(&pages, &key.name).await;
    let pages = pages.map_err(|source| ExportError::Pages { broadcast: key.clone(), source })?;
    let pages: Vec<BroadcastBatch> = pages.into_iter().map(readable).collect::<Result<_, _>>()?;
    let pages = whole_log(&broadcast, pages);
    let pages = pages.map_err(|source| ExportError::Log { broadcast: key.clone(), source })?;
    Ok(csv(&pages, if args.raw { Cells::Raw } else { Cells::Guarded }))
}

/// One object that cannot be read must not hide which one it is.
fn readable(page: DeserializeGuard<BroadcastBatch>) -> Result<BroadcastBatch, ExportError> {
    let name = page.name_any();
    let namespace = page.namespace().unwrap_or_default();
    page.0.map_err(|invalid| ExportError::Schema {
        page: ObjectKey::new(namespace, name),
        problem: invalid.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_that_does_not_fit_its_schema_is_named() {
        let page = json!({
            "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": "BroadcastBatch",
            "metadata": {"namespace": "shop", "name": "sale-00001"}, "spec": {"recipients": 5},
        });
        let error = readable(serde_json::from_value(page).expect("guarded")).expect_err("no text");
        assert!(error.to_string().starts_with("page shop/sale-00001 does not fit its schema: "), "{error}");
    }
}

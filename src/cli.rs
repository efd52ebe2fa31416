//! The command line of `broadcast-operator`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::export::ExportArgs;
use crate::telemetry::LogFormat;
use crate::{api, export, run, telemetry};

/// Manages bulk-message broadcasts as Kubernetes resources.
#[derive(Debug, Parser)]
#[command(name = "broadcast-operator", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator until SIGTERM or SIGINT.
    Run(RunArgs),
    /// Print the `CustomResourceDefinitions` as YAML, for `kubectl apply --server-side -f -`.
    Crds,
    /// Print the log of a Broadcast as CSV: every chat, its outcome, its parameters.
    Export(ExportArgs),
}

/// Flags of `broadcast-operator run`. The cluster is found as kubectl finds it: `KUBECONFIG`, `~/.kube/config`, or the service
/// account of the pod.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Namespace to work in; may be given several times. None: all namespaces.
    #[arg(
        long = "namespace",
        short = 'n',
        env = "BROADCAST_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub namespaces: Vec<String>,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "BROADCAST_ADMIN_ADDRESS", default_value = "127.0.0.1:8081", value_name = "IP:PORT")]
    pub admin_address: SocketAddr,
    /// Where gateways post receipts to.
    #[arg(
        long,
        env = "BROADCAST_RECEIPTS_ADDRESS",
        default_value = "127.0.0.1:8082",
        value_name = "IP:PORT"
    )]
    pub receipts_address: SocketAddr,
    /// Range of loopback, link-local or private addresses that channels may point to; may be given several times.
    /// Public addresses are always allowed.
    #[arg(
        long = "allow-address",
        env = "BROADCAST_ALLOW_ADDRESSES",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub allow_addresses: Vec<IpNet>,
    /// How a log line looks.
    #[arg(long, env = "BROADCAST_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged, as the tracing crates write it: `info`, `info,broadcast_operator=debug`.
    #[arg(
        long,
        env = "BROADCAST_LOG_FILTER",
        default_value = "info,kube_runtime=warn",
        value_name = "FILTER"
    )]
    pub log_filter: String,
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Crds => {
            print!("{}", api::crds::yaml());
            ExitCode::SUCCESS
        }
        Command::Export(args) => export::main(&args),
        Command::Run(args) => run_operator(&args),
    }
}

fn run_operator(args: &RunArgs) -> ExitCode {
    if let Err(error) = telemetry::init(args.log_format, &args.log_filter) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run::run(args));
            // Look-ups of names cannot be interrupted, and hold nothing that matters.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            ended
        }
        Err(error) => Err(run::RunError::Runtime(error)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %crate::cluster::chain(&error), "the operator ends");
            ExitCode::FAILURE
        }
    }
}

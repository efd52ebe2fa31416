//! The command line of `broadcast-operator`.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::export::ExportArgs;
use crate::lease::{InvalidTimes, LeaseSettings, LeaseTimes};
use crate::telemetry::LogFormat;
use crate::{api, export, journal, run, telemetry};

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
    Run(Box<RunArgs>),
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
    /// Loopback, link-local or private address, or range of them, that channels may point to; may be given several times.
    /// Public addresses are always allowed.
    #[arg(
        long = "allow-address",
        env = "BROADCAST_ALLOW_ADDRESSES",
        value_delimiter = ',',
        value_parser = address_range,
        value_name = "CIDR"
    )]
    pub allow_addresses: Vec<IpNet>,
    /// Batches that are written in a second for receipts that come one here and one there, each for another batch. Those above
    /// that are stored together in a `BroadcastJournal`, and are in their batches within half a minute. 0: all of them are.
    #[arg(
        long,
        env = "BROADCAST_RECEIPT_PAGE_WRITES_PER_SECOND",
        default_value_t = journal::POOR_WRITES_PER_SECOND,
        value_name = "NUMBER"
    )]
    pub receipt_page_writes_per_second: u32,
    /// How replicas share their work.
    #[command(flatten)]
    pub leases: LeaseArgs,
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

/// How replicas share their work. Replicas that share it have the first two of these in common.
#[derive(Args, Clone, Debug)]
pub struct LeaseArgs {
    /// Namespace of the leases by which replicas share channels. None: that of the pod, or of the kubeconfig.
    #[arg(long, env = "BROADCAST_LEASE_NAMESPACE", value_name = "NAME")]
    pub lease_namespace: Option<String>,
    /// Name of the leader's lease; the names of all others begin with it. Replicas with the same one share their work.
    #[arg(
        long,
        env = "BROADCAST_LEASE_NAME",
        default_value = "broadcast-operator",
        value_parser = lease_name,
        value_name = "NAME"
    )]
    pub lease_name: String,
    /// After so long without a sign of life a replica is given up and the others take over. Whole seconds. A shorter one needs a shorter
    /// `--lease-renew-deadline` too
    #[arg(long, env = "BROADCAST_LEASE_DURATION", default_value = "15s", value_parser = duration, value_name = "TIME")]
    pub lease_duration: Duration,
    /// A replica that could not renew its lease for so long starts no further request. Less than the lease duration.
    #[arg(
        long,
        env = "BROADCAST_LEASE_RENEW_DEADLINE",
        default_value = "10s",
        value_parser = duration,
        value_name = "TIME"
    )]
    pub lease_renew_deadline: Duration,
    /// Time between two renewals.
    #[arg(long, env = "BROADCAST_LEASE_RETRY_PERIOD", default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub lease_retry_period: Duration,
    /// When the operator starts and finds a replica that said no farewell and was silent for so long, it takes the cluster for
    /// one that was restored from a backup, and holds what was not complete.
    #[arg(
        long,
        env = "BROADCAST_ASSUME_RESTORED_AFTER",
        default_value = "1h",
        value_parser = duration,
        value_name = "TIME"
    )]
    pub assume_restored_after: Duration,
    /// Name of this process in the leases, for people.
    #[arg(long, env = "POD_NAME", default_value = "broadcast-operator", value_name = "NAME")]
    pub pod_name: String,
    /// UID of the pod that this process runs in. What an earlier process of the same pod held is taken over at once.
    #[arg(long, env = "POD_UID", value_name = "UID")]
    pub pod_uid: Option<String>,
}

impl LeaseArgs {
    /// The settings that these flags mean. `namespace` is that of the pod or of the kubeconfig.
    ///
    /// # Errors
    /// When the times cannot work together.
    pub fn settings(&self, namespace: &str) -> Result<LeaseSettings, InvalidTimes> {
        Ok(LeaseSettings {
            namespace: self.lease_namespace.clone().unwrap_or_else(|| namespace.to_owned()),
            name: self.lease_name.clone(),
            pod_name: self.pod_name.clone(),
            pod_uid: self.pod_uid.clone().filter(|uid| !uid.is_empty()),
            assume_restored_after: self.assume_restored_after,
            times: self.times()?,
        })
    }

    /// The times of these flags.
    ///
    /// # Errors
    /// When they cannot work together.
    pub fn times(&self) -> Result<LeaseTimes, InvalidTimes> {
        let times = LeaseTimes {
            duration: self.lease_duration,
            renew_deadline: self.lease_renew_deadline,
            retry_period: self.lease_retry_period,
        };
        times.check().map(|()| times)
    }
}

/// A range as in `10.0.0.0/8`, or one address.
fn address_range(text: &str) -> Result<IpNet, String> {
    let parsed =
        if text.contains('/') { text.parse().ok() } else { text.parse::<IpAddr>().ok().map(IpNet::from) };
    parsed.ok_or_else(|| "must be a range as in 10.0.0.0/8, or an address as in 10.0.0.7".to_owned())
}

/// A time as in `15s` or `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let time: jiff::SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(time).map_err(|_| "must not be negative".to_owned())
}

/// Names of leases are this one, a dash and twenty letters; it is also the value of a label.
fn lease_name(text: &str) -> Result<String, String> {
    let is_name = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let is_framed = !text.starts_with('-') && !text.ends_with('-');
    if is_name && is_framed && (1..=63).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 63 small letters, digits and dashes, with no dash at either end".to_owned())
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
    if let Err(error) = args.leases.times() {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
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

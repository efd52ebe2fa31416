//! The real binary, as a process.

use std::path::PathBuf;
use std::process::Command;

use super::chart;
use super::control_plane::{ControlPlane, tail};
use super::processes::{Process, free_port};
use super::wait::until;

/// A running operator. Its log is shown when the test fails.
pub struct Operator {
    process: Process,
    settings: Settings,
}

/// How an operator is started, and started again.
struct Settings {
    kubeconfig: PathBuf,
    namespace: String,
    lease_namespace: String,
    /// Of replicas in one namespace each has its own. A process that is started anew is in the same pod.
    pod: String,
    flags: Vec<String>,
    log: PathBuf,
    admin: u16,
    receipts: u16,
}

impl Operator {
    /// Starts one for a namespace, under an account of the control plane, and waits until it is ready.
    pub async fn start(plane: &ControlPlane, account: &str, namespace: &str) -> Self {
        let operator = Self::launch(plane, account, namespace);
        operator.ready().await;
        operator
    }

    /// Starts one and does not wait.
    pub fn launch(plane: &ControlPlane, account: &str, namespace: &str) -> Self {
        Self::launch_replica(plane, account, namespace, "pod-0", &[])
    }

    /// Starts one of several for the same namespace, with these flags besides, and does not wait.
    pub fn launch_replica(
        plane: &ControlPlane,
        account: &str,
        namespace: &str,
        pod: &str,
        flags: &[&str],
    ) -> Self {
        // The chart's account has rights on leases in the namespace of the release alone.
        let lease_namespace = if account == chart::RELEASE { chart::NAMESPACE } else { namespace };
        let settings = Settings {
            kubeconfig: plane.kubeconfig(account),
            namespace: namespace.to_owned(),
            lease_namespace: lease_namespace.to_owned(),
            pod: pod.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            log: plane.folder().join(format!("operator-{namespace}-{pod}.log")),
            admin: free_port(),
            receipts: free_port(),
        };
        Self { process: settings.spawn(), settings }
    }

    /// Kills it on the spot and starts a new one on the same ports. Returns when that one is ready.
    pub async fn kill_and_restart(&mut self) {
        self.process.kill();
        self.restart().await;
    }

    /// Kills it on the spot.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts a new one on the same ports, after the old one has ended.
    pub async fn restart(&mut self) {
        self.process = self.settings.spawn();
        self.ready().await;
    }

    /// Starts a new one in another pod, after the old one has ended. What that one held is taken over when its lease runs
    /// out.
    pub async fn restart_in(&mut self, pod: &str) {
        pod.clone_into(&mut self.settings.pod);
        self.restart().await;
    }

    /// Name of its pod.
    pub fn pod(&self) -> &str {
        &self.settings.pod
    }

    /// Its exit code, if it has ended.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.exit_code()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits until it has ended. Out: its exit code.
    pub async fn ended(&mut self) -> i32 {
        until("the operator has ended", async || self.process.exit_code().ok_or("it runs")).await
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        until("the operator is ready", async || match self.get("/readyz").await {
            Ok((200, _)) => Ok(()),
            other => Err((other, self.log_tail())),
        })
        .await;
    }

    /// A page of its admin server: status and text.
    pub async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let answer = reqwest::get(self.admin_url(path)).await.map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), answer.text().await.map_err(|error| error.to_string())?))
    }

    /// Where a page of its admin server is.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.settings.admin)
    }

    /// The sum of a metric over all its labels that contain `with`.
    pub async fn metric(&self, name: &str, with: &str) -> u64 {
        let (_, text) = self.get("/metrics").await.expect("should have metrics");
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(with)
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Where gateways send the receipts of this operator.
    pub fn receipts_url(&self) -> String {
        format!("{}/v1/namespaces/{{namespace}}/channels/{{channel}}/receipts", self.receipts_base_url())
    }

    /// Where its receipts server is.
    pub fn receipts_base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.settings.receipts)
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Memory that it has now, in KiB, where the system says so as Linux does.
    pub fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.settings.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        tail(&self.log(), 40)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("last lines of the operator of {}:\n{}", self.settings.namespace, self.log_tail());
        }
    }
}

impl Settings {
    fn spawn(&self) -> Process {
        let usual =
            ["--log-format", "text", "--log-filter", "info,kube_runtime=warn,broadcast_operator=debug"];
        let is_wanted_otherwise = self.flags.iter().any(|flag| flag.starts_with("--log-"));
        let logging: &[&str] = if is_wanted_otherwise { &[] } else { &usual };
        Process::start(
            Command::new(env!("CARGO_BIN_EXE_broadcast-operator"))
                .env("KUBECONFIG", &self.kubeconfig)
                .args(["run", "--namespace", &self.namespace, "--allow-address", "127.0.0.0/8"])
                .args(["--admin-address", &format!("127.0.0.1:{}", self.admin)])
                .args(["--receipts-address", &format!("127.0.0.1:{}", self.receipts)])
                .args(["--lease-namespace", &self.lease_namespace, "--lease-name", &self.namespace])
                .args(["--pod-name", &self.pod, "--pod-uid", &format!("{}-{}", self.namespace, self.pod)])
                .args(logging)
                .args(&self.flags),
            &self.log,
        )
    }
}

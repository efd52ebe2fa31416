//! etcd, kube-apiserver and kube-controller-manager, started once per test binary. The first two can be killed and started
//! again: on the same ports, with the same data, or with that of a snapshot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use broadcast_operator::api::crds;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::processes::{Service, free_port, remove_in_the_end};
use super::wait::until;

/// Token of the administrator.
const ADMIN: &str = "admin";
/// Of all controllers only those that Broadcasts meet: garbage collection and the ends of namespaces.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller";

/// A running control plane with our CRDs.
pub struct ControlPlane {
    assets: PathBuf,
    // They end with it, and before the folder that they write into is removed.
    controllers: Option<Service>,
    api_server: Service,
    etcd: Service,
    folder: TempDir,
    url: String,
    etcd_url: String,
}

/// How a snapshot is put into the place of what etcd has.
#[derive(Clone, Copy, Debug)]
pub enum Restore {
    /// As it is: revisions that were given since are given again.
    Plain,
    /// As Kubernetes wants it: revisions go on far beyond all that were ever given, and watches are told to begin anew.
    Bumped,
}

/// Far above the revisions that any test makes; etcd's documentation uses it.
const BUMP: &str = "1000000000";

/// The control plane of this test binary.
pub async fn shared() -> &'static ControlPlane {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    SHARED
        .get_or_init(|| async {
            let plane = ControlPlane::start().await;
            plane.install_crds();
            plane
        })
        .await
}

/// Builds or finds the binaries, and shows what it does meanwhile.
fn assets() -> PathBuf {
    let built = Command::new(super::root().join("testbed/build.sh")).stderr(Stdio::inherit()).output();
    let built = built.expect("should run testbed/build.sh");
    assert!(built.status.success(), "testbed/build.sh failed; its messages are above");
    let text = String::from_utf8(built.stdout).expect("should print a path");
    PathBuf::from(text.lines().last().expect("should print a path"))
}

/// Without fsync: a write that was acknowledged is with the system by then, and a SIGKILL takes nothing away from that. Only
/// the end of the machine would.
fn etcd(assets: &Path, folder: &Path, client_port: u16, peer_port: u16) -> Command {
    let url = format!("http://127.0.0.1:{client_port}");
    let mut etcd = Command::new(assets.join("etcd"));
    etcd.arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer_port}")])
        .args(["--unsafe-no-fsync", "--log-level", "error"]);
    etcd
}

fn api_server(assets: &Path, folder: &Path, client_port: u16, port: u16) -> Command {
    let mut api_server = Command::new(assets.join("kube-apiserver"));
    api_server
        .args(["--etcd-servers", &format!("http://127.0.0.1:{client_port}")])
        .args(["--secure-port", &port.to_string()])
        .args(["--bind-address", "127.0.0.1", "--service-cluster-ip-range", "10.0.0.0/24"])
        .args(["--service-account-issuer", "https://kubernetes.default.svc"])
        .args(["--authorization-mode", "RBAC"])
        .arg("--cert-dir")
        .arg(folder.join("certs"))
        .arg("--service-account-key-file")
        .arg(folder.join("sa.pub"))
        .arg("--service-account-signing-key-file")
        .arg(folder.join("sa.key"))
        .arg("--token-auth-file")
        .arg(folder.join("tokens.csv"));
    api_server
}

impl ControlPlane {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let assets = assets();
        let folder = TempDir::with_prefix("broadcast-testbed-").expect("should make a folder");
        let at = folder.path();
        // A control plane that the tests of a binary share is never dropped.
        remove_in_the_end(at);
        write_signing_key(at);
        std::fs::write(at.join("tokens.csv"), format!("{ADMIN},admin,admin,\"system:masters\"\n"))
            .expect("should write tokens");
        let [client_port, peer_port, port] = [free_port(), free_port(), free_port()];
        let etcd = Service::start(etcd(&assets, at, client_port, peer_port), at.join("etcd.log"));
        let api_server =
            Service::start(api_server(&assets, at, client_port, port), at.join("kube-apiserver.log"));
        let (url, etcd_url) =
            (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{client_port}"));
        let mut plane = Self { assets, controllers: None, api_server, etcd, folder, url, etcd_url };
        plane.write_kubeconfig("admin", ADMIN);
        plane.ready().await;
        let mut controllers = Command::new(plane.binary("kube-controller-manager"));
        controllers.arg("--kubeconfig").arg(plane.kubeconfig("admin")).args([
            "--controllers",
            CONTROLLERS,
            "--leader-elect=false",
            "--secure-port",
            "0",
        ]);
        let log = plane.folder.path().join("kube-controller-manager.log");
        plane.controllers = Some(Service::start(controllers, log));
        plane
    }

    /// Kills etcd on the spot.
    pub fn kill_etcd(&self) {
        self.etcd.kill();
    }

    /// Kills the API server on the spot.
    pub fn kill_api_server(&self) {
        self.api_server.kill();
    }

    /// Sends a signal to the API server by name: with STOP it takes connections and never answers, until CONT.
    pub fn signal_api_server(&self, name: &str) {
        self.api_server.signal(name);
    }

    /// Starts again what was killed, and waits until it answers.
    pub async fn start_again(&self) {
        self.etcd.start_again();
        self.api_server.start_again();
        self.ready().await;
        self.controllers.iter().for_each(Service::start_again);
    }

    /// Makes etcd refuse every write, as it does when its quota is used up.
    pub async fn alarm_no_space(&self) {
        self.alarm("ACTIVATE").await;
    }

    /// Lets etcd take writes again, as a person does after making room.
    pub async fn disarm_alarms(&self) {
        self.alarm("DEACTIVATE").await;
    }

    /// etcd's own API for its members, as `etcdctl alarm disarm` calls it. The member that 0 names is the one that is asked.
    async fn alarm(&self, action: &str) {
        let url = format!("{}/v3/maintenance/alarm", self.etcd_url);
        let body = serde_json::json!({"action": action, "memberID": 0, "alarm": "NOSPACE"});
        let answer = reqwest::Client::new().post(url).json(&body).send().await.expect("should reach etcd");
        assert!(answer.status().is_success(), "etcd answered {}", answer.status());
    }

    /// Takes a snapshot of the running etcd. Out: its file.
    pub fn snapshot(&self, name: &str) -> PathBuf {
        let file = self.folder.path().join(format!("{name}.snapshot"));
        let mut save = Command::new(self.binary("etcdctl"));
        save.args(["--endpoints", &self.etcd_url, "snapshot", "save"]).arg(&file);
        run(&mut save, "").unwrap_or_else(|error| panic!("etcdctl snapshot save: {error}"));
        file
    }

    /// Puts the whole cluster back to a snapshot: stops everything, restores, and starts it again on the same ports.
    pub async fn put_back(&self, snapshot: &Path, how: Restore) {
        self.controllers.iter().for_each(Service::kill);
        self.api_server.kill();
        self.etcd.kill();
        let data = self.folder.path().join("etcd");
        std::fs::remove_dir_all(&data).expect("should remove the data of etcd");
        let mut restore = Command::new(self.binary("etcdutl"));
        restore.args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(&data);
        if matches!(how, Restore::Bumped) {
            restore.args(["--bump-revision", BUMP, "--mark-compacted"]);
        }
        run(&mut restore, "").unwrap_or_else(|error| panic!("etcdutl snapshot restore: {error}"));
        self.start_again().await;
    }

    /// Waits until it answers.
    async fn ready(&self) {
        until("the API server is ready", async || self.is_ready().await).await;
    }

    async fn is_ready(&self) -> Result<(), String> {
        if !self.folder.path().join("certs/apiserver.crt").exists() {
            return Err("it has no certificate yet".into());
        }
        let ready = http::Request::get("/readyz").body(Vec::new()).expect("should be a request");
        let client = self.client().await;
        client
            .request_text(ready)
            .await
            .map(drop)
            .map_err(|error| format!("{error}\n{}", tail(&self.api_server.log(), 5)))
    }

    /// Installs the CRDs and waits until their kinds are served.
    pub fn install_crds(&self) {
        self.kubectl(&["apply", "--server-side", "-f", "-"], &crds::yaml());
        for name in crds::names() {
            self.kubectl(
                &["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{name}")],
                "",
            );
        }
    }

    /// A client of the administrator, of the runtime that it is made in.
    pub async fn client(&self) -> Client {
        self.client_of("admin").await
    }

    /// A client of another account.
    pub async fn client_of(&self, account: &str) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig(account)).expect("should be a kubeconfig");
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("should be usable");
        config.default_retry = false;
        Client::try_from(config).expect("should be a client")
    }

    /// A binary of the testbed.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.assets.join(name)
    }

    /// A folder that ends with the control plane.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The kubeconfig of an account.
    pub fn kubeconfig(&self, account: &str) -> PathBuf {
        self.folder.path().join(format!("{account}.kubeconfig"))
    }

    /// Writes the kubeconfig of an account.
    pub fn write_kubeconfig(&self, account: &str, token: &str) {
        let certificate = self.folder.path().join("certs/apiserver.crt");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: testbed\n\
             clusters: [{{name: testbed, cluster: {{server: \"{}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: {account}, user: {{token: \"{token}\"}}}}]\n\
             contexts: [{{name: testbed, context: {{cluster: testbed, user: {account}}}}}]\n",
            self.url,
            certificate.display(),
        );
        std::fs::write(self.kubeconfig(account), text).expect("should write a kubeconfig");
    }

    /// Runs kubectl as the administrator; panics when it fails.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        self.try_kubectl(arguments, input).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    /// Runs kubectl as the administrator. Out: its output, or what it says went wrong.
    pub fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        run(
            Command::new(self.binary("kubectl"))
                .arg("--kubeconfig")
                .arg(self.kubeconfig("admin"))
                .arg("--cache-dir")
                .arg(self.folder.path().join("kubectl"))
                .args(arguments),
            input,
        )
    }
}

/// Runs a program with this input. Out: its output, or its error text. Other tasks of the runtime, such as the gateway of
/// a test, go on meanwhile.
pub fn run(command: &mut Command, input: &str) -> Result<String, String> {
    tokio::task::block_in_place(|| run_to_end(command, input))
}

fn run_to_end(command: &mut Command, input: &str) -> Result<String, String> {
    use std::io::Write;
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("failed to start {command:?}: {error}"))?;
    let mut pipe = child.stdin.take().expect("should have a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that does not read its input is free to do so.
        let _ = pipe.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    writer.join().expect("should have written the input");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(format!("{}{text}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// What a P-256 public key begins with as a `SubjectPublicKeyInfo` (RFC 5480): the rest is the point itself.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Makes the key pair that service-account tokens are signed with.
fn write_signing_key(folder: &Path) {
    let random = SystemRandom::new();
    let private =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("should make a key");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_ref(), &random);
    let point = pair.expect("should read its own key").public_key().as_ref().to_vec();
    for (file, kind, der) in [
        ("sa.key", "PRIVATE KEY", private.as_ref().to_vec()),
        ("sa.pub", "PUBLIC KEY", [&P256_PREFIX[..], &point].concat()),
    ] {
        let encoded = base64::engine::general_purpose::STANDARD.encode(der);
        let text = format!("-----BEGIN {kind}-----\n{encoded}\n-----END {kind}-----\n");
        std::fs::write(folder.join(file), text).expect("should write a key");
    }
}

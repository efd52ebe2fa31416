//! The chart, rendered by the real helm: the operator's account and its rights come from there.

use std::process::Command;

use tokio::sync::OnceCell;

use super::control_plane::{ControlPlane, run};

/// Namespace that the chart is installed in.
pub const NAMESPACE: &str = "broadcast-system";
/// Name of the release, and of the kubeconfig of its account.
pub const RELEASE: &str = "broadcast-operator";

/// Renders the chart with these settings, as in `--set`.
pub fn render(plane: &ControlPlane, settings: &[&str]) -> Result<String, String> {
    let sets = settings.iter().flat_map(|setting| ["--set", setting]);
    run(
        Command::new(plane.binary("helm"))
            .env("HELM_CACHE_HOME", plane.folder().join("helm/cache"))
            .env("HELM_CONFIG_HOME", plane.folder().join("helm/config"))
            .env("HELM_DATA_HOME", plane.folder().join("helm/data"))
            .args(["template", RELEASE, "--namespace", NAMESPACE])
            .arg(super::root().join("charts/broadcast-operator"))
            .args(sets),
        "",
    )
}

/// Installs the chart once per test binary in the shared control plane. Out: the name of the kubeconfig of its account.
pub async fn account(plane: &ControlPlane) -> &'static str {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED.get_or_init(|| async { install(plane) }).await;
    RELEASE
}

/// Installs the chart, and makes a kubeconfig of its account.
pub fn install(plane: &ControlPlane) {
    let manifests = render(plane, &[]).unwrap_or_else(|error| panic!("helm template: {error}"));
    plane.kubectl(&["create", "namespace", NAMESPACE], "");
    plane.kubectl(&["apply", "--server-side", "--force-conflicts", "-n", NAMESPACE, "-f", "-"], &manifests);
    let arguments = ["create", "token", RELEASE, "-n", NAMESPACE, "--duration", "24h"];
    plane.write_kubeconfig(RELEASE, plane.kubectl(&arguments, "").trim());
}

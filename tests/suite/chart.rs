//! The chart: rendered by the real helm, applied to the real API server. Every other test runs under its account.

use crate::common::chart::render;
use crate::common::control_plane;

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_applies_with_several_settings() {
    let plane = control_plane::shared().await;
    crate::common::chart::account(plane).await;
    for settings in [
        &[][..],
        &["namespaces={shop,news}"],
        &["crds.enabled=false"],
        &["allowAddresses={10.0.0.0/8}"],
        &["replicas=1"],
        &["receiptPageWritesPerSecond=0"],
    ] {
        let manifests = render(plane, settings).unwrap_or_else(|error| panic!("{settings:?}: {error}"));
        for namespace in ["shop", "news"] {
            // It may be there from the round before.
            let _ = plane.try_kubectl(&["create", "namespace", namespace], "");
        }
        // Without a namespace: each manifest has to name its own, the watched ones among them.
        let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
        plane.kubectl(&arguments, &manifests);
        assert_eq!(
            manifests.contains("kind: CustomResourceDefinition"),
            !settings.contains(&"crds.enabled=false")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_is_refused_by_the_schema_of_the_values() {
    let plane = control_plane::shared().await;
    let error = render(plane, &["namespace=shop"]).expect_err("refused");
    assert!(error.contains("namespace"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_may_do_what_it_needs_and_nothing_more() {
    let plane = control_plane::shared().await;
    let account = crate::common::chart::account(plane).await;
    let as_account = format!("--as=system:serviceaccount:broadcast-system:{account}");
    let may = |verb: &str, resource: &str| {
        // kubectl takes `kind/name`; a subresource has a flag of its own.
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let subresource = format!("--subresource={subresource}");
        plane
            .try_kubectl(&["auth", "can-i", verb, resource, &subresource, &as_account, "-A"], "")
            .is_ok_and(|answer| answer.trim() == "yes")
    };
    for (verb, resource) in [
        ("get", "secrets"),
        ("get", "configmaps"),
        ("update", "broadcasts.broadcast-operator.dev/status"),
        ("update", "broadcastbatches.broadcast-operator.dev/status"),
        ("update", "broadcastchannels.broadcast-operator.dev/status"),
        ("list", "broadcastjournals.broadcast-operator.dev"),
        ("create", "broadcastjournals.broadcast-operator.dev"),
        ("delete", "broadcastjournals.broadcast-operator.dev"),
        ("create", "broadcastcampaigns.broadcast-operator.dev"),
        ("delete", "broadcastcampaigns.broadcast-operator.dev"),
        ("list", "broadcastsuppressions.broadcast-operator.dev"),
        ("create", "broadcastsuppressions.broadcast-operator.dev"),
        ("update", "broadcastsuppressions.broadcast-operator.dev"),
        ("delete", "broadcastsuppressions.broadcast-operator.dev"),
    ] {
        assert!(may(verb, resource), "{verb} {resource}");
    }
    for (verb, resource) in [
        ("list", "secrets"),
        ("watch", "secrets"),
        ("list", "configmaps"),
        ("update", "secrets"),
        ("create", "pods"),
        ("update", "broadcastjournals.broadcast-operator.dev"),
        ("update", "broadcastchannels.broadcast-operator.dev"),
        ("delete", "broadcastchannels.broadcast-operator.dev"),
        ("get", "nodes"),
    ] {
        assert!(!may(verb, resource), "{verb} {resource}");
    }
}

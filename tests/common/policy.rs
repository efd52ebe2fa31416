//! Writes that the API server is told to refuse, as an admission webhook of somebody's does.

use std::fmt::Debug;

use kube::Api;
use kube::api::PostParams;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::control_plane::ControlPlane;
use super::wait::until;

/// A policy that is in force. It stays until it is lifted.
pub struct Policy {
    plane: &'static ControlPlane,
    name: String,
}

impl Policy {
    /// Lets only writes of this resource in this namespace through for which the expression is true.
    pub fn apply(
        plane: &'static ControlPlane,
        namespace: &str,
        (group, resource): (&str, &str),
        expression: &str,
    ) -> Self {
        let name = format!("{namespace}-{}", resource.replace('/', "-"));
        let rules = json!([{
            "apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [resource],
        }]);
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": rules},
                "validations": [{"expression": expression, "message": "the policy of a test"}],
            },
        });
        let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": selector},
            },
        });
        for manifest in [policy, binding] {
            plane.kubectl(&["apply", "-f", "-"], &manifest.to_string());
        }
        Self { plane, name }
    }

    /// Waits until an object that it forbids is refused: a policy takes a moment to be known.
    pub async fn refuses<K>(&self, api: &Api<K>, object: &K)
    where
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let never_stored = PostParams { dry_run: true, ..PostParams::default() };
        until("the policy is in force", async || match api.create(&never_stored, object).await {
            Err(kube::Error::Api(status)) if status.message.contains("the policy of a test") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Takes it away.
    pub fn lift(self) {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            self.plane.kubectl(&["delete", kind, &self.name], "");
        }
    }
}

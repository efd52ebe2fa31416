//! The API server refuses what breaks a rule of the schema, for just that reason. Which rules there are is read from the definitions:
//! a new one without a case is noticed.

mod cases;
mod manifests;
mod rules;

use std::collections::BTreeSet;

use broadcast_operator::api::{Broadcast, BroadcastChannel, BroadcastSuppression, crds};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, CustomResourceExt};
use serde_json::{Value, json};

use crate::common::control_plane;
use cases::Attempt;
use rules::Rules;

/// A kind that people write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Broadcast,
    Channel,
    Suppression,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Broadcast, Self::Channel, Self::Suppression];

    fn resource(self) -> ApiResource {
        match self {
            Self::Broadcast => Broadcast::api_resource(),
            Self::Channel => BroadcastChannel::api_resource(),
            Self::Suppression => BroadcastSuppression::api_resource(),
        }
    }

    fn rules(self) -> Rules {
        let kind = self.resource().kind;
        let definitions = crds::values();
        let own = definitions.iter().find(|definition| definition["spec"]["names"]["kind"] == *kind);
        Rules::of(own.expect("should have a definition"))
    }

    fn good_manifests(self) -> Vec<Value> {
        match self {
            Self::Broadcast => manifests::broadcasts(),
            Self::Channel => manifests::channels(),
            Self::Suppression => manifests::suppressions(),
        }
    }
}

/// A manifest of a kind.
fn manifest(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "broadcast-operator.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    })
}

/// A namespace that no operator works in: what is stored there stays as it is.
struct Bench {
    client: Client,
    namespace: String,
}

impl Bench {
    async fn new(name: &str) -> Self {
        let plane = control_plane::shared().await;
        let namespace = format!("{name}-{}", std::process::id());
        plane.kubectl(&["create", "namespace", &namespace], "");
        Self { client: plane.client().await, namespace }
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    async fn create(&self, kind: Kind, manifest: &Value, dry_run: bool) -> Result<(), Causes> {
        let object: DynamicObject = serde_json::from_value(manifest.clone()).expect("should be an object");
        let params = PostParams { dry_run, ..PostParams::default() };
        refused(self.api(kind).create(&params, &object).await)
    }

    async fn change(&self, kind: Kind, name: &str, spec: &Value) -> Result<(), Causes> {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        refused(self.api(kind).patch(name, &params, &Patch::Merge(json!({"spec": spec}))).await)
    }

    /// Says of a Broadcast that sending began.
    async fn begin(&self, name: &str) {
        let begun = Patch::Merge(json!({"status": {"startTime": "2026-11-29T10:00:00Z"}}));
        let patched = self.api(Kind::Broadcast).patch_status(name, &PatchParams::default(), &begun).await;
        patched.expect("should take the status");
    }
}

/// Why something was refused: the field and the reason of each cause, without notes of the API server about what it did not look at.
type Causes = Vec<String>;

fn refused<T>(answer: kube::Result<T>) -> Result<(), Causes> {
    let status = match answer {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) => status,
        Err(other) => panic!("failed to ask: {other}"),
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let all = causes.map(|cause| format!("{}: {}", cause.field, cause.message));
    Err(all.filter(|cause| !cause.contains("some validation rules were not checked")).collect())
}

/// Why something was refused, or that it was not.
fn causes(answer: Result<(), Causes>) -> Causes {
    answer.err().unwrap_or_else(|| vec!["it is taken".into()])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_expression_of_the_schema_refuses_what_breaks_it_and_says_what_to_do() {
    let bench = Bench::new("expressions").await;
    for (kind, manifest) in cases::stored() {
        bench.create(kind, &manifest, false).await.expect("should be stored");
    }
    for name in [cases::BEGUN, cases::BEGUN_AGAIN] {
        bench.begin(name).await;
    }
    let cases = cases::all();
    let mut wrong = Vec::new();
    for kind in Kind::ALL {
        let rules: BTreeSet<String> = kind.rules().expressions.into_iter().collect();
        let mut left = rules.clone();
        for case in cases.iter().filter(|case| case.kind == kind) {
            let meant: Vec<&String> = rules.iter().filter(|rule| rule.contains(case.words)).collect();
            let [rule] = meant[..] else { panic!("{} are words of {} rules", case.words, meant.len()) };
            left.remove(rule);
            let answer = match &case.attempt {
                Attempt::Create(manifest) => bench.create(kind, manifest, true).await,
                Attempt::Change(name, spec) => bench.change(kind, name, spec).await,
            };
            let causes = causes(answer);
            if !matches!(&causes[..], [cause] if cause.contains(rule.as_str())) {
                wrong.push(format!("{kind:?}, {}: {causes:?}", case.words));
            }
        }
        wrong.extend(left.iter().map(|rule| format!("{kind:?}: no case breaks the rule {rule:?}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bound_of_the_schema_refuses_what_is_beyond_it() {
    let bench = Bench::new("bounds").await;
    let mut wrong = Vec::new();
    for kind in Kind::ALL {
        let manifests = kind.good_manifests();
        for manifest in &manifests {
            bench.create(kind, manifest, true).await.expect("should be a good manifest");
        }
        let Rules { bounds, expressions } = kind.rules();
        for bound in &bounds {
            let (name, words) = (bound.name(), bound.words());
            let Some(broken) = manifests.iter().find_map(|manifest| bound.broken(manifest)) else {
                wrong.push(format!("{kind:?}: no good manifest has anything at {name}"));
                continue;
            };
            let answer = bench.create(kind, &broken, true).await;
            let mut causes = causes(answer);
            // A value beyond its bounds may be beyond another field too.
            let is_of_it = |cause: &String| {
                bound.breaks_along_with(cause)
                    || expressions.iter().any(|expression| cause.contains(expression))
            };
            causes.retain(|cause| !is_of_it(cause));
            if !matches!(&causes[..], [cause] if cause.contains(words)) {
                wrong.push(format!("{kind:?}{name}: not {words:?} alone, but {causes:?}"));
            }
        }
        assert!(bounds.len() > 3, "{kind:?} has bounds");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

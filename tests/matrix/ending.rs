//! I7: how a case ended, without what differs from run to run, held against an undisturbed run.

use std::collections::BTreeMap;

use broadcast_operator::api::{BroadcastChannel, OutcomeName as Outcome};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::invariants::Books;
use crate::scene::{Failure, Scene};

/// Fields that differ from run to run.
const RANDOM: [&str; 15] = [
    "observedGateway",
    "sentLast24Hours",
    "sentByHour",
    "settledTime",
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "managedFields",
    "namespace",
    "lastTransitionTime",
    "startTime",
    "completionTime",
    "time",
    "messageId",
    "url",
];
/// Fields of a status that follow from the outcomes.
const DERIVED: [&str; 6] = ["counts", "progress", "deliveredPercent", "readPercent", "outcomes", "lineage"];

/// Chat, outcome, attempts, whether there is a message id, and code.
type RowEnd = (String, Outcome, u32, bool, String);

/// What is left of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    objects: BTreeMap<String, Value>,
    /// Each chat of each page.
    rows: BTreeMap<String, Vec<RowEnd>>,
    /// How many objects were created and deleted, by kind.
    changes: BTreeMap<String, usize>,
}

impl Ending {
    /// Reads what is stored now.
    pub async fn read(scene: &Scene) -> Result<Self, Failure> {
        let books = Books::read(scene).await?;
        let channels = scene.api::<BroadcastChannel>().list(&ListParams::default()).await;
        let channels = channels.map_err(|error| format!("failed to list channels: {error}"))?;
        let mut objects = BTreeMap::new();
        for broadcast in &books.broadcasts {
            objects.insert(format!("Broadcast {}", broadcast.name_any()), masked(json!(broadcast)));
        }
        for channel in &channels.items {
            objects.insert(format!("BroadcastChannel {}", channel.name_any()), masked(json!(channel)));
        }
        let mut rows = BTreeMap::new();
        for page in &books.pages {
            let mut object = masked(json!(page));
            if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
                status.remove("outcomes");
                status.remove("counts");
            }
            objects.insert(format!("BroadcastBatch {}", page.name_any()), object);
            let chats = books.chats(&page.spec.broadcast.uid).into_iter();
            let chats = chats.filter(|chat| usize::try_from(page.spec.index) == Ok(chat.page)).map(|chat| {
                // A receipt proves as much as an id does, also of a message whose answer was lost.
                let by_receipt = matches!(chat.row.outcome, Outcome::Delivered | Outcome::Read);
                let has_id = by_receipt || !chat.row.message_id.is_empty();
                (chat.recipient.chat, chat.row.outcome, chat.row.attempts, has_id, chat.row.code)
            });
            rows.insert(page.name_any(), chats.collect());
        }
        let seen = scene.view.seen();
        let counts = [("created", &seen.created), ("deleted", &seen.deleted)].into_iter();
        let changes = counts.flat_map(|(what, kinds)| {
            kinds.iter().map(move |(kind, uids)| (format!("{what} {kind}"), uids.len()))
        });
        let changes = changes.collect();
        drop(seen);
        Ok(Self { objects, rows, changes })
    }

    /// Checks that the chats ended as in `reference`, and that nothing else was made or deleted. Objects may say other things:
    /// somebody has changed them.
    pub fn check_outcomes(&self, reference: &Self) -> Result<(), Failure> {
        let objects = reference.objects.clone();
        Self { objects, ..self.clone() }.check(reference, &[])
    }

    /// The same without everything that belongs to a restart, and if `is_refused` without what one does to its source.
    fn without_restarts(&self, is_refused: bool) -> Self {
        let mut rest = self.clone();
        rest.objects.retain(|name, _| !is_of_restart(name));
        if is_refused {
            rest.objects.values_mut().for_each(untake);
        }
        rest.rows.retain(|page, _| !is_of_restart(page));
        rest.changes.clear();
        rest
    }

    /// Checks that this is the end of `reference`. A chat that is Unknown here may be anything there, and what follows from
    /// its outcome too.
    pub fn check(&self, reference: &Self, doubtful: &[String]) -> Result<(), Failure> {
        // What a restart gets follows from what is known of its source.
        let is_unsure = self.rows.values().flatten().any(|row| row.1 == Outcome::Unknown);
        if is_unsure && self.rows.keys().chain(reference.rows.keys()).any(|page| is_of_restart(page)) {
            let is_refused = self.objects.values().any(|object| has_reason(object, "NobodyIncluded"));
            let reference = reference.without_restarts(is_refused);
            return self.without_restarts(is_refused).check(&reference, doubtful);
        }
        let mut differences = Vec::new();
        for (page, expected) in &reference.rows {
            let rows = self.rows.get(page).map_or(&[][..], Vec::as_slice);
            let known: Vec<_> = rows.iter().map(|row| (row.1 == Outcome::Unknown, row)).collect();
            if rows.len() != expected.len() {
                differences.push(format!("page {page} has {} rows, not {}", rows.len(), expected.len()));
            }
            for ((unknown, row), expected) in known.into_iter().zip(expected) {
                let is_same = match doubtful.contains(&row.0) {
                    // How it became known may differ.
                    true => row.1 == expected.1,
                    false => row == expected,
                };
                if !unknown && !is_same {
                    differences.push(format!("page {page}: {row:?}, not {expected:?}"));
                }
            }
        }
        let (mine, theirs) = match is_unsure {
            true => (without_derived(&self.objects), without_derived(&reference.objects)),
            false => (self.objects.clone(), reference.objects.clone()),
        };
        for name in mine.keys().chain(theirs.keys().filter(|name| !mine.contains_key(*name))) {
            let (is, was) = (mine.get(name), theirs.get(name));
            if is != was {
                let text =
                    |object: Option<&Value>| object.map_or("nothing".into(), |object| format!("{object:#}"));
                differences.push(format!("{name} differs:\n{}", lines_of(&text(was), &text(is))));
            }
        }
        if self.changes != reference.changes {
            differences.push(format!("it made {:?}, not {:?}", self.changes, reference.changes));
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(format!("I7 differential:\n  {}", differences.join("\n  "))),
        }
    }
}

fn is_of_restart(name: &str) -> bool {
    name.contains("again")
}

fn has_reason(object: &Value, reason: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| conditions.iter().any(|condition| condition["reason"] == reason))
}

/// Takes away what is different about an object that a restart has taken.
fn untake(object: &mut Value) {
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    status.retain(|name, _| name != "restartedBy" && name != "sealed");
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if condition["reason"] == "Restarted" {
            condition["reason"] = "Succeeded".into();
        }
    }
}

fn masked(mut value: Value) -> Value {
    mask(&mut value);
    value
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !RANDOM.contains(&name.as_str()));
            fields.values_mut().for_each(mask);
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

/// Without counts, and without the sentences that hold them.
fn without_derived(objects: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let mut objects = objects.clone();
    for object in objects.values_mut() {
        let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { continue };
        status.retain(|name, _| !DERIVED.contains(&name.as_str()));
        for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            condition.as_object_mut().map(|condition| condition.remove("message"));
        }
    }
    objects
}

/// The lines that two texts do not share.
fn lines_of(was: &str, is: &str) -> String {
    let only = |of: &str, other: &str, sign: char| -> Vec<String> {
        let others: Vec<&str> = other.lines().collect();
        of.lines().filter(|line| !others.contains(line)).map(|line| format!("    {sign}{line}")).collect()
    };
    [only(was, is, '-'), only(is, was, '+')].concat().join("\n")
}

//! Random chains of what users do: stop, go on, change the pace, pull the brake, restart, delete. After each step, and in
//! the end, nobody got a message twice and nobody is lost.

use std::collections::HashSet;

use broadcast_operator::api::{Broadcast, BroadcastChannel};
use kube::api::{DeleteParams, Patch, PatchParams};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::common::books;
use crate::common::stage::{CHANNEL, Stage, broadcast, is_complete, restart};
use crate::common::wait::until;

const AUDIENCE: usize = 400;

/// One thing that a user does, some messages later.
#[derive(Clone, Debug)]
enum Action {
    Pause,
    Resume,
    Pace(u32),
    Brake(bool),
    RestartByManifest,
    RestartByAnnotation,
    Delete,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Pause),
        3 => Just(Action::Resume),
        2 => (50_u32..2000).prop_map(Action::Pace),
        1 => any::<bool>().prop_map(Action::Brake),
        2 => Just(Action::RestartByManifest),
        1 => Just(Action::RestartByAnnotation),
        1 => Just(Action::Delete),
    ]
}

#[test]
fn whatever_users_do_nobody_gets_it_twice_and_nobody_is_lost() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let chains = prop::collection::vec((action(), 0_usize..80), 1..8);
    let config = Config { cases: 6, max_shrink_iters: 8, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&chains, |chain| {
            runtime.block_on(play(&chain));
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Broadcasts of one chain, the last one the youngest.
struct Play {
    stage: Stage,
    names: Vec<String>,
    deleted: HashSet<String>,
}

async fn play(chain: &[(Action, usize)]) {
    let stage = Stage::bare().await;
    stage.apply(&stage.channel(
        CHANNEL,
        json!({}),
        json!({"limits": {"messagesPerSecond": 2000, "maxInFlight": 8}}),
    ));
    stage.set_faults(json!([
        {"when": {"everyNth": 29}, "do": {"refuse": {"status": 400, "code": "no_such_number"}}},
        {"do": {"latencyMs": 3}},
    ]));
    stage.apply(&broadcast("sale", AUDIENCE, json!({"pacing": {"messagesPerSecond": 200}})));
    let mut play = Play { stage, names: vec!["sale".into()], deleted: HashSet::new() };
    for (action, after) in chain {
        play.progress(*after).await;
        play.act(action).await;
        play.check().await;
    }
    play.finish().await;
}

impl Play {
    fn youngest(&self) -> &str {
        self.names.last().expect("at least one")
    }

    /// Waits until some more messages have arrived, or nothing more is to come as things stand.
    async fn progress(&self, more: usize) {
        let name = self.youngest();
        let goal = self.stage.requests_now(name) + more;
        until("some progress", async || {
            let now = self.stage.api::<Broadcast>().get_opt(name).await.map_err(|error| error.to_string())?;
            let moving = now.as_ref().is_some_and(|broadcast| {
                let state = crate::common::stage::state(broadcast);
                matches!(state.as_str(), "" | "Planning" | "Sending" | "Stopping")
            });
            let seen = self.stage.requests_now(name);
            if seen >= goal || !moving { Ok(()) } else { Err(format!("{seen} of {goal}")) }
        })
        .await;
    }

    async fn act(&mut self, action: &Action) {
        let name = self.youngest().to_owned();
        if self.deleted.contains(&name) {
            return;
        }
        match action {
            Action::Pause => self.stage.pause(&name, true).await,
            Action::Resume => self.stage.pause(&name, false).await,
            Action::Pace(rate) => {
                self.stage.patch(&name, json!({"spec": {"pacing": {"messagesPerSecond": rate}}})).await;
            }
            Action::Brake(on) => {
                let patch = Patch::Merge(json!({"spec": {"paused": on}}));
                let channels = self.stage.api::<BroadcastChannel>();
                channels.patch(CHANNEL, &PatchParams::default(), &patch).await.expect("patch");
            }
            Action::RestartByManifest => {
                let child = format!("again-{}", self.names.len());
                self.stop_what_has_begun(&name).await;
                self.stage.apply(&restart(&child, &name, json!({})));
                self.names.push(child);
            }
            Action::RestartByAnnotation => {
                self.stop_what_has_begun(&name).await;
                let annotation =
                    json!({"metadata": {"annotations": {"broadcast-operator.dev/restart": "now"}}});
                self.stage.patch(&name, annotation).await;
                let child = until("the child is there", async || {
                    let status = self.stage.broadcast(&name).await.status.unwrap_or_default();
                    status.restarted_by.map(|by| by.name).ok_or("not yet")
                });
                let child = child.await;
                self.names.push(child);
            }
            Action::Delete => {
                let deleted = self.stage.api::<Broadcast>().delete(&name, &DeleteParams::background()).await;
                deleted.expect("delete");
                self.deleted.insert(name);
            }
        }
    }

    /// Stops a Broadcast, and not before its audience is written down: until then a restart waits for it to begin.
    async fn stop_what_has_begun(&self, name: &str) {
        let has_begun = |broadcast: &Broadcast| {
            broadcast.status.as_ref().is_some_and(|status| status.audience_digest.is_some())
        };
        if !has_begun(&self.stage.broadcast(name).await) {
            self.stage.pause(name, false).await;
            self.stage.wait(name, "its audience is written down", has_begun).await;
        }
        self.stage.pause(name, true).await;
    }

    /// No chat of the whole chain has more than one message.
    async fn check(&self) {
        let mut reached = HashSet::new();
        for name in &self.names {
            for (chat, times) in books::accepted(&self.stage, name) {
                assert!(times == 1 && reached.insert(chat.clone()), "{chat} has more than one message");
            }
            if !self.deleted.contains(name) {
                books::check(&self.stage, name).await;
            }
        }
    }

    /// Lets everything go on, waits for the end, and looks whether everybody is accounted for.
    async fn finish(&mut self) {
        self.act(&Action::Brake(false)).await;
        self.act(&Action::Resume).await;
        let youngest = self.youngest().to_owned();
        if !self.deleted.contains(&youngest) {
            self.stage.wait(&youngest, "complete", is_complete).await;
        }
        self.check().await;
        let mut accounted = 0;
        for name in self.names.iter().filter(|name| !self.deleted.contains(*name)) {
            let rows = books::rows(&self.stage, name).await;
            let done = self.stage.broadcast(name).await;
            assert_eq!(usize::try_from(books::sum(&done)), Ok(rows.len()), "{name}: counts add up");
            accounted += books::accepted(&self.stage, name).len();
        }
        if self.deleted.is_empty() {
            let last = books::rows(&self.stage, &youngest).await;
            let failed = last
                .iter()
                .filter(|(_, row)| row.outcome == broadcast_operator::domain::outcome::Outcome::Failed);
            assert_eq!(
                accounted + failed.count(),
                AUDIENCE,
                "everybody has the message, or failed in the last try"
            );
        }
    }
}

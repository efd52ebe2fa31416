//! Receipts that a case posts itself, as a gateway does: again and again until they are answered.
//!
//! I9: a receipt that was answered 204 is in its page in the end, whatever went wrong in between.

use std::time::Duration;

use broadcast_operator::api::{Broadcast, BroadcastJournal, OutcomeName as Outcome};
use broadcast_operator::clock;
use broadcast_operator::domain::ids::BroadcastUid;
use broadcast_operator::domain::token::MessageToken;
use kube::ResourceExt;
use kube::api::ListParams;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::common::notices::Notice;
use crate::common::providers::Provider::Native;
use crate::invariants::Books;
use crate::play::SALE;
use crate::scene::{CHANNEL, Failure, Scene};

/// How far the message of a row of the only page of sale came.
pub type Told = (usize, Outcome);

/// Longest wait for one answer: longer than an operator waits for the API server.
const LONGEST_ANSWER: Duration = Duration::from_secs(15);
/// Between two tries, and two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Posts receipts in one request until they are answered, to whoever works then.
pub async fn post(scene: &mut Scene, told: &[Told]) -> Result<(), Failure> {
    post_until(scene, told, |answer| answer == StatusCode::NO_CONTENT).await?;
    scene.answered.extend(told);
    Ok(())
}

/// The same until there is any answer. Out: that.
pub async fn first_answer(scene: &mut Scene, told: &[Told]) -> Result<StatusCode, Failure> {
    post_until(scene, told, |_| true).await
}

async fn post_until(
    scene: &mut Scene,
    told: &[Told],
    wanted: impl Fn(StatusCode) -> bool,
) -> Result<StatusCode, Failure> {
    let uid = scene.api::<Broadcast>().get_metadata(SALE).await.map_err(|error| error.to_string())?.uid();
    let uid = uid.ok_or("sale has no uid")?;
    let receipts = told.iter().map(|(row, outcome)| {
        let broadcast = BroadcastUid::new(uid.clone());
        let id = MessageToken { broadcast, page: 0, row: *row }.to_string();
        json!({"id": id, "status": format!("{outcome:?}").to_lowercase()})
    });
    let body = receipts.collect::<Value>().to_string();
    let client = Client::builder().timeout(LONGEST_ANSWER).build().map_err(|error| error.to_string())?;
    let deadline = clock::monotonic() + scene.patience;
    loop {
        scene.replace_the_dead().await?;
        let receiver = scene.processes.last().ok_or("nobody works")?.receipts;
        let path = format!("v1/namespaces/{}/channels/{CHANNEL}/receipts", scene.namespace);
        let url = format!("http://{receiver}/{path}");
        let notice = Notice { provider: Native, url, headers: Vec::new(), body: body.clone() }.signed();
        let answer = notice.try_post(&client).await;
        if let Some(answer) = answer.as_ref().ok().copied().filter(|answer| wanted(*answer)) {
            return Ok(answer);
        }
        if clock::monotonic() >= deadline {
            return Err(format!("receipts are not taken: {answer:?}"));
        }
        clock::wait(PAUSE).await;
    }
}

/// Waits until no journal is left. Whatever was answered is in its page then.
pub async fn taken_in(scene: &mut Scene) -> Result<(), Failure> {
    let deadline = clock::monotonic() + scene.patience;
    while !journals(scene).await?.is_empty() {
        scene.replace_the_dead().await?;
        if clock::monotonic() >= deadline {
            return Err("journals are left".into());
        }
        clock::wait(PAUSE).await;
    }
    check(scene).await
}

/// The journals that are stored now.
pub async fn journals(scene: &Scene) -> Result<Vec<BroadcastJournal>, Failure> {
    let list = scene.api::<BroadcastJournal>().list(&ListParams::default()).await;
    list.map(|list| list.items).map_err(|error| format!("failed to list journals: {error}"))
}

/// Checks I9.
pub async fn check(scene: &Scene) -> Result<(), Failure> {
    if scene.answered.is_empty() {
        return Ok(());
    }
    let books = Books::read(scene).await?;
    let sale = books.broadcasts.iter().find(|broadcast| broadcast.name_any() == SALE);
    let chats = books.chats(&sale.and_then(ResourceExt::uid).unwrap_or_default());
    let lost = scene
        .answered
        .iter()
        .filter(|(row, told)| !chats.get(*row).is_some_and(|chat| is_known(chat.row.outcome, *told)));
    match lost.collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        lost => Err(format!("I9 answered is stored: {lost:?} were answered and are not in their page")),
    }
}

/// Whether an outcome says at least as much as a receipt did.
fn is_known(outcome: Outcome, told: Outcome) -> bool {
    outcome == Outcome::Read || outcome == told
}

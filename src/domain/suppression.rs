//! Suppressions: chats that a channel never sends to. In: objects, and recipients of a plan. Out: the object of a chat, and
//! recipients that are skipped. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest, Sha256};

use super::chat::{ChatProblem, ChatRules, phone};
use super::ids::ObjectKey;
use super::page::{Page, Recipient};
use crate::api::{BroadcastSuppression, BroadcastSuppressionSpec, LocalRef, ProviderName, SuppressionReason};

/// Bytes of the digest in a name: 160 bits, so no two chats meet.
const NAME_BYTES: usize = 20;
/// Most bytes of the channel in a name, which then has far fewer than the 253 that a name may have.
const MAX_CHANNEL: usize = 57;
/// Longest chat of a suppression, in characters, as its schema has it.
const MAX_CHAT: usize = 128;
/// Longest code of a suppression, in characters, as its schema has it.
const MAX_CODE: usize = 64;
/// Longest code within the reason of a row. A suppressed row then never takes more room in a page than one that is sent, so
/// that pages stay below their bound whoever opts out between two plans.
const MAX_SHOWN_CODE: usize = 16;
/// How the reason of a suppressed row begins: the code of the row.
const MARK: &str = "Suppressed: ";

/// Name of the object of a chat: always the same, however the chat is written, so that a second opt-out meets the first one.
/// A chat may be any text, and a name may not.
#[must_use]
pub fn name_of(channel: &str, chat: &str) -> String {
    // No name of a channel has a line break: no two pairs give the same text.
    let digest = Sha256::digest(format!("{channel}\n{}", one_form(chat)));
    let digest: String = digest.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let channel: String = channel.chars().take(MAX_CHANNEL).collect();
    format!("{}-{digest}", channel.trim_end_matches(['-', '.']))
}

/// The object of a chat that a channel must not send to any more. `code` is the provider's, or empty.
#[must_use]
pub fn suppression_of(
    channel: &ObjectKey,
    chat: &str,
    reason: SuppressionReason,
    code: &str,
    time: Timestamp,
) -> BroadcastSuppression {
    let mut suppression = BroadcastSuppression::new(
        &name_of(&channel.name, chat),
        BroadcastSuppressionSpec {
            channel_ref: LocalRef { name: channel.name.clone() },
            chat: one_form(chat),
            reason,
            code: (!code.is_empty()).then(|| code.chars().take(MAX_CODE).collect()),
            time: Some(Time(time)),
        },
    );
    // No owner: an opt-out outlives its channel. Else whoever deletes a channel and applies it again would send to everybody who
    // had opted out of it.
    suppression.metadata.namespace = Some(channel.namespace.clone());
    suppression
}

/// What a stored suppression becomes when the chat is to be suppressed again. `None`: it stays as it is. The later wish of a chat
/// counts, and a wish counts more than a rule; what a person wrote is never changed.
#[must_use]
pub fn renewed(
    stored: &BroadcastSuppressionSpec,
    again: &BroadcastSuppressionSpec,
) -> Option<BroadcastSuppressionSpec> {
    let time = |spec: &BroadcastSuppressionSpec| spec.time.as_ref().map(|time| time.0.as_second());
    let is_news = match stored.reason {
        SuppressionReason::Manual => false,
        SuppressionReason::ErrorPolicy => again.reason.is_wish(),
        SuppressionReason::OptedOut | SuppressionReason::Blocked => {
            again.reason.is_wish() && time(again) > time(stored)
        }
    };
    is_news.then(|| BroadcastSuppressionSpec {
        reason: again.reason,
        code: again.code.clone(),
        time: again.time.clone(),
        ..stored.clone()
    })
}

/// Whether a chat that wants messages again, since this time, takes a stored suppression back. A wish that was said after that is not
/// taken back by one that came late; times are whole seconds, as the API server keeps them, and in the same one the stop counts.
#[must_use]
pub fn is_taken_back(stored: &BroadcastSuppressionSpec, since: Timestamp) -> bool {
    let is_later = stored.time.as_ref().is_some_and(|time| time.0.as_second() >= since.as_second());
    stored.reason.is_wish() && !is_later
}

/// Why a chat that a provider refuses for good, and for itself, is suppressed.
#[must_use]
pub fn reason_of(provider: ProviderName) -> SuppressionReason {
    match provider {
        // Its chats cannot opt out otherwise.
        ProviderName::Telegram => SuppressionReason::Blocked,
        ProviderName::Http | ProviderName::WhatsApp | ProviderName::Twilio | ProviderName::Periskope => {
            SuppressionReason::OptedOut
        }
    }
}

/// The chats that one channel does not send to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suppressed {
    /// How the channel reads chats.
    rules: ChatRules,
    /// The reason that a row gets, by the one form of its chat.
    reasons: HashMap<String, String>,
}

impl Suppressed {
    /// None yet, of a channel that reads chats in this way.
    #[must_use]
    pub fn of(rules: ChatRules) -> Self {
        Self { rules, reasons: HashMap::new() }
    }

    /// Adds what is stored of a channel. Objects of other channels are left out. Out: those whose chat is none of the channel, and why:
    /// they keep nobody from being sent to, unless a chat is written in the very same way.
    pub fn add<'a>(
        &mut self,
        channel: &str,
        suppressions: &'a [BroadcastSuppression],
    ) -> Vec<(&'a BroadcastSuppression, ChatProblem)> {
        let mut unread = Vec::new();
        for suppression in suppressions.iter().filter(|it| it.spec.channel_ref.name == channel) {
            let spec = &suppression.spec;
            let as_it_stands = one_form(&spec.chat);
            let as_in_audience = || self.rules.normalise(&spec.chat);
            let as_in_log = || match self.rules.has_phones() {
                true => self.rules.adopt(&as_it_stands, &self.rules),
                false => as_in_audience(),
            };
            let readings = match spec.reason {
                // A person may have written it as an audience has it, or as the log has it: a number without its country code may be another
                // one with it, and who opted out must not be sent to in either case.
                SuppressionReason::Manual => vec![as_in_audience(), as_in_log()],
                SuppressionReason::OptedOut | SuppressionReason::Blocked | SuppressionReason::ErrorPolicy => {
                    vec![as_in_log()]
                }
            };
            if let (Some(Err(problem)), true) = (readings.first(), readings.iter().all(Result::is_err)) {
                unread.push((suppression, problem.clone()));
            }
            let read = readings.into_iter().flatten().map(|chat| one_form(&chat));
            for form in read.chain([as_it_stands]) {
                self.reasons.entry(form).or_insert_with(|| mark_of(spec));
            }
        }
        unread
    }

    /// Whether a chat is among them, however it is written.
    #[must_use]
    pub fn contains(&self, chat: &str) -> bool {
        self.reason_of(chat).is_some()
    }

    /// Skips the recipients that are among them. Those that are skipped already keep their reason.
    pub fn mark(&self, recipients: &mut [Recipient]) {
        for recipient in recipients.iter_mut().filter(|recipient| recipient.skip.is_empty()) {
            if let Some(reason) = self.reason_of(&recipient.chat) {
                // Its parameters stay: the same audience has the same recipients, whoever has opted out.
                reason.clone_into(&mut recipient.skip);
            }
        }
    }

    /// The same pages, with the rows of these chats skipped. The audience is split before, so that it is split in the same
    /// way whoever has opted out.
    #[must_use]
    pub fn mark_pages(&self, pages: Vec<Page>) -> Vec<Page> {
        if self.reasons.is_empty() {
            return pages;
        }
        let marked = pages.into_iter().map(|page| {
            let mut recipients = page.recipients().to_vec();
            self.mark(&mut recipients);
            Page::planned(recipients)
        });
        marked.collect()
    }

    fn reason_of(&self, chat: &str) -> Option<&str> {
        self.reasons.get(&one_form(chat)).map(String::as_str)
    }
}

/// The recipients of a page as the audience has them, whoever has opted out.
#[must_use]
pub fn unmarked(page: &Page) -> Vec<Recipient> {
    let mut recipients = page.recipients().to_vec();
    for recipient in recipients.iter_mut().filter(|recipient| recipient.skip.starts_with(MARK)) {
        recipient.skip.clear();
    }
    recipients
}

/// The reason of a row, as in `Suppressed: OptedOut (131050)`.
fn mark_of(spec: &BroadcastSuppressionSpec) -> String {
    let reason = spec.reason.as_str();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let code: String =
        spec.code.iter().flat_map(|code| code.chars()).filter(is_plain).take(MAX_SHOWN_CODE).collect();
    match code.as_str() {
        "" => format!("{MARK}{reason}"),
        code => format!("{MARK}{reason} ({code})"),
    }
}

/// A chat as it is compared, also where providers have two numbers for one person. What is no chat is in no audience, but may stand
/// in an object that a person wrote.
fn one_form(chat: &str) -> String {
    match ChatRules::default().normalise(chat) {
        Ok(normal) => phone::phone_of(&normal).into_owned(),
        Err(_) => chat.trim().chars().take(MAX_CHAT).collect(),
    }
}

#[cfg(test)]
mod tests;

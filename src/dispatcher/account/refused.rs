//! What a provider takes nothing with, and what ends that: other credentials, time, or a person. Time comes in.

use std::time::{Duration, Instant};

use super::reported::reported;
use super::settings::Probed;
use crate::api::{BroadcastChannel, ChannelStop, Condition, ErrorRule, StopEvidence, TroubleReason};
use crate::domain::answer::SenderTrouble;
use crate::domain::channel_verdict::Health;
use crate::domain::error_policy::still_stops;
use crate::domain::text::cut_to_line;
use crate::providers::SecretDigest;

/// A gateway that refused the same credentials is asked again after so long: an account can be unlocked over there.
pub(super) const REFUSED_RETRY: Duration = Duration::from_secs(300);
/// First and longest wait before a provider is asked again whether credentials that it refused are good now. It is doubled each time:
/// who logs in with the same wrong token again and again is locked out somewhere.
pub(super) const FIRST_PROBE_AGAIN: Duration = Duration::from_secs(10);
const LONGEST_PROBE_AGAIN: Duration = REFUSED_RETRY;
/// So many refused credentials are remembered: more are not tried by turns.
const MOST_REFUSALS: usize = 8;
/// An account that wants to be paid is tried again after so long.
const PAYMENT_RETRY: Duration = Duration::from_secs(3600);
/// Reason of a channel at whose address something else than the provider answers.
pub(super) const UNEXPECTED_ANSWER: &str = "UnexpectedAnswer";
/// What a restart of the operator does not end.
const LASTING: [SenderTrouble; 3] =
    [SenderTrouble::AccountRestricted, SenderTrouble::PaymentRequired, SenderTrouble::ByErrorPolicy];

/// What a person does who wants to go on at once.
const TRY_AGAIN: &str = "annotate the channel with broadcast-operator.dev/try-again and any new value";
/// What is said of a stop that only answers have told of, and in its place of one that receipts have told of too.
const NO_CHAT_FAILS: &str = "; no chat fails by it";
/// What is added to the first one where a rule stops: its code may be one of which the chat fails all the same.
const BUT_OPTED_OUT: &str = " but one that opted out";
const SOME_FAILED: &str = "; the chats of receipts that say so are Failed, the others stay Pending";
/// Longest code that a status holds.
const LONGEST_CODE: usize = 64;
/// Code of a stop of which the provider's one was not stored.
const UNKNOWN_CODE: &str = "unknown";

/// Credentials that the provider took nothing with, the latest last, until they are good again, or a person has changed the gateway or
/// wants to try again.
#[derive(Default)]
pub(super) struct Refusals(Vec<Refused>);

impl Refusals {
    /// What is remembered of these.
    pub(super) fn of(&self, credentials: SecretDigest) -> Option<&Refused> {
        self.0.iter().find(|refused| refused.credentials == credentials)
    }

    /// Remembers one. What the provider was asked about the same credentials counts on.
    pub(super) fn remember(&mut self, refused: Refused) {
        let (asks, asked) =
            self.of(refused.credentials).map_or((0, None), |before| (before.asks, before.asked));
        self.lift(refused.credentials);
        self.0.push(Refused { asks, asked, ..refused });
        if self.0.len() > MOST_REFUSALS {
            self.0.remove(0);
        }
    }

    /// The provider was asked about these just now.
    pub(super) fn asked(&mut self, credentials: SecretDigest, now: Instant) {
        let mut refused = self.0.iter_mut().filter(|refused| refused.credentials == credentials);
        if let Some(refused) = refused.next() {
            refused.asks = refused.asks.saturating_add(1);
            refused.asked = Some(now);
        }
    }

    /// These are good, as far as is known.
    pub(super) fn lift(&mut self, credentials: SecretDigest) {
        self.0.retain(|refused| refused.credentials != credentials);
    }

    /// Receipts say of these what an answer said, if that was for the same reason. Returns whether it was: what ends the one ends both.
    pub(super) fn are_reported_too(&mut self, credentials: SecretDigest, reason: TroubleReason) -> bool {
        let is_told =
            |it: &&mut Refused| it.credentials == credentials && it.halted.trouble.reason() == reason;
        let Some(Refused { halted, .. }) = self.0.iter_mut().find(is_told) else { return false };
        if let Some((told, _)) = halted.message.rsplit_once(NO_CHAT_FAILS) {
            halted.message = format!("{told}{SOME_FAILED}");
        }
        true
    }

    /// Forgets those that stop nothing any more by the rules as they are now. Returns whether there were any.
    pub(super) fn reconsider(&mut self, rules: &[ErrorRule]) -> bool {
        let before = self.0.len();
        self.0.retain(|refused| refused.halted.still_stops(rules));
        self.0.len() < before
    }

    /// Forgets all. Returns whether there were any.
    pub(super) fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that the provider need not be asked about again yet: it has said no to them not long ago.
    pub(super) fn told(&self, now: Instant) -> impl Iterator<Item = SecretDigest> {
        self.0.iter().filter(move |refused| refused.is_told(now)).map(|refused| refused.credentials)
    }
}

/// Credentials that the provider takes nothing with.
pub(super) struct Refused {
    credentials: SecretDigest,
    halted: Halted,
    /// Never, where a person has to settle something with the provider first: another message would make it worse.
    again: Option<Instant>,
    /// How often the provider was asked about them since, and when it was the last time.
    asks: u32,
    asked: Option<Instant>,
}

impl Refused {
    /// What the provider said just now; `detail` is its own word.
    pub(super) fn new(
        credentials: SecretDigest,
        trouble: SenderTrouble,
        (code, detail): (&str, &str),
        now: Instant,
    ) -> Self {
        let message = message_of(trouble, detail);
        Self::of(credentials, Halted::new(trouble, code, message, StopEvidence::Answer), now)
    }

    /// What a receipt said of a message that the provider had taken. It would take the next one as well, and fail it later: nothing but
    /// other credentials or a person shows that it is over.
    pub(super) fn by_receipt(
        credentials: SecretDigest,
        trouble: SenderTrouble,
        (code, detail): (&str, &str),
        now: Instant,
    ) -> Self {
        let message = message_of_receipt(trouble, detail);
        Self::of(credentials, Halted::new(trouble, code, message, StopEvidence::Receipt), now)
    }

    /// The same, said to a probe: another probe can show that it is over.
    pub(super) fn by_probe(self) -> Self {
        Self { halted: Halted { shown_by: StopEvidence::Question, ..self.halted }, ..self }
    }

    /// What was told just now, or to an earlier process, as the status of the channel holds it.
    pub(super) fn of(credentials: SecretDigest, halted: Halted, now: Instant) -> Self {
        let again = again_of(halted.trouble, now).filter(|_| halted.shown_by != StopEvidence::Receipt);
        Self { credentials, halted, again, asks: 0, asked: None }
    }

    /// Whether nothing that a probe says ends it: a person has to settle something.
    pub(super) fn outlasts_a_probe(&self) -> bool {
        (LASTING.contains(&self.halted.trouble) || self.again.is_none())
            && self.halted.shown_by != StopEvidence::Question
    }

    /// Whether these credentials are still refused. Where the provider can be asked, its answer counts.
    pub(super) fn still(&self, probed: &Probed, now: Instant) -> bool {
        match probed {
            Probed::Refused(..) => true,
            _ if self.is_taken_back(probed) => false,
            Probed::Good | Probed::NotAsked | Probed::NotTold { .. } => {
                self.again.is_none_or(|again| now < again)
            }
        }
    }

    /// Whether the provider says something else to the same question as before.
    pub(super) fn is_taken_back(&self, probed: &Probed) -> bool {
        *probed == Probed::Good && self.halted.shown_by == StopEvidence::Question
    }

    /// How hard it is to end. A stop that receipts tell of weighs most: what is tried too early fails chats, and not only a request. A rule
    /// that is taken away ends its own stop alone.
    pub(super) fn weight(&self) -> (bool, bool, bool, bool) {
        let is_by_receipt = self.halted.shown_by == StopEvidence::Receipt;
        let needs_a_person = self.outlasts_a_probe();
        let is_of_account = self.halted.trouble != SenderTrouble::ByErrorPolicy;
        (is_by_receipt, needs_a_person && self.again.is_none(), needs_a_person, is_of_account)
    }

    fn is_told(&self, now: Instant) -> bool {
        self.asked.is_some_and(|asked| now < asked + ask_again(self.asks))
    }

    pub(super) fn as_stop(&self) -> ChannelStop {
        self.halted.as_stop()
    }

    pub(super) fn as_health(&self) -> Health {
        self.halted.as_health()
    }
}

/// How long to wait before a provider is asked again about credentials, after so many times without success.
pub(super) fn ask_again(asks: u32) -> Duration {
    FIRST_PROBE_AGAIN.saturating_mul(1 << asks.saturating_sub(1).min(6)).min(LONGEST_PROBE_AGAIN)
}

/// When it makes sense to try again by itself.
fn again_of(trouble: SenderTrouble, now: Instant) -> Option<Instant> {
    match trouble {
        SenderTrouble::AuthenticationFailed | SenderTrouble::Redirected | SenderTrouble::UnexpectedAnswer => {
            Some(now + REFUSED_RETRY)
        }
        SenderTrouble::PaymentRequired => Some(now + PAYMENT_RETRY),
        SenderTrouble::AccountRestricted | SenderTrouble::ByErrorPolicy => None,
    }
}

/// What happened, and what to do. `detail` is the provider's own word.
pub(super) fn message_of(trouble: SenderTrouble, detail: &str) -> String {
    let cure = match trouble {
        SenderTrouble::AuthenticationFailed => {
            "put a valid token into the Secret that the channel names; sending goes on by itself then".into()
        }
        SenderTrouble::AccountRestricted => format!("settle it there, and {TRY_AGAIN}"),
        SenderTrouble::PaymentRequired => {
            format!("settle it there; it is tried again by itself every hour; to do it at once, {TRY_AGAIN}")
        }
        SenderTrouble::Redirected => {
            "put the address that it redirects to into url or baseUrl of the channel; it is tried again by itself"
                .into()
        }
        SenderTrouble::UnexpectedAnswer => {
            "correct the url or baseUrl of the channel, or what stands between; it is tried again by itself"
                .into()
        }
        SenderTrouble::ByErrorPolicy => by_rule(),
    };
    let but = if trouble == SenderTrouble::ByErrorPolicy { BUT_OPTED_OUT } else { "" };
    format!("{}{NO_CHAT_FAILS}{but}", told((what_of(trouble), detail), &cure))
}

/// The same of what a receipt said.
fn message_of_receipt(trouble: SenderTrouble, detail: &str) -> String {
    let cure = match trouble {
        SenderTrouble::ByErrorPolicy => by_rule(),
        _ => format!("settle it there, and put other credentials into the Secret or {TRY_AGAIN}"),
    };
    format!("{}{SOME_FAILED}", told((what_of(trouble), detail), &cure))
}

fn by_rule() -> String {
    format!(
        "sending goes on when the rule is taken away or has another action; to try again with it, {TRY_AGAIN}"
    )
}

fn told((what, detail): (&str, &str), cure: &str) -> String {
    let detail: String = detail.chars().take(200).collect();
    let said = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    format!("{what}{said}: {cure}")
}

fn what_of(trouble: SenderTrouble) -> &'static str {
    match trouble {
        SenderTrouble::AuthenticationFailed => "the provider refused the credentials",
        SenderTrouble::AccountRestricted => "the provider restricted the account or the number that sends",
        SenderTrouble::PaymentRequired => "the provider wants to be paid",
        SenderTrouble::Redirected => "the gateway redirects",
        SenderTrouble::UnexpectedAnswer => "something else than the provider answers",
        SenderTrouble::ByErrorPolicy => "a rule of spec.errorPolicy stopped the channel",
    }
}

/// Why an account takes nothing, as the status of its channel holds it.
pub(super) struct Halted {
    pub(super) trouble: SenderTrouble,
    /// The provider's error code; empty where it said so to a question.
    pub(super) code: String,
    pub(super) message: String,
    /// What has shown it first.
    pub(super) shown_by: StopEvidence,
}

impl Halted {
    fn new(trouble: SenderTrouble, code: &str, message: String, shown_by: StopEvidence) -> Self {
        Self { trouble, code: cut_to_line(code, LONGEST_CODE), message, shown_by }
    }

    /// Whether it still stops the account by the rules as they are now.
    pub(super) fn still_stops(&self, rules: &[ErrorRule]) -> bool {
        still_stops(rules, self.trouble, &self.code)
    }

    pub(super) fn as_health(&self) -> Health {
        Health::Stalled(self.trouble.reason().as_str(), self.message.clone())
    }

    pub(super) fn as_stop(&self) -> ChannelStop {
        let Self { trouble, code, message, shown_by } = self;
        let (reason, shown_by) = (trouble.reason(), Some(*shown_by));
        ChannelStop { reason, code: code.clone(), shown_by, message: message.clone() }
    }
}

/// What the status of a channel says that a restart of the operator does not end. It is of the gateway that this digest is of. What only
/// a receipt has shown is over when a person says so, whatever it is.
pub(super) fn lasting(channel: &BroadcastChannel, gateway: &str) -> Option<Halted> {
    let status = channel.status.as_ref()?;
    let reported = reported(channel, gateway);
    let is_reported =
        |trouble: SenderTrouble| reported.as_ref().is_some_and(|it| it.reason == trouble.reason());
    let halted = match (&status.stop, &status.observed_gateway) {
        (Some(stop), _) => {
            let trouble = stop.reason.trouble()?;
            let ChannelStop { code, shown_by, message, .. } = stop.clone();
            let shown_by = shown_by.unwrap_or_else(|| evidence(trouble, &code, is_reported(trouble)));
            Halted { trouble, code, message, shown_by }
        }
        (None, Some(_)) => return None,
        (None, None) => of_conditions(&status.conditions, is_reported)?,
    };
    let is_lasting = (LASTING.contains(&halted.trouble) || halted.shown_by == StopEvidence::Receipt)
        && halted.still_stops(&channel.spec.error_policy);
    is_lasting.then_some(halted)
}

/// Whether the status of a channel says that the provider refused its credentials, and no rule says otherwise now.
pub(super) fn had_bad_credentials(channel: &BroadcastChannel) -> bool {
    let Some(status) = &channel.status else { return false };
    let trouble = SenderTrouble::AuthenticationFailed;
    match (&status.stop, &status.observed_gateway) {
        (Some(stop), _) => {
            stop.reason == trouble.reason() && still_stops(&channel.spec.error_policy, trouble, &stop.code)
        }
        (None, Some(_)) => false,
        (None, None) => Condition::find_true(&status.conditions, "Stalled")
            .is_some_and(|stalled| stalled.reason == trouble.reason().as_str()),
    }
}

/// What has shown a stop of a version that did not store it. Each answer to a message has a code, and an answer to a question none.
fn evidence(trouble: SenderTrouble, code: &str, is_reported: bool) -> StopEvidence {
    match trouble {
        _ if is_reported => StopEvidence::Receipt,
        SenderTrouble::ByErrorPolicy => StopEvidence::Answer,
        _ if code.is_empty() => StopEvidence::Question,
        _ => StopEvidence::Answer,
    }
}

/// A version that had no stops in its statuses showed them as conditions alone, with another cure. Their codes are not known, so no
/// rule ends them.
fn of_conditions(conditions: &[Condition], is_reported: impl Fn(SenderTrouble) -> bool) -> Option<Halted> {
    let stalled = Condition::find_true(conditions, "Stalled")?;
    let trouble = LASTING.into_iter().find(|trouble| stalled.reason == trouble.reason().as_str())?;
    let is_by_receipt = is_reported(trouble);
    let is_by_rule = trouble == SenderTrouble::ByErrorPolicy;
    let message = match is_by_receipt {
        _ if is_by_rule => {
            let end =
                if is_by_receipt { SOME_FAILED.into() } else { format!("{NO_CHAT_FAILS}{BUT_OPTED_OUT}") };
            format!("{}{end}", told((what_of(trouble), ""), &format!("to go on, {TRY_AGAIN}")))
        }
        true => message_of_receipt(trouble, ""),
        false => message_of(trouble, ""),
    };
    let code = if is_by_rule { "" } else { UNKNOWN_CODE }.to_owned();
    let shown_by = if is_by_receipt { StopEvidence::Receipt } else { StopEvidence::Answer };
    Some(Halted { trouble, code, message, shown_by })
}

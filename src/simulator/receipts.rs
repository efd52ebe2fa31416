//! Which receipts follow an accepted message: settings and a message go in, receipts and their address come out. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::desk::AcceptedMessage;
use super::settings::{InvalidSettings, ReceiptSettings};
use super::wire::Format;
use crate::webhooks::Secret;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) status: Status,
    pub(super) time: Timestamp,
    /// Of a group of `WhatsApp`, the participant that it is about. `None`: it is about all.
    pub(super) participant: Option<usize>,
}

/// How far a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It left the provider.
    Sent,
    /// It came to the phone.
    Delivered,
    /// Somebody read it.
    Read,
    /// It did not come to the phone.
    Failed,
}

/// Settings that were checked.
#[derive(Debug)]
pub(super) struct ReceiptPlan {
    pub(super) settings: ReceiptSettings,
    pub(super) secrets: Vec<Secret>,
}

impl ReceiptPlan {
    pub(super) fn new(settings: ReceiptSettings) -> Result<Self, InvalidSettings> {
        let secrets = settings.check()?;
        Ok(Self { settings, secrets })
    }

    /// The receipts of a message, in the order in which they are sent. The same token always gets the same ones, and where
    /// there is none, the same chat.
    pub(super) fn receipts(&self, message: &AcceptedMessage) -> VecDeque<Receipt> {
        let of_all = self.statuses(message).into_iter().map(|status| (status, None));
        let mut told: Vec<_> = match is_group(message) {
            false => of_all.collect(),
            true => of_all
                .filter(|(status, _)| matches!(status, Status::Sent | Status::Failed))
                .chain(self.of_participants(message))
                .collect(),
        };
        if self.settings.reverse {
            told.reverse();
        }
        let receipt = |(status, participant)| Receipt { status, time: message.time, participant };
        let times = self.settings.times;
        told.into_iter().map(receipt).flat_map(|receipt| std::iter::repeat_n(receipt, times)).collect()
    }

    /// What becomes of the message of a group for each of its participants, unless it failed for all of them.
    fn of_participants(&self, message: &AcceptedMessage) -> Vec<(Status, Option<usize>)> {
        if self.statuses(message).contains(&Status::Failed) {
            return Vec::new();
        }
        let participants = self.settings.providers.whats_app_participants.iter().enumerate();
        let each = participants.flat_map(|(number, participant)| {
            let drawn = self.drawn(&format!("{}{}{participant}", message.token, message.chat));
            drawn
                .into_iter()
                .filter(|status| *status != Status::Sent)
                .map(move |status| (status, Some(number)))
        });
        each.collect()
    }

    /// How far a message came by now, whether or not its receipts were brought. `None`: it waits.
    pub(super) fn reached(&self, message: &AcceptedMessage, now: Timestamp) -> Option<Status> {
        let due = message.time + Duration::from_millis(self.settings.delay_ms);
        (due <= now).then(|| self.statuses(message).last().copied().unwrap_or(Status::Sent))
    }

    /// Where the receipts of a message go. `None`: nowhere.
    pub(super) fn url(&self, message: &AcceptedMessage) -> Option<String> {
        let providers = &self.settings.providers;
        let url = match message.format {
            Format::Http => Some(&self.settings.url),
            Format::WhatsApp => providers.whats_app_url.as_ref(),
            Format::Telegram => providers.telegram_url.as_ref(),
            Format::Twilio => return Some(message.callback.clone()).filter(|url| !url.is_empty()),
            Format::Periskope => providers.periskope_url.as_ref(),
        };
        let namespace = message.broadcast.split_once('/').map_or("", |(namespace, _)| namespace);
        let fill = |url: &String| {
            url.replace("{namespace}", &encode(namespace)).replace("{channel}", &encode(&message.account))
        };
        url.filter(|url| !url.is_empty()).map(fill)
    }

    /// Error code of a message that failed: the one that is wanted, or the provider's own.
    pub(super) fn failed_code<'a>(&'a self, own: &'a str) -> &'a str {
        self.settings.failed_code.as_deref().unwrap_or(own)
    }

    /// The last receipt of the message of a token, in the `HTTP` channel's own format, which tells everything. `None`: it has none.
    pub(super) fn last_of(&self, token: &str) -> Option<Status> {
        self.drawn(token).last().copied()
    }

    fn statuses(&self, message: &AcceptedMessage) -> Vec<Status> {
        let drawn = self.drawn(if message.token.is_empty() { &message.chat } else { &message.token });
        drawn.into_iter().filter(|status| is_told(message, *status)).collect()
    }

    fn drawn(&self, of: &str) -> Vec<Status> {
        let ReceiptSettings { failed_percent, read_percent, delivered_percent, sent_percent, .. } =
            self.settings;
        let draw = draw(of);
        let more: &[Status] = if draw < failed_percent {
            &[Status::Failed]
        } else if draw < failed_percent + read_percent {
            &[Status::Delivered, Status::Read]
        } else if draw < failed_percent + delivered_percent {
            &[Status::Delivered]
        } else {
            &[]
        };
        (draw < sent_percent).then_some(Status::Sent).into_iter().chain(more.iter().copied()).collect()
    }
}

/// Whether a message goes to a group whose participants are told apart: one of `WhatsApp`, whose id has letters.
pub(super) fn is_group(message: &AcceptedMessage) -> bool {
    message.format == Format::WhatsApp && message.chat.contains(|c: char| c.is_ascii_alphabetic())
}

/// Telegram tells nothing of messages, but of a person who blocked the bot. Nobody knows whether an SMS was read.
fn is_told(message: &AcceptedMessage, status: Status) -> bool {
    match message.format {
        Format::Telegram => status == Status::Failed && message.chat.parse::<u64>().is_ok(),
        Format::Twilio => status != Status::Read || message.to.starts_with("whatsapp:"),
        Format::Http | Format::WhatsApp | Format::Periskope => true,
    }
}

/// A number from 0 to 99 that looks random, but belongs to the token.
fn draw(token: &str) -> u8 {
    let digest = Sha256::digest(token.as_bytes());
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % 100;
    u8::try_from(number).expect("should be below 100")
}

/// One segment of a path: whatever a client put into it, it adds none.
fn encode(segment: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode =
        |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    segment.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(token: &str) -> AcceptedMessage {
        AcceptedMessage {
            format: Format::Http,
            account: "sales/../x".into(),
            broadcast: "shop/sale".into(),
            token: token.into(),
            chat: "15550100".into(),
            to: "+15550100".into(),
            from: "+15550199".into(),
            text: "Hi".into(),
            template: "".into(),
            media: "".into(),
            callback: "http://127.0.0.1:2/?token=t".into(),
            message_id: "sim-1".into(),
            time: "2026-11-23T10:00:00.123Z".parse().expect("time"),
        }
    }

    fn plan(change: impl FnOnce(&mut ReceiptSettings)) -> ReceiptPlan {
        let url = "http://127.0.0.1:1/{namespace}/{channel}".into();
        let mut settings = ReceiptSettings { url, read_percent: 100, ..ReceiptSettings::default() };
        change(&mut settings);
        ReceiptPlan::new(settings).expect("settings")
    }

    fn statuses(plan: &ReceiptPlan, token: &str) -> Vec<Status> {
        plan.receipts(&message(token)).iter().map(|receipt| receipt.status).collect()
    }

    #[test]
    fn receipts_are_doubled_and_reversed_as_asked() {
        use Status::{Delivered, Read, Sent};
        assert_eq!(statuses(&plan(|_| ()), "t"), [Delivered, Read]);
        assert_eq!(statuses(&plan(|settings| settings.sent_percent = 100), "t"), [Sent, Delivered, Read]);
        let plan = plan(|settings| (settings.reverse, settings.times) = (true, 2));
        assert_eq!(statuses(&plan, "t"), [Read, Read, Delivered, Delivered]);
    }

    #[test]
    fn shares_are_about_what_was_asked_and_the_same_each_time() {
        let plan = plan(|settings| {
            (settings.delivered_percent, settings.read_percent, settings.failed_percent) = (70, 40, 20);
        });
        let mut counts = [0; 4];
        let mut without = 0;
        for number in 0..10_000 {
            let token = format!("0b3f9a3e.{}.{}", number / 250, number % 250);
            let statuses = statuses(&plan, &token);
            assert_eq!(statuses, self::statuses(&plan, &token));
            without += usize::from(statuses.is_empty());
            for status in statuses {
                counts[status as usize] += 1;
            }
        }
        let near = |count: usize, share: usize| count.abs_diff(share) < 200;
        let [_, delivered, read, failed] = counts;
        assert!(near(delivered, 7000) && near(read, 4000) && near(failed, 2000) && near(without, 1000));
    }

    #[test]
    fn each_format_has_an_address_of_its_own() {
        let plan = plan(|settings| {
            settings.providers.whats_app_url = Some("http://127.0.0.1:3/{channel}".into());
        });
        for (format, url) in [
            (Format::WhatsApp, Some("http://127.0.0.1:3/sales%2F..%2Fx")),
            (Format::Twilio, Some("http://127.0.0.1:2/?token=t")),
            (Format::Telegram, None),
            (Format::Periskope, None),
        ] {
            let message = AcceptedMessage { format, ..message("t") };
            assert_eq!(plan.url(&message).as_deref(), url, "{format:?}");
        }
        let silent = AcceptedMessage { format: Format::Twilio, callback: String::new(), ..message("t") };
        assert_eq!(plan.url(&silent), None);
    }

    #[test]
    fn telegram_tells_of_people_who_blocked_the_bot_and_nothing_else() {
        let failing = plan(|settings| {
            (settings.delivered_percent, settings.read_percent, settings.failed_percent) = (0, 0, 100);
        });
        let count = |plan: &ReceiptPlan, chat: &str| {
            let message = AcceptedMessage { format: Format::Telegram, chat: chat.into(), ..message("") };
            plan.receipts(&message).len()
        };
        assert_eq!(count(&plan(|settings| settings.sent_percent = 100), "15550100"), 0);
        assert_eq!(count(&failing, "15550100"), 1);
        assert_eq!(count(&failing, "-100200"), 0);
    }

    #[test]
    fn an_account_stays_one_segment_of_the_url() {
        let url = plan(|_| ()).url(&message("t"));
        assert_eq!(url.as_deref(), Some("http://127.0.0.1:1/shop/sales%2F..%2Fx"));
    }
}

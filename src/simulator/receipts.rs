//! Which receipts follow an accepted message: settings and a message go in, receipts and their address come out. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::desk::AcceptedMessage;
use super::settings::{InvalidSettings, ReceiptSettings};
use crate::webhooks::Secret;

/// Error code of a `failed` receipt.
const FAILED_CODE: &str = "undeliverable";

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Receipt {
    id: String,
    status: Status,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Delivered,
    Read,
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

    /// The receipts of a message, in the order in which they are sent. The same token always gets the same ones.
    pub(super) fn receipts(&self, message: &AcceptedMessage) -> VecDeque<Receipt> {
        let mut statuses = self.statuses(draw(&message.token)).to_vec();
        if self.settings.reverse {
            statuses.reverse();
        }
        let id = if self.settings.use_message_id { &*message.message_id } else { &*message.token };
        let receipt = |status: &Status| Receipt {
            id: id.to_owned(),
            status: *status,
            time: message.time,
            code: (*status == Status::Failed).then_some(FAILED_CODE),
        };
        let times = self.settings.times;
        statuses.iter().map(receipt).flat_map(|receipt| std::iter::repeat_n(receipt, times)).collect()
    }

    /// Where the receipts of a message go.
    pub(super) fn url(&self, message: &AcceptedMessage) -> String {
        let namespace = encode(&message.namespace);
        self.settings.url.replace("{namespace}", &namespace).replace("{channel}", &encode(&message.account))
    }

    fn statuses(&self, draw: u8) -> &'static [Status] {
        let ReceiptSettings { failed_percent, read_percent, delivered_percent, .. } = self.settings;
        if draw < failed_percent {
            &[Status::Failed]
        } else if draw < failed_percent + read_percent {
            &[Status::Delivered, Status::Read]
        } else if draw < failed_percent + delivered_percent {
            &[Status::Delivered]
        } else {
            &[]
        }
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
            namespace: "shop".into(),
            account: "sales/../x".into(),
            token: token.into(),
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
        use Status::{Delivered, Read};
        assert_eq!(statuses(&plan(|_| ()), "t"), [Delivered, Read]);
        let plan = plan(|settings| (settings.reverse, settings.times) = (true, 2));
        assert_eq!(statuses(&plan, "t"), [Read, Read, Delivered, Delivered]);
    }

    #[test]
    fn shares_are_about_what_was_asked_and_the_same_each_time() {
        let plan = plan(|settings| {
            (settings.delivered_percent, settings.read_percent, settings.failed_percent) = (70, 40, 20);
        });
        let mut counts = [0; 3];
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
        let [delivered, read, failed] = counts;
        assert!(near(delivered, 7000) && near(read, 4000) && near(failed, 2000) && near(without, 1000));
    }

    #[test]
    fn a_receipt_names_its_message_by_token_or_message_id() {
        let json = |plan: &ReceiptPlan| serde_json::to_value(plan.receipts(&message("t"))).expect("json");
        let time = "2026-11-23T10:00:00.123Z";
        let token = plan(|settings| settings.read_percent = 0);
        assert_eq!(json(&token), serde_json::json!([{"id": "t", "status": "delivered", "time": time}]));
        let failed = plan(|settings| {
            settings.use_message_id = true;
            (settings.delivered_percent, settings.read_percent, settings.failed_percent) = (0, 0, 100);
        });
        let receipt =
            serde_json::json!({"id": "sim-1", "status": "failed", "time": time, "code": "undeliverable"});
        assert_eq!(json(&failed), serde_json::json!([receipt]));
    }

    #[test]
    fn an_account_stays_one_segment_of_the_url() {
        assert_eq!(plan(|_| ()).url(&message("t")), "http://127.0.0.1:1/shop/sales%2F..%2Fx");
    }
}

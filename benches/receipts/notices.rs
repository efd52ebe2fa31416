//! Requests with one receipt each: a message and what became of it go in, bytes of HTTP come out.

use broadcast_operator::domain::outcome::Outcome;
use broadcast_operator::simulator::Entry;

use super::common::notices::Notice;
use super::common::providers::Provider;
use super::common::stage::Stage;

/// What every message goes through, in this order.
pub const STAGES: [Outcome; 3] = [Outcome::Sent, Outcome::Delivered, Outcome::Read];

/// Where receipts of a stage go: host and port.
pub fn address(stage: &Stage) -> String {
    stage.operator.receipts_base_url().replacen("http://", "", 1)
}

/// A whole request, signed now.
pub fn request(stage: &Stage, provider: Provider, message: &Entry, outcome: Outcome) -> Vec<u8> {
    let Notice { url, headers, body, .. } = Notice::of(stage, provider, message, outcome).signed();
    let host = address(stage);
    let path = url.split_once(&host).map_or("/", |(_, path)| path);
    let length = body.len();
    let mut text = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text += &body;
    text.into_bytes()
}

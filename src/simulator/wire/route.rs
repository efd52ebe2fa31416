//! Which provider a request is for, and what it wants: method and path go in. Pure.

use axum::http::Method;

use super::Format;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulator) struct Call {
    /// Whose format it has.
    pub(in crate::simulator) format: Format,
    /// Who sends: the account, phone number, or bot that the path names. Empty where a header does.
    pub(in crate::simulator) account: String,
    /// The secret in the path.
    pub(in crate::simulator) token: Option<String>,
    /// What it wants.
    pub(in crate::simulator) verb: Verb,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::simulator) enum Verb {
    /// To send a message, by the method of this name where there are several.
    Send(String),
    /// To know whether the credentials are good.
    Probe,
    /// To know what became of the message with this id.
    Status(String),
}

impl Call {
    fn new(format: Format, account: &str, verb: Verb) -> Self {
        Self { format, account: account.into(), token: None, verb }
    }

    /// A message in the `HTTP` channel's own format.
    pub(in crate::simulator) fn http(account: String) -> Self {
        Self { format: Format::Http, account, token: None, verb: send() }
    }
}

fn send() -> Verb {
    Verb::Send(String::new())
}

/// Reads method and path. `None`: no provider has such a place.
pub(in crate::simulator) fn route(method: &Method, path: &str) -> Option<Call> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (is_get, is_post) = (method == Method::GET, method == Method::POST);
    Some(match segments[..] {
        [version, id, "messages"] if is_post && is_version(version) => {
            Call::new(Format::WhatsApp, id, send())
        }
        [version, id] if is_get && is_version(version) => Call::new(Format::WhatsApp, id, Verb::Probe),
        ["2010-04-01", "Accounts", sid, "Messages.json"] if is_post => Call::new(Format::Twilio, sid, send()),
        ["2010-04-01", "Accounts", sid, "Messages", file] if is_get => {
            Call::new(Format::Twilio, sid, Verb::Status(file.strip_suffix(".json")?.into()))
        }
        ["2010-04-01", "Accounts", file] if is_get => {
            Call::new(Format::Twilio, file.strip_suffix(".json")?, Verb::Probe)
        }
        ["message", "send"] | ["v1", "message", "send"] if is_post => {
            Call::new(Format::Periskope, "", send())
        }
        ["queue"] | ["v1", "queue"] if is_get => Call::new(Format::Periskope, "", Verb::Probe),
        ["message", "queues", "health"] | ["v1", "message", "queues", "health"] if is_get => {
            Call::new(Format::Periskope, "", Verb::Probe)
        }
        [bot, name] if is_get || is_post => telegram(bot.strip_prefix("bot")?, name),
        _ => return None,
    })
}

/// A method of a bot. Its id is the part of the token before the colon.
fn telegram(token: &str, name: &str) -> Call {
    let token = token.replace("%3A", ":").replace("%3a", ":");
    // Methods have no upper and lower case there.
    let verb = if name.eq_ignore_ascii_case("getMe") { Verb::Probe } else { Verb::Send(name.to_lowercase()) };
    let account = token.split_once(':').map_or("", |(id, _)| id).to_owned();
    Call { format: Format::Telegram, account, token: Some(token), verb }
}

/// `v24.0` and the like.
fn is_version(segment: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = segment.strip_prefix('v').and_then(|numbers| numbers.split_once('.'));
    numbers.is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_their_provider() {
        let (get, post) = (Method::GET, Method::POST);
        let message = |name: &str| Verb::Send(name.into());
        for (method, path, format, account, verb) in [
            (&post, "/v24.0/1063/messages", Format::WhatsApp, "1063", message("")),
            (&get, "/v24.0/1063", Format::WhatsApp, "1063", Verb::Probe),
            (&post, "/bot42:AA-b_c/sendMessage", Format::Telegram, "42", message("sendmessage")),
            (&get, "/bot42%3AAA/getMe", Format::Telegram, "42", Verb::Probe),
            (&post, "/2010-04-01/Accounts/AC1/Messages.json", Format::Twilio, "AC1", message("")),
            (
                &get,
                "/2010-04-01/Accounts/AC1/Messages/SM2.json",
                Format::Twilio,
                "AC1",
                Verb::Status("SM2".into()),
            ),
            (&get, "/2010-04-01/Accounts/AC1.json", Format::Twilio, "AC1", Verb::Probe),
            (&post, "/message/send", Format::Periskope, "", message("")),
            (&post, "/v1/message/send", Format::Periskope, "", message("")),
            (&get, "/v1/queue", Format::Periskope, "", Verb::Probe),
            (&get, "/v1/message/queues/health", Format::Periskope, "", Verb::Probe),
        ] {
            let call = route(method, path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!((call.format, &*call.account, call.verb), (format, account, verb), "{path}");
        }
        let token = route(&get, "/bot42%3AAA/getMe").and_then(|call| call.token);
        assert_eq!(token.as_deref(), Some("42:AA"));
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for (method, path) in [
            (Method::GET, "/v24.0/1063/messages"),
            (Method::POST, "/v24/1063/messages"),
            (Method::POST, "/latest/1063/messages"),
            (Method::GET, "/2010-04-01/Accounts/AC1"),
            (Method::POST, "/v2/message/send"),
            (Method::DELETE, "/bot42:AA/sendMessage"),
            (Method::GET, "/"),
        ] {
            assert_eq!(route(&method, path), None, "{path}");
        }
    }
}

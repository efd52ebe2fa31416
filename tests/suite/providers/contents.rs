//! Texts, templates and media, as each provider has them; and what it cannot send.

use broadcast_operator::simulator::Entry;
use serde_json::{Value, json};

use crate::common::providers::Provider::{
    self, Native, Periskope, Postback, Telegram, Twilio, TwilioWhatsApp, WhatsApp,
};
use crate::common::providers::with_each;
use crate::common::stage::{Stage, broadcast, condition, counts, merge, state};

const CONTENT_SID: &str = "HX0123456789abcdef0123456789abcdef";
const PICTURE: &str = "https://cdn.example/sale.png";

/// A Broadcast with one message for a guest whose name has a mark of HTML in it.
fn to_one(provider: Provider, name: &str, chat: &str, message: &Value) -> Value {
    let recipients = json!({"csv": null, "chats": [{"id": chat, "params": {"name": "Ana <3"}}]});
    let spec = json!({"channelRef": {"name": provider.name()}, "recipients": recipients});
    let mut broadcast = broadcast(name, 0, spec);
    broadcast["spec"]["message"] = message.clone();
    broadcast
}

/// A message, and what of it arrives at the gateway.
struct Case {
    provider: Provider,
    what: &'static str,
    chat: &'static str,
    message: Value,
    text: &'static str,
    template: Value,
    media: &'static str,
}

impl Case {
    fn new(provider: Provider, what: &'static str, message: Value) -> Self {
        Self { provider, what, chat: "15551000000", message, text: "", template: Value::Null, media: "" }
    }

    fn text(self, text: &'static str) -> Self {
        Self { text, ..self }
    }

    fn template(self, template: Value) -> Self {
        Self { template, ..self }
    }

    fn picture(mut self) -> Self {
        self.message["media"] = json!({"kind": "Image", "url": PICTURE});
        Self { media: if self.template.is_null() { PICTURE } else { "" }, ..self }
    }

    fn to(self, chat: &'static str) -> Self {
        Self { chat, ..self }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.provider.name(), self.what)
    }

    fn has_arrived_as(&self, sent: &Entry) -> bool {
        let template: Value = serde_json::from_str(&sent.template).unwrap_or_default();
        (&*sent.chat, &*sent.text, &*sent.media, &template)
            == (self.chat, self.text, self.media, &self.template)
    }
}

fn cases() -> Vec<Case> {
    let text = json!({"text": "Hi {{ name }}"});
    let html = json!({"text": "<b>Hi</b> {{ name }}", "format": "HTML"});
    let markdown = json!({"text": "*Hi* {{ name }}\\.", "format": "MarkdownV2"});
    let parameters = json!({"1": "{{ name }}", "2": "nine"});
    let template = json!({"template": {"name": "sale", "language": "en_US", "parameters": parameters}});
    let content = json!({"template": {"name": CONTENT_SID, "parameters": parameters}});
    let put_in = json!({"1": "Ana <3", "2": "nine"});

    let texts = ["Ana <3", "nine"].map(|text| json!({"type": "text", "text": text}));
    let body = json!({"type": "body", "parameters": texts});
    let image = json!({"type": "image", "image": {"link": PICTURE}});
    let header = json!({"type": "header", "parameters": [image]});
    let of_whatsapp =
        |components: Value| json!({"name": "sale", "language": {"code": "en_US"}, "components": components});
    let of_twilio = json!({"contentSid": CONTENT_SID, "contentVariables": put_in});
    let of_native = json!({"name": "sale", "language": "en_US", "parameters": put_in});
    vec![
        Case::new(WhatsApp, "template", template.clone()).template(of_whatsapp(json!([body]))),
        Case::new(WhatsApp, "header", template.clone())
            .template(of_whatsapp(json!([header, body])))
            .picture(),
        Case::new(WhatsApp, "picture", text.clone()).text("Hi Ana <3").picture(),
        Case::new(Telegram, "html", html.clone()).text("<b>Hi</b> Ana &lt;3"),
        Case::new(Telegram, "photo", html).text("<b>Hi</b> Ana &lt;3").picture().to("-1001234567890"),
        Case::new(Telegram, "markdown", markdown).text("*Hi* Ana <3\\.").to("@our_sale"),
        Case::new(Twilio, "template", content.clone()).template(of_twilio.clone()),
        Case::new(Twilio, "picture", text.clone()).text("Hi Ana <3").picture(),
        Case::new(TwilioWhatsApp, "template", content).template(of_twilio),
        Case::new(TwilioWhatsApp, "picture", text.clone()).text("Hi Ana <3").picture(),
        Case::new(Periskope, "group", text.clone()).text("Hi Ana <3").to("120363041234567890@g.us"),
        Case::new(Periskope, "picture", text.clone()).text("Hi Ana <3").picture(),
        Case::new(Native, "template", template).template(of_native),
        Case::new(Native, "picture", text.clone()).text("Hi Ana <3").picture(),
        Case::new(Postback, "text", text).text("Hi Ana <3"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_templates_and_media_arrive_as_the_provider_has_them() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&Provider::ALL, &json!({}));
    let cases = cases();
    stage.apply_all(cases.iter().map(|case| to_one(case.provider, &case.name(), case.chat, &case.message)));
    for case in &cases {
        let name = case.name();
        let done = stage.complete(&name).await;
        assert_eq!(state(&done), "Succeeded", "{name}: {:?}", done.status);
        assert_eq!(counts(&done).sent, 1, "{name}: {:?}", done.status);
        let requests = stage.requests_of(case.provider);
        let arrived = requests.iter().filter(|sent| case.has_arrived_as(sent)).count();
        assert_eq!(arrived, 1, "{name}: {requests:#?}");
    }
    assert_eq!(stage.gateway.ledger().summary().requests.requests, cases.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_cannot_send_is_told_and_nothing_is_sent() {
    let stage = Stage::of_providers().await;
    stage.apply_channels(&Provider::ALL, &json!({}));
    let html = json!({"text": "<b>Hi</b>", "format": "HTML"});
    let template = json!({"template": {"name": "sale"}});
    let mut cases: Vec<(Provider, &str, Value, &str)> = Provider::ALL
        .into_iter()
        .filter(|provider| *provider != Telegram)
        .map(|provider| (provider, "html", html.clone(), "remove message.format"))
        .collect();
    for (provider, cure) in [
        (WhatsApp, "add message.template.language"),
        (Telegram, "use message.text instead"),
        (Twilio, "must be HX and 32 characters"),
        (TwilioWhatsApp, "must be HX and 32 characters"),
        (Periskope, "use message.text instead"),
        (Postback, "use message.text instead"),
    ] {
        cases.push((provider, "template", template.clone(), cure));
    }
    let picture = json!({"text": "Hi", "media": {"kind": "Image", "url": PICTURE}});
    cases.push((Postback, "picture", picture.clone(), "remove message.media"));
    let mut header = json!({"template": {"name": CONTENT_SID}});
    merge(&mut header, json!({"media": picture["media"]}));
    cases.push((Twilio, "header", header.clone(), "remove message.media"));
    cases.push((TwilioWhatsApp, "header", header, "remove message.media"));
    let of_whatsapp = |parameters: Value| json!({"template": {"name": "sale", "language": "en_US", "parameters": parameters}});
    let gap = "1, 2, 3 without a gap: correct message.template.parameters";
    cases.push((WhatsApp, "gap", of_whatsapp(json!({"1": "a", "3": "b"})), gap));
    let blank = "give message.template.parameters.1 a value";
    cases.push((WhatsApp, "blank", of_whatsapp(json!({"1": ""})), blank));
    let of_twilio = |values: Value| {
        let mut template = json!({"template": {"name": CONTENT_SID}});
        merge(&mut template["template"], values);
        template
    };
    let buttons = of_twilio(json!({"buttonParameters": {"0": "a"}}));
    cases.push((Twilio, "buttons", buttons, "move those of message.template.buttonParameters"));
    cases.push((Twilio, "blank", of_twilio(json!({"parameters": {"1": ""}})), blank));
    stage.apply_all(cases.iter().map(|(provider, what, message, _)| {
        to_one(*provider, &format!("{}-{what}", provider.name()), "15551000000", message)
    }));
    for (provider, what, _, cure) in &cases {
        let name = format!("{}-{what}", provider.name());
        let stalled = stage.wait_state(&name, "MessageNotSupported").await;
        let message = condition(&stalled, "Stalled").expect("Stalled").message;
        assert!(message.contains(cure), "{name}: {message}");
    }
    with_each(&Provider::ALL, async |provider| assert_eq!(stage.requests_of(provider).len(), 0)).await;
}

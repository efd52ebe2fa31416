//! What a request to the API server is called: the same in every run, whatever namespace, random name or time is in it.

use http::{Method, Uri};
use serde_json::Value;

/// A request by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// As in `PUT-broadcastbatches-status-sale-00000`.
    pub name: String,
    /// Plural of the kind.
    pub kind: String,
    /// Whether it changes something.
    pub is_write: bool,
    /// Whether it asks for a stream of changes.
    pub is_watch: bool,
    /// Whether it is the list that a watch begins with.
    pub is_first_list: bool,
}

/// Names a request. The body is needed where the name of the object stands only there.
pub fn name_of(method: &Method, uri: &Uri, body: &[u8]) -> Call {
    let mut path: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let prefix = if path.first() == Some(&"apis") { 3 } else { 2 };
    path.drain(..prefix.min(path.len()));
    if path.first() == Some(&"namespaces") {
        path.drain(..2.min(path.len()));
    }
    let kind = path.first().copied().unwrap_or("other").to_owned();
    let object = path.get(1).copied();
    let part = path.get(2).copied();
    let query = uri.query().unwrap_or_default();
    let is_watch = object.is_none() && query.contains("watch=true");
    let is_write = *method != Method::GET;
    let verb = match (object, is_write) {
        (None, false) if is_watch => "WATCH",
        // Whether a kind is served.
        (None, false) if query.contains("limit=1&") || query.ends_with("limit=1") => "PEEK",
        (None, false) => "LIST",
        _ => method.as_str(),
    };
    // All leases of a group are listed and watched by their label; all pages of a Broadcast are only listed.
    let label = selected(query).filter(|_| verb == "LIST" && kind != "leases");
    let is_first_list = verb == "LIST" && label.is_none();
    let named = || serde_json::from_slice(body).ok().and_then(|body| named_in(&kind, &body));
    let subject = if kind == "leases" && is_write { named() } else { None };
    let subject = subject.or_else(|| object.map(|name| plain(&kind, name))).or(label).or_else(named);
    let name: Vec<&str> =
        [Some(verb), Some(kind.as_str()), part, subject.as_deref()].into_iter().flatten().collect();
    Call { name: name.join("-"), kind, is_write, is_watch, is_first_list }
}

/// The value of the label that a list is restricted to.
fn selected(query: &str) -> Option<String> {
    let selector = query.split('&').find_map(|part| part.strip_prefix("labelSelector="))?;
    let (_, value) = selector.split_once("%3D").or_else(|| selector.split_once('='))?;
    Some(value.trim_start_matches("%3D").to_owned())
}

/// Events are named after their object and a time, leases of replicas after luck, leases of channels after a hash, and journals after
/// their Broadcast, luck and a number.
fn plain(kind: &str, name: &str) -> String {
    let last = name.rsplit('-').next().unwrap_or_default();
    match (kind, last.len()) {
        ("events", _) => name.split('.').next().unwrap_or_default().to_owned(),
        ("broadcastjournals", _) => name.rsplitn(3, '-').last().unwrap_or_default().to_owned(),
        ("leases", 10) => "replica".to_owned(),
        ("leases", 20) => "channel".to_owned(),
        ("leases", _) => "leader".to_owned(),
        _ => name.to_owned(),
    }
}

/// The object that is written, or that an event is about.
pub fn named_in(kind: &str, body: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if kind == "leases" {
        let annotations = &body["metadata"]["annotations"];
        if annotations["broadcast-operator.dev/given-up"].is_string() {
            return Some("given-up".to_owned());
        }
        let channel = text(&annotations["broadcast-operator.dev/channel"]);
        let channel = channel.and_then(|channel| Some(format!("channel-{}", channel.split_once('/')?.1)));
        return channel.or_else(|| Some(plain(kind, body["metadata"]["name"].as_str()?)));
    }
    if kind == "events" {
        return Some(format!("{}-{}", text(&body["regarding"]["name"])?, text(&body["reason"])?));
    }
    let name = text(&body["metadata"]["name"])?;
    Some(if kind == "broadcastjournals" { plain(kind, &name) } else { name })
}

/// Checks of the names, at each start: a name that changes from run to run would find no request again.
pub fn check() {
    let named = |method: Method, uri: &str, body: &str| {
        name_of(&method, &uri.parse().expect("should be a URI"), body.as_bytes()).name
    };
    let group = "/apis/broadcast-operator.dev/v1alpha1/namespaces/m-1";
    for (method, uri, body, name) in [
        (Method::PUT, format!("{group}/broadcasts/sale/status?"), "", "PUT-broadcasts-status-sale"),
        (Method::GET, format!("{group}/broadcastbatches?&limit=500"), "", "LIST-broadcastbatches"),
        (Method::GET, format!("{group}/broadcasts?&limit=1"), "", "PEEK-broadcasts"),
        (
            Method::GET,
            format!("{group}/broadcastbatches?&labelSelector=broadcast-operator.dev%2Fbroadcast%3Dsale"),
            "",
            "LIST-broadcastbatches-sale",
        ),
        (Method::GET, format!("{group}/broadcasts?&watch=true&timeoutSeconds=60"), "", "WATCH-broadcasts"),
        (Method::GET, "/api/v1/namespaces/m-1/secrets/gateway".into(), "", "GET-secrets-gateway"),
        (
            Method::POST,
            "/apis/events.k8s.io/v1/namespaces/m-1/events?".into(),
            r#"{"regarding": {"name": "sale"}, "reason": "Sending"}"#,
            "POST-events-sale-Sending",
        ),
        (
            Method::POST,
            format!("{group}/broadcastbatches?"),
            r#"{"metadata": {"name": "sale-00000"}}"#,
            "POST-broadcastbatches-sale-00000",
        ),
        (
            Method::POST,
            format!("{group}/broadcastjournals?"),
            r#"{"metadata": {"name": "spring-sale-0123456789abcdef-12"}}"#,
            "POST-broadcastjournals-spring-sale",
        ),
        (
            Method::DELETE,
            format!("{group}/broadcastjournals/sale-0123456789abcdef-0?"),
            "",
            "DELETE-broadcastjournals-sale",
        ),
    ] {
        assert_eq!(named(method, &uri, body), name);
    }
}

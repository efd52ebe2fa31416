//! Bodies and queries of the kind `application/x-www-form-urlencoded`. Pure.

use reqwest::Url;

/// Fields in the order in which they stand.
pub(super) type Fields = Vec<(String, String)>;

/// Reads fields.
pub(super) fn decode(text: &str) -> Fields {
    let mut url = blank();
    url.set_query(Some(text));
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// Writes fields.
pub(super) fn encode(fields: &[(String, String)]) -> String {
    let mut url = blank();
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

/// The first field of this name, or nothing.
pub(super) fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.iter().find(|(other, _)| other == name).map(|(_, value)| &**value).unwrap_or_default()
}

fn blank() -> Url {
    "http://localhost/".parse().expect("should be a url")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_their_encoding() {
        let text = "To=%2B15550100&Body=Hi+%26+%C3%BC%23&MediaUrl=a&MediaUrl=b";
        let fields = decode(text);
        assert_eq!((field(&fields, "To"), field(&fields, "Body")), ("+15550100", "Hi & ü#"));
        assert_eq!((field(&fields, "MediaUrl"), field(&fields, "From")), ("a", ""));
        assert_eq!((fields.len(), encode(&fields).as_str()), (4, text));
    }
}

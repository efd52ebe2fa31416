//! JSON of anybody: looked at where something is wanted of it, and never built in memory, where a few bytes may become a hundred
//! times as many. Pure.
//!
//! In: bytes. Out: the text of a value, of which each part is a piece. What is absent is the same as `null`, and what has another
//! type than it should have is absent to whoever asks for it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// One value, as it stands in a body that is JSON from its beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// What is absent.
    const NULL: Self = Self("null");

    /// The value that a body is.
    ///
    /// # Errors
    /// When it is no JSON, or more than one value.
    pub fn parse(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<&RawValue>(body).map(|value| Self(value.get()))
    }

    /// Whether it is absent, or `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self == Self::NULL
    }

    /// Whether it has fields, or may have them.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// The fields with these names; of two with one name, the later one.
    #[must_use]
    pub fn fields<const N: usize>(self, names: [&str; N]) -> [Self; N] {
        let mut found = [Self::NULL; N];
        let mut parts = self.parts('{');
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            let at = name.text().and_then(|name| names.iter().position(|wanted| *wanted == name));
            if let Some(at) = at {
                found[at] = value;
            }
        }
        found
    }

    /// The items of a list. `None`: it is none.
    #[must_use]
    pub fn items(self) -> Option<Parts<'a>> {
        self.0.starts_with('[').then(|| self.parts('['))
    }

    /// A text.
    #[must_use]
    pub fn text(self) -> Option<Cow<'a, str>> {
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        let text = self.0.starts_with('"').then_some(self)?;
        text.read::<Text<'_>>().map(|Text(text)| text)
    }

    /// A whole number.
    #[must_use]
    pub fn integer(self) -> Option<i64> {
        self.read()
    }

    /// Yes or no.
    #[must_use]
    pub fn truth(self) -> Option<bool> {
        self.read()
    }

    /// Whatever its text is read as. `None`: it is absent, or something else.
    #[must_use]
    pub fn read<T: Deserialize<'a>>(self) -> Option<T> {
        // Most of what is asked for is not there.
        if self.is_null() { None } else { serde_json::from_str(self.0).ok() }
    }

    fn parts(self, open: char) -> Parts<'a> {
        Parts(self.0.strip_prefix(open).unwrap_or_default())
    }
}

impl Default for Json<'_> {
    fn default() -> Self {
        Self::NULL
    }
}

/// The items of a list; of an object, names and values in turn. It holds what follows the last one that it gave.
#[derive(Clone, Debug, Default)]
pub struct Parts<'a>(&'a str);

impl<'a> Iterator for Parts<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut values = serde_json::Deserializer::from_str(self.0).into_iter::<&RawValue>();
        // After the last one there is a bracket, which is no value.
        let part = values.next()?.ok()?;
        let rest = self.0[values.byte_offset()..].trim_start();
        self.0 = rest.strip_prefix([',', ':']).unwrap_or_default();
        Some(Json(part.get()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn json(text: &str) -> Json<'_> {
        Json::parse(text.as_bytes()).expect("JSON")
    }

    #[test]
    fn fields_are_found_whatever_stands_around_them() {
        let object = json(
            " { \"a\" : 1 , \"b\":{\"a\":2,\"}\":[\",\"]},\"\\u0063\": \"\\\"x\\u00e9\" ,\"a\":[ ] , \"n\":null}\n",
        );
        let [a, b, c, absent] = object.fields(["a", "b", "c", "d"]);
        assert_eq!(a.items().expect("the later one").count(), 0);
        assert_eq!((b.fields(["a"])[0].integer(), c.text().as_deref()), (Some(2), Some("\"xé")));
        assert!(absent.is_null() && object.fields(["n"])[0].is_null() && object.is_object());
        assert!(json("{}").fields(["a"])[0].is_null());
        for other in ["[\"a\",1]", "7", "null", "\"a\""] {
            assert!(!json(other).is_object() && json(other).fields(["a"])[0].is_null(), "{other}");
        }
    }

    #[test]
    fn items_come_in_their_order_each_as_it_stands() {
        let items = |text| json(text).items().map(|items| items.map(|item| item.0).collect::<Vec<_>>());
        assert_eq!(
            items("[ 1,-2.5e9 ,null, true,\"a]\" , [2,[3]],{\"b\":[4]} ]").expect("a list"),
            ["1", "-2.5e9", "null", "true", "\"a]\"", "[2,[3]]", "{\"b\":[4]}"]
        );
        assert_eq!(items("[]"), Some(Vec::new()));
        assert_eq!(items(" [\n] "), Some(Vec::new()));
        assert_eq!((items("{}"), items("null"), items("\"[]\"")), (None, None, None));
    }

    #[test]
    fn a_value_of_another_type_is_absent() {
        let scalars = |text| {
            let value = json(text);
            (value.text().map(Cow::into_owned), value.integer(), value.truth())
        };
        assert_eq!(scalars("\"7\""), (Some("7".into()), None, None));
        assert_eq!(scalars("-7"), (None, Some(-7), None));
        assert_eq!(scalars("true"), (None, None, Some(true)));
        for other in ["null", "7.0", "1e3", "9223372036854775808", "1e999", "[]", "{}", "\"\\ud800\""] {
            assert_eq!(scalars(other), (None, None, None), "{other}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_wherever_that_shows() {
        for body in ["", "{", "[1,]", "{\"a\"}", "{\"a\":1,}", "[] []", "<html>", "nul", "[01]", "\"\u{1}\""]
        {
            assert!(Json::parse(body.as_bytes()).is_err(), "{body}");
            assert!(serde_json::from_str::<Value>(body).is_err(), "{body}");
        }
        assert!(Json::parse(b"[\"\xff\"]").is_err());
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(json(&deep).items().expect("a list").count(), 1);
    }
}

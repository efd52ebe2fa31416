//! What is not told of what a provider says: secrets that it repeats, and the number of the person that it speaks of. Its words go
//! on into outcomes, conditions, events and logs. Pure.

use super::chat::phone;

/// Shortest chat that is cut out. Numbers of fewer digits stand for other things in a text, such as codes.
const SHORTEST_CHAT: usize = 5;
/// Fewest digits of a number that is known with other characters between them.
const SHORTEST_NUMBER: usize = 7;
/// So many characters may stand between two digits, as in `+1 (555) - 0100`.
const LONGEST_GAP: usize = 3;
/// Fewest bytes that are known as the beginning of a secret.
const SHORTEST_BEGINNING: usize = 4;
/// What stands there instead.
const HIDDEN: &str = "…";

/// A text without a secret: some providers repeat a token that they refuse. Where the text ends in the middle of it, it was cut there.
#[must_use]
pub fn without_secret(text: &str, secret: &str) -> String {
    if secret.is_empty() {
        return text.to_owned();
    }
    let text = text.replace(secret, HIDDEN);
    let is_its_beginning =
        |end: &usize| secret.get(..*end).is_some_and(|beginning| text.ends_with(beginning));
    match (SHORTEST_BEGINNING..secret.len()).rev().find(is_its_beginning) {
        Some(end) => format!("{}{HIDDEN}", &text[..text.len() - end]),
        None => text,
    }
}

/// A text without a chat, also where its number is written with spaces, dashes or brackets.
#[must_use]
pub fn without_chat(text: &str, chat: &str) -> String {
    if chat.len() < SHORTEST_CHAT {
        return text.to_owned();
    }
    let text = text.replace(chat, HIDDEN);
    let end = chat.find(|c: char| !c.is_ascii_digit()).unwrap_or(chat.len());
    let number = &chat[..end];
    if number.len() < SHORTEST_NUMBER { text } else { without_number(&text, number) }
}

fn without_number(text: &str, number: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (shown, length) = match end_of(rest, number) {
            Some(end) => (HIDDEN, end),
            None => (&rest[..c.len_utf8()], c.len_utf8()),
        };
        told.push_str(shown);
        rest = &rest[length..];
    }
    told
}

/// Where a number ends that a text begins with, in bytes. `None`: it begins with something else.
fn end_of(text: &str, number: &str) -> Option<usize> {
    let mut digits = number.chars().peekable();
    let mut gap = 0;
    for (at, c) in text.char_indices() {
        if digits.next_if_eq(&c).is_some() {
            gap = 0;
            if digits.peek().is_none() {
                return Some(at + c.len_utf8());
            }
        } else if at > 0 && gap < LONGEST_GAP && phone::is_separator(c) {
            gap += 1;
        } else {
            return None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_cut_out_of_what_a_provider_says() {
        assert_eq!(without_secret("Malformed access token EAAB1", "EAAB1"), "Malformed access token …");
        assert_eq!(without_secret("nothing in it", ""), "nothing in it");
        assert_eq!(without_secret("a, EAAB1 and EAAB1, EAAB", "EAAB1"), "a, … and …, …");
        assert_eq!(without_secret("it begins with EAA", "EAAB1"), "it begins with EAA");
        assert_eq!(without_secret("ends with schlü", "schlüssel"), "ends with …");
    }

    #[test]
    fn a_number_is_cut_out_however_it_is_written() {
        for (said, told) in [
            ("no +15550100123, whatsapp:+15550100123", "no +…, whatsapp:+…"),
            ("no +1 555 010-0123.", "no +…."),
            ("no 1 (555) 010 - 0123 (555)", "no … (555)"),
            ("no 1\u{a0}555\u{2011}010\u{2011}0123", "no …"),
            ("15550100123@c.us", "…@c.us"),
            ("1 555 010 012", "1 555 010 012"),
            ("1    5550100123", "1    5550100123"),
            ("1555 is 15550100123", "1555 is …"),
            ("ü 1 5 1 555 010 01 23 ü", "ü 1 5 … ü"),
        ] {
            assert_eq!(without_chat(said, "15550100123"), told, "{said}");
        }
    }

    #[test]
    fn ids_of_networks_are_cut_out_and_what_is_too_short_stays() {
        assert_eq!(without_chat("no 15550100123 here", "15550100123@c.us"), "no … here");
        assert_eq!(without_chat("@news is gone", "@news"), "… is gone");
        assert_eq!(without_chat("error 502", "502"), "error 502");
        assert_eq!(without_chat("about 4 7 1 1 0", "47110"), "about 4 7 1 1 0");
        assert_eq!(without_chat("", "15550100123"), "");
    }
}

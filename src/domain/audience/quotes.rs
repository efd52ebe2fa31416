//! Quotes that are never closed. A lenient reader takes all rows up to the next quote for one field, so that their chats
//! would be lost from the books without a word.

/// Where a reader is in a field.
enum At {
    Start,
    Bare,
    Quoted,
    /// After a quote within quotes: it closes the field, or stands for one quote with a second one.
    Quote,
}

/// The line, from 1, of a quote that opens a field and is not closed: the text ends within it, or the quote that seems to
/// close it, in another line, has text after it, as the opening quote of a later row has.
pub(super) fn unclosed(text: &str, delimiter: u8) -> Option<usize> {
    let (mut at, mut line, mut opened) = (At::Start, 1, 1);
    let mut before = 0;
    for byte in text.bytes() {
        let ends_field = byte == delimiter || byte == b'\n' || byte == b'\r';
        at = match (at, byte) {
            (At::Start, b'"') => {
                opened = line;
                At::Quoted
            }
            (At::Quoted, b'"') => At::Quote,
            (At::Quoted, _) | (At::Quote, b'"') => At::Quoted,
            (At::Start | At::Bare | At::Quote, _) if ends_field => At::Start,
            (At::Quote, _) if opened != line => return Some(opened),
            (At::Start | At::Bare | At::Quote, _) => At::Bare,
        };
        // Some programs end lines with a carriage return alone.
        line += usize::from(byte == b'\r' || (byte == b'\n' && before != b'\r'));
        before = byte;
    }
    matches!(at, At::Quoted).then_some(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<usize> {
        unclosed(text, b',')
    }

    #[test]
    fn a_quote_that_is_not_closed_is_found_in_its_line() {
        assert_eq!(line("chat,name\n1,\"Ana\n2,Bo\n"), Some(2));
        assert_eq!(line("chat,name\r1,\"Ana\r2,\"Bo\r3,Cy\r"), Some(2));
        assert_eq!(line("chat,name\n1,Ana\n2,\"Bo"), Some(3));
        assert_eq!(line("\"chat,name\n1,Ana\n"), Some(1));
        assert_eq!(line("chat,name\n1,\"say \"\"hi\n"), Some(2), "doubled quotes do not close it");
    }

    #[test]
    fn two_quotes_that_are_not_closed_do_not_hide_each_other() {
        assert_eq!(line("chat,name\n1,\"Ana\n2,\"Bo\n3,Cy\n"), Some(2));
    }

    #[test]
    fn quotes_that_are_closed_and_quotes_within_a_field_are_no_concern() {
        for text in [
            "",
            "chat,name\n1,\"Ana\"\n",
            "chat,name\r\n1,\"Ana\nBo\",x\r\n",
            "chat,name\n1,\"a, \"\"b\"\"\nc\"\n",
            "chat,size\n1,5\" pipe\n2,\"\"\n3,\"\"\"\"",
            "chat,name\n1,\"Ana\" Smith\n",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}

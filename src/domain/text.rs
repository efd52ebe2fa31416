//! Characters that no eye sees.

/// Whether a character has no width, and no meaning in an id or number: marks of direction, joiners, byte order marks. Address
/// books put them around numbers, where they would make another chat of the same one.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

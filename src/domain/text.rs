//! Characters that no eye sees, and texts cut to what there is room for.

/// Whether a character has no width, and no meaning in an id or number: marks of direction, joiners, byte order marks. Address
/// books put them around numbers, where they would make another chat of the same one.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// One line without control characters and double quotes, which would take four bytes each, cut to `longest` bytes.
#[must_use]
pub fn cut_to_line(text: &str, longest: usize) -> String {
    let plain = |c: char| match c {
        '"' => '\'',
        c if c.is_control() => ' ',
        c => c,
    };
    // Nothing is shorter than its number of characters.
    let clean: String = text.trim().chars().take(longest).map(plain).collect();
    super::page_csv::cut(&clean, longest).trim().to_owned()
}

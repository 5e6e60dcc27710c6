//! Text from outside (producers, Graph, devices) made safe to show on one line.

use std::fmt;

/// Shows text so that it cannot forge a second line, move a cursor or flood a screen: control characters and the
/// Unicode line and direction controls are escaped, and what is longer than the limit is cut with an ellipsis.
#[derive(Clone, Copy)]
pub struct Printable<'a> {
    text: &'a str,
    max_chars: usize,
}

/// `text` for one line of at most `max_chars` characters of the original.
pub fn printable(text: &str, max_chars: usize) -> Printable<'_> {
    Printable { text, max_chars }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, c) in self.text.chars().enumerate() {
            if n == self.max_chars {
                return f.write_str("…");
            }
            let reorders =
                matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
            if c.is_control() || reorders {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn outside_text_stays_on_one_line_and_within_its_limit() {
        assert_eq!(printable("a\nb\x1b[2J\u{202e}c", 100).to_string(), "a\\nb\\u{1b}[2J\\u{202e}c");
        assert_eq!(printable("abcdef", 3).to_string(), "abc…");
        assert_eq!(printable("Zürich", 100).to_string(), "Zürich");
    }
}

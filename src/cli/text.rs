//! Texts given on the command line or in a file.

/// A text of at most `max` bytes that both databases can keep.
pub(super) fn text(given: &str, max: usize) -> Result<String, String> {
    if given.len() > max {
        Err(format!("has {} bytes, and may have {max}", given.len()))
    } else if given.contains('\0') {
        Err("has a NUL character, which no database here keeps".to_owned())
    } else {
        Ok(given.to_owned())
    }
}

/// The same, where leaving it empty would leave out what it is for.
pub(super) fn required(given: &str, max: usize, what: &str) -> Result<String, String> {
    if given.trim().is_empty() { Err(format!("is empty: give {what}")) } else { text(given, max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_whole_or_refused_with_what_to_do() {
        assert_eq!(required("  ", 9, "your name"), Err("is empty: give your name".to_owned()));
        assert_eq!(required("Zoë\n", 9, "your name").as_deref(), Ok("Zoë\n"));
        assert_eq!(text("Zoë", 3), Err("has 4 bytes, and may have 3".to_owned()));
        assert!(text("a\0", 9).is_err());
    }
}

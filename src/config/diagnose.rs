//! A mistake in the configuration: where it is, what is wrong, which rule it breaks and what to do.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::domain::printable::printable;

/// Text from a file or variable is cut to this many characters in a message.
const SHOWN_CHARS: usize = 60;

/// Where a value comes from. Sorts as mistakes are listed: by place in the file, then variables, then flags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in the configuration file.
    File {
        /// The file as it was named.
        path: Arc<Path>,
        /// Line and column, both from 1, the column in characters; `None` for the file as a whole.
        at: Option<(usize, usize)>,
    },
    /// An environment variable, by name.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// Built in; for a mistake: no layer in particular.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } if path.as_os_str().is_empty() => f.write_str("(a file without a name)"),
            Self::File { path, at } => {
                write!(f, "{}", printable(&path.to_string_lossy(), 4096))?;
                at.map_or(Ok(()), |(line, column)| write!(f, ":{line}:{column}"))
            }
            Self::Variable(name) => write!(f, "{}", printable(name, 200)),
            Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What a finding concerns, for a caller that needs only part of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The file cannot be read or is not TOML: no value in it can be relied on.
    Layer,
    /// This key, or something that was probably meant to be it.
    Key(&'static str),
    /// A section whose name is unknown: any section may have been meant.
    UnknownSection,
    /// Something else.
    Other,
}

/// A mistake, or something that works but should not stay as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub origin: Origin,
    /// Which key, its value unless it may be secret, and the rule it breaks.
    pub what: String,
    /// What to do, one sentence or several lines; empty if `what` already says it.
    pub remedy: String,
    pub(super) about: About,
}

impl Finding {
    /// Where, and what is wrong.
    pub fn sited(&self) -> String {
        match &self.origin {
            Origin::Default => self.what.clone(),
            origin => format!("{origin}: {}", self.what),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sited())?;
        self.remedy.lines().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// Every mistake of one configuration, in the order of the file, then variables, then flags. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Finding>);

impl Mistakes {
    /// `None` if there are none.
    pub(super) fn among(mut findings: Vec<Finding>) -> Option<Self> {
        findings.sort_by(|a, b| a.origin.cmp(&b.origin));
        (!findings.is_empty()).then_some(Self(findings))
    }

    /// The mistakes in order.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    /// A line that counts them, then each: `FILE:LINE:COLUMN: what` and its remedy, indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, noun) = (self.0.len(), if self.0.len() == 1 { "mistake" } else { "mistakes" });
        write!(f, "{number} {noun} in the configuration:")?;
        self.0.iter().try_for_each(|finding| write!(f, "\n{finding}"))
    }
}

impl std::error::Error for Mistakes {}

/// The rule that a value breaks and what to write instead.
#[derive(Debug)]
pub(super) struct Complaint {
    pub(super) rule: String,
    pub(super) remedy: String,
}

impl Complaint {
    pub(super) fn new(rule: impl fmt::Display, remedy: impl fmt::Display) -> Self {
        Self { rule: rule.to_string(), remedy: remedy.to_string() }
    }
}

/// A value as a message may show it; what could be a secret is not shown.
pub(super) fn shown(value: &str) -> String {
    if looks_like_a_secret(value) {
        "(not shown: it could be a secret)".to_owned()
    } else {
        printable(value, SHOWN_CHARS).to_string()
    }
}

/// Whether a value has the look of a generated secret or holds one: a client secret pasted where its file's path or
/// the client ID belongs must not end up in a log.
pub(super) fn looks_like_a_secret(value: &str) -> bool {
    let bare = value.trim_matches(['"', '\'']);
    let mixed = bare.chars().any(|c| c.is_ascii_uppercase())
        && bare.chars().any(|c| c.is_ascii_lowercase())
        && bare.chars().any(|c| c.is_ascii_digit());
    let generated = mixed && bare.len() >= 24 && !bare.starts_with(['/', '.', '$']);
    // `scheme://user:password@host`, well-formed or not.
    let holds_one = bare.contains('@') && bare.contains(':');
    generated || holds_one
}

/// Whether a key or variable of this name would hold a secret.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["secret", "password", "passwd", "token", "api_key", "credential", "assertion"]
        .iter()
        .any(|word| name.contains(word))
}

/// The rule and the remedy for a key that would hold a secret.
pub(super) const SECRETS_ONLY_FROM_FILES: &str = "secrets come only from files";
pub(super) const USE_A_SECRET_FILE: &str =
    "write the secret to a file that only the daemon can read and name it: client_secret_file = \"PATH\"";

/// The candidate that was most likely meant by `word`, if any is near: about one edit in three characters.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance costs the product of the lengths, and no key is this long.
    if word.len() > 120 {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= ((candidate.len() + 1) / 3).clamp(1, 4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_look_of_a_secret_is_not_shown() {
        for secret in ["\"abC8Q~aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789\"", "postgres//u:hunter2@h/d"] {
            assert!(looks_like_a_secret(secret), "{secret}");
        }
        for plain in
            ["\"30s\"", "/etc/reprovisiond/Contoso-Production-2026.secret", "30d0e128-de93-41dc-89ec-33d84bb662a0"]
        {
            assert!(!looks_like_a_secret(plain), "{plain}");
        }
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let keys = ["poll_interval", "lease", "url"];
        assert_eq!(nearest("poll_intervall", keys), Some("poll_interval"));
        assert_eq!(nearest("Poll-Interval", keys), Some("poll_interval"));
        assert_eq!(nearest("ulr", keys), Some("url"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest(&"lease".repeat(1000), keys), None);
    }
}

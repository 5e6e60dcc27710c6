//! What a text must be to become the value of a setting, and what is said if it is not.

use std::time::Duration;

use super::database::DatabaseUrl;
use super::diagnose::{Complaint, nearest};
use super::listen::Listen;
use super::{Config, duration};

/// A word, and what it chooses.
pub(super) type Word = (&'static str, fn(&mut Config));

/// A field of [`Config`] with the values it may have, bounds included.
pub(super) enum Setting {
    Database(fn(&mut Config) -> &mut DatabaseUrl),
    Time(Duration, Duration, fn(&mut Config) -> &mut Duration),
    Count(u32, u32, fn(&mut Config, u32)),
    Factor(f64, f64, fn(&mut Config) -> &mut f64),
    Switch(fn(&mut Config) -> &mut bool),
    Word(&'static [Word]),
    Listen(fn(&mut Config) -> &mut Listen),
}

impl Setting {
    /// What values it takes.
    pub(super) fn takes(&self) -> String {
        match self {
            Self::Database(_) => "sqlite:PATH or postgres://…".to_owned(),
            Self::Time(least, most, _) => {
                format!("a duration from {} to {}", duration::show(*least), duration::show(*most))
            }
            Self::Count(least, most, _) => format!("a whole number from {least} to {most}"),
            Self::Factor(least, most, _) => format!("a number from {least:.1} to {most:.1}"),
            Self::Switch(_) => "true or false".to_owned(),
            Self::Word(words) => one_of(words.iter().map(|(word, _)| *word)),
            Self::Listen(_) => "a loopback address with a port, unix:PATH, or nothing".to_owned(),
        }
    }

    /// Sets the field from a text and returns the value as it may be shown; a text that breaks the rule sets nothing.
    pub(super) fn apply(&self, config: &mut Config, text: &str) -> Result<String, Complaint> {
        let out_of_range = || Complaint::new(format!("must be {}", self.takes()), "");
        match self {
            Self::Database(field) => {
                let url = DatabaseUrl::parse(text).map_err(|why| {
                    Complaint::new(
                        why,
                        "write sqlite:PATH with a file on a local disk, or postgres://USER@HOST/DATABASE",
                    )
                })?;
                let shown = url.to_string();
                *field(config) = url;
                Ok(shown)
            }
            Self::Time(least, most, field) => {
                let time = duration::parse(text).map_err(|why| match why {
                    duration::NotADuration::NoUnit => Complaint::new(why, format!("write \"{text}s\" for seconds")),
                    duration::NotADuration::TooLong => out_of_range(),
                    _ => Complaint::new(why, "write whole numbers with the units h, m, s or ms, such as \"1m30s\""),
                })?;
                if !(*least..=*most).contains(&time) {
                    return Err(out_of_range());
                }
                *field(config) = time;
                // As it was written: 60s is not told back as 1m.
                Ok(text.to_owned())
            }
            Self::Count(least, most, set) => {
                let count = text.parse().ok().filter(|n| (*least..=*most).contains(n)).ok_or_else(out_of_range)?;
                set(config, count);
                Ok(count.to_string())
            }
            Self::Factor(least, most, field) => {
                let factor: f64 = text.parse().map_err(|_| out_of_range())?;
                if !(*least..=*most).contains(&factor) {
                    return Err(out_of_range());
                }
                *field(config) = factor;
                Ok(format!("{factor:?}"))
            }
            Self::Switch(field) => {
                let switch = text
                    .parse()
                    .map_err(|_| Complaint::new("neither true nor false", "write true or false, in lower case"))?;
                *field(config) = switch;
                Ok(text.to_owned())
            }
            Self::Word(words) => {
                let chosen = words.iter().find(|(word, _)| *word == text);
                let (word, set) = chosen.ok_or_else(|| not_among(text, words.iter().map(|(word, _)| *word)))?;
                set(config);
                Ok((*word).to_owned())
            }
            Self::Listen(field) => {
                *field(config) = Listen::parse(text).map_err(|why| Complaint::new(why, why.remedy()))?;
                Ok(text.to_owned())
            }
        }
    }
}

/// The complaint about a word that is none of these.
pub(super) fn not_among(text: &str, words: impl Iterator<Item = &'static str> + Clone) -> Complaint {
    let remedy = match nearest(text, words.clone()) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write {}", one_of(words)),
    };
    Complaint::new("not one of the known words", remedy)
}

/// The words as a choice.
pub(super) fn one_of(words: impl Iterator<Item = &'static str>) -> String {
    let words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    words.join(" or ")
}

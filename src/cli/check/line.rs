//! What a check found, line by line, and what all of it comes to.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::IsTerminal as _;

use serde::Serialize;

use crate::cli::render::{self, Stop};
use crate::cli::{Exit, Failure, Output};
use crate::domain::id::TenantName;
use crate::domain::printable::printable;

/// Characters of a text from outside that are shown.
const SHOWN: usize = 800;

/// The widest status word, and the gap after it.
const INDENT: usize = 13;

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Worth knowing, and nothing to be done.
    Note,
    /// `run` works, and somebody should look at it.
    Warning,
    /// `run` does not start, or sends nothing.
    Failure,
    /// It hangs on something that failed.
    NotChecked,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Failure => "failure",
            Self::NotChecked => "not checked",
        }
    }

    /// The colour of a terminal, which never says anything by itself.
    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Note => "36",
            Self::Warning => "33",
            Self::Failure => "1;31",
            Self::NotChecked => "35",
        }
    }
}

/// One thing that was checked.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    status: Status,
    check: Cow<'static, str>,
    tenant: Option<String>,
    seen: String,
    remedy: Option<String>,
    #[serde(skip)]
    exit: Option<Exit>,
}

type What = Cow<'static, str>;

impl Line {
    fn new(status: Status, check: impl Into<What>, seen: impl Into<String>, remedy: Option<String>) -> Self {
        let seen = printable(&seen.into(), SHOWN).to_string();
        Self { status, check: check.into(), tenant: None, seen, remedy, exit: None }
    }

    pub(super) fn ok(check: impl Into<What>, seen: impl Into<String>) -> Self {
        Self::new(Status::Ok, check, seen, None)
    }

    pub(super) fn note(check: impl Into<What>, seen: impl Into<String>) -> Self {
        Self::new(Status::Note, check, seen, None)
    }

    pub(super) fn warning(check: impl Into<What>, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Status::Warning, check, seen, Some(remedy.into()))
    }

    pub(super) fn failure(
        exit: Exit,
        check: impl Into<What>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { exit: Some(exit), ..Self::new(Status::Failure, check, seen, Some(remedy.into())) }
    }

    pub(super) fn not_checked(check: impl Into<What>, why: impl Into<String>) -> Self {
        Self::new(Status::NotChecked, check, why, None)
    }

    /// Of this tenant.
    pub(super) fn of(self, tenant: &TenantName) -> Self {
        Self { tenant: Some(tenant.to_string()), ..self }
    }

    fn text(&self, colours: bool) -> String {
        let word = self.status.word();
        let gap = " ".repeat(INDENT - word.len());
        let word = if colours { format!("\x1b[{}m{word}\x1b[0m", self.status.colour()) } else { word.to_owned() };
        let tenant = self.tenant.as_ref().map(|tenant| format!("{tenant}: ")).unwrap_or_default();
        let mut text = format!("{word}{gap}{tenant}{}: {}\n", self.check, self.seen);
        for (n, line) in self.remedy.iter().flat_map(|remedy| remedy.lines()).enumerate() {
            let lead = if n == 0 { "remedy: " } else { "        " };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}{lead}{}", " ".repeat(INDENT), printable(line, SHOWN));
        }
        text
    }
}

/// All lines, shown as they come to a person and as one document to a program.
pub(super) struct Report {
    output: Output,
    colours: bool,
    lines: Vec<Line>,
}

/// The document.
#[derive(Serialize)]
struct Document<'a> {
    ready: bool,
    exit_code: u8,
    warnings: usize,
    failures: usize,
    checks: &'a [Line],
}

impl Report {
    pub(super) fn new(output: Output) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { output, colours: wanted && std::io::stdout().is_terminal(), lines: Vec::new() }
    }

    pub(super) fn add(&mut self, line: Line) -> Result<(), Stop> {
        if self.output == Output::Table {
            render::write(&mut render::stdout(), &line.text(self.colours))?;
        }
        self.lines.push(line);
        Ok(())
    }

    /// The last word, and how the process ends.
    pub(super) fn close(self) -> Result<(), Stop> {
        let count = |status| self.lines.iter().filter(|line| line.status == status).count();
        let (warnings, failures) = (count(Status::Warning), count(Status::Failure));
        let exit = worst(self.lines.iter().filter_map(|line| line.exit));
        if self.output == Output::Table {
            render::write(&mut render::stdout(), &format!("\n{}\n", sentence(warnings, failures)))?;
        } else {
            let exit_code = exit.map_or(0, |exit| exit as u8);
            let document = Document { ready: exit.is_none(), exit_code, warnings, failures, checks: &self.lines };
            let text = serde_json::to_string_pretty(&document).map_err(std::io::Error::from)?;
            render::write(&mut render::stdout(), &format!("{text}\n"))?;
        }
        // All has been said.
        exit.map_or(Ok(()), |exit| Err(Failure::new(exit, "").into()))
    }
}

/// What takes longest to mend first: what is configured or migrated, then what is granted, then what is only down.
fn worst(exits: impl Iterator<Item = Exit>) -> Option<Exit> {
    const WORST_FIRST: [Exit; 5] =
        [Exit::Configuration, Exit::Authorisation, Exit::Unavailable, Exit::Usage, Exit::Failure];
    exits.min_by_key(|exit| WORST_FIRST.iter().position(|other| other == exit))
}

fn sentence(warnings: usize, failures: usize) -> String {
    let counted = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    match (failures, warnings) {
        (0, 0) => "Ready.".to_owned(),
        (0, warnings) => format!("Ready, with {}.", counted(warnings, "warning")),
        (failures, 0) => format!("Not ready: {}.", counted(failures, "failure")),
        (failures, warnings) => {
            format!("Not ready: {} and {}.", counted(failures, "failure"), counted(warnings, "warning"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_worst_failures_in_the_documented_order() {
        use Exit::{Authorisation, Configuration, Failure, Unavailable};
        assert_eq!(worst([].into_iter()), None);
        assert_eq!(worst([Failure, Unavailable].into_iter()), Some(Unavailable));
        assert_eq!(worst([Unavailable, Authorisation, Failure].into_iter()), Some(Authorisation));
        assert_eq!(worst([Authorisation, Configuration].into_iter()), Some(Configuration));
    }

    #[test]
    fn a_line_is_told_by_its_word_and_hostile_text_stays_on_it() {
        let line = Line::warning("queue", "paused by \x1b[2Jmallory\nok", "resume\nor not");
        insta::assert_snapshot!(line.text(false), @r"
        warning      queue: paused by \u{1b}[2Jmallory\nok
                     remedy: resume
                             or not
        ");
        let coloured = line.text(true);
        assert_eq!(coloured.replace("\x1b[33m", "").replace("\x1b[0m", ""), line.text(false));
    }

    #[test]
    fn the_last_sentence_counts() {
        let said = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 2)].map(|(warnings, failures)| sentence(warnings, failures));
        let expected = [
            "Ready.",
            "Ready, with 1 warning.",
            "Ready, with 2 warnings.",
            "Not ready: 1 failure.",
            "Not ready: 2 failures and 1 warning.",
        ];
        assert_eq!(said, expected);
    }
}

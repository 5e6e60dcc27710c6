//! How a command ends, in the numbers that scripts and systemd act on.

use std::fmt;
use std::process::{ExitCode, Termination};

/// The documented exit codes (the numbers of `sysexits.h` where it has one).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something went wrong that none of the others names.
    Failure = 1,
    /// The command line, or the input named on it, is wrong.
    Usage = 2,
    /// The database or Graph cannot be reached.
    Unavailable = 69,
    /// Credentials or permissions are refused.
    Authorisation = 77,
    /// The configuration, or the database's schema, is wrong. Restarting does not help.
    Configuration = 78,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Failure, Self::Usage, Self::Unavailable, Self::Authorisation, Self::Configuration];
}

/// A command that did not succeed: a sentence for a person and a number for a script.
#[derive(Debug)]
pub struct Failure {
    /// The number.
    pub exit: Exit,
    /// The sentence: what was wrong, where, and what to do. Empty where stdout says it all.
    pub message: String,
}

impl Failure {
    /// A failure with this exit code and sentence.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

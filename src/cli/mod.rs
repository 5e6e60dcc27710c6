//! The command line: one file a command.

pub mod check_config;
mod failure;

pub use failure::{Exit, Failure};

/// Runs the command line and returns the process's exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}

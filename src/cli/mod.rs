//! The command line: one file a command.

mod failure;
pub mod simulate;

pub use failure::{Exit, Failure};

use clap::Parser;

#[derive(Parser)]
enum Command {
    Simulate(simulate::SimulateArgs),
}

/// Runs the command line and returns the process's exit code.
pub fn main() -> std::process::ExitCode {
    let Command::Simulate(args) = Command::parse();
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return std::process::ExitCode::FAILURE };
    match runtime.block_on(simulate::run(&args)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.message);
            std::process::Termination::report(failure.exit)
        }
    }
}

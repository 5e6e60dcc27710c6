//! The command line: one file a command.

mod bench;
mod cancel;
mod check;
mod check_config;
mod database;
mod demo;
mod enqueue;
mod failure;
mod generate;
mod health;
mod migrate;
mod order;
mod pause;
mod reload;
mod render;
mod resolve;
mod results;
mod resume;
mod run;
mod simulate;
mod status;
mod text;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

pub use failure::{Exit, Failure};

use crate::config::Sources;

/// Reprovisions Windows 365 Cloud PCs from a SQLite or Postgres queue: each request once, with evidence for every call.
#[derive(Debug, Parser)]
#[command(
    name = "reprovisiond",
    version,
    about,
    disable_help_subcommand = true,
    before_help = "Examples:
  reprovisiond demo                                     see it work, in a minute, without Microsoft
  reprovisiond migrate --database sqlite:queue.db       make the queue
  reprovisiond enqueue --database sqlite:queue.db 30d0e128-de93-41dc-89ec-33d84bb662a0
  reprovisiond check-config --config reprovisiond.toml  what is configured, and what is wrong with it
  reprovisiond check --config reprovisiond.toml         whether all that the daemon needs is there
  reprovisiond bench --config reprovisiond.toml         how fast the database is, and what limits a job
  reprovisiond run --config reprovisiond.toml           the daemon
  reprovisiond status --watch                           what is pending
  reprovisiond results --output csv > results.csv       what came of it
  reprovisiond pause --all --by alice --reason 'outage' nothing more is sent",
    after_help = "Exit codes: 0 ok · 1 failure · 2 wrong command line or input · 69 database or Graph not available · 77 not authorised · 78 wrong configuration or schema
Environment: REPROVISIOND_CONFIG, REPROVISIOND_LOG, NO_COLOR, and REPROVISIOND_SECTION_KEY for every key of the configuration."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Configuration file [default: $REPROVISIOND_CONFIG, ./reprovisiond.toml, /etc/reprovisiond/reprovisiond.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Database, before the one in the configuration: sqlite:PATH or postgres://…
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,
    /// How results are written to stdout
    #[arg(long, global = true, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// `--output`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table for people
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Ndjson,
    /// CSV with a header
    Csv,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one value a process, parsed once")]
enum Command {
    Demo(demo::DemoArgs),
    Run(run::RunArgs),
    Migrate(migrate::MigrateArgs),
    Enqueue(Box<enqueue::EnqueueArgs>),
    Status(status::StatusArgs),
    Results(results::ResultsArgs),
    Pause(pause::PauseArgs),
    Resume(resume::ResumeArgs),
    Cancel(cancel::CancelArgs),
    Resolve(resolve::ResolveArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Health(health::HealthArgs),
    Simulate(simulate::SimulateArgs),
    Generate(generate::GenerateArgs),
}

/// Runs the command line and returns the process's exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe while help is printed is no failure.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage as u8 } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::new(Exit::Failure, format!("the runtime cannot start: {error}"))),
    };
    let ended = runtime.block_on(dispatch(cli));
    // Whatever still waits for the network or the disk has no say in when the process ends.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Demo(args) => demo::run(&cli.global, args).await,
        Command::Run(args) => run::run(&cli.global, args).await,
        Command::Migrate(args) => migrate::run(&cli.global, args).await,
        Command::Enqueue(args) => enqueue::run(&cli.global, args).await,
        Command::Status(args) => status::run(&cli.global, args).await,
        Command::Results(args) => results::run(&cli.global, args).await,
        Command::Pause(args) => pause::run(&cli.global, args).await,
        Command::Resume(args) => resume::run(&cli.global, args).await,
        Command::Cancel(args) => cancel::run(&cli.global, args).await,
        Command::Resolve(args) => resolve::run(&cli.global, args).await,
        Command::Bench(args) => bench::run(&cli.global, args).await,
        Command::Check(args) => check::run(&cli.global, args).await,
        Command::CheckConfig(args) => {
            check_config::run(args, &Sources::from_process(cli.global.config.clone(), cli.global.database.clone()))
        }
        Command::Health(args) => health::run(&cli.global, args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Generate(args) => generate::run(args, Cli::command()),
    }
}

/// Writes to stdout. A closed pipe ends the output, and is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

fn report(failure: &Failure) -> ExitCode {
    if !failure.message.is_empty() {
        // Nobody may be reading: the exit code still says it.
        let words = format!("reprovisiond: {}", failure.message);
        let _ = writeln!(std::io::stderr(), "{}", crate::telemetry::last_words(&words));
    }
    ExitCode::from(failure.exit as u8)
}

//! `check-config`: says whether `run` would accept the configuration, and what is in force.

use std::io::{self, Write};

use super::{Exit, Failure};
use crate::config::{self, Loaded, Mistakes, Sources};

/// Check the configuration without starting anything.
///
/// Prints every value in force and where it comes from: a place in the file, a variable, a flag or the default.
/// Reads the files that hold secrets, prints none, and talks to neither the database nor Graph.
#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "\
Examples:
  reprovisiond check-config
  reprovisiond --config /etc/reprovisiond/reprovisiond.toml check-config
  REPROVISIOND_WORKER_POLL_INTERVAL=5s reprovisiond check-config
  reprovisiond check-config --keys

Exit codes: 0 the configuration is good; 78 it has mistakes, all of which are listed")]
pub struct CheckConfigArgs {
    /// Instead, list every key with its meaning, its values, its default and its variable
    #[arg(long)]
    pub keys: bool,
}

/// Prints `ok` and what is in force to standard output, warnings to standard error; fails with every mistake.
pub fn run(args: &CheckConfigArgs, sources: &Sources) -> Result<(), Failure> {
    if args.keys {
        return print(&mut io::stdout().lock(), &config::reference());
    }
    let loaded = config::load(sources)?;
    for warning in &loaded.warnings {
        print(&mut io::stderr().lock(), &format!("warning: {warning}\n"))?;
    }
    print(&mut io::stdout().lock(), &report(&loaded))
}

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        Failure::new(Exit::Configuration, mistakes)
    }
}

/// `ok`, then `key = value`, aligned, with the origin of each.
fn report(loaded: &Loaded) -> String {
    let width = |text: fn(&config::Effective) -> &str| {
        loaded.effective.iter().map(|e| text(e).chars().count()).max().unwrap_or_default()
    };
    // One long URL must not push every origin off the screen.
    let (keys, values) = (width(|e| &e.key), width(|e| &e.value).min(40));
    let line = |e: &config::Effective| format!("{:keys$} = {:values$}  # {}\n", e.key, e.value, e.origin);
    std::iter::once("ok\n".to_owned()).chain(loaded.effective.iter().map(line)).collect()
}

fn print(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough: `check-config | head`.
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(|why| Failure::new(Exit::Failure, format!("cannot print: {why}"))),
    }
}

//! Logs, on stderr: entries with fields where that is systemd's journal, short lines where it is a terminal, else JSON lines, all with
//! the same names of fields. stdout is for results.

mod journal;

use std::io::{self, IsTerminal as _, Write};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What sqlx's pool says while a database is away, connection by connection, the store says once. What Microsoft's SDK says of
/// a token that it did not get, the engine says with the reason.
const DEFAULT: &str = "info,sqlx=warn,sqlx::pool=error,sqlx_core::pool=error,azure_identity=warn,azure_core=warn,typespec_client_core=warn";

/// Starts logging. `REPROVISIOND_LOG` takes a level (`warn`) or targets (`reprovisiond=debug`); `info` is the default.
/// What it cannot make sense of is an error for the caller to show.
pub fn init() -> Result<(), String> {
    let filter = match std::env::var("REPROVISIOND_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            format!("REPROVISIOND_LOG: {error}: write a level such as `info` or `reprovisiond=debug`")
        })?,
        _ => EnvFilter::new(DEFAULT),
    };
    if journal::is_stderr() {
        tracing_subscriber::registry().with(filter).with(journal::Journal::new()).init();
        return Ok(());
    }
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_target(false);
    // Text from outside comes in string fields, which both formats quote and escape: no value can begin a line.
    if io::stderr().is_terminal() {
        logs.with_ansi(colours()).compact().init();
    } else {
        logs.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
    Ok(())
}

/// The last words of a process that fails, as they are to be written to stderr: for the journal, each line is an error.
pub fn last_words(words: &str) -> String {
    if journal::is_stderr() { format!("<3>{}", words.replace(['\n', '\0'], "\n<3>")) } else { words.to_owned() }
}

/// Short log lines above a progress bar, for a person who watches.
pub fn init_on(bar: &ProgressBar) {
    let bar = bar.clone();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(DEFAULT))
        .with_writer(move || AboveBar { bar: bar.clone(), line: Vec::new() })
        .with_ansi(colours())
        .with_target(false)
        .compact()
        .init();
}

fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Gathers one line, so that it does not tear the bar.
struct AboveBar {
    bar: ProgressBar,
    line: Vec<u8>,
}

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AboveBar {
    fn drop(&mut self) {
        self.bar.suspend(|| {
            // Nobody reads it any more: no reason to stop working.
            let _ = io::stderr().write_all(&self.line);
        });
    }
}

//! Logs: JSON lines for machines, short lines for a person at a terminal. Always on stderr; stdout is for results.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Starts logging. `REPROVISIOND_LOG` takes a level (`warn`) or targets (`reprovisiond=debug`); `info` is the default.
/// What it cannot make sense of is an error for the caller to show.
pub fn init() -> Result<(), String> {
    let filter = match std::env::var("REPROVISIOND_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            format!("REPROVISIOND_LOG: {error}: write a level such as `info` or `reprovisiond=debug`")
        })?,
        _ => EnvFilter::new("info,sqlx=warn"),
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_target(false);
    // Text from outside comes in string fields, which both formats quote and escape: no value can begin a line.
    if std::io::stderr().is_terminal() {
        logs.with_ansi(std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())).compact().init();
    } else {
        logs.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
    Ok(())
}

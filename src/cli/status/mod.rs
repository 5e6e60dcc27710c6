//! `reprovisiond status`: what is pending, what holds, and whether anything needs a person.

mod page;

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use super::render::{self, Format, Rows, Stop};
use super::{Exit, Failure, Global, Output, database};
use crate::domain::span;
use crate::store::{Status, Store, TenantStatus};

/// Clears the screen and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show what is pending and what holds
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond status
  reprovisiond status --watch                     again every 2 s, until Ctrl-C
  reprovisiond status --output json | jq .needs
  reprovisiond status --watch --interval 1m --output ndjson >> status.ndjson

The first line says whether anything needs you. Per tenant: requests that are ready, that wait for
a time, whose call is under way (sending), that are in doubt (unknown) or wait for a person (held),
and the final results by bucket. Where completion.track is on, also how many accepted reprovisions
are being followed, and how the others ended.

JSON is one document and NDJSON the same on one line; CSV has a line a tenant.")]
pub(crate) struct StatusArgs {
    /// Show it again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "2s", requires = "watch", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    match span::parse(text)? {
        Duration::ZERO => Err("at least 1s: every look reads the whole queue".to_owned()),
        interval => Ok(interval),
    }
}

pub(crate) async fn run(global: &Global, args: &StatusArgs) -> Result<(), Failure> {
    if args.watch && global.output == Output::Json {
        return Err(Failure::new(Exit::Usage, "--watch writes many documents: use --output ndjson, a document a line"));
    }
    let store = database::open(global).await?;
    let end = tokio::select! {
        end = show(&*store, global.output, args) => end,
        // Whoever watches ends it this way.
        _ = tokio::signal::ctrl_c(), if args.watch => Ok(()),
    };
    store.close().await;
    render::ended(end)
}

async fn show(store: &dyn Store, output: Output, args: &StatusArgs) -> Result<(), Stop> {
    let mut out = render::stdout();
    let redraw = args.watch && output == Output::Table && std::io::stdout().is_terminal();
    let mut csv = Rows::new(render::stdout(), Format::Csv, TENANT_COLUMNS);
    let mut tick = tokio::time::interval(args.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut looks = 0_u64;
    loop {
        tick.tick().await;
        let status = store.status().await?;
        match output {
            Output::Table => {
                let before = match looks {
                    _ if redraw => CLEAR,
                    0 => "",
                    _ => "\n",
                };
                render::write(&mut out, &format!("{before}{}", page::page(&status)))?;
            }
            Output::Json => write_json(&mut out, &status, true)?,
            Output::Ndjson => write_json(&mut out, &status, false)?,
            Output::Csv => {
                for tenant in &status.tenants {
                    csv.row(&TenantRow { now: status.now, tenant })?;
                }
                csv.flush()?;
            }
        }
        looks += 1;
        if !args.watch {
            break;
        }
    }
    if output == Output::Csv {
        csv.finish()?;
    }
    Ok(())
}

/// The whole of it as one document.
#[derive(Serialize)]
struct Document<'a> {
    /// What needs a person: a sentence each.
    needs: Vec<String>,
    #[serde(flatten)]
    status: &'a Status,
}

fn write_json(out: &mut impl Write, status: &Status, pretty: bool) -> std::io::Result<()> {
    let document = Document { needs: page::needs(status), status };
    let text = if pretty { serde_json::to_string_pretty(&document)? } else { serde_json::to_string(&document)? };
    render::write(out, &format!("{text}\n"))
}

/// A tenant's line in CSV.
#[derive(Serialize)]
struct TenantRow<'a> {
    now: DateTime<Utc>,
    #[serde(flatten)]
    tenant: &'a TenantStatus,
}

const TENANT_COLUMNS: &[&str] = &[
    "now",
    "tenant",
    "ready",
    "waiting",
    "sending",
    "unknown",
    "held",
    "oldest_ready_at",
    "next_due_at",
    "calls_in_doubt",
    "paused_at",
    "paused_by",
    "pause_reason",
    "wait_until",
    "wait_reason",
    "blocked_at",
    "block_code",
    "block_reason",
    "probe_at",
    "cautious",
    "successful",
    "failed",
    "not_found",
    "not_supported",
    "expired",
    "cancelled",
    "suppressed",
    "completion_followed",
    "completion_done",
    "completion_failed",
    "completion_canceled",
    "completion_not_supported",
    "completion_untracked",
];

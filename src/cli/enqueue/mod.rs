//! `reprovisiond enqueue`: asks for devices to be reprovisioned, from the command line or from a file.

mod check;
mod read;

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::render::{self, Format, Rows, Stop};
use super::{Exit, Failure, Global, Output, database, text};
use crate::domain::id::TenantName;
use crate::store::{Enqueued, NewRequest, Store, StoreError};
use check::{Cells, Column, Intake};

/// Ask for devices to be reprovisioned
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("input").required(true).args(["devices", "from"]),
    before_help = "Examples:
  reprovisiond enqueue 30d0e128-de93-41dc-89ec-33d84bb662a0 --reason 'ticket 4711'
  reprovisiond enqueue --from devices.csv --tenant contoso --priority 10
  reprovisiond enqueue --from devices.csv --not-before 2026-01-31T22:00:00Z
  reprovisiond enqueue --from - --format ndjson < devices.ndjson

A CSV file begins with a line of column names, in any order: managed_device_id, and, if wanted,
tenant, requested_by, reason, external_id, priority, not_before, expires_at, force. Cells are parted
by comma, semicolon or tab, whichever the first line has. NDJSON is one object a line with the same
names as keys. An option gives the value for every row that has none of its own; an empty cell is
none.

It is all or nothing: every mistake is reported with its line, and while there is one, nothing is
queued. An external_id is unique within its tenant, so that running the same file again queues
nothing twice.

Reprovisioning wipes a Cloud PC. A device that stands twice in one file is taken for a mistake,
unless the two have different not_before."
)]
pub(crate) struct EnqueueArgs {
    /// Intune managed device IDs
    #[arg(value_name = "DEVICE_ID", conflicts_with = "from")]
    devices: Vec<String>,
    /// Read the requests from this file; - is standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How the file is written [default: by its ending, .ndjson and .jsonl or CSV]
    #[arg(long, value_name = "FORMAT", requires = "from")]
    format: Option<InputFormat>,
    /// The tenant [default: default]
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
    /// Who asks; kept with every result [default: the login name and host, as in alice@admin01]
    #[arg(long, value_name = "WHO", value_parser = |given: &str| text::text(given, 256))]
    requested_by: Option<String>,
    /// Why; kept with every result
    #[arg(long, value_name = "TEXT", value_parser = |given: &str| text::text(given, 4000))]
    reason: Option<String>,
    /// Your own reference, with one DEVICE_ID: a second request with it is not queued
    #[arg(long, value_name = "ID", conflicts_with = "from", value_parser = |given: &str| text::text(given, 256))]
    external_id: Option<String>,
    /// Higher goes first: -1000 to 1000 [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = check::priority)]
    priority: Option<i32>,
    /// Not before this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = check::time)]
    not_before: Option<DateTime<Utc>>,
    /// Not after this time, RFC 3339
    #[arg(long, value_name = "TIME", value_parser = check::time)]
    expires_at: Option<DateTime<Utc>>,
    /// Even if the device was reprovisioned within the cooldown
    #[arg(long)]
    force: bool,
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// Comma, semicolon or tab separated, with a header
    Csv,
    /// One JSON object a line
    Ndjson,
}

pub(crate) async fn run(global: &Global, args: &EnqueueArgs) -> Result<(), Failure> {
    // All of the input is judged before the database is touched: a transaction is open only for as long as it writes.
    let intake = args.intake()?;
    let store = database::open(global).await?;
    let waiting = spinner(intake.requests.len());
    let end = store.enqueue(&intake.requests).await;
    waiting.finish_and_clear();
    let end = match end {
        Ok(enqueued) => report(global.output, enqueued),
        Err(error) => Err(refused(&*store, &intake, error).await),
    };
    store.close().await;
    render::ended(end)
}

impl EnqueueArgs {
    /// Every request, checked.
    fn intake(&self) -> Result<Intake, Failure> {
        let defaults = self.defaults();
        let Some(path) = &self.from else { return self.arguments(defaults) };
        let intake = read::file(path, self.format, defaults)?;
        if intake.requests.is_empty() {
            return Err(Failure::new(Exit::Usage, format!("{}: no requests in it", intake.source)));
        }
        Ok(intake)
    }

    fn arguments(&self, defaults: NewRequest) -> Result<Intake, Failure> {
        if self.external_id.is_some() && self.devices.len() > 1 {
            return Err(Failure::new(
                Exit::Usage,
                "--external-id names one request: give one DEVICE_ID, or a file with a column external_id",
            ));
        }
        let mut intake = Intake::new(check::ARGUMENTS, defaults);
        for (place, device) in (1..).zip(&self.devices) {
            let mut cells = Cells::default();
            cells.set(Column::ManagedDeviceId, device);
            intake.row(place, &cells);
        }
        intake.finish().map_err(|failure| match self.devices.iter().find(|text| std::path::Path::new(text).is_file()) {
            Some(file) => Failure::new(failure.exit, format!("{}\nTo read a file: --from {file}", failure.message)),
            None => failure,
        })
    }

    /// What holds for every row that does not say otherwise.
    fn defaults(&self) -> NewRequest {
        NewRequest {
            managed_device_id: String::new(),
            tenant: self.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()),
            requested_by: self.requested_by.clone().or_else(login),
            reason: self.reason.clone(),
            external_id: self.external_id.clone(),
            priority: self.priority.unwrap_or(0),
            not_before: self.not_before,
            expires_at: self.expires_at,
            force: self.force,
        }
    }
}

/// `user@host` of whoever runs this, through sudo too; nothing where the environment names no user, as under cron.
fn login() -> Option<String> {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok())?;
    let system = rustix::system::uname();
    text::text(&format!("{user}@{}", system.nodename().to_string_lossy()), 256).ok()
}

/// Shown while the database works, where that takes long enough to be noticed and somebody sees it.
fn spinner(requests: usize) -> ProgressBar {
    if requests < 50_000 {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(format!("queueing {requests} requests"));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(200));
    spinner
}

/// The sentence or the counts.
fn report(output: Output, enqueued: Enqueued) -> Result<(), Stop> {
    let mut out = render::stdout();
    let format = match output {
        Output::Table => return Ok(render::write(&mut out, &sentence(enqueued))?),
        Output::Json => {
            // One thing, not a list of one.
            return Ok(render::write(
                &mut out,
                &format!("{}\n", serde_json::to_string(&enqueued).map_err(std::io::Error::from)?),
            )?);
        }
        Output::Ndjson => Format::Ndjson,
        Output::Csv => Format::Csv,
    };
    let mut rows = Rows::new(out, format, &["inserted", "already_there"]);
    rows.row(&enqueued)?;
    Ok(rows.finish()?)
}

fn sentence(enqueued: Enqueued) -> String {
    let requests = if enqueued.inserted == 1 { "request" } else { "requests" };
    let there = match enqueued.already_there {
        0 => String::new(),
        1 => ", 1 was there already (same external_id)".to_owned(),
        several => format!(", {several} were there already (same external_id)"),
    };
    format!("{} {requests} queued{there}\n", enqueued.inserted)
}

/// What the database refused, row by row where it can be told: it knows tenants that nobody here does.
async fn refused(store: &dyn Store, intake: &Intake, error: StoreError) -> Stop {
    if let StoreError::Refused(_) = &error
        && let Ok(status) = store.status().await
    {
        let known: Vec<&str> = status.tenants.iter().map(|tenant| tenant.tenant.as_str()).collect();
        if let Some(failure) = intake.unknown_tenants(&known) {
            return failure.into();
        }
    }
    let mut failure = Failure::from(error);
    failure.message = format!("nothing was queued: {}", failure.message);
    failure.into()
}

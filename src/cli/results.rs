//! `reprovisiond results`: what came of the requests.

use chrono::SecondsFormat;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use uuid::Uuid;

use super::render::{self, Columns, Format, Rows, Stop};
use super::{Failure, Global, Output, database};
use crate::domain::id::{CallId, ManagedDeviceId, RequestId, TenantName};
use crate::domain::lifecycle::Bucket;
use crate::domain::span::When;
use crate::store::{ResultFilter, ResultPlace, ResultRow, Store};

/// Rows read at once: what bounds the memory, whatever the number of results.
const PAGE: u32 = 5000;

/// Rows of a table, where nothing else is asked.
const TABLE_ROWS: u32 = 100;

/// Show what came of the requests
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond results                                           the last 100, as a table
  reprovisiond results --since 24h --bucket failed
  reprovisiond results --device 30d0e128-de93-41dc-89ec-33d84bb662a0 --all-attempts
  reprovisiond results --output csv > results.csv                all of them
  reprovisiond results --tenant contoso --since 2026-01-01T00:00:00Z --output ndjson

The oldest comes first. A result is the final one of its request; --all-attempts also shows the
attempts before it, what was read back of a doubt, and an answer that came too late. What a settlement
stands on is in the column evidence, as JSON; a table has it with --request. Where completion.track
is on, completion says how far an accepted reprovision has come: followed, done, failed, canceled,
not_supported, or untracked where its end was not shown. For a question to Microsoft's support, call_id is what was sent as
client-request-id and graph_request_id is Graph's own.

JSON and CSV have the columns of the database. In CSV, a text that begins with = + - @ TAB or CR has
an apostrophe put before it, so that no spreadsheet runs it as a formula; JSON has every text as it
is. A table shows control characters as escapes and cuts long texts.")]
pub(crate) struct ResultsArgs {
    /// Of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
    /// Of this device
    #[arg(long, value_name = "DEVICE_ID")]
    device: Option<ManagedDeviceId>,
    /// Of the request with this number
    #[arg(long, value_name = "REQUEST_ID")]
    request: Option<i64>,
    /// Of the call to Graph with this ID
    #[arg(long, value_name = "CALL_ID")]
    call: Option<Uuid>,
    /// In this bucket
    #[arg(long, value_parser = PossibleValuesParser::new(Bucket::ALL.iter().map(|bucket| bucket.as_str())).try_map(|word| word.parse::<Bucket>()))]
    bucket: Option<Bucket>,
    /// Recorded at or after this time: RFC 3339, or how long ago, such as 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Recorded before this time, written as --since is
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    /// Every attempt, not only final results
    #[arg(long)]
    all_attempts: bool,
    /// The newest N only [default: 100 in a table, all in the other formats]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

pub(crate) async fn run(global: &Global, args: &ResultsArgs) -> Result<(), Failure> {
    let store = database::open(global).await?;
    let end = show(&*store, global.output, args).await;
    store.close().await;
    render::ended(end)
}

async fn show(store: &dyn Store, output: Output, args: &ResultsArgs) -> Result<(), Stop> {
    let filter = args.filter(store).await?;
    let format = match output {
        Output::Table => return table(store, &filter, args.limit.unwrap_or(TABLE_ROWS)).await,
        Output::Json => Format::Json,
        Output::Ndjson => Format::Ndjson,
        Output::Csv => Format::Csv,
    };
    let mut rows = Rows::new(render::stdout(), format, ResultRow::COLUMNS);
    let before = match args.limit {
        Some(newest) => store.results_before(&filter, newest).await?,
        None => None,
    };
    let mut pages = Pages { store, filter: &filter, after: before, left: args.limit };
    while let Some(page) = pages.next().await? {
        for row in &page {
            rows.row(row)?;
        }
        // Whoever reads has each page when it is there, and a closed pipe is noticed before the next is read.
        rows.flush()?;
    }
    Ok(rows.finish()?)
}

impl ResultsArgs {
    async fn filter(&self, store: &dyn Store) -> Result<ResultFilter, Stop> {
        let (mut since, mut until) = (None, None);
        if self.since.is_some() || self.until.is_some() {
            let now = store.now().await?;
            since = self.since.map(|when| when.seen_from(now));
            until = self.until.map(|when| when.seen_from(now));
        }
        Ok(ResultFilter {
            tenant: self.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()),
            device: self.device,
            request: self.request.map(RequestId),
            call: self.call.map(CallId),
            bucket: self.bucket,
            since,
            until,
            // A device's bucket `unknown` is never final: asked for by name, it would never be found otherwise.
            all_attempts: self.all_attempts || self.bucket == Some(Bucket::Unknown),
        })
    }
}

/// Result rows a page at a time, from a place on.
struct Pages<'a> {
    store: &'a dyn Store,
    filter: &'a ResultFilter,
    after: Option<ResultPlace>,
    left: Option<u32>,
}

impl Pages<'_> {
    /// The next page; `None` after the last.
    async fn next(&mut self) -> Result<Option<Vec<ResultRow>>, Stop> {
        let limit = self.left.map_or(PAGE, |left| left.min(PAGE));
        if limit == 0 {
            return Ok(None);
        }
        let page = self.store.results(self.filter, self.after, limit).await?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = Some(last.place());
        self.left = self.left.map(|left| left.saturating_sub(u32::try_from(page.len()).unwrap_or(u32::MAX)));
        Ok(Some(page))
    }
}

async fn table(store: &dyn Store, filter: &ResultFilter, newest: u32) -> Result<(), Stop> {
    let before = store.results_before(filter, newest).await?;
    let mut pages = Pages { store, filter, after: before, left: Some(newest) };
    let (mut rows, mut shown) = (Vec::new(), [true; HEADINGS.len()]);
    // What few results have is there where some have it: following, and what is kept of a settlement. The latter is JSON, which
    // makes a table hard to read, and so only where the question is about one request.
    let (mut completions, mut evidence) = (false, false);
    while let Some(page) = pages.next().await? {
        for row in page {
            completions |= row.completion.is_some();
            evidence |= row.evidence.is_some() && filter.request.is_some();
            rows.push(cells(row));
        }
    }
    for (heading, shown) in HEADINGS.iter().zip(&mut shown) {
        *shown = match *heading {
            "completion" | "took_seconds" | "completion_detail" => completions,
            "evidence" => evidence,
            _ => true,
        };
    }
    let pick = |cells: &[String]| -> Vec<String> {
        cells.iter().zip(shown).filter(|(_, shown)| *shown).map(|(cell, _)| cell.clone()).collect()
    };
    let headings: Vec<&str> = HEADINGS.iter().zip(shown).filter(|(_, shown)| *shown).map(|(name, _)| *name).collect();
    let mut table = Columns::new(&headings);
    for cells in &rows {
        table.row(pick(cells));
    }
    let numbers = ["request_id", "attempt", "http_status", "took_seconds"];
    table.numbers(headings.iter().enumerate().filter(|(_, name)| numbers.contains(name)).map(|(n, _)| n));
    let mut out = render::stdout();
    let text = match (rows.len(), before) {
        (0, _) => "No results.\n".to_owned(),
        (_, None) => table.text(),
        (rows, Some(_)) => {
            let text = table.text();
            format!(
                "{text}\nThe last {rows}; there are more before them: --limit N shows more, --output csv shows all.\n"
            )
        }
    };
    Ok(render::write(&mut out, &text)?)
}

/// The columns of a table.
const HEADINGS: [&str; 16] = [
    "recorded_at",
    "request_id",
    "tenant",
    "managed_device_id",
    "attempt",
    "bucket",
    "source",
    "completion",
    "took_seconds",
    "http_status",
    "call_id",
    "requested_by",
    "detail",
    "completion_detail",
    "reason",
    "evidence",
];

fn cells(row: ResultRow) -> [String; HEADINGS.len()] {
    let text = Option::unwrap_or_default;
    [
        row.recorded_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        row.request_id.to_string(),
        row.tenant,
        row.managed_device_id,
        row.attempt.to_string(),
        row.bucket.to_string(),
        row.source.to_string(),
        row.completion.map(|state| state.to_string()).unwrap_or_default(),
        row.took_seconds.map(|seconds| seconds.to_string()).unwrap_or_default(),
        row.http_status.map(|status| status.to_string()).unwrap_or_default(),
        row.call_id.map(|call| call.to_string()).unwrap_or_default(),
        text(row.requested_by),
        text(row.detail),
        text(row.completion_detail),
        text(row.reason),
        text(row.evidence),
    ]
}

//! What `pause`, `resume`, `cancel` and `resolve` share: about what, by whom, why, and the report of what came of it.

mod report;

use clap::Args;

use super::render::{self, Format, Rows, Stop};
use super::{Exit, Failure, Global, Output, database, text};
use crate::domain::id::{ManagedDeviceId, RequestId, TenantName};
use crate::domain::operator::{Act, MAX_REASON, MAX_TAKEN_BY, Order, Scope};
use crate::store::Outcome;

/// Who orders it, and about what.
#[derive(Debug, Args)]
pub(super) struct OrderArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Who takes responsibility; kept for good
    #[arg(long, value_name = "NAME", value_parser = |given: &str| text::required(given, MAX_TAKEN_BY, "the name of the person who decides"))]
    by: String,
    /// Why; kept for good
    #[arg(long, value_name = "TEXT", value_parser = |given: &str| text::required(given, MAX_REASON, "the reason, such as a ticket"))]
    reason: String,
}

/// Exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ScopeArgs {
    /// All of this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
    /// All of every tenant
    #[arg(long)]
    all: bool,
    /// These devices
    #[arg(long, value_name = "DEVICE_ID", num_args = 1..)]
    device: Vec<ManagedDeviceId>,
    /// The requests with these numbers
    #[arg(long, value_name = "REQUEST_ID", num_args = 1..)]
    request: Vec<i64>,
}

impl OrderArgs {
    fn order(&self, act: Act) -> Order {
        let scope = match &self.scope {
            ScopeArgs { tenant: Some(tenant), .. } => Scope::Tenant(tenant.clone()),
            ScopeArgs { all: true, .. } => Scope::All,
            ScopeArgs { device, request, .. } if request.is_empty() => Scope::Devices(device.clone()),
            ScopeArgs { request, .. } => Scope::Requests(request.iter().copied().map(RequestId).collect()),
        };
        Order { act, scope, taken_by: self.by.clone(), reason: self.reason.clone() }
    }
}

/// Carries out an order and reports it: what was done on stdout, what was refused on stderr too.
pub(super) async fn carry_out(global: &Global, args: &OrderArgs, act: Act) -> Result<(), Failure> {
    let order = args.order(act);
    let store = database::open(global).await?;
    let ordered = store.order(&order).await;
    store.close().await;
    let outcome = ordered?;
    render::ended(show(global.output, act, &outcome))?;
    match report::refusals(act, &outcome.refused) {
        None => Ok(()),
        Some(sentence) => Err(Failure::new(Exit::Failure, sentence)),
    }
}

fn show(output: Output, act: Act, outcome: &Outcome) -> Result<(), Stop> {
    let format = match output {
        Output::Table => return Ok(render::write(&mut render::stdout(), &report::page(act, outcome))?),
        Output::Json => Format::Json,
        Output::Ndjson => Format::Ndjson,
        Output::Csv => Format::Csv,
    };
    let mut rows = Rows::new(render::stdout(), format, report::COLUMNS);
    for row in report::rows(act, outcome) {
        rows.row(&row)?;
    }
    Ok(rows.finish()?)
}

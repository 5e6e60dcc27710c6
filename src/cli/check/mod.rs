//! `reprovisiond check`: everything that `run` needs, looked at before it is switched on. Writes nothing, reprovisions nothing.

mod clocks;
mod database;
mod line;
mod queue;
mod tenant;

use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc;

use self::line::{Line, Report};
use self::tenant::Found;
use super::render::{self, Stop};
use super::{Exit, Failure, Global, Output};
use crate::config::{self, Config, Loaded, Mistakes, Sources};
use crate::domain::id::TenantName;
use crate::store;

/// How long anything that is asked may take: a person is waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// Check all that `run` needs, before it is switched on
#[derive(Debug, Args)]
#[command(before_help = "Examples:
  reprovisiond check --config /etc/reprovisiond/reprovisiond.toml
  reprovisiond check --tenant contoso
  reprovisiond check --output json | jq '.checks[] | select(.status == \"failure\")'

Looks at the configuration, the database (schema, privileges, clock, what is paused, blocked or held) and, for each tenant, at the
token, its roles, Graph's clock, and which of the three actions Graph answers. Nothing is written, and nothing is reprovisioned:
what is sent to Graph names no device. Run it as the daemon's user, on its host.

Each line is ok, a note, a warning or a failure; a warning and a failure come with a remedy. What hangs on something that failed is
not checked, and says so.

Exit codes: 0 ready, be it with warnings; else that of the worst failure, in this order: 78 wrong configuration or schema, or an action
that the tenant does not answer; 77 not authorised; 69 database or Graph not available; 1 anything else")]
pub(crate) struct CheckArgs {
    /// Only this tenant; may be given several times
    #[arg(long, value_name = "NAME")]
    tenant: Vec<TenantName>,
}

pub(crate) async fn run(global: &Global, args: &CheckArgs) -> Result<(), Failure> {
    if matches!(global.output, Output::Ndjson | Output::Csv) {
        return Err(Failure::new(Exit::Usage, "a check is a table or one JSON document: use --output table or json"));
    }
    let sources = Sources::from_process(global.config.clone(), global.database.clone());
    let loaded = config::load(&sources);
    if let Ok(Loaded { config, .. }) = &loaded
        && let Some(unknown) = args.tenant.iter().find(|name| !config.tenants.contains_key(*name))
    {
        let known: Vec<&str> = config.tenants.keys().map(TenantName::as_str).collect();
        let message = format!("--tenant {unknown}: not configured; there is {}", known.join(", "));
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut report = Report::new(global.output);
    render::ended(match check(&sources, loaded, &args.tenant, &mut report).await {
        Ok(()) => report.close(),
        Err(stop) => Err(stop),
    })
}

async fn check(
    sources: &Sources,
    loaded: Result<Loaded, Mistakes>,
    only: &[TenantName],
    report: &mut Report,
) -> Result<(), Stop> {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(mistakes) => return check_without(sources, &mistakes, report).await,
    };
    for warning in &loaded.warnings {
        report.add(Line::warning("configuration", warning.sited(), &warning.remedy))?;
    }
    let Config { database, graph, reconcile, tenants, .. } = loaded.config;
    let place = sources.file.as_ref().map_or("variables alone".into(), |file| file.to_string_lossy());
    let number = tenants.len();
    report.add(Line::ok("configuration", format!("{place}, {number} tenant{}", if number == 1 { "" } else { "s" })))?;
    // All tenants are looked at together, and while the database is; they are shown one after another.
    let mut looks = Vec::new();
    for (name, tenant) in tenants.into_iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        let (tell, found) = mpsc::unbounded_channel();
        tokio::spawn(tenant::look(name.clone(), tenant, graph.clone(), tell));
        looks.push((name, found));
    }
    let looked = database::look(&database.url, database.patience, report).await?;
    if let Some(line) = looked.status.as_ref().and_then(queue::of_all) {
        report.add(line)?;
    }
    for (name, mut found) in looks {
        match &looked.status {
            None => report.add(Line::not_checked("queue", "the database could not be read").of(&name))?,
            Some(status) => {
                for line in queue::of_tenant(name.as_str(), status) {
                    report.add(line.of(&name))?;
                }
            }
        }
        while let Some(found) = found.recv().await {
            let line = match found {
                Found::Line(line) => line,
                Found::Clock(clock) => clocks::of_graph(clock, looked.clock, reconcile.clock_margin),
            };
            report.add(line.of(&name))?;
        }
    }
    Ok(())
}

/// With a configuration that `run` refuses, the database can be looked at all the same if it is known which.
async fn check_without(sources: &Sources, mistakes: &Mistakes, report: &mut Report) -> Result<(), Stop> {
    for mistake in mistakes.iter() {
        let remedy = if mistake.remedy.is_empty() { "correct it" } else { &mistake.remedy };
        report.add(Line::failure(Exit::Configuration, "configuration", mistake.sited(), remedy))?;
    }
    let why = "the configuration has mistakes";
    match config::load_database_url(sources) {
        Ok(url) => drop(database::look(&url, store::PATIENCE, report).await?),
        Err(_) => report.add(Line::not_checked("database", why))?,
    }
    report.add(Line::not_checked("tenants", why))
}

//! The database: reachable, at this program's schema, usable by this role or user, with a clock that can be relied on. Read only.

use std::time::Duration;

use super::PATIENCE;
use super::clocks;
use super::line::{Line, Report};
use crate::cli::render::Stop;
use crate::cli::{Exit, Failure};
use crate::clock::host_time;
use crate::config::{DatabaseKind, DatabaseUrl};
use crate::graph::Offset;
use crate::store::{self, Status, Store, StoreError};

/// The clock is asked so often; the quickest answer says most.
const CLOCK_SAMPLES: usize = 3;

/// What the checks of tenants go on with.
#[derive(Default)]
pub(super) struct Looked {
    /// What is pending and what holds.
    pub(super) status: Option<Status>,
    /// The database's clock.
    pub(super) clock: Option<Offset>,
}

pub(super) async fn look(url: &DatabaseUrl, patience: Duration, report: &mut Report) -> Result<Looked, Stop> {
    let store = match store::open_to_look(url, patience.min(PATIENCE)).await {
        Ok(store) => store,
        Err(error) => {
            report.add(failed("database", &format!("{url}: "), error))?;
            report.add(Line::not_checked("schema, privileges and clock of the database", "it cannot be opened"))?;
            return Ok(Looked::default());
        }
    };
    report.add(Line::ok("database", format!("{url} is reachable")))?;
    let looked = look_into(&*store, &url.kind(), report).await;
    store.close().await;
    looked
}

async fn look_into(store: &dyn Store, kind: &DatabaseKind, report: &mut Report) -> Result<Looked, Stop> {
    let schema = store.check_schema().await;
    let fits = schema.is_ok();
    report.add(match schema {
        Ok(()) => Line::ok("database schema", "the one this program was built with"),
        Err(error) => failed("database schema", "", error),
    })?;
    match store.examine().await {
        Err(error) => report.add(failed("database privileges", "", error))?,
        Ok(conditions) => {
            for condition in conditions {
                report.add(match (condition.seen, condition.remedy) {
                    (Ok(seen), None) => Line::ok(condition.what, seen),
                    (Ok(seen), Some(remedy)) => Line::warning(condition.what, seen, remedy),
                    (Err(error), remedy) => {
                        let Failure { exit, message } = error.into();
                        Line::failure(exit, condition.what, message, remedy.unwrap_or_default())
                    }
                })?;
            }
        }
    }
    let clock = match clock(store, kind).await {
        Ok(clock) => {
            report.add(clocks::of_database(clock, *kind == DatabaseKind::Postgres))?;
            Some(clock)
        }
        Err(error) => {
            report.add(failed("database clock", "", error))?;
            None
        }
    };
    if !fits {
        return Ok(Looked { status: None, clock });
    }
    match store.status().await {
        Ok(status) => Ok(Looked { status: Some(status), clock }),
        Err(error) => {
            report.add(failed("queue", "", error))?;
            Ok(Looked { status: None, clock })
        }
    }
}

async fn clock(store: &dyn Store, kind: &DatabaseKind) -> Result<Offset, StoreError> {
    let mut best: Option<Offset> = None;
    let samples = if *kind == DatabaseKind::Postgres { CLOCK_SAMPLES } else { 1 };
    for _ in 0..samples {
        let asked = host_time();
        let there = store.now().await?;
        let offset = Offset::between(asked, host_time(), there);
        best = best.filter(|best| best.within <= offset.within).or(Some(offset));
    }
    best.ok_or_else(|| StoreError::Other("the database does not say what time it is".to_owned()))
}

/// A failure with what to do about it. What is said of a schema ends with that.
fn failed(check: &'static str, before: &str, error: StoreError) -> Line {
    let remedy = match &error {
        StoreError::Unavailable(_) => {
            "see that it runs, that database.url names it, and that the network lets this host through"
        }
        StoreError::Unauthorised(_) => {
            "see that user, password and file permissions are those for this database, and that the server lets them in (pg_hba.conf)"
        }
        _ => "see what it says, and the database's own log",
    };
    let schema = matches!(error, StoreError::Schema(_));
    let Failure { exit, message } = error.into();
    match message.rsplit_once(": ").filter(|_| schema) {
        Some((what, remedy)) => Line::failure(exit, check, format!("{before}{what}"), remedy),
        // A user without a database is configured wrongly; so is a driver that does not even try.
        None => Line::failure(
            if exit == Exit::Usage { Exit::Failure } else { exit },
            check,
            format!("{before}{message}"),
            remedy,
        ),
    }
}

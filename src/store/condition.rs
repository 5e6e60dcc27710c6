//! What a worker needs of its database beside the schema, and whether it is so.

use super::StoreError;

/// One thing that was looked at.
#[derive(Debug)]
pub struct Condition {
    /// What, in a word or two.
    pub what: &'static str,
    /// What was seen; `Err`: a worker cannot work so.
    pub seen: Result<String, StoreError>,
    /// What to do, where it is not as it should be.
    pub remedy: Option<String>,
}

impl Condition {
    pub(super) fn good(what: &'static str, seen: String) -> Self {
        Self { what, seen: Ok(seen), remedy: None }
    }

    /// Works, and should not stay so.
    pub(super) fn doubtful(what: &'static str, seen: String, remedy: impl Into<String>) -> Self {
        Self { what, seen: Ok(seen), remedy: Some(remedy.into()) }
    }

    pub(super) fn unfit(what: &'static str, error: StoreError, remedy: impl Into<String>) -> Self {
        Self { what, seen: Err(error), remedy: Some(remedy.into()) }
    }
}

/// What the daemon needs of each table on Postgres. `enqueue` needs INSERT on `reprovision_requests` beside it, and the orders
/// of people INSERT on `operator_actions` and INSERT and DELETE on `pauses`.
pub const PRIVILEGES: &[(&str, &[&str])] = &[
    ("_sqlx_migrations", &["SELECT"]),
    ("tenants", &["SELECT", "INSERT", "UPDATE"]),
    ("workers", &["SELECT", "INSERT", "UPDATE"]),
    ("reprovision_requests", &["SELECT"]),
    ("reprovision_queue", &["SELECT", "UPDATE", "DELETE"]),
    ("graph_calls", &["SELECT", "INSERT", "UPDATE"]),
    ("device_results", &["SELECT", "INSERT"]),
    ("pauses", &["SELECT"]),
    ("completion_tenants", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("completion_watches", &["SELECT", "UPDATE", "DELETE"]),
    ("completions", &["SELECT", "INSERT"]),
];

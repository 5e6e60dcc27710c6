//! What can go wrong with the database, typed by what the caller does about it.

use sqlx::migrate::MigrateError;

/// A failed verb. Nothing of it was committed, unless the connection broke during COMMIT itself.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, busy or shutting down: again later may do.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The database refuses this user, or what it may do.
    #[error("the database refuses this user: {0}")]
    Unauthorised(String),
    /// The database refused a row and says why.
    #[error("{0}")]
    Refused(String),
    /// The schema is not this program's.
    #[error("{0}")]
    Schema(String),
    /// A row makes no sense: it was changed by hand or by another version.
    #[error("table {table}, row {row}: {what}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The key of the row.
        row: String,
        /// What is wrong with it.
        what: String,
    },
    /// Rows were not in the state that this verb leaves; nothing was changed.
    #[error("the database is not in the state this step expects: {0}")]
    Conflict(String),
    /// Anything else the driver reports.
    #[error("database error: {0}")]
    Other(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Self::Unavailable(error.to_string())
            }
            E::Database(db) => {
                let code = db.code().unwrap_or_default();
                let message = db.message().to_owned();
                if is_unavailable(&code) {
                    Self::Unavailable(message)
                } else if code.len() == 5 && (code.starts_with("28") || code == "42501") {
                    Self::Unauthorised(message)
                } else if is_refusal(&code) {
                    Self::Refused(message)
                } else {
                    Self::Other(message)
                }
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// SQLite: busy, locked, I/O error, cannot open, disk full, read-only. Postgres: class 08 (connection), 53 (resources),
/// 57P (operator intervention), 40 (serialisation, deadlock), 25006 (read only), 55P03 (lock not available).
fn is_unavailable(code: &str) -> bool {
    if let Ok(sqlite) = code.parse::<u32>()
        && code.len() != 5
    {
        return matches!(sqlite & 0xff, 5 | 6 | 8 | 10 | 13 | 14);
    }
    ["08", "53", "57P", "40"].iter().any(|class| code.starts_with(class)) || matches!(code, "25006" | "55P03" | "58030")
}

/// SQLite: constraint, type mismatch. Postgres: class 22 (data), 23 (integrity).
fn is_refusal(code: &str) -> bool {
    if let Ok(sqlite) = code.parse::<u32>()
        && code.len() != 5
    {
        return matches!(sqlite & 0xff, 19 | 20);
    }
    ["22", "23"].iter().any(|class| code.starts_with(class))
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::Schema(newer_schema(version)),
            MigrateError::VersionMismatch(version) => Self::Schema(format!(
                "migration {version} in this database is not the one this program was built with: the schema was changed by another build; use that one, or restore the database"
            )),
            MigrateError::Execute(error) => error.into(),
            other => Self::Schema(format!("the schema could not be updated: {other}")),
        }
    }
}

fn newer_schema(version: i64) -> String {
    format!(
        "the database's schema is newer (migration {version}) than this program knows: install the version of reprovisiond that made it"
    )
}

/// Compares what is applied with what this program has.
pub(super) fn check_versions(applied: &[i64], known: &[i64]) -> Result<(), StoreError> {
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        return Err(StoreError::Schema(newer_schema(*newer)));
    }
    if known.iter().any(|version| !applied.contains(version)) {
        let have = if applied.is_empty() { "has no schema yet" } else { "has an older schema" };
        return Err(StoreError::Schema(format!(
            "the database {have}: run `reprovisiond migrate` with the same database"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_of_both_databases_are_sorted_by_what_to_do() {
        for code in ["5", "261", "13", "14", "2570", "08006", "57P01", "53300", "40P01"] {
            assert!(is_unavailable(code) && !is_refusal(code), "{code}");
        }
        for code in ["19", "1811", "2067", "23514", "23505", "22007"] {
            assert!(is_refusal(code) && !is_unavailable(code), "{code}");
        }
    }
}

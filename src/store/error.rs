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
                let message = explained(&code, db.message());
                if is_unavailable(&code) {
                    Self::Unavailable(message)
                } else if is_unauthorised(&code) {
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

/// SQLite's primary result code, which is a number where Postgres has five characters.
fn sqlite(code: &str) -> Option<u32> {
    if code.len() == 5 { None } else { code.parse::<u32>().ok().map(|extended| extended & 0xff) }
}

/// SQLite: busy, locked, I/O error, disk full, cannot open. Postgres: class 08 (connection), 53 (resources), 57P (operator
/// intervention), 40 (serialisation, deadlock), 25006 (read only: a standby), 25P03 (idle in a transaction for too long),
/// 55P03 (lock not available), 58030 (I/O error).
fn is_unavailable(code: &str) -> bool {
    match sqlite(code) {
        Some(primary) => matches!(primary, 5 | 6 | 10 | 13 | 14),
        None => {
            ["08", "53", "57P", "40"].iter().any(|class| code.starts_with(class))
                || matches!(code, "25006" | "25P03" | "55P03" | "58030")
        }
    }
}

/// SQLite: permission, read-only, not authorised. Postgres: class 28 (who are you), 42501 (insufficient privilege).
fn is_unauthorised(code: &str) -> bool {
    match sqlite(code) {
        Some(primary) => matches!(primary, 3 | 8 | 23),
        None => code.starts_with("28") || code == "42501",
    }
}

/// SQLite: constraint, type mismatch. Postgres: class 22 (data), 23 (integrity).
fn is_refusal(code: &str) -> bool {
    match sqlite(code) {
        Some(primary) => matches!(primary, 19 | 20),
        None => ["22", "23"].iter().any(|class| code.starts_with(class)),
    }
}

/// The database's own words, and what to do where they do not say it. Which database it is, the line says that repeats them.
fn explained(code: &str, message: &str) -> String {
    let what_to_do = match sqlite(code) {
        Some(5 | 6) => "another process holds the file's write lock; `fuser` on the file shows which",
        Some(8) => {
            "the file, its directory and the -wal and -shm files beside it must be writable for this user, on a file system that is not mounted read-only"
        }
        Some(10) => {
            "the disk, its quota or a limit on file sizes stops SQLite; `df`, `quota`, `ulimit -f` and the kernel's log say which"
        }
        Some(11 | 26) => "the file is damaged: stop everything that uses it, and restore a backup",
        Some(13) => "free space where the file and its -wal file are",
        Some(14) => {
            "the file, or the -wal or -shm file beside it, cannot be opened: it and its directory must exist and be readable and writable for this user"
        }
        None if matches!(code, "26000" | "42P05") => {
            "a connection pooler in transaction mode stands between; add statement-cache-capacity=0 to the parameters of the database's URL"
        }
        None if code == "25006" => "the server is a standby, or set to read only; the URL must name the primary",
        None if code.starts_with("53") => "the server is short of something: connections, memory or disk",
        _ => return message.to_owned(),
    };
    format!("{message} (code {code}): {what_to_do}")
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

/// What [`StoreError::Schema`] says of a database that nothing was ever migrated in.
pub const NO_SCHEMA_YET: &str = "has no schema yet";

/// Compares what is applied with what this program has.
pub(super) fn check_versions(applied: &[i64], known: &[i64]) -> Result<(), StoreError> {
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        return Err(StoreError::Schema(newer_schema(*newer)));
    }
    if known.iter().any(|version| !applied.contains(version)) {
        let have = if applied.is_empty() { NO_SCHEMA_YET } else { "has an older schema" };
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
        for code in ["5", "261", "13", "14", "778", "2570", "08006", "57P01", "53300", "40P01", "25P03"] {
            assert!(is_unavailable(code) && !is_refusal(code) && !is_unauthorised(code), "{code}");
        }
        for code in ["8", "776", "1032", "28P01", "28000", "42501"] {
            assert!(is_unauthorised(code) && !is_refusal(code) && !is_unavailable(code), "{code}");
        }
        for code in ["19", "1811", "2067", "23514", "23505", "22007"] {
            assert!(is_refusal(code) && !is_unavailable(code) && !is_unauthorised(code), "{code}");
        }
    }

    #[test]
    fn what_a_refused_row_is_told_is_the_databases_own_sentence() {
        assert_eq!(explained("1811", "managed_device_id: expected a GUID"), "managed_device_id: expected a GUID");
        assert_eq!(explained("23514", "expires_at must lie after not_before"), "expires_at must lie after not_before");
    }
}

//! Somebody else's connection to a database, on which any SQL runs; the tests have it too.

use sqlx::{PgConnection, SqliteConnection};

/// On either database.
pub(crate) enum Client {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Client {
    pub(crate) async fn execute(&mut self, sql: &str) {
        let statements = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        let done = match self {
            Self::Sqlite(connection) => statements.execute(connection).await.map(drop),
            Self::Postgres(connection) => statements.execute(connection).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// What the database would do by itself at some time, so that no measurement depends on when.
    pub(crate) async fn tidy(&mut self) {
        let postgres = matches!(self, Self::Postgres(_));
        self.execute(if postgres { "VACUUM ANALYZE" } else { "PRAGMA wal_checkpoint(TRUNCATE)" }).await;
    }

    /// A table `s (n)` with the numbers 1 to `n`.
    pub(crate) fn rows(&self, n: usize) -> String {
        match self {
            Self::Postgres(_) => format!("generate_series(1, {n}) AS s (n)"),
            Self::Sqlite(_) => {
                format!(
                    "(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {n}) SELECT n FROM s) AS s"
                )
            }
        }
    }

    pub(crate) fn random_device(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "gen_random_uuid()::text",
            Self::Sqlite(_) => {
                "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))"
            }
        }
    }
}

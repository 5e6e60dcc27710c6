//! A database for each measurement, and what is asked of it beside the daemon.

use std::fmt;

use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

use super::client::Client;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Postgres,
    Sqlite,
}

pub const BOTH: [Kind; 2] = [Kind::Postgres, Kind::Sqlite];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Postgres { "Postgres" } else { "SQLite" })
    }
}

/// An empty database, and a directory beside it; both are gone when this is dropped.
pub struct Database {
    pub kind: Kind,
    pub url: String,
    pub dir: TempDir,
    name: String,
}

impl Database {
    pub async fn new(kind: Kind) -> Self {
        let dir = tempfile::Builder::new().prefix("reprovisiond-bench-").tempdir().unwrap();
        let name = format!("bench_{}", uuid::Uuid::new_v4().simple());
        let url = match kind {
            Kind::Sqlite => format!("sqlite:{}", dir.path().join("queue.db").display()),
            Kind::Postgres => {
                let mut server = server();
                let mut connection = PgConnection::connect(server.as_str()).await.unwrap();
                let durable: bool = sqlx::query_scalar(
                    "SELECT current_setting('fsync')::boolean AND current_setting('synchronous_commit') = 'on'",
                )
                .fetch_one(&mut connection)
                .await
                .unwrap();
                assert!(
                    durable,
                    "this Postgres does not wait for its disk: begin with `tests/with-postgres --durable`"
                );
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
                    .execute(&mut connection)
                    .await
                    .unwrap();
                server.set_path(&name);
                server.into()
            }
        };
        Self { kind, url, dir, name }
    }

    pub async fn connect(&self) -> Client {
        match self.kind {
            Kind::Sqlite => {
                let mut connection = SqliteConnection::connect(&self.url).await.unwrap();
                sqlx::raw_sql("PRAGMA busy_timeout = 60000").execute(&mut connection).await.unwrap();
                Client::Sqlite(connection)
            }
            Kind::Postgres => {
                let mut connection = PgConnection::connect(&self.url).await.unwrap();
                // What is asked meanwhile must cost nothing, though the planner has last seen the tables empty.
                sqlx::raw_sql("SET enable_seqscan = off").execute(&mut connection).await.unwrap();
                Client::Postgres(connection)
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.kind == Kind::Postgres {
            let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            let psql = std::process::Command::new("psql").arg(server().as_str()).args(["-qc", &drop]).status();
            if !psql.is_ok_and(|status| status.success()) {
                eprintln!("the database {} could not be dropped", self.name);
            }
        }
    }
}

fn server() -> url::Url {
    let url = std::env::var("TEST_POSTGRES_URL")
        .expect("TEST_POSTGRES_URL is not set: run this as `tests/with-postgres --durable cargo bench -- NAME`");
    url::Url::parse(&url).unwrap()
}

impl Client {
    pub async fn number(&mut self, sql: &str) -> i64 {
        let query = sqlx::AssertSqlSafe(sql.to_owned());
        let number = match self {
            Self::Sqlite(connection) => sqlx::query_scalar(query).fetch_one(connection).await,
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_one(connection).await,
        };
        number.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Asks for `n` devices that nobody has heard of, in one statement, as a producer would.
    pub async fn insert(&mut self, n: usize) {
        let (rows, device) = (self.rows(n), self.random_device());
        self.execute(&format!("INSERT INTO reprovision_requests (managed_device_id) SELECT {device} FROM {rows}"))
            .await;
    }

    /// The same, before a daemon is started.
    pub async fn request(&mut self, n: usize) {
        self.insert(n).await;
        self.tidy().await;
    }

    /// Requests that have no final result yet.
    pub async fn pending(&mut self) -> i64 {
        self.number("SELECT count(*) FROM reprovision_queue").await
    }

    /// From the first intent to the last recorded answer, by the database's clock: what a job took, without the start of
    /// the process. `calls` is a condition.
    pub async fn span_of_calls(&mut self, calls: &str) -> f64 {
        let microseconds = match self {
            Self::Postgres(_) => "(extract(epoch FROM max(finished_at) - min(sent_at)) * 1000000)::bigint",
            Self::Sqlite(_) => {
                "CAST((julianday(max(finished_at)) - julianday(min(sent_at))) * 86400000000.0 AS INTEGER)"
            }
        };
        self.number(&format!("SELECT {microseconds} FROM graph_calls WHERE {calls}")).await as f64 / 1e6
    }
}

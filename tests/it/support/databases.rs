//! A database of its own for every test, on both backends, and the database's own command-line client as a producer.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A file in a temporary directory.
    Sqlite,
    /// A database in the server that `tests/run` starts.
    Postgres,
}

/// An empty database without a schema, gone when this is dropped; on Postgres whoever is still connected is cut off.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// What the daemon's configuration takes, and sqlx.
    pub(crate) url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Sqlite { dir: TempDir },
    Postgres { server: Url, database: String },
}

impl Scratch {
    /// A new, empty database. Panics where there is none to be had: a test is never skipped for want of a database.
    pub(crate) async fn new(backend: Backend) -> Self {
        tokio::task::spawn_blocking(move || match backend {
            Backend::Sqlite => Self::sqlite(),
            Backend::Postgres => Self::postgres(shared_server()),
        })
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// A new, empty database in a Postgres server of the test's own.
    pub(crate) async fn in_server(server: Url) -> Self {
        tokio::task::spawn_blocking(move || Self::postgres(server)).await.unwrap()
    }

    fn sqlite() -> Self {
        let dir = tempfile::Builder::new().prefix("reprovisiond-").tempdir().unwrap();
        let file = sqlite_file(&dir);
        // An empty file is an empty database: both backends' databases exist before the daemon first connects.
        std::fs::File::create_new(&file).unwrap();
        Self { url: format!("sqlite://{}", file.display()), place: Place::Sqlite { dir } }
    }

    fn postgres(server: Url) -> Self {
        let database = format!("scratch_{}", Uuid::new_v4().simple());
        psql(&server, &format!("CREATE DATABASE {database}"))
            .unwrap_or_else(|e| panic!("no scratch database in the server at {server} (is tests/run still up?): {e}"));
        let mut url = server.clone();
        url.set_path(&database);
        Self { url: url.into(), place: Place::Postgres { server, database } }
    }

    /// The file, on SQLite.
    pub(crate) fn file(&self) -> PathBuf {
        match &self.place {
            Place::Sqlite { dir } => sqlite_file(dir),
            Place::Postgres { .. } => panic!("a database in a server is no file"),
        }
    }

    /// The database this is on.
    pub(crate) fn backend(&self) -> Backend {
        match self.place {
            Place::Sqlite { .. } => Backend::Sqlite,
            Place::Postgres { .. } => Backend::Postgres,
        }
    }

    /// Runs SQL as a producer would, with `sqlite3` or `psql`, and stops at the first error. `Ok` is what the client
    /// printed: a line a row, columns parted by `|`, no header, no last line break. `Err` is what it complained of.
    pub(crate) async fn sqlite3_or_psql(&self, sql: &str) -> Result<String, String> {
        let (mut client, sql) = (self.client(), sql.to_owned());
        tokio::task::spawn_blocking(move || answer(&mut client, &sql)).await.unwrap()
    }

    /// The same by another way to this database, on Postgres.
    pub(crate) async fn psql_by(&self, url: &str, sql: &str) -> Result<String, String> {
        let (mut client, sql) = (psql_client(url), sql.to_owned());
        tokio::task::spawn_blocking(move || answer(&mut client, &sql)).await.unwrap()
    }

    fn client(&self) -> Command {
        match &self.place {
            Place::Sqlite { dir } => sqlite3_client(dir),
            Place::Postgres { .. } => psql_client(&self.url),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Place::Postgres { server, database } = &self.place
            && let Err(e) = psql(server, &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))
        {
            // No panic: the test may be unwinding already, and the server goes when tests/run ends.
            eprintln!("scratch database {database} stays behind: {e}");
        }
    }
}

/// A role on Postgres that may log in and nothing else. Roles are the whole server's: drop it at the end.
pub(crate) struct Role {
    pub(crate) name: String,
    /// The scratch database's, under this role.
    pub(crate) url: String,
}

impl Role {
    pub(crate) async fn new(scratch: &Scratch) -> Self {
        let name = format!("role_{}", Uuid::new_v4().simple());
        scratch.sqlite3_or_psql(&format!("CREATE ROLE {name} LOGIN")).await.unwrap();
        let url = scratch.url.replace("user=postgres", &format!("user={name}"));
        assert_ne!(url, scratch.url, "the tests' server is entered as postgres");
        Self { name, url }
    }

    pub(crate) async fn drop(self, scratch: &Scratch) {
        let sql = format!("DROP OWNED BY {name}; DROP ROLE {name}", name = self.name);
        scratch.sqlite3_or_psql(&sql).await.unwrap();
    }
}

fn shared_server() -> Url {
    let server = std::env::var("TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!("TEST_POSTGRES_URL is not set: run the tests with tests/run, which starts a PostgreSQL server for them")
    });
    Url::parse(&server).unwrap_or_else(|e| panic!("TEST_POSTGRES_URL is no URL: {e}"))
}

fn sqlite_file(dir: &TempDir) -> PathBuf {
    dir.path().join("queue.db")
}

fn sqlite3_client(dir: &TempDir) -> Command {
    let mut client = Command::new("sqlite3");
    // No ~/.sqliterc. The client's own busy timeout is zero, with which a producer loses to every write of the daemon.
    client.args(["-init", "/dev/null", "-batch", "-bail", "-list", "-noheader", "-cmd", ".timeout 10000"]);
    client.arg(sqlite_file(dir));
    client
}

fn psql_client(url: &str) -> Command {
    let mut client = Command::new("psql");
    client.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", url]);
    client
}

fn psql(server: &Url, sql: &str) -> Result<String, String> {
    answer(&mut psql_client(server.as_str()), sql)
}

/// Feeds SQL to a client's standard input, which takes megabytes where an argument ends at 128 KiB.
fn answer(client: &mut Command, sql: &str) -> Result<String, String> {
    let program = client.get_program().to_string_lossy().into_owned();
    let mut child = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{program} does not start (tests/run installs it): {e}"))?;
    let mut stdin = child.stdin.take().unwrap();
    let (written, output) = std::thread::scope(|s| {
        let writer = s.spawn(move || stdin.write_all(sql.as_bytes()));
        let output = child.wait_with_output();
        (writer.join().unwrap(), output)
    });
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned());
    }
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(format!("{program} did not take its input: {e}")),
        _ => Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()),
    }
}

/// One test body, two tests: `NAME::sqlite` and `NAME::postgres`, each on a scratch database of its own.
///
/// ```ignore
/// on_both! {
///     async fn a_request_is_picked_up(scratch: Scratch) {
///         scratch.sqlite3_or_psql("INSERT …").await.unwrap();
///     }
/// }
/// ```
/// Several functions may stand in one `on_both!`. Doc comments and attributes such as `#[ignore]` go to both tests, and
/// a return type is allowed. The runtime has two threads, as the daemon's has several.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($scratch:ident: Scratch) $(-> $result:ty)? $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports, clippy::wildcard_imports, reason = "the body sees what its file sees")]
            use super::*;

            #[allow(clippy::needless_pass_by_value, reason = "dropped last: the body's connections close before")]
            async fn body($scratch: $crate::support::Scratch) $(-> $result)? $body

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() $(-> $result)? {
                body($crate::support::Scratch::new($crate::support::Backend::Sqlite).await).await
            }

            $(#[$meta])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() $(-> $result)? {
                body($crate::support::Scratch::new($crate::support::Backend::Postgres).await).await
            }
        }
    )+};
}
pub(crate) use on_both;

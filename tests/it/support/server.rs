//! A Postgres server that a test may kill.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use url::Url;

use super::Scratch;

/// A Postgres server that only this test uses; gone when this is dropped. What it has acknowledged survives [`kill9`].
///
/// [`kill9`]: OwnServer::kill9
pub(crate) struct OwnServer {
    dir: TempDir,
}

impl OwnServer {
    /// A new one, running. Panics where there is none to be had.
    pub(crate) async fn start_new() -> Self {
        let place = std::env::var_os("TEST_POSTGRES_SERVERS")
            .unwrap_or_else(|| panic!("TEST_POSTGRES_SERVERS is not set: run the tests with tests/run"));
        // Below the directory of tests/run, which stops what is left there if this test is killed.
        let dir = tempfile::Builder::new().prefix("own").rand_bytes(6).tempdir_in(place).unwrap();
        let server = Self { dir };
        // Without fsync: its processes are killed, never its machine.
        let settings = ["fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=50"];
        server.script("create", &settings).await;
        server
    }

    /// Its database `postgres`, over its socket.
    pub(crate) fn url(&self) -> Url {
        let socket = self.socket_directory().display().to_string().replace('/', "%2F");
        Url::parse(&format!("postgres:///postgres?host={socket}&user=postgres")).unwrap()
    }

    /// A new, empty database in it.
    pub(crate) async fn scratch(&self) -> Scratch {
        Scratch::in_server(self.url()).await
    }

    /// Kills it as a crash of its machine would: no goodbye to anybody.
    pub(crate) fn kill9(&self) {
        let file = std::fs::read_to_string(self.dir.path().join("data/postmaster.pid")).unwrap();
        let postmaster = file.lines().next().and_then(|line| line.parse().ok()).and_then(Pid::from_raw).unwrap();
        kill_process(postmaster, Signal::KILL).unwrap();
    }

    /// Starts it again.
    pub(crate) async fn start(&self) {
        self.script("start", &[]).await;
    }

    /// Where its socket is.
    pub(crate) fn socket_directory(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    async fn script(&self, verb: &'static str, settings: &[&str]) {
        let mut command = script(self.dir.path(), verb, settings);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "postgres-server {verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // No panic: the test may be unwinding already.
        if let Err(e) = script(self.dir.path(), "stop", &[]).status() {
            eprintln!("the server in {} stays behind: {e}", self.dir.path().display());
        }
    }
}

fn script(dir: &Path, verb: &str, settings: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres-server"));
    command.arg(verb).arg(dir).args(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

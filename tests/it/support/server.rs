//! What a test needs that does something to the database server itself: a Postgres of its own, a network that goes silent,
//! a pooler.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
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

    /// Stops it at once and in order.
    pub(crate) async fn stop(&self) {
        self.script("stop", &[]).await;
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

/// A TCP port before a server's socket, on a network that can lose everything without a word.
pub(crate) struct Network {
    port: u16,
    state: watch::Sender<State>,
    opened: Arc<AtomicU64>,
    accepting: std::sync::Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    silent: bool,
    /// Connections opened before this one are silent for good.
    lost_before: u64,
}

impl Network {
    /// Before the server of `scratch`.
    pub(crate) async fn before(scratch: &Scratch) -> Self {
        let socket = socket_of(&scratch.url);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (state, watched) = watch::channel(State::default());
        let (port, opened) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&opened);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = UnixStream::connect(&socket).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(pump(from_client, to_server, number, watched.clone()));
                tokio::spawn(pump(from_server, to_client, number, watched.clone()));
            }
        });
        Self { port, state, opened, accepting: std::sync::Mutex::new(Some(accepting)) }
    }

    /// From now on nobody listens at this port.
    pub(crate) async fn refuse(&self) {
        let accepting = self.accepting.lock().unwrap().take().unwrap();
        accepting.abort();
        let _ = accepting.await;
    }

    /// The way to the database of `scratch` through this.
    pub(crate) fn url(&self, scratch: &Scratch) -> String {
        let database = Url::parse(&scratch.url).unwrap().path().to_owned();
        format!("postgres://postgres@127.0.0.1:{}{database}?sslmode=disable", self.port)
    }

    /// From now on nothing arrives, of no connection, old or new; all of them stay open.
    pub(crate) fn fall_silent(&self) {
        self.state.send_modify(|state| state.silent = true);
    }

    /// Goes on, but for connections of before, which stay open and silent.
    pub(crate) fn lose_all_connections(&self) {
        let opened = self.opened.load(Ordering::SeqCst);
        self.state.send_modify(|state| *state = State { silent: false, lost_before: opened });
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    number: u64,
    mut state: watch::Receiver<State>,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(n) = from.read(&mut bytes).await {
        // What is read while all is silent is on its way until it is not, or for ever.
        let arrives = state.wait_for(|state| !state.silent && number >= state.lost_before).await.is_ok();
        if n == 0 || !arrives || to.write_all(&bytes[..n]).await.is_err() {
            break;
        }
    }
}

/// A PgBouncer in transaction mode before the tests' server, with two connections for whoever comes.
pub(crate) struct Bouncer {
    child: std::process::Child,
    dir: TempDir,
}

impl Bouncer {
    /// Before the server of `scratch`.
    pub(crate) fn before(scratch: &Scratch) -> Self {
        Self::with(scratch, "")
    }

    /// The same, with a setting more.
    pub(crate) fn with(scratch: &Scratch, setting: &str) -> Self {
        let socket = socket_of(&scratch.url);
        let server = socket.parent().unwrap().display();
        let dir = tempfile::Builder::new().prefix("pgb").tempdir_in("/tmp").unwrap();
        let place = dir.path().display();
        let config = format!(
            "[databases]\n* = host={server} user=postgres\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {place}\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\nlogfile = {place}/log\n{setting}\n"
        );
        std::fs::write(dir.path().join("ini"), config).unwrap();
        // PgBouncer refuses to be root, and whom it becomes must be able to write here.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), mode).unwrap();
        let mut command = Command::new("pgbouncer");
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let child = command.arg("-q").arg(dir.path().join("ini")).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("pgbouncer does not start (tests/run installs it): {e}")), dir }
    }

    /// Until it takes connections.
    pub(crate) async fn until_up(&self) {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let up = tokio::time::timeout(Duration::from_mins(1), async {
            while UnixStream::connect(self.dir.path().join(".s.PGSQL.6432")).await.is_err() {
                tick.tick().await;
            }
        });
        assert!(up.await.is_ok(), "pgbouncer does not come up: {}", self.log());
    }

    /// What psql prints, through this.
    pub(crate) async fn rows(&self, scratch: &Scratch, sql: &str) -> String {
        scratch.psql_by(&self.url(scratch), sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The way to the database of `scratch` through this, without parameters of ours.
    pub(crate) fn url(&self, scratch: &Scratch) -> String {
        let database = Url::parse(&scratch.url).unwrap().path().to_owned();
        let place = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://{database}?host={place}&port=6432&user=postgres")
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket_of(url: &str) -> PathBuf {
    let url = Url::parse(url).unwrap();
    let (_, host) = url.query_pairs().find(|(name, _)| name == "host").expect("the tests' servers listen on sockets");
    Path::new(&*host).join(".s.PGSQL.5432")
}

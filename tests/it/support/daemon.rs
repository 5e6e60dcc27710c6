//! The daemon as a real child process, against a simulated Graph over HTTP.

use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reprovisiond::simulator::{Options, Shares, Simulator, Throttle};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Scratch;

/// How long anything may take before a test gives up on it: a bound, never a wait.
const PATIENCE: Duration = Duration::from_mins(1);

/// A simulator without invented trouble: whatever goes wrong, a test has asked for.
pub(crate) fn calm() -> Options {
    Options { devices: 2000, shares: Shares::NONE, throttle: Throttle::Off, page_size: 999, ..Options::default() }
}

/// Settings that let a test end soon: everything that waits, waits briefly.
pub(crate) const BRISK: &str = r#"
[retry]
first_delay = "20ms"
longest_delay = "200ms"
"#;

/// Settings with which doubts are settled soon, and attempts do not run out. They end in `[worker]`, so that more of its
/// keys can follow.
pub(crate) const SETTLES: &str = r#"
[retry]
first_delay = "20ms"
longest_delay = "200ms"
max_attempts = 20
[graph]
call_timeout = "500ms"
[reconcile]
first_after = "100ms"
settle_after = "1s"
give_up_after = "30s"
clock_margin = "5s"
[worker]
send_within = "400ms"
"#;

/// A daemon, its configuration and its simulator.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    config: Arc<TempDir>,
}

impl Daemon {
    /// Migrates the database and starts the daemon, with `settings` as TOML beside database and tenant.
    pub(crate) async fn start(scratch: &Scratch, simulator: &Simulator, settings: &str) -> Self {
        Self::start_on(&scratch.url, simulator, settings).await
    }

    /// The same, by another way to the database than its own.
    pub(crate) async fn start_on(url: &str, simulator: &Simulator, settings: &str) -> Self {
        let mut daemon = Self::migrated(url, simulator, settings).await;
        daemon.run(simulator).await;
        daemon
    }

    /// Migrates the database and does not start the daemon yet.
    pub(crate) async fn migrated(url: &str, simulator: &Simulator, settings: &str) -> Self {
        let config = tempfile::tempdir().unwrap();
        let toml = format!(
            "database.url = {url:?}\n{settings}\n[tenants.default]\ncloud = \"custom\"\ngraph_url = {:?}\nauthority_url = {:?}\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret_file = \"{}\"\n",
            simulator.graph_url(),
            simulator.authority_url(),
            simulator.tenant_id(),
            simulator.client_id(),
            simulator.client_secret_file().display()
        );
        std::fs::write(config.path().join("reprovisiond.toml"), toml).unwrap();
        let mut daemon = Self { child: spawn(&config, &["migrate"]), lines: Arc::default(), config: Arc::new(config) };
        let migrated = daemon.child.wait().await.unwrap();
        assert!(migrated.success(), "{}", read(&mut daemon.child).await);
        daemon
    }

    /// Starts the process again, on the same configuration, and waits until it works.
    pub(crate) async fn run(&mut self, simulator: &Simulator) {
        self.launch(simulator, "");
        let ended = self.started().await;
        assert_eq!(ended, None, "the daemon does not start\n{}", self.log().join("\n"));
    }

    /// Starts another process beside this one, on the same configuration and so on the same database.
    pub(crate) async fn beside(&self, simulator: &Simulator) -> Self {
        let mut other = self.process(simulator, "", &[]);
        assert_eq!(other.started().await, None, "a second daemon does not start\n{}", other.log().join("\n"));
        other
    }

    /// Changes its configuration for the next start.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(&str) -> String) {
        let path = self.config.path().join("reprovisiond.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, change(&text)).unwrap();
    }

    /// Starts the process again and waits for nothing. `failpoints` is what `FAILPOINTS` takes (`src/failpoint.rs`).
    pub(crate) fn launch(&mut self, simulator: &Simulator, failpoints: &str) {
        *self = self.process(simulator, failpoints, &[]);
    }

    /// Starts the process again, by the command `under`, which becomes it.
    pub(crate) fn spawn(&mut self, simulator: &Simulator, under: &[&str]) {
        *self = self.process(simulator, "", under);
    }

    fn process(&self, simulator: &Simulator, failpoints: &str, under: &[&str]) -> Self {
        let mut command = command_under(under, &self.config, &["run"]);
        command.env("FAILPOINTS", failpoints);
        if let Some(ca) = simulator.ca_file() {
            command.env("SSL_CERT_FILE", ca);
        }
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let gathered = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                gathered.lock().unwrap().push(line);
            }
        });
        Self { child, lines, config: Arc::clone(&self.config) }
    }

    /// Until it has started, or has ended before.
    pub(crate) async fn started(&mut self) -> Option<ExitStatus> {
        let (child, lines) = (&mut self.child, Arc::clone(&self.lines));
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                if lines.lock().unwrap().iter().any(|line| line.contains("\"started\"")) {
                    return None;
                }
                if let Some(status) = child.try_wait().unwrap() {
                    return Some(status);
                }
                tick.tick().await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("the daemon does not start\n{}", self.log().join("\n")))
    }

    /// Until a line of its log contains `text`.
    pub(crate) async fn until_logged(&self, text: &str) {
        self.until(text, async || self.logged(text) > 0).await;
    }

    /// How many lines of its log contain `text`.
    pub(crate) fn logged(&self, text: &str) -> usize {
        self.log().iter().filter(|line| line.contains(text)).count()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Asks again and again until `holds`, and shows the log if it never does.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds().await {
                tick.tick().await;
            }
        });
        assert!(waited.await.is_ok(), "never came: {what}\n{}", self.log().join("\n"));
    }

    /// Until no request is pending in any state.
    pub(crate) async fn until_all_ended(&self, scratch: &Scratch) {
        self.until("every request has ended", async || {
            scratch.rows("SELECT count(*) FROM reprovision_queue").await == "0"
        })
        .await;
    }

    /// Until `sql` gives `expected`.
    pub(crate) async fn until_rows(&self, scratch: &Scratch, sql: &str, expected: &str) {
        self.until(&format!("{sql} = {expected}"), async || scratch.rows(sql).await == expected).await;
    }

    /// Sends a signal, as `kill` does.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Whether SIGSTOP has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id().unwrap())).unwrap();
        // The command's name, in parentheses, may hold anything: the state stands behind it.
        stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
    }

    /// SIGTERM, and the way it ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    /// The way it ended, once it has.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("the daemon does not end\n{}", self.log().join("\n"))).unwrap()
    }
}

impl Scratch {
    /// What the database's own client prints for `sql`.
    pub(crate) async fn rows(&self, sql: &str) -> String {
        self.sqlite3_or_psql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Runs a command of the program on this database, which ends well.
    pub(crate) async fn order(&self, args: &[&str]) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_reprovisiond"));
        let output = program.args(args).args(["--database", &self.url]).output().await.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Asks for `n` of the simulator's devices, one row each, in one statement. The reference page's two, one of which
    /// Graph refuses, are left out.
    pub(crate) async fn request(&self, simulator: &Simulator, n: usize) {
        self.request_after(simulator, 0, n).await;
    }

    /// The same for the next `n` after the first `others`.
    pub(crate) async fn request_after(&self, simulator: &Simulator, others: usize, n: usize) {
        let rows: Vec<String> = simulator
            .devices()
            .iter()
            .skip(2 + others)
            .take(n)
            .map(|device| format!("('{}')", device.managed_device_id))
            .collect();
        self.rows(&format!("INSERT INTO reprovision_requests (managed_device_id) VALUES {}", rows.join(","))).await;
    }
}

fn spawn(config: &TempDir, args: &[&str]) -> Child {
    command(config, args).spawn().unwrap()
}

fn command(config: &TempDir, args: &[&str]) -> Command {
    command_under(&[], config, args)
}

fn command_under(under: &[&str], config: &TempDir, args: &[&str]) -> Command {
    let words = [under, &[env!("CARGO_BIN_EXE_reprovisiond")], args].concat();
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg("--config")
        .arg(config.path().join("reprovisiond.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Tests make many small calls, and what they are about is not how evenly these leave.
        .env("REPROVISIOND_LIMITS_CALLS_PER_PERIOD", "1000000")
        .kill_on_drop(true);
    command
}

async fn read(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        tokio::io::AsyncReadExt::read_to_string(&mut stderr, &mut text).await.unwrap();
    }
    text
}

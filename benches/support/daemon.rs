//! The release binary as a process of its own, against a simulated Graph in this one.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reprovisiond::simulator::{Options, Others, Simulator, Throttle};

use super::client::Client;
use super::database::Database;

/// A Graph that knows every device and refuses nothing but what `throttle` says.
pub fn simulator(latency: Duration, throttle: Throttle) -> Simulator {
    Simulator::start(Options { others: Others::Success, latency, throttle, ..Options::default() }).unwrap()
}

/// Settings for what is not to be held up by the rate budget.
pub const UNTHROTTLED: &str = "limits.calls_per_period = 1000000\nlimits.period = \"1s\"\n";

/// Writes the configuration: `settings` as dotted keys, beside database and tenant.
pub fn configure(database: &Database, simulator: &Simulator, settings: &str) -> PathBuf {
    let path = database.dir.path().join("reprovisiond.toml");
    let toml = format!(
        "database.url = {:?}\n{settings}\n[tenants.default]\ncloud = \"custom\"\ngraph_url = {:?}\nauthority_url = {:?}\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret_file = \"{}\"\n",
        database.url,
        simulator.graph_url(),
        simulator.authority_url(),
        simulator.tenant_id(),
        simulator.client_id(),
        simulator.client_secret_file().display()
    );
    std::fs::write(&path, toml).unwrap();
    path
}

pub fn command(config: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprovisiond"));
    command.args(args).arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("REPROVISIOND_LOG", "warn");
    command
}

pub fn migrate(config: &Path) {
    assert!(command(config, &["migrate"]).status().unwrap().success(), "`reprovisiond migrate` failed, see above");
}

/// A running daemon; it is killed when this is dropped.
pub struct Daemon(pub Child);

impl Daemon {
    pub fn start(config: &Path) -> Self {
        Self(command(config, &["run"]).spawn().unwrap())
    }

    /// Starts it, and says how long it took to tell its service manager that it is ready.
    pub fn start_until_ready(config: &Path) -> (Self, Duration) {
        let socket = config.with_file_name("notify");
        let _ = std::fs::remove_file(&socket);
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        let started = Instant::now();
        let daemon = Self(command(config, &["run"]).env("NOTIFY_SOCKET", &socket).spawn().unwrap());
        let mut message = [0; 4096];
        loop {
            let length = manager.recv(&mut message).expect("the daemon never said that it is ready");
            if String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "READY=1") {
                return (daemon, started.elapsed());
            }
        }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }

    /// User and system time, from fields 14 and 15 of `stat`.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// `VmRSS` now, or `VmHWM`, the most that it ever was.
    pub fn memory_mb(&self, which: &str) -> f64 {
        memory_mb(&self.proc("status"), which)
    }
}

pub fn memory_mb(status: &str, which: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(which)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Until no request is pending. Asked rarely, so that asking costs the database nothing to speak of.
pub async fn until_all_ended(client: &mut Client, at_most: Duration) {
    let started = Instant::now();
    while client.pending().await > 0 {
        assert!(
            started.elapsed() < at_most,
            "requests are still pending after {at_most:?}: see the daemon's log above"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

//! What systemd is told, over the socket that it gives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reprovisiond::simulator::Simulator;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::UnixDatagram;

use crate::support::{Backend, Daemon, OwnServer, Scratch, calm, on_both};

/// The service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    directory: TempDir,
    told: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    fn listen() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let gathered = Arc::clone(&told);
        tokio::spawn(async move {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message).await {
                gathered.lock().unwrap().push(String::from_utf8_lossy(&message[..length]).into_owned());
            }
        });
        Self { directory, told }
    }

    /// Starts the daemon as systemd does, with these variables besides.
    fn start(&self, daemon: &mut Daemon, simulator: &Simulator, env: &[&str]) {
        let socket = format!("NOTIFY_SOCKET={}", self.directory.path().join("notify").display());
        daemon.spawn(simulator, &[&["env", &socket], env].concat());
    }

    /// Every assignment so far, in order.
    fn told(&self) -> Vec<String> {
        self.told
            .lock()
            .unwrap()
            .iter()
            .flat_map(|message| message.lines().map(ToOwned::to_owned).collect::<Vec<_>>())
            .collect()
    }

    fn count(&self, assignment: &str) -> usize {
        self.told().iter().filter(|line| *line == assignment).count()
    }

    async fn until(&self, daemon: &Daemon, assignment: &str, times: usize) {
        daemon.until(assignment, async || self.count(assignment) >= times).await;
    }
}

on_both! {
    async fn systemd_is_told_of_readiness_depth_reload_and_stop(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let manager = Manager::listen();
        let mut daemon = Daemon::migrated(&scratch.url, &simulator, "").await;
        manager.start(&mut daemon, &simulator, &[]);
        manager.until(&daemon, "READY=1", 1).await;
        // Ready is who has a lease, and who has said so.
        assert_eq!(scratch.rows("SELECT count(*) FROM workers WHERE stopped_at IS NULL").await, "1");
        assert_eq!(daemon.logged("\"started\""), 1);
        manager.until(&daemon, "STATUS=nothing to do", 1).await;
        let device = simulator.devices()[2].managed_device_id;
        scratch.rows(&format!("INSERT INTO reprovision_requests (managed_device_id, not_before) VALUES ('{device}', '2100-01-01T00:00:00Z')")).await;
        manager.until(&daemon, "STATUS=1 waiting", 1).await;
        // Nobody asked for a watchdog.
        assert_eq!(manager.count("WATCHDOG=1"), 0);

        daemon.signal(Signal::HUP);
        manager.until(&daemon, "READY=1", 2).await;
        let told = manager.told();
        let reloading = told.iter().position(|line| line == "RELOADING=1").expect("it says that it reloads");
        let clock = told[reloading + 1].strip_prefix("MONOTONIC_USEC=").expect("with systemd's own clock");
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let asked: i64 = clock.parse().unwrap();
        assert!((0..=60_000_000).contains(&(now.tv_sec * 1_000_000 + now.tv_nsec / 1000 - asked)), "{clock}");
        assert!(told[reloading..].iter().any(|line| line == "READY=1"), "{told:?}");

        assert!(daemon.stop().await.success());
        manager.until(&daemon, "STOPPING=1", 1).await;
        assert!(manager.told().contains(&"EXTEND_TIMEOUT_USEC=75000000".to_owned()), "{:?}", manager.told());
    }
}

/// Lets the lease be renewed often, so that it tells the time.
const TIMES: &str = "database.patience = \"1s\"\n[worker]\npoll_interval = \"100ms\"\nlease = \"2s\"\nsend_within = \"1s\"\n[reconcile]\nsettle_after = \"10m\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_loop_that_hangs_feeds_the_watchdog_no_more_though_the_lease_is_kept() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let manager = Manager::listen();
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, TIMES).await;
    manager.start(&mut daemon, &simulator, &["WATCHDOG_USEC=2000000", "FAILPOINTS=before-pass=2*off->return(hang)"]);
    manager.until(&daemon, "WATCHDOG=1", 2).await;
    daemon
        .until("systemd would restart it: its time is over without a beat", async || {
            let beats = manager.count("WATCHDOG=1");
            // Four renewals take longer than the watchdog has.
            for _ in 0..4 {
                let heartbeat = scratch.rows("SELECT heartbeat_at FROM workers").await;
                daemon
                    .until("the lease is renewed", async || {
                        scratch.rows("SELECT heartbeat_at FROM workers").await != heartbeat
                    })
                    .await;
            }
            manager.count("WATCHDOG=1") == beats
        })
        .await;
    // So stuck a process ends by no drain: systemd aborts it, and nothing is lost.
    daemon.signal(Signal::ABORT);
    assert!(!daemon.ended().await.success());
    daemon.run(&simulator).await;
    scratch.request(&simulator, 3).await;
    daemon.until_all_ended(&scratch).await;
    assert_eq!(simulator.ledger().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_loop_and_one_without_its_database_feed_the_watchdog() {
    let server = OwnServer::start_new().await;
    let scratch = server.scratch().await;
    let simulator = Simulator::start(calm()).unwrap();
    let manager = Manager::listen();
    let idle = "database.patience = \"1s\"\n[worker]\npoll_interval = \"1h\"\n";
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, idle).await;
    manager.start(&mut daemon, &simulator, &["WATCHDOG_USEC=2000000"]);
    manager.until(&daemon, "WATCHDOG=1", 6).await;
    server.stop().await;
    daemon.until_logged("cannot be").await;
    let beats = manager.count("WATCHDOG=1");
    manager.until(&daemon, "WATCHDOG=1", beats + 4).await;
    server.start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watchdog_shorter_than_the_database_may_take_is_lengthened() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let manager = Manager::listen();
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, "database.patience = \"90s\"\n").await;
    manager.start(&mut daemon, &simulator, &["WATCHDOG_USEC=2000000"]);
    manager.until(&daemon, "READY=1", 1).await;
    let longer = format!("WATCHDOG_USEC={}", Duration::from_mins(3).as_micros());
    assert_eq!(manager.told().first(), Some(&longer));
}

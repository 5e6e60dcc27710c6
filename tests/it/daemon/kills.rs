//! The real process killed at random, hundreds of times, while answers are lost, late, refused and broken.
//!
//! `KILLS` sets the number of kills of each test, `SEED` what is drawn; `tests/kills` runs any number. The seed decides what
//! is asked, what Graph does and when the kills come; the processes' own timing is not the seed's, so a run that failed is
//! repeated in kind, not to the microsecond.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use reprovisiond::simulator::{Fault, FaultScript, Options, Simulator};
use rustix::process::Signal;

use crate::support::{Backend, Daemon, OwnServer, SETTLES, Scratch, calm, judge};

/// A test for each seed, so that they run beside each other.
macro_rules! kills {
    ($($database:ident: $one:ident($kills:literal) { $($name:ident: $seed:literal;)+ })+) => {$(
        mod $database {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() { super::$one($kills, $seed).await; }
            )+
        }
    )+};
}

kills! {
    sqlite: on_sqlite(100) { seed_1: 1; seed_2: 2; seed_3: 3; seed_4: 4; seed_5: 5; }
    postgres: on_postgres(50) { seed_1: 1; seed_2: 2; }
    postgres_that_is_killed_too: on_own_postgres(50) { seed_3: 3; seed_4: 4; }
}

async fn on_sqlite(kills: usize, seed: u64) {
    kill(&Scratch::new(Backend::Sqlite).await, None, kills, seed).await;
}

async fn on_postgres(kills: usize, seed: u64) {
    kill(&Scratch::new(Backend::Postgres).await, None, kills, seed).await;
}

async fn on_own_postgres(kills: usize, seed: u64) {
    let server = OwnServer::start_new().await;
    kill(&server.scratch().await, Some(&server), kills, seed).await;
}

/// Requests that one life of the daemon finds at most, beside those that earlier ones left.
const PORTION: usize = 4;

/// Every so many kills take the database's server too.
const SERVER_TOO: usize = 3;

async fn kill(scratch: &Scratch, server: Option<&OwnServer>, kills: usize, seed: u64) {
    let kills = variable("KILLS").map_or(kills, |kills| usize::try_from(kills).unwrap());
    // Each test draws its own, also where one variable speaks to all.
    let seed = variable("SEED").map_or(seed, |base| base.wrapping_add(seed - 1));
    let run = format!("KILLS={kills} SEED={seed} ({:?})", scratch.backend());
    // Shown only if the test fails, wherever it does.
    println!("{run}");

    let mut random = fastrand::Rng::with_seed(seed);
    let simulator = Simulator::start(Options { devices: 2 + PORTION * kills, ..calm() }).unwrap();
    // Graph has answered a request that it has received well before this, however busy the machine is.
    let settles = SETTLES.replace("settle_after = \"1s\"", "settle_after = \"2s\"").replace("\"30s\"", "\"10m\"");
    let settings = format!("[batch]\nmax_devices = 3\n[limits]\nopen_doubts = 100\n{settles}");
    let mut daemon = Daemon::migrated(&scratch.url, &simulator, &settings).await;

    let (mut asked, mut killed, mut servers_killed) = (0, 0, 0);
    for life in 1..=kills {
        for fault in trouble(&mut random, life * 2 < kills) {
            simulator.add_fault(fault).unwrap();
        }
        let mut server = server.filter(|_| life % SERVER_TOO == 0);
        daemon.launch(&simulator, "");
        // Some die while they start; but who finds no database at its start ends by itself.
        if random.u32(..8) > 0 || server.is_some() {
            assert_eq!(daemon.started().await, None, "{run}: life {life} does not start\n{}", daemon.log().join("\n"));
        }
        let portion = random.usize(1..=PORTION);
        tokio::join!(scratch.request_after(&simulator, asked, portion), a_moment(&mut random));
        asked += portion;
        if let Some(killed) = server {
            killed.kill9();
            servers_killed += 1;
        }
        // Half of the daemons see it come back.
        if let Some(server) = server.take_if(|_| random.bool()) {
            server.start().await;
            a_moment(&mut random).await;
        }
        let alive = daemon.child.try_wait().unwrap();
        assert_eq!(alive, None, "{run}: life {life} ended before it was killed\n{}", daemon.log().join("\n"));
        daemon.signal(Signal::KILL);
        assert_eq!(daemon.ended().await.signal(), Some(Signal::KILL.as_raw()), "{run}: life {life}");
        killed += 1;
        if let Some(server) = server {
            server.start().await;
        }
    }
    assert_eq!(killed, kills, "{run}");

    daemon.run(&simulator).await;
    daemon.until_all_ended(scratch).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{run}\n{}", daemon.log().join("\n"));
    judge(scratch, &simulator, &run).await;
    assert_eq!(simulator.ledger().len(), asked, "{run}: every device was wiped once");
    // The experiment is one only if the kills have hit calls under way; of a few kills none may.
    let calls = "SELECT count(*), count(CASE WHEN state = 'unknown' THEN 1 END) FROM graph_calls";
    let calls = scratch.rows(calls).await;
    let abandoned: usize =
        scratch.rows("SELECT count(*) FROM graph_calls WHERE error_code = 'abandoned'").await.parse().unwrap();
    println!(
        "{run}: {killed} kills, {servers_killed} of the server; {asked} requests, calls|in doubt {calls}, abandoned {abandoned}"
    );
    assert!(abandoned * 20 >= kills || kills < 50, "{run}: only {abandoned} of {kills} kills met a call under way");
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {text:?}")))
}

/// When a process is killed is what this experiment is about: the one place where a test waits for time and for nothing else.
async fn a_moment(random: &mut fastrand::Rng) {
    tokio::time::sleep(Duration::from_micros(random.u64(..=250_000))).await;
}

/// What the next calls meet: answers lost and late, throttling, 5xx with the work done and not, bodies that say too little.
/// `reads_too`: read-backs fail as well, which are then tried again after as long as the doubt is old.
fn trouble(random: &mut fastrand::Rng, reads_too: bool) -> Vec<Fault> {
    const CALLS: [&str; 20] = [
        "reset-after",
        "reset-after",
        "hang-after",
        "latency:100ms",
        "latency:300ms",
        "latency:600ms",
        "reset-before",
        "hang",
        "done-500",
        "done-502-bare",
        "done-504-html",
        "500",
        "503-bare",
        "429:1",
        "503:1",
        "truncated",
        "empty",
        "in-no-bucket",
        "in-two-buckets",
        "token/503",
    ];
    const READS: [&str; 4] = ["read-back/500", "read-back/429:1", "read-back/reset-before", "read-back/truncated"];
    let mut specs: Vec<&str> = (0..2).filter_map(|_| random.choice(CALLS).filter(|_| random.bool())).collect();
    specs.extend(random.choice(READS).filter(|_| reads_too && random.u8(..4) == 0));
    specs.iter().flat_map(|spec| spec.parse::<FaultScript>().unwrap().script).collect()
}

//! What all workers of one history share: time, faults drawn from the seed, the database, Graph's ledger, and the log of
//! what happened. One lock around all of it; nothing in it waits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reprovisiond::chance::Chance;
use reprovisiond::clock::{BootInstant, Clock};
use reprovisiond::config::{Batch, Completion, Limits, Reconcile, Retry, UnknownPolicy, Worker};
use reprovisiond::domain::id::{ManagedDeviceId, TenantName, WorkerId};
use reprovisiond::domain::rate::Rate;
use reprovisiond::engine::Settings;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::database::Database;
use super::graph::Ledger;

/// The protocol, broken on purpose: each of these must be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// What a crashed worker had in `sending` is queued again.
    ResendsOnCrash,
    /// A refusal of the last check before sending is ignored.
    NoFence,
    /// What the first read-back does not show did not happen.
    NoSettlingTime,
    /// Doubts are not bounded.
    UnboundedDoubts,
}

/// How bad a history is: probabilities, drawn once for each history.
pub(super) struct Weather {
    pub(super) store_fails: f64,
    pub(super) store_loses_answers: f64,
    pub(super) store_slow: f64,
    pub(super) graph_loses: f64,
    pub(super) graph_refuses: f64,
    pub(super) graph_muddles: f64,
    pub(super) token_fails: f64,
    pub(super) read_back_fails: f64,
    pub(super) shows_late: f64,
    /// Time from one crash, stop or restart of a worker to the next.
    pub(super) trouble_every: Duration,
    pub(super) outages: bool,
    pub(super) clock_steps: bool,
    /// Graph answers no call at all.
    pub(super) only_times_out: bool,
}

/// What is fixed for a history.
pub(super) struct Rules {
    pub(super) settings: Settings,
    /// What the workers keep to.
    pub(super) bounded: Limits,
    /// What they are held to.
    pub(super) limits: Limits,
    /// What `settings` would be without the mutant.
    pub(super) contract: Settings,
    pub(super) call_timeout: Duration,
    /// A request that left arrives this much later at most.
    pub(super) longest_way: Duration,
    /// What was carried out shows this much later at most.
    pub(super) longest_lag: Duration,
    /// Graph's clock less the true time.
    pub(super) graph_offset: TimeDelta,
    pub(super) mutant: Option<Mutant>,
}

pub(super) struct State {
    pub(super) rng: fastrand::Rng,
    pub(super) weather: Weather,
    pub(super) db: Database,
    pub(super) ledger: Ledger,
    /// The database's clock less the true time.
    pub(super) clock_step: TimeDelta,
    /// The clock of this history has been stepped at least once.
    pub(super) stepped: bool,
    pub(super) outage_until: Duration,
    /// Faults are over.
    pub(super) calm: bool,
    pub(super) lives: BTreeMap<usize, (WorkerId, Arc<Life>)>,
    /// The most calls in doubt that were ever seen at once.
    pub(super) most_doubts: usize,
    log: Vec<String>,
    digest: DefaultHasher,
}

impl State {
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        !self.calm && self.rng.f64() < probability
    }

    /// A time up to `longest`, to the millisecond.
    pub(super) fn time(&mut self, longest: Duration) -> Duration {
        Duration::from_millis(self.rng.u64(0..=u64::try_from(longest.as_millis()).unwrap()))
    }

    pub(super) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let mut text = format!("{:>10.3}  ", self.db.time.as_secs_f64());
        let _ = text.write_fmt(line);
        text.hash(&mut self.digest);
        self.log.push(text);
    }

    pub(super) fn breach(&mut self, breaches: impl IntoIterator<Item = String>) {
        for what in breaches {
            self.note(format_args!("BREACH {what}"));
            self.db.breaches.push(what);
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub(super) fn log(&self) -> &[String] {
        &self.log
    }
}

pub(super) struct World {
    pub(super) rules: Rules,
    began: Instant,
    /// Seconds that all machines have slept through.
    pub(super) slept: Arc<AtomicU64>,
    state: Mutex<State>,
    /// Somebody inserted requests.
    pub(super) inserted: Notify,
}

/// The true time at which every history begins.
pub(super) const BEGINNING: DateTime<Utc> = DateTime::from_timestamp(1_800_000_000, 0).unwrap();

impl World {
    pub(super) fn new(rules: Rules, weather: Weather, rng: fastrand::Rng) -> Arc<Self> {
        let mut db = Database::default();
        db.resends = rules.mutant == Some(Mutant::ResendsOnCrash);
        let state = State {
            rng,
            weather,
            db,
            ledger: Ledger::default(),
            clock_step: TimeDelta::zero(),
            stepped: false,
            outage_until: Duration::ZERO,
            calm: false,
            lives: BTreeMap::new(),
            most_doubts: 0,
            log: Vec::new(),
            digest: DefaultHasher::new(),
        };
        let (slept, inserted) = (Arc::default(), Notify::new());
        Arc::new(Self { rules, began: Instant::now(), slept, state: Mutex::new(state), inserted })
    }

    /// The true time since the beginning.
    pub(super) fn time(&self) -> Duration {
        self.began.elapsed() + Duration::from_secs(self.slept.load(Ordering::Relaxed))
    }

    /// Everything, with the database's clock as it stands now.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap();
        state.db.time = self.time();
        state.db.now = BEGINNING + TimeDelta::from_std(self.time()).unwrap() + state.clock_step;
        // Both databases keep milliseconds.
        state.db.now = DateTime::from_timestamp_millis(state.db.now.timestamp_millis()).unwrap();
        state
    }

    /// Now by Graph's clock.
    pub(super) fn graph_now(&self) -> DateTime<Utc> {
        BEGINNING + TimeDelta::from_std(self.time()).unwrap() + self.rules.graph_offset
    }
}

/// One life of one worker: it may be stopped, and it ends.
pub(super) struct Life {
    pub(super) number: usize,
    pub(super) host: usize,
    began: Instant,
    slept: Arc<AtomicU64>,
    dead: AtomicBool,
    stopped_until: Mutex<Option<Instant>>,
    jitter: Mutex<fastrand::Rng>,
}

impl Life {
    pub(super) fn new(number: usize, host: usize, seed: u64, slept: &Arc<AtomicU64>) -> Arc<Self> {
        Arc::new(Self {
            number,
            host,
            began: Instant::now(),
            slept: Arc::clone(slept),
            dead: AtomicBool::new(false),
            stopped_until: Mutex::new(None),
            jitter: Mutex::new(fastrand::Rng::with_seed(seed)),
        })
    }

    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(super) fn stop_for(&self, time: Duration) {
        *self.stopped_until.lock().unwrap() = Some(Instant::now() + time);
    }

    /// Wherever a worker touches the world: a stopped one stays here until it is continued, a dead one for ever. Its
    /// clock goes on meanwhile.
    pub(super) async fn gate(&self) {
        loop {
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
            let until = *self.stopped_until.lock().unwrap();
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}

impl Clock for Life {
    fn now(&self) -> BootInstant {
        // Each machine was started at another time.
        let before = 1000 * (self.number as u64 + 1) + self.slept.load(Ordering::Relaxed);
        BootInstant::after_boot(Duration::from_secs(before) + self.began.elapsed())
    }
}

impl Chance for Life {
    fn fraction(&self) -> f64 {
        self.jitter.lock().unwrap().f64()
    }
}

pub(super) fn tenant(n: usize) -> TenantName {
    ["contoso", "fabrikam"][n].parse().unwrap()
}

pub(super) fn device(n: usize) -> ManagedDeviceId {
    uuid::Uuid::from_u128(0x1000 + n as u128).try_into().unwrap()
}

/// Rules with times short enough that a history ends within an hour or two of virtual time.
pub(super) fn rules(rng: &mut fastrand::Rng, mutant: Option<Mutant>) -> Rules {
    let mut seconds = |from: u64, to: u64| Duration::from_secs(rng.u64(from..=to));
    let lease = seconds(15, 90);
    let send_within = seconds(3, 10);
    let call_timeout = seconds(10, 60);
    let longest_way = seconds(1, 10);
    let (clocks_apart, lag) = (seconds(0, 110), seconds(60, 400));
    let clock_margin = longest_way + clocks_apart;
    let settle_after = send_within + longest_way + lag;
    let first_after = seconds(5, 60);
    let contract = Settings {
        worker: Worker {
            poll_interval: seconds(10, 60),
            max_calls_in_flight: 0,
            drain_timeout: seconds(0, 60),
            lease,
            send_within,
        },
        batch: Batch { max_devices: 0, linger: seconds(0, 5) },
        retry: Retry {
            first_delay: seconds(1, 4),
            longest_delay: seconds(10, 60),
            multiplier: 2.0,
            max_attempts: 0,
            failed: false,
            blocked_probe_interval: seconds(30, 200),
        },
        reconcile: Reconcile {
            unknown_policy: UnknownPolicy::ReadBack,
            first_after,
            settle_after,
            give_up_after: settle_after + seconds(100, 1200),
            clock_margin,
        },
        // Off: it decides nothing about a call.
        completion: Completion {
            track: false,
            first_after: Duration::ZERO,
            shortest_delay: Duration::ZERO,
            longest_delay: Duration::ZERO,
            give_up_after: Duration::ZERO,
            reads: Rate { calls: 1, period: Duration::from_secs(1) },
        },
        database: "a model".to_owned(),
    };
    let period = seconds(5, 20);
    let mut contract = contract;
    contract.worker.max_calls_in_flight = rng.usize(1..=4);
    contract.batch.max_devices = rng.usize(1..=6);
    contract.retry.max_attempts = rng.u32(1..=4);
    contract.retry.failed = rng.bool();
    let open_doubts = rng.u32(1..=3);
    let limits = Limits { open_doubts, rate: Rate { calls: rng.u32(5..=100), period } };
    let mut bounded = limits.clone();
    // Where it lies within the contract, it lies as often as not at its edge.
    let reach = i64::try_from(clocks_apart.as_millis()).unwrap();
    let offset = if rng.bool() { if rng.bool() { reach } else { -reach } } else { rng.i64(-reach..=reach) };
    let mut settings = contract.clone();
    match mutant {
        Some(Mutant::NoSettlingTime) => settings.reconcile.settle_after = Duration::from_secs(1),
        Some(Mutant::UnboundedDoubts) => bounded.open_doubts = 100,
        _ => {}
    }
    Rules {
        settings,
        bounded,
        limits,
        call_timeout,
        longest_way,
        // Less a second for whole milliseconds and the order of things within one.
        longest_lag: lag.saturating_sub(Duration::from_secs(1)),
        graph_offset: TimeDelta::milliseconds(offset),
        contract,
        mutant,
    }
}

pub(super) fn weather(rng: &mut fastrand::Rng) -> Weather {
    // Each kind of fault is absent in a third of the histories, so that the others are seen alone too.
    let mut up_to = |most: f64| if rng.u8(0..3) == 0 { 0.0 } else { rng.f64() * most };
    Weather {
        store_fails: up_to(0.1),
        store_loses_answers: up_to(0.2),
        store_slow: up_to(0.3),
        graph_loses: up_to(0.5),
        graph_refuses: up_to(0.4),
        graph_muddles: up_to(0.3),
        token_fails: up_to(0.2),
        read_back_fails: up_to(0.6),
        shows_late: up_to(1.0),
        trouble_every: Duration::from_secs(rng.u64(20..=600)),
        outages: rng.u8(0..3) == 0,
        clock_steps: false,
        only_times_out: false,
    }
}

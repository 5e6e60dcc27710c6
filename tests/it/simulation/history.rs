//! One history: a world drawn from a seed, its workers and what befalls them, and how it ends.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::TimeDelta;
use reprovisiond::domain::action::Action;
use reprovisiond::domain::id::WorkerId;
use reprovisiond::engine::{Engine, EngineError, Served, Surroundings, Untold};
use reprovisiond::graph::Graph;
use tokio_util::sync::CancellationToken;

use super::database::TenantRow;
use super::graph::ModelGraph;
use super::invariants;
use super::store::ModelStore;
use super::world::{Life, Mutant, Weather, World, device, rules, tenant, weather};

/// What is stressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything, in every mixture.
    Stormy,
    /// Workers that hardly live.
    Crashes,
    /// Many requests for a device or three.
    FewDevices,
    /// The database's clock steps by a day, and perhaps back.
    ClockSteps,
}

impl Kind {
    /// Each kind has seeds of its own.
    pub(super) fn first_seed(self) -> u64 {
        match self {
            Self::Stormy => 1_000_000,
            Self::Crashes => 5_000_000,
            Self::FewDevices => 6_000_000,
            Self::ClockSteps => 7_000_000,
        }
    }
}

pub(super) struct Outcome {
    pub(super) breaches: Vec<String>,
    pub(super) log: Vec<String>,
    pub(super) digest: u64,
}

/// Runs one history. The same arguments give the same history.
pub(super) fn run(kind: Kind, mutant: Option<Mutant>, seed: u64) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let rules = rules(&mut rng, mutant);
    let mut weather = weather(&mut rng);
    match kind {
        Kind::Crashes => weather.trouble_every = Duration::from_secs(rng.u64(5..=60)),
        Kind::ClockSteps => weather.clock_steps = true,
        Kind::Stormy | Kind::FewDevices => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async move {
        let world = World::new(rules, weather, rng);
        history(kind, &world).await;
        let state = world.state();
        Outcome { breaches: state.db.breaches.clone(), log: state.log().to_vec(), digest: state.digest() }
    })
}

/// The first history of `seeds` that breaks an invariant, told so that it can be repeated.
pub(super) fn first_breach(kind: Kind, mutant: Option<Mutant>, seeds: Range<u64>) -> Option<String> {
    seeds.into_iter().find_map(|seed| {
        let outcome = run(kind, mutant, seed);
        let breach = outcome.breaches.first()?;
        Some(format!(
            "seed {seed} ({kind:?}{}): {breach}\nrepeat it with: tests/simulate-histories 1 {seed} {kind:?}",
            mutant.map_or_else(String::new, |mutant| format!(", {mutant:?}"))
        ))
    })
}

/// `SIMULATION_SEED`: that history alone, of `SIMULATION_KIND` or of every kind, told in full. `false`: not asked for.
pub(super) fn repeat(kind: Kind, part: u64) -> bool {
    let Ok(seed) = std::env::var("SIMULATION_SEED") else { return false };
    if part > 0 || std::env::var("SIMULATION_KIND").is_ok_and(|name| name != format!("{kind:?}")) {
        return true;
    }
    let outcome = run(kind, None, seed.parse().unwrap());
    println!("{kind:?}, seed {seed}\n{}", outcome.log.join("\n"));
    assert!(outcome.breaches.is_empty(), "seed {seed} ({kind:?}): {:?}", outcome.breaches);
    true
}

/// How long faults go on, and how long may then be needed until everything has ended.
const TROUBLE: Duration = Duration::from_mins(20);
const PATIENCE: Duration = Duration::from_hours(6);

async fn history(kind: Kind, world: &Arc<World>) {
    let (tenants, workers) = {
        let mut state = world.state();
        (state.rng.usize(1..=2), state.rng.usize(1..=5))
    };
    for n in 0..tenants {
        world.state().db.tenants.insert(tenant(n), TenantRow::default());
    }
    let mut background = tokio::task::JoinSet::new();
    for host in 0..workers {
        background.spawn(host_of_workers(Arc::clone(world), host, tenants));
    }
    if world.state().weather.outages {
        background.spawn(outages(Arc::clone(world)));
    }
    if world.state().weather.clock_steps {
        background.spawn(clock_steps(Arc::clone(world)));
    }
    producers(kind, world, tenants).await;
    // Where all has ended there is nothing left to trouble, but for what may still be on its way.
    while world.time() < TROUBLE && !world.state().db.queue.is_empty() {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    tokio::time::sleep(world.rules.longest_way).await;
    {
        let mut state = world.state();
        state.calm = true;
        // Whoever set the clock sets it right in the end, or else what waits for a time of day waits for a day.
        if state.clock_step < TimeDelta::zero() {
            state.clock_step = TimeDelta::zero();
        }
        state.note(format_args!("faults end"));
    }
    let calm_since = world.time();
    let began = tokio::time::Instant::now();
    let mut slept = false;
    loop {
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut state = world.state();
        // What was told to wait by a clock a day ahead, or to hold a lease, waits for that day: let all machines sleep through it.
        if state.stepped && !slept && state.db.time > calm_since + TROUBLE {
            slept = true;
            state.note(format_args!("a day goes by"));
            world.slept.store(86_400, Ordering::Relaxed);
            continue;
        }
        invariants::resolve_held(&mut state);
        if state.db.queue.is_empty() || !state.db.breaches.is_empty() || began.elapsed() > PATIENCE {
            invariants::at_the_end(&mut state);
            break;
        }
    }
    background.shutdown().await;
}

/// Requests come over time, alone and in batches, several for one device too.
async fn producers(kind: Kind, world: &World, tenants: usize) {
    let devices = match kind {
        Kind::FewDevices => world.state().rng.usize(1..=3),
        _ => world.state().rng.usize(2..=25),
    };
    // Several requests for a device in a third of the histories of other kinds.
    let again = kind == Kind::FewDevices || world.state().rng.u8(0..3) == 0;
    let mut fresh = (0..devices).collect::<Vec<_>>();
    let total = if again { world.state().rng.usize(3..=25) } else { devices };
    let mut inserted = 0;
    while inserted < total {
        {
            let mut state = world.state();
            for _ in 0..state.rng.usize(1..=8).min(total - inserted) {
                let n = if again { state.rng.usize(0..devices) } else { fresh.pop().unwrap() };
                // A device is one tenant's.
                let tenant = tenant(n % tenants);
                let priority = state.rng.i32(-2..=2);
                let not_before = (state.rng.u8(0..6) == 0).then(|| state.time(Duration::from_mins(8)));
                let expires =
                    (state.rng.u8(0..6) == 0).then(|| Duration::from_mins(9) + state.time(Duration::from_mins(20)));
                state.db.insert(&tenant, device(n), priority, not_before, expires);
                inserted += 1;
                state.note(format_args!("request {inserted} for {}", device(n)));
            }
        }
        world.inserted.notify_waiters();
        let pause = world.state().time(Duration::from_mins(4));
        tokio::time::sleep(pause).await;
    }
}

async fn outages(world: Arc<World>) {
    loop {
        let (pause, length) = {
            let mut state = world.state();
            (state.time(Duration::from_mins(10)), state.time(Duration::from_mins(4)))
        };
        tokio::time::sleep(pause).await;
        {
            let mut state = world.state();
            if state.calm {
                return;
            }
            state.outage_until = state.db.time + length;
            state.note(format_args!("the database is away for {length:?}"));
        }
        tokio::time::sleep(length).await;
    }
}

/// One step of a day, either way, and in half the histories the step back after it.
async fn clock_steps(world: Arc<World>) {
    let (pause, then, forward, back) = {
        let mut state = world.state();
        let longest = TROUBLE * 3 / 4;
        (state.time(longest), state.time(longest / 2), state.rng.bool(), state.rng.bool())
    };
    tokio::time::sleep(pause).await;
    step(&world, TimeDelta::days(if forward { 1 } else { -1 }));
    if back {
        tokio::time::sleep(then).await;
        step(&world, TimeDelta::zero());
    }
}

fn step(world: &World, to: TimeDelta) {
    let mut state = world.state();
    if !state.calm {
        state.stepped = true;
        state.clock_step = to;
        state.note(format_args!("the database's clock is {} h off", to.num_hours()));
    }
}

/// Ten minutes of a Graph that answers nothing over a queue of 10,000, with the limits as they come: the most calls that were
/// in doubt at once, what is allowed, and how many were made.
pub(super) fn times_out(seed: u64, read_back_works: bool) -> (usize, usize, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rules = rules(&mut rng, None);
    rules.contract.worker.max_calls_in_flight = 4;
    rules.limits.open_doubts = 2;
    rules.bounded = rules.limits.clone();
    rules.settings = rules.contract.clone();
    let allowed = rules.limits.open_doubts as usize + rules.contract.worker.max_calls_in_flight;
    let weather = Weather { only_times_out: true, ..fair(read_back_works) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async move {
        let world = World::new(rules, weather, rng);
        {
            let mut state = world.state();
            state.db.tenants.insert(tenant(0), TenantRow::default());
            for n in 0..10_000 {
                state.db.insert(&tenant(0), device(n * 13), 0, None, None);
            }
        }
        let worker = tokio::spawn(host_of_workers(Arc::clone(&world), 0, 1));
        tokio::time::sleep(Duration::from_mins(10)).await;
        worker.abort();
        let state = world.state();
        assert!(state.db.breaches.is_empty(), "seed {seed}: {:?}", state.db.breaches);
        (state.most_doubts, allowed, state.ledger.sent)
    })
}

/// No fault of its own.
fn fair(read_back_works: bool) -> Weather {
    Weather {
        store_fails: 0.0,
        store_loses_answers: 0.0,
        store_slow: 0.0,
        graph_loses: 0.0,
        graph_refuses: 0.0,
        graph_muddles: 0.0,
        token_fails: 0.0,
        read_back_fails: if read_back_works { 0.0 } else { 1.0 },
        shows_late: 0.5,
        trouble_every: Duration::from_hours(1),
        outages: false,
        clock_steps: false,
        only_times_out: false,
    }
}

/// What becomes of a worker next.
enum Trouble {
    Crash,
    Stop(Duration),
    Restart,
    None,
}

/// A host runs one worker after another.
async fn host_of_workers(world: Arc<World>, host: usize, tenants: usize) {
    loop {
        let (life, worker) = {
            let mut state = world.state();
            let number = state.lives.len();
            let seed = state.rng.u64(..);
            // Some come back on another host, where nobody can tell that they are dead.
            let host = if state.chance(0.2) { 100 + number } else { host };
            let life = Life::new(number, host, seed, &world.slept);
            let worker = WorkerId(uuid::Uuid::from_u128(0xabc0_0000 + number as u128));
            state.lives.insert(number, (worker, Arc::clone(&life)));
            (life, worker)
        };
        live(&world, &life, worker, tenants).await;
        let down = {
            let mut state = world.state();
            let longest = if state.chance(0.3) { Duration::from_mins(5) } else { Duration::from_secs(5) };
            state.time(longest)
        };
        tokio::time::sleep(down).await;
    }
}

async fn live(world: &Arc<World>, life: &Arc<Life>, worker: WorkerId, tenants: usize) {
    let store = Arc::new(ModelStore { world: Arc::clone(world), life: Arc::clone(life) });
    let graph = |n| {
        let graph = ModelGraph { world: Arc::clone(world), life: Arc::clone(life), tenant: tenant(n) };
        Served {
            name: tenant(n),
            graph: Arc::new(graph) as Arc<dyn Graph>,
            action: Action::BulkReprovisionCloudPc,
            limits: world.rules.bounded.clone(),
        }
    };
    let served = (0..tenants).map(graph).collect();
    let surroundings =
        Surroundings { clock: Arc::<Life>::clone(life), chance: Arc::<Life>::clone(life), pulse: Arc::new(Untold) };
    let engine = Engine::new(store, served, world.rules.settings.clone(), worker, surroundings);
    let sigterm = CancellationToken::new();
    let stop = sigterm.clone();
    let mut process = tokio::spawn(async move {
        engine.start().await?;
        engine.run(stop).await.map(|_| ())
    });
    loop {
        let pause = {
            let mut state = world.state();
            let longest = state.weather.trouble_every * 2;
            if state.calm { Duration::from_hours(1000) } else { state.time(longest) }
        };
        tokio::select! {
            biased;
            ended = &mut process => return ended_by_itself(world, life, ended),
            () = tokio::time::sleep(pause) => {}
        }
        match trouble(world, life) {
            Trouble::None => {}
            Trouble::Stop(time) => life.stop_for(time),
            Trouble::Restart => {
                sigterm.cancel();
                // As the service manager does, which kills what does not leave.
                let deadline = world.rules.settings.worker.drain_timeout + Duration::from_mins(2);
                match tokio::time::timeout(deadline, &mut process).await {
                    Ok(ended) => return ended_by_itself(world, life, ended),
                    Err(_) => return kill(life, process).await,
                }
            }
            Trouble::Crash => return kill(life, process).await,
        }
    }
}

async fn kill(life: &Life, process: tokio::task::JoinHandle<Result<(), EngineError>>) {
    life.kill();
    process.abort();
    let _ = process.await;
}

fn trouble(world: &World, life: &Life) -> Trouble {
    let mut state = world.state();
    if state.calm {
        return Trouble::None;
    }
    let number = life.number;
    match state.rng.u8(0..6) {
        0..=2 => {
            state.note(format_args!("worker {number} crashes"));
            Trouble::Crash
        }
        3 | 4 => {
            let longest = world.rules.settings.worker.lease * 3;
            let time = state.time(longest);
            state.note(format_args!("worker {number} is stopped for {time:?}"));
            Trouble::Stop(time)
        }
        _ => {
            state.note(format_args!("worker {number} is asked to leave"));
            Trouble::Restart
        }
    }
}

/// A worker leaves by itself when it was asked to, or when the database was away at its start or its end; never by a panic.
fn ended_by_itself(world: &World, life: &Life, ended: Result<Result<(), EngineError>, tokio::task::JoinError>) {
    life.kill();
    let mut state = world.state();
    let number = life.number;
    match ended {
        Ok(Ok(())) => state.note(format_args!("worker {number} has left")),
        Ok(Err(EngineError::Store(problem))) => state.note(format_args!("worker {number} has left: {problem}")),
        Ok(Err(problem)) => state.breach([format!("worker {number} failed: {problem}")]),
        Err(problem) => state.breach([format!("worker {number} failed: {problem}")]),
    }
}

//! The life of the process as others steer and see it: signals, and what systemd is told.
//!
//! Where `NOTIFY_SOCKET` is not set nobody is told anything, and nothing is counted for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::domain::id::TenantName;
use crate::domain::plan::Facts;
use crate::engine::Pulse;
use crate::store::{Depth, Store};

/// What signals ask for.
pub struct Signals {
    /// Cancelled by the first SIGTERM or SIGINT.
    pub stop: CancellationToken,
    /// SIGHUP has come since it was last asked.
    pub reload: Arc<Notify>,
}

/// Listens from now on. A second SIGTERM or SIGINT ends the process at once, with the code `at_once`.
pub fn listen(at_once: u8) -> io::Result<Signals> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (stop, reload) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (stopping, reloading) = (stop.clone(), Arc::clone(&reload));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    reloading.notify_one();
                    continue;
                }
            }
            if stopping.is_cancelled() {
                warn!("second signal: leaving at once; calls without an answer become unknown at the next start");
                std::process::exit(i32::from(at_once));
            }
            stopping.cancel();
        }
    });
    Ok(Signals { stop, reload })
}

/// What a stop takes beyond the drain deadline: the last commits, the farewell to the database.
const AFTER_DRAIN: Duration = Duration::from_secs(15);

/// The shortest time between two counts of the queue for `STATUS=`.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// A count takes no more than one part in so many of the time: a queue of millions is counted rarely.
const COUNT_SHARE: u32 = 50;

/// What changes unseen, such as the length of a paused queue, is counted after so long at the latest, if there is any queue.
const STATUS_AT_LEAST_EVERY: Duration = Duration::from_mins(1);

/// The service manager, if there is one that wants to be told.
pub struct Manager {
    told: bool,
    watchdog: Option<Duration>,
    beat_within: Option<Duration>,
    seen: Mutex<Seen>,
    changed: Notify,
}

/// What the last look at the queue has shown.
#[derive(Default)]
struct Seen {
    facts: Vec<(TenantName, Facts)>,
    /// By when each tenant's wait ends.
    throttled: BTreeMap<TenantName, Instant>,
}

impl Manager {
    /// The one that started this process. `patience` is the longest that a step of the database takes: a watchdog that has less is
    /// lengthened, since a restart does not bring a database back. With `watched` the loop beats as often as that without any manager:
    /// somebody else looks whether it does.
    pub fn of_this_process(patience: Duration, watched: Option<Duration>) -> Self {
        let told = std::env::var_os("NOTIFY_SOCKET").is_some();
        let mut watchdog = sd_notify::watchdog_enabled().filter(|time| told && !time.is_zero());
        if let Some(time) = watchdog.as_mut().filter(|time| **time < patience * 2) {
            *time = patience * 2;
            let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
            tell(told, &[NotifyState::WatchdogUsec(micros)]);
        }
        let beat_within = watchdog.map(|time| time / 2).into_iter().chain(watched).min();
        Self { told, watchdog, beat_within, seen: Mutex::default(), changed: Notify::new() }
    }

    /// It works: configuration, database and schema are good, and its lease is registered.
    pub fn ready(&self) {
        tell(self.told, &[NotifyState::Ready]);
    }

    /// It rereads its configuration; [`Manager::ready`] follows.
    pub fn reloading(&self) {
        // systemd 253 and later wants both in one message, with the clock that it reads itself.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(self.told, &[NotifyState::Reloading, now]),
            Err(_) => tell(self.told, &[NotifyState::Reloading]),
        }
    }

    /// It stops, which may take as long as `drain` lets calls take, whatever the unit's `TimeoutStopSec=`.
    pub fn stopping(&self, drain: Duration) {
        let micros = u32::try_from((drain + AFTER_DRAIN).as_micros()).unwrap_or(u32::MAX);
        let status = "stopping: waits for calls under way";
        tell(self.told, &[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros), NotifyState::Status(status)]);
    }

    /// Tells `STATUS=` whenever it has changed, for as long as the process lives.
    pub async fn tell_status(&self, store: &dyn Store) {
        if !self.told {
            return std::future::pending().await;
        }
        let mut last = String::new();
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                // Nothing else may happen then, and it must not go on saying that somebody waits.
                () = self.next_end_of_a_wait() => {}
            }
            let asked_at = Instant::now();
            match store.depth().await {
                Ok(depth) => {
                    let text = self.status(&depth);
                    if text != last {
                        tell(true, &[NotifyState::Status(&text)]);
                        last = text;
                    }
                }
                Err(problem) => debug!(error = problem.to_string(), "the queue could not be counted for systemd"),
            }
            tokio::time::sleep(STATUS_EVERY.max(asked_at.elapsed() * COUNT_SHARE)).await;
        }
    }

    async fn next_end_of_a_wait(&self) {
        let next = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.throttled.values().filter(|until| **until > Instant::now()).min().copied()
        };
        match next {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    fn status(&self, depth: &Depth) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let waits = seen.throttled.iter().map(|(name, until)| (name, until.saturating_duration_since(now)));
        status(depth, waits.filter(|(_, left)| !left.is_zero()))
    }
}

impl Pulse for Manager {
    fn beat(&self) {
        if self.watchdog.is_some() {
            tell(true, &[NotifyState::Watchdog]);
        }
    }

    fn within(&self) -> Option<Duration> {
        self.beat_within
    }

    fn looked(&self, facts: &[(TenantName, Facts)]) {
        if !self.told {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let same = seen.facts.len() == facts.len()
            && seen.facts.iter().zip(facts).all(|(a, b)| a.0 == b.0 && alike(&a.1, &b.1));
        let pending = facts.iter().any(|(_, facts)| facts.ready || facts.next_due.is_some());
        let old = seen
            .facts
            .first()
            .zip(facts.first())
            .is_none_or(|(a, b)| (b.1.now - a.1.now).to_std().map_or(true, |since| since >= STATUS_AT_LEAST_EVERY));
        if same && !(pending && old) {
            return;
        }
        let now = Instant::now();
        seen.throttled = facts
            .iter()
            .filter_map(|(name, facts)| {
                let left = (facts.tenant.wait_until? - facts.now).to_std().ok()?;
                Some((name.clone(), now + left))
            })
            .collect();
        seen.facts = facts.to_vec();
        self.changed.notify_one();
    }
}

/// Whether two looks show the same, whenever they were.
fn alike(a: &Facts, b: &Facts) -> bool {
    a.tenant == b.tenant && a.ready == b.ready && a.next_due == b.next_due && a.next_expiry == b.next_expiry
}

/// `12 ready, 3 waiting, 1 in doubt; contoso waits for 20 s`: throttled, or not reached.
fn status<'a>(depth: &Depth, throttled: impl Iterator<Item = (&'a TenantName, Duration)>) -> String {
    let counts = [
        (depth.ready, "ready"),
        (depth.waiting, "waiting"),
        (depth.sending, "under way"),
        (depth.unknown, "in doubt"),
        (depth.held, "held for a person"),
    ];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let mut text = if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") };
    for (name, left) in throttled {
        let _ = write!(text, "; {name} waits for {} s", left.as_millis().div_ceil(1000));
    }
    text
}

/// A manager that does not listen is no reason to stop working.
fn tell(told: bool, states: &[NotifyState<'_>]) {
    if told && let Err(problem) = sd_notify::notify(states) {
        debug!(error = problem.to_string(), "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_there_is_and_who_waits() {
        let contoso: TenantName = "contoso".parse().expect("a name");
        let depth = Depth { ready: 12, waiting: 3, sending: 0, unknown: 1, held: 0 };
        assert_eq!(
            status(&depth, [(&contoso, Duration::from_millis(19_001))].into_iter()),
            "12 ready, 3 waiting, 1 in doubt; contoso waits for 20 s"
        );
        assert_eq!(status(&Depth::default(), std::iter::empty()), "nothing to do");
    }
}

//! The simulator's clock: real time by default, moved forward on command so that no test has to wait.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use super::unpoisoned;

/// Monotonic from the moment it is made, so that a correction of the host's clock cannot reorder the ledger.
#[derive(Debug)]
pub(super) struct Clock {
    began: DateTime<Utc>,
    since: Instant,
    moved: Mutex<TimeDelta>,
}

impl Clock {
    /// A clock that runs this much ahead of the host's (behind it, if negative): Graph's clock is not ours.
    pub(super) fn ahead_by(ahead: TimeDelta) -> Self {
        Self { began: Utc::now() + ahead, since: Instant::now(), moved: Mutex::new(TimeDelta::zero()) }
    }

    pub(super) fn began(&self) -> DateTime<Utc> {
        self.began
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        let elapsed = TimeDelta::from_std(self.since.elapsed()).unwrap_or(TimeDelta::MAX);
        self.began + elapsed + *unpoisoned(&self.moved)
    }

    pub(super) fn advance(&self, by: Duration) {
        *unpoisoned(&self.moved) += TimeDelta::from_std(by).unwrap_or_default();
    }
}

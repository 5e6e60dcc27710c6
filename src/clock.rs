//! A monotonic clock that also counts while the process is stopped or the machine sleeps; the wall clock for protocols; CPU time.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// A point on `CLOCK_BOOTTIME`. Unlike [`std::time::Instant`] it goes on through a suspended machine, so the age of
/// an intent or a lease is never underestimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// Now.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        Self(Duration::new(secs, nanos))
    }

    /// A point so long after the clock's beginning: for clocks that tests hold.
    pub const fn after_boot(time: Duration) -> Self {
        Self(time)
    }

    /// Time gone by since `earlier`, zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Time gone by since `self`.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// This point moved forward.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Time until this point, zero if it has passed.
    pub fn remaining(self) -> Duration {
        self.since(Self::now())
    }
}

/// The CPU time that this process has used so far, of all its threads.
pub fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(used.tv_sec).unwrap_or(0), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// The host's wall clock, for what a protocol wants in wall-clock time: an assertion's validity, a token's `expires_on`. What
/// the daemon decides by is the database's time and spans of [`BootInstant`].
#[allow(clippy::disallowed_methods, reason = "the one door for it")]
pub fn host_time() -> DateTime<Utc> {
    Utc::now()
}

/// What the engine measures spans with, so that a test can hold it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> BootInstant;
}

/// The machine's own.
#[derive(Debug, Clone, Copy)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> BootInstant {
        BootInstant::now()
    }
}

//! What limits a job, and what to set: arithmetic on what is configured and what was measured. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::domain::action::Action;
use crate::domain::rate::Rate;

/// What a call to Graph is taken to last: no simulator knows.
pub(super) const LATENCY: Duration = Duration::from_millis(200);

/// The default of `batch.max_devices`.
const USUAL_DEVICES: usize = 100;

/// More devices a call hardly spare a database anything, and one call in doubt leaves as many of them in doubt.
const MANY_DEVICES: usize = 500;

/// `worker.max_calls_in_flight` at its most.
const MOST_CALLS: usize = 64;

/// From this share of all cores on, they are what is waited for.
const BUSY: f64 = 0.8;

/// What bounds a job before anything is measured.
#[derive(Debug, Clone)]
pub(super) struct Configured {
    /// What each tenant calls, and how often it may; one at least.
    pub(super) tenants: Vec<(Action, Rate)>,
    /// `batch.max_devices`
    pub(super) max_devices: usize,
    /// `worker.max_calls_in_flight`
    pub(super) max_calls_in_flight: usize,
}

/// What was seen without latency and without a limit.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Devices that ended in a second.
    pub(super) devices_per_second: f64,
    /// The least transaction that writes.
    pub(super) commit: Duration,
    /// The same without anything to write.
    pub(super) read: Duration,
    /// The CPU time of this process for a device.
    pub(super) cpu_per_device: Duration,
    /// Cores that this process may use.
    pub(super) cores: usize,
}

/// What may limit a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limit {
    /// How often Graph may be called.
    Api,
    /// How many calls may be under way at once.
    CallsInFlight,
    /// What the database takes.
    Database,
    /// What this host's cores take.
    Cpu,
}

impl Limit {
    /// As it stands in a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Api => "the API",
            Self::CallsInFlight => "the calls in flight",
            Self::Database => "the database",
            Self::Cpu => "the CPU",
        }
    }
}

/// A key that should have another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The key.
    pub(super) key: &'static str,
    /// Its new value.
    pub(super) value: usize,
    /// What comes of it.
    pub(super) why: &'static str,
}

/// What all of it comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// Devices a second that each allows if the others were no matter.
    pub(super) rates: [(Limit, f64); 4],
    /// The one that allows fewest.
    pub(super) limit: Limit,
    /// What should be changed.
    pub(super) set: Option<Setting>,
    /// What else is to be known, in sentences.
    pub(super) notes: Vec<&'static str>,
}

impl Verdict {
    /// Devices a second that this one allows.
    pub(super) fn rate(&self, of: Limit) -> f64 {
        self.rates.iter().find(|(limit, _)| *limit == of).map_or(0.0, |(_, rate)| *rate)
    }
}

impl Configured {
    /// Devices in a call of this action.
    fn devices(&self, action: Action, rate: Rate) -> usize {
        let devices = action.max_devices().map_or(self.max_devices, |most| most.min(self.max_devices));
        // No batch is larger than one period's budget.
        if action.requests(devices) > 1 { devices.min(rate.calls as usize).max(1) } else { devices }
    }

    /// Devices in the smallest calls of all tenants, of which the database has the most work.
    pub(super) fn devices_per_call(&self) -> usize {
        self.tenants.iter().map(|(action, rate)| self.devices(*action, *rate)).min().unwrap_or(self.max_devices)
    }

    /// Devices a second that this tenant's limits allow, and calls.
    fn allowed(&self, action: Action, rate: Rate) -> (f64, f64) {
        let devices = self.devices(action, rate);
        let calls = f64::from(rate.calls) / rate.period.as_secs_f64() / number(action.requests(devices));
        (calls * number(devices), calls)
    }
}

/// Which of them limits a job, and what to set.
pub(super) fn verdict(configured: &Configured, measured: &Measured) -> Verdict {
    let allowed: Vec<(f64, f64)> =
        configured.tenants.iter().map(|(action, rate)| configured.allowed(*action, *rate)).collect();
    let api: f64 = allowed.iter().map(|(devices, _)| devices).sum();
    // Each tenant has as many calls under way, so the one that calls most often decides.
    let needed = allowed.iter().map(|(_, calls)| *calls).fold(0.0, f64::max) * LATENCY.as_secs_f64();
    let in_flight = api * number(configured.max_calls_in_flight) / needed;
    let database = measured.devices_per_second;
    let cpu = number(measured.cores) / measured.cpu_per_device.as_secs_f64().max(1e-9);
    // Where the cores were busy, the database was not waited for, and what was measured is what they do.
    let (here, cpu) = if database >= BUSY * cpu { (Limit::Cpu, database) } else { (Limit::Database, cpu) };
    let limit = if api <= in_flight && api <= database {
        Limit::Api
    } else if in_flight <= database {
        Limit::CallsInFlight
    } else {
        here
    };
    let devices = configured.devices_per_call();
    let may_grow = |to: usize| devices == configured.max_devices && devices < to;
    let mut notes = Vec::new();
    let mut set = None;
    match limit {
        Limit::Api if may_grow(USUAL_DEVICES) => {
            set = Some(Setting {
                key: "batch.max_devices",
                value: USUAL_DEVICES,
                why: "the API counts calls, not devices; a call in doubt then leaves more devices in doubt",
            });
        }
        Limit::CallsInFlight if configured.max_calls_in_flight < MOST_CALLS => {
            // As many as the next limit lets leave.
            let value = MOST_CALLS.min(whole(needed * (database / api).min(1.0)));
            let why = "so many calls of 200 ms are under way at once before something else limits";
            set = Some(Setting { key: "worker.max_calls_in_flight", value, why });
        }
        Limit::CallsInFlight => {
            notes.push("worker.max_calls_in_flight is at its most; more workers on one Postgres make more calls.");
        }
        Limit::Database => {
            // At most one a call: answers that wait share one with the next calls.
            let committing = measured.commit.as_secs_f64() * database / number(devices);
            if committing >= 0.5 && may_grow(MANY_DEVICES) {
                set = Some(Setting {
                    key: "batch.max_devices",
                    value: MANY_DEVICES,
                    why: "commits are what is waited for, and there is up to one a call; a call in doubt then leaves more devices in doubt",
                });
            }
            notes.push(if committing < 0.5 {
                "It is not its commits that are waited for, but its work on the rows: a faster machine for it helps."
            } else if measured.read * 2 > measured.commit {
                "Most of a commit is the way to the server and back: a database nearer to this host helps."
            } else {
                "Most of a commit is the wait for the disk: a disk that answers sooner helps."
            });
        }
        Limit::Cpu => {
            notes.push("More cores help, or workers on other hosts that share one Postgres. The database was not waited for, and may take more.");
        }
        Limit::Api => {}
    }
    if limit == Limit::Api && database < 2.0 * api {
        notes.push("There is little room above it: a long history, or other load on this machine or the database, uses that up.");
    }
    let published = |rate: &Rate| f64::from(rate.calls) / rate.period.as_secs_f64() > 5.0;
    if configured.tenants.iter().any(|(_, rate)| published(rate)) {
        notes.push("limits allow more than the 100 requests in 20 s that Microsoft publishes: Graph may refuse what is beyond that.");
    }
    let rates = [(Limit::Api, api), (Limit::CallsInFlight, in_flight), (Limit::Database, database), (Limit::Cpu, cpu)];
    Verdict { rates, limit, set, notes }
}

#[allow(clippy::cast_precision_loss, reason = "counts of calls, devices and cores")]
fn number(n: usize) -> f64 {
    n as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "no less than zero, and bounded by the caller"
)]
fn whole(n: f64) -> usize {
    n.ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: Rate = Rate { calls: 100, period: Duration::from_secs(20) };
    const FREE: Rate = Rate { calls: 1000, period: Duration::from_secs(1) };

    fn configured(action: Action, rate: Rate, max_devices: usize, max_calls_in_flight: usize) -> Configured {
        Configured { tenants: vec![(action, rate)], max_devices, max_calls_in_flight }
    }

    fn measured(devices_per_second: f64, commit_us: u64, read_us: u64, cpu_us: u64) -> Measured {
        let [commit, read, cpu_per_device] = [commit_us, read_us, cpu_us].map(Duration::from_micros);
        Measured { devices_per_second, commit, read, cpu_per_device, cores: 2 }
    }

    /// The limit, the setting, how each rate compares with the lowest, and what the notes begin with.
    fn said(configured: &Configured, measured: &Measured) -> String {
        let verdict = verdict(configured, measured);
        let lowest = verdict.rate(verdict.limit);
        let rates = verdict.rates.map(|(_, rate)| format!("{:.1}", rate / lowest)).join(" ");
        let set = verdict.set.map(|set| format!("{} = {}", set.key, set.value)).unwrap_or_default();
        let notes: String =
            verdict.notes.iter().map(|note| note.split(' ').take(3).collect::<Vec<_>>().join(" ") + "; ").collect();
        format!("{:?} {lowest:.0}: {rates} | {set} | {notes}", verdict.limit)
    }

    const BULK: Action = Action::BulkReprovisionCloudPc;
    const BATCH: Action = Action::CloudPcReprovision;

    #[test]
    fn the_lowest_of_four_rates_limits_and_only_what_raises_it_is_to_be_set() {
        let good = measured(5000.0, 400, 100, 100);
        for (configured, measured, expected) in [
            // The defaults.
            (configured(BULK, PUBLISHED, 100, 4), &good, "Api 500: 1.0 4.0 10.0 40.0 |  | "),
            // Fewer devices a call than need be.
            (configured(BULK, PUBLISHED, 20, 4), &good, "Api 100: 1.0 4.0 50.0 200.0 | batch.max_devices = 100 | "),
            // Graph's own bound of a batch is not to be set, and each of its requests counts.
            (configured(BATCH, PUBLISHED, 100, 4), &good, "Api 5: 1.0 80.0 1000.0 4000.0 |  | "),
            (
                configured(BATCH, Rate { calls: 5, ..PUBLISHED }, 100, 4),
                &good,
                "Api 0: 1.0 400.0 20000.0 80000.0 |  | ",
            ),
            // Little room.
            (
                configured(BULK, PUBLISHED, 100, 4),
                &measured(900.0, 400, 100, 100),
                "Api 500: 1.0 4.0 1.8 40.0 |  | There is little; ",
            ),
            // As many calls in flight as the database can follow, and no more than there may be.
            (
                configured(BULK, FREE, 100, 1),
                &good,
                "CallsInFlight 500: 200.0 1.0 10.0 40.0 | worker.max_calls_in_flight = 10 | limits allow more; ",
            ),
            (
                configured(BULK, FREE, 1, 1),
                &measured(900.0, 400, 100, 100),
                "CallsInFlight 5: 200.0 1.0 180.0 4000.0 | worker.max_calls_in_flight = 64 | limits allow more; ",
            ),
            (
                configured(BULK, FREE, 1, 64),
                &measured(900.0, 400, 100, 100),
                "CallsInFlight 320: 3.1 1.0 2.8 62.5 |  | worker.max_calls_in_flight is at; limits allow more; ",
            ),
            // Commits that wait for the disk, for the network, and that are not the matter.
            (
                configured(BULK, PUBLISHED, 100, 4),
                &measured(200.0, 300_000, 1000, 100),
                "Database 200: 2.5 10.0 1.0 100.0 | batch.max_devices = 500 | Most of a; ",
            ),
            (
                configured(BULK, PUBLISHED, 500, 4),
                &measured(200.0, 1_800_000, 1_600_000, 100),
                "Database 200: 12.5 50.0 1.0 100.0 |  | Most of a; ",
            ),
            (
                configured(BULK, PUBLISHED, 100, 4),
                &measured(200.0, 1000, 100, 100),
                "Database 200: 2.5 10.0 1.0 100.0 |  | It is not; ",
            ),
            // Cores that are busy, whatever the database could do.
            (
                configured(BULK, PUBLISHED, 100, 4),
                &measured(400.0, 1000, 100, 4500),
                "Cpu 400: 1.2 5.0 1.0 1.0 |  | More cores help,; ",
            ),
        ] {
            assert_eq!(said(&configured, measured), expected, "{configured:?} {measured:?}");
        }
    }

    #[test]
    fn tenants_have_limits_and_calls_of_their_own_and_share_the_database() {
        let seen = measured(700.0, 400, 100, 100);
        let mut two = configured(BULK, PUBLISHED, 100, 1);
        two.tenants.push((BATCH, Rate { calls: 40, ..PUBLISHED }));
        // 5 calls and 500 devices a second of the one, 2 requests of the other.
        assert_eq!(said(&two, &seen), "Api 502: 1.0 1.0 1.4 39.8 |  | There is little; ");
        assert_eq!(two.devices_per_call(), 20);
        two.tenants.push((BULK, PUBLISHED));
        assert_eq!(said(&two, &seen), "Database 700: 1.4 1.4 1.0 28.6 |  | It is not; ");
    }
}

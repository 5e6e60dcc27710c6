//! Which entries form which call, which end now, and how long the rest may wait: a pure function of a snapshot.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::action::Action;
use super::id::{ManagedDeviceId, RequestId};
use super::rate::{Pace, Rate};

/// A queue entry as the claim sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The request.
    pub request_id: RequestId,
    /// Its device.
    pub device: ManagedDeviceId,
    /// Since when it may go.
    pub due_at: DateTime<Utc>,
    /// When it ends unsent.
    pub expires_at: Option<DateTime<Utc>>,
    /// Attempts charged so far.
    pub attempts: u32,
    /// The largest call it may go in: set while a poison ID is being isolated.
    pub max_batch: Option<u32>,
}

/// What holds for all calls of a tenant, by all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantState {
    /// Paused by a person.
    pub paused: bool,
    /// Blocked; one probe may go from this time on.
    pub blocked_until: Option<DateTime<Utc>>,
    /// Throttled or unreachable until then.
    pub wait_until: Option<DateTime<Utc>>,
    /// The rate budget: when the next call is due.
    pub next_call_at: Option<DateTime<Utc>>,
    /// How much of the rate is used.
    pub pace: Pace,
    /// When Graph last refused a call for the rate.
    pub throttled_at: Option<DateTime<Utc>>,
    /// A call's outcome was in doubt and none has been answered since.
    pub cautious: bool,
    /// Calls in `sending`, of all workers.
    pub calls_in_flight: u32,
    /// Calls whose whole outcome is in doubt.
    pub open_doubts: u32,
}

/// One tenant's part of the queue at one moment of the database's clock.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The database's now.
    pub now: DateTime<Utc>,
    /// The tenant.
    pub tenant: TenantState,
    /// Due entries whose device has no other entry in `sending`, `unknown` or `held`, best first (priority, then
    /// age), and every entry that is past its `expires_at`.
    pub entries: Vec<Entry>,
}

/// What one look at a tenant shows, before anything is locked.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The database's now.
    pub now: DateTime<Utc>,
    /// The tenant.
    pub tenant: TenantState,
    /// Whether any entry is ready.
    pub ready: bool,
    /// When the next waiting entry is due; may have passed.
    pub next_due: Option<DateTime<Utc>>,
    /// When the next entry expires; may have passed.
    pub next_expiry: Option<DateTime<Utc>>,
    /// Calls of the tenant in a row that did not get through.
    pub waits_in_a_row: u32,
}

/// When a tenant wants a claim, so that an idle pass costs one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// A call may be possible now, so a token is worth having.
    pub call: bool,
    /// An entry has expired and is to be ended.
    pub expire: bool,
    /// When to look again if nothing else happens.
    pub look_again_in: Option<Duration>,
}

/// What `facts` ask for.
pub fn attention(facts: &Facts, bounds: &Bounds) -> Attention {
    let now = facts.now;
    let due = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at <= now);
    let waiting = facts.ready || due(facts.next_due);
    let tenant = &facts.tenant;
    let paced = bounds.paced(tenant, now).1.allowance(tenant.next_call_at, now);
    let call = waiting
        && bounds.free_slots > 0
        && paced.calls > 0
        && !matches!(allowance(tenant, now, bounds), Allowance::None);
    let pace = (paced.calls == 0).then(|| Rate::opens(paced.next));
    let gates = if waiting { [tenant.wait_until, tenant.blocked_until, pace] } else { [None; 3] };
    let next = [facts.next_due, facts.next_expiry].into_iter().chain(gates).flatten().filter(|at| *at > now).min();
    Attention {
        call,
        expire: due(facts.next_expiry),
        look_again_in: next.map(|at| (at - now).to_std().unwrap_or_default()),
    }
}

/// Due entries that a plan can use now, at most: what more is read would be read for nothing.
pub fn wanted(facts: &Facts, bounds: &Bounds) -> usize {
    let (_, rate) = bounds.paced(&facts.tenant, facts.now);
    let calls = rate.allowance(facts.tenant.next_call_at, facts.now).calls.min(bounds.free_slots);
    match allowance(&facts.tenant, facts.now, bounds) {
        Allowance::None => 0,
        Allowance::Probe => calls.min(1) * PROBE_DEVICES,
        Allowance::Calls => calls.saturating_mul(bounds.largest()),
    }
}

/// What bounds a plan.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Free call slots of this worker.
    pub free_slots: usize,
    /// Devices in one call.
    pub max_devices: usize,
    /// How long an entry may wait for its call to fill.
    pub linger: Duration,
    /// Calls in doubt at which no new one is made.
    pub open_doubts: u32,
    /// The tenant's rate budget, in requests.
    pub rate: Rate,
    /// What is called.
    pub action: Action,
}

impl Bounds {
    /// Devices in one call: no more than Graph takes, nor than one period's budget has requests for.
    fn largest(&self) -> usize {
        let graph = self.action.max_devices().map_or(usize::MAX, |most| most.min(self.rate.calls.max(1) as usize));
        self.max_devices.min(graph)
    }

    /// What the tenant's refusals have taught, and the rate that holds for it now.
    fn paced(&self, tenant: &TenantState, now: DateTime<Utc>) -> (Pace, Rate) {
        let pace = tenant.pace.learn(tenant.throttled_at, self.rate);
        (pace, pace.of(self.rate, now))
    }
}

/// What is to happen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The calls to make, best first.
    pub calls: Vec<Vec<Entry>>,
    /// Entries past their `expires_at`.
    pub expired: Vec<Entry>,
    /// Time until a lingering call goes even if it is not full, or the rate budget lets another go.
    pub look_again_in: Option<Duration>,
    /// The rate budget once these calls have gone.
    pub budget: Option<RateBudget>,
}

/// What is kept of a tenant's rate budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateBudget {
    /// When the next call is due.
    pub next_call_at: DateTime<Utc>,
    /// How much of the rate is used.
    pub pace: Pace,
}

/// Devices in a probe: the least that can be in doubt.
const PROBE_DEVICES: usize = 1;

/// Plans one tenant's pass. Devices that `apart` names go in calls of their own: nothing can be asked of the action for them.
pub fn plan(snapshot: Snapshot, bounds: &Bounds, apart: &dyn Fn(ManagedDeviceId) -> bool) -> Plan {
    let now = snapshot.now;
    let (expired, live): (Vec<Entry>, Vec<Entry>) =
        snapshot.entries.into_iter().partition(|entry| entry.expires_at.is_some_and(|at| at <= now));
    let mut plan = Plan { expired, ..Plan::default() };
    let (slots, largest) = match allowance(&snapshot.tenant, now, bounds) {
        Allowance::None => return plan,
        Allowance::Probe => (bounds.free_slots.min(1), PROBE_DEVICES),
        Allowance::Calls => (bounds.free_slots, bounds.largest()),
    };
    let (pace, rate) = bounds.paced(&snapshot.tenant, now);
    let paced = rate.allowance(snapshot.tenant.next_call_at, now);
    let mut soonest = |time: Duration| {
        plan.look_again_in = Some(plan.look_again_in.map_or(time, |other: Duration| other.min(time)));
    };
    let (mut planned, mut requests) = (Vec::new(), 0);
    for (call, full) in calls(live, largest, apart) {
        if planned.len() == slots {
            break;
        }
        if requests >= paced.calls {
            soonest((Rate::opens(rate.after(paced, requests)) - now).to_std().unwrap_or_default());
            break;
        }
        // An entry with a cap has waited already; a probe never grows.
        let lingers = !full && largest != PROBE_DEVICES && call.iter().all(|entry| entry.max_batch.is_none());
        let oldest = call.iter().map(|entry| entry.due_at).min().unwrap_or(now);
        let waited = (now - oldest).to_std().unwrap_or_default();
        if lingers && waited < bounds.linger {
            soonest(bounds.linger.saturating_sub(waited));
        } else {
            requests += bounds.action.requests(call.len());
            planned.push(call);
        }
    }
    plan.budget = (!planned.is_empty()).then(|| RateBudget { next_call_at: rate.after(paced, requests), pace });
    plan.calls = planned;
    plan
}

enum Allowance {
    None,
    Probe,
    Calls,
}

fn allowance(tenant: &TenantState, now: DateTime<Utc>, bounds: &Bounds) -> Allowance {
    let not_before = |at: Option<DateTime<Utc>>| at.is_some_and(|at| at > now);
    if tenant.paused
        || not_before(tenant.blocked_until)
        || not_before(tenant.wait_until)
        || tenant.open_doubts >= bounds.open_doubts
    {
        return Allowance::None;
    }
    if tenant.blocked_until.is_some() || tenant.cautious {
        return if tenant.calls_in_flight == 0 { Allowance::Probe } else { Allowance::None };
    }
    Allowance::Calls
}

/// Entries of one cap go together, so that the search for a poison ID does not drag untried entries into it; a device
/// goes in one call only. Each call comes with whether it is full, in the order of its best entry.
fn calls(entries: Vec<Entry>, largest: usize, apart: &dyn Fn(ManagedDeviceId) -> bool) -> Vec<(Vec<Entry>, bool)> {
    let mut taken = HashSet::new();
    let mut open: BTreeMap<(usize, bool), usize> = BTreeMap::new();
    let mut calls: Vec<(Vec<Entry>, bool)> = Vec::new();
    for entry in entries {
        if !taken.insert(entry.device) {
            continue;
        }
        let cap = entry.max_batch.map_or(largest, |cap| largest.min(cap.max(1) as usize));
        // A capped and an uncapped entry never share a call, even where the caps come out alike.
        let group = (if entry.max_batch.is_some() { cap } else { usize::MAX }, apart(entry.device));
        let at = *open.entry(group).or_insert_with(|| {
            calls.push((Vec::new(), false));
            calls.len() - 1
        });
        calls[at].0.push(entry);
        if calls[at].0.len() == cap {
            calls[at].1 = true;
            open.remove(&group);
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// No test here waits for its pace.
    const FAST: Rate = Rate { calls: 1_000_000, period: Duration::from_secs(1) };

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn entry(id: i64, device: u128) -> Entry {
        Entry {
            request_id: RequestId(id),
            device: uuid::Uuid::from_u128(device + 1).try_into().unwrap(),
            due_at: at(0),
            expires_at: None,
            attempts: 0,
            max_batch: None,
        }
    }

    fn bounds() -> Bounds {
        Bounds {
            free_slots: 4,
            max_devices: 100,
            linger: Duration::ZERO,
            open_doubts: 2,
            rate: FAST,
            action: Action::BulkReprovisionCloudPc,
        }
    }

    fn snapshot(entries: Vec<Entry>) -> Snapshot {
        Snapshot { now: at(0), tenant: TenantState::default(), entries }
    }

    fn planned(snapshot: Snapshot, bounds: &Bounds) -> Plan {
        plan(snapshot, bounds, &|_| false)
    }

    fn ids(calls: &[Vec<Entry>]) -> Vec<Vec<i64>> {
        calls.iter().map(|call| call.iter().map(|e| e.request_id.0).collect()).collect()
    }

    #[test]
    fn no_more_calls_go_than_the_rate_budget_has_and_the_rest_is_looked_at_when_it_has_more() {
        let entries: Vec<Entry> = (0..10).map(|n| entry(n, n.unsigned_abs().into())).collect();
        let bounds = Bounds { max_devices: 2, rate: Rate { calls: 10, period: Duration::from_secs(10) }, ..bounds() };
        let mut snap = snapshot(entries);
        let first = planned(snap.clone(), &bounds);
        let budget = RateBudget { next_call_at: at(1) + chrono::TimeDelta::microseconds(7_500), pace: Pace::default() };
        assert_eq!((ids(&first.calls), first.budget), (vec![vec![0, 1]], Some(budget)));
        let opens = Some(Duration::from_micros(957_500));
        assert_eq!(first.look_again_in, opens);
        snap.tenant.next_call_at = Some(budget.next_call_at);
        let none = planned(snap, &bounds);
        assert_eq!((none.calls.len(), none.budget), (0, None), "and nothing is charged for nothing");
        assert_eq!(none.look_again_in, opens);
    }

    #[test]
    fn a_batch_holds_twenty_at_most_is_charged_for_each_and_fits_into_one_period() {
        let entries: Vec<Entry> = (0..50).map(|n| entry(n, n.unsigned_abs().into())).collect();
        let sizes = |calls: u32, free_slots| {
            let rate = Rate { calls, period: Duration::from_secs(20) };
            let bounds = Bounds { rate, free_slots, action: Action::CloudPcReprovision, ..bounds() };
            let plan = planned(snapshot(entries.clone()), &bounds);
            (plan.calls.iter().map(Vec::len).collect::<Vec<_>>(), plan.budget.map(|budget| budget.next_call_at))
        };
        let next = |milliseconds| Some(at(0) + chrono::TimeDelta::milliseconds(milliseconds));
        assert_eq!(sizes(100, 4), (vec![20], next(20 * 2015 / 10)));
        assert_eq!(sizes(5, 4), (vec![5], next(20_150)));
        assert_eq!(sizes(20_000_000, 4).0, [20, 20, 10]);
    }

    #[test]
    fn devices_that_are_apart_share_no_call_with_others() {
        let entries: Vec<Entry> = (0..6).map(|n| entry(n, n.unsigned_abs().into())).collect();
        let odd = |device: ManagedDeviceId| device.as_uuid().as_u128() % 2 == 1;
        let plan = plan(snapshot(entries), &bounds(), &odd);
        assert_eq!(ids(&plan.calls), [[0, 2, 4], [1, 3, 5]]);
    }

    #[test]
    fn two_requests_for_one_device_never_share_a_pass() {
        let plan = planned(snapshot(vec![entry(1, 7), entry(2, 7), entry(3, 8)]), &bounds());
        assert_eq!(ids(&plan.calls), [[1, 3]]);
    }

    #[test]
    fn a_call_that_is_not_full_waits_for_its_linger_and_says_how_long() {
        let mut snap = snapshot(vec![entry(1, 1)]);
        snap.now = at(3);
        let bounds = Bounds { linger: Duration::from_secs(5), ..bounds() };
        let waiting = planned(snap.clone(), &bounds);
        assert_eq!((waiting.calls.len(), waiting.look_again_in), (0, Some(Duration::from_secs(2))));
        snap.now = at(5);
        assert_eq!(planned(snap.clone(), &bounds).calls.len(), 1);
        let full = Bounds { max_devices: 1, ..bounds };
        snap.now = at(0);
        assert_eq!(planned(snap, &full).calls.len(), 1);
    }

    #[test]
    fn entries_of_a_refused_call_go_in_calls_of_half_its_size_and_drag_no_untried_entry_along() {
        let mut entries: Vec<Entry> = (0..10).map(|n| entry(n, n.unsigned_abs().into())).collect();
        for entry in &mut entries[2..6] {
            entry.max_batch = Some(2);
        }
        assert_eq!(ids(&planned(snapshot(entries), &bounds()).calls), [vec![0, 1, 6, 7, 8, 9], vec![2, 3], vec![4, 5]]);
    }

    #[test]
    fn a_cautious_or_blocked_tenant_gets_one_call_of_one_device_and_only_when_none_is_in_flight() {
        let entries: Vec<Entry> = (0..10).map(|n| entry(n, n.unsigned_abs().into())).collect();
        for tenant in [
            TenantState { cautious: true, ..TenantState::default() },
            TenantState { blocked_until: Some(at(0)), ..TenantState::default() },
        ] {
            let mut snap = Snapshot { tenant, ..snapshot(entries.clone()) };
            assert_eq!(ids(&planned(snap.clone(), &bounds()).calls), [[0]]);
            snap.tenant.calls_in_flight = 1;
            assert_eq!(planned(snap, &bounds()), Plan::default());
        }
    }

    #[test]
    fn no_call_is_planned_for_a_tenant_that_is_paused_blocked_waiting_or_at_its_limit_of_doubts() {
        let closed = [
            TenantState { paused: true, ..TenantState::default() },
            TenantState { blocked_until: Some(at(1)), ..TenantState::default() },
            TenantState { wait_until: Some(at(1)), ..TenantState::default() },
            TenantState { open_doubts: 2, ..TenantState::default() },
        ];
        for tenant in closed {
            let snap = Snapshot { tenant, ..snapshot(vec![entry(1, 1)]) };
            assert_eq!(planned(snap.clone(), &bounds()), Plan::default(), "{:?}", snap.tenant);
        }
    }

    prop_compose! {
        fn any_entry()(id in 0..1_000_i64, device in 0..60_u128, due in 0..20_i64, expires in proptest::option::of(-5..40_i64),
                       max_batch in proptest::option::of(0..60_u32)) -> Entry {
            Entry { due_at: at(due), expires_at: expires.map(at), max_batch, ..entry(id, device) }
        }
    }

    proptest! {
        #[test]
        fn every_plan_keeps_within_its_bounds(
            entries in proptest::collection::vec(any_entry(), 0..200),
            free_slots in 0..6_usize, max_devices in 1..50_usize, linger in 0..30_u64, now in 0..40_i64,
            cautious: bool, paused: bool, wait in proptest::option::of(0..40_i64), open_doubts in 0..4_u32,
        ) {
            let mut entries = entries;
            for (n, entry) in entries.iter_mut().enumerate() {
                entry.request_id = RequestId(i64::try_from(n).unwrap());
            }
            let tenant = TenantState { cautious, paused, wait_until: wait.map(at), open_doubts, ..TenantState::default() };
            let bounds = Bounds { free_slots, max_devices, linger: Duration::from_secs(linger), open_doubts: 2, rate: FAST, action: Action::BulkReprovisionCloudPc };
            let snap = Snapshot { now: at(now), tenant: tenant.clone(), entries: entries.clone() };
            let plan = planned(snap, &bounds);

            prop_assert!(plan.calls.len() <= free_slots);
            let sent: Vec<&Entry> = plan.calls.iter().flatten().collect();
            let devices: HashSet<_> = sent.iter().map(|e| e.device).collect();
            prop_assert_eq!(devices.len(), sent.len(), "a device twice");
            for call in &plan.calls {
                prop_assert!(!call.is_empty() && call.len() <= max_devices);
                prop_assert!(call.iter().all(|e| e.max_batch.is_none_or(|cap| call.len() <= cap.max(1) as usize)));
                prop_assert!(!cautious || call.len() == 1);
            }
            prop_assert!(sent.iter().all(|e| e.expires_at.is_none_or(|t| t > at(now))), "sent after its expiry");
            let overdue = entries.iter().filter(|e| e.expires_at.is_some_and(|t| t <= at(now))).count();
            prop_assert_eq!(plan.expired.len(), overdue);
            if paused || open_doubts >= 2 || wait.is_some_and(|w| w > now) {
                prop_assert!(plan.calls.is_empty());
            } else if !cautious && linger == 0 {
                // Nothing that could go stays behind while a slot is free.
                let could: HashSet<_> = entries.iter().filter(|e| e.expires_at.is_none_or(|t| t > at(now))).map(|e| e.device).collect();
                prop_assert!(plan.calls.len() == free_slots || devices.len() == could.len());
            }
        }
    }
}

//! What must hold after every step, by the numbers of the protocol's section 7. Numbers 1, 4 and 6 are also held by
//! [`super::database`], as constraints and triggers hold them in earnest.

use reprovisiond::domain::id::{CallId, ManagedDeviceId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryState, TenantEffect};
use reprovisiond::store::Claim;

use super::database::{CallRow, Queued};
use super::world::{Life, Rules, State};

/// 1: every request is in the queue or has its final result.
pub(super) fn after_commit(state: &mut State, _rules: &Rules) {
    let db = &state.db;
    // Both are keyed by request and disjoint by construction of `end`; what is lost shows in the sum.
    if db.queue.len() + db.finals.len() != db.requests.len() {
        let sum = format!("{} queued, {} final of {}", db.queue.len(), db.finals.len(), db.requests.len());
        state.breach([format!("invariant 1: {sum}")]);
    }
    let doubts = state.db.tenants.keys().map(|tenant| state.db.open_doubts(tenant)).max();
    state.most_doubts = state.most_doubts.max(doubts.unwrap_or(0));
}

/// 7, and the bounds of one worker and of the rate.
pub(super) fn after_claim(state: &mut State, rules: &Rules, claim: &Claim<'_>, first: usize, doubts: usize) {
    let db = &state.db;
    let mut breaches = Vec::new();
    if first == db.calls.len() {
        return;
    }
    if doubts >= rules.limits.open_doubts as usize {
        breaches.push(format!("invariant 7: calls are intended while {doubts} are in doubt"));
    }
    // A call whose COMMIT came late is never made: it is in the table only.
    let in_flight =
        |call: &CallRow| call.worker == claim.worker && call.tenant == *claim.tenant && call.committed == call.intended;
    let of_worker = db.sending.iter().filter(|n| in_flight(&db.calls[**n])).count();
    if of_worker > rules.contract.worker.max_calls_in_flight {
        breaches.push(format!("a worker has {of_worker} calls of one tenant in flight"));
    }
    let rate = rules.limits.rate;
    let recent = |call: &&CallRow| {
        call.tenant == *claim.tenant
            && db.time.saturating_sub(call.intended) < rate.period.saturating_sub(super::TOLERANCE)
    };
    let recent = db.calls.iter().rev().take(500).filter(recent).count();
    if !state.stepped && recent > rate.calls as usize {
        breaches.push(format!("{recent} calls within {:?}", rate.period));
    }
    state.breach(breaches);
}

/// A wait of the tenant is committed.
pub(super) fn wait_recorded(state: &mut State, call: usize, effect: &TenantEffect) {
    if matches!(effect, TenantEffect::Wait { .. }) {
        let time = state.db.time;
        for wish in state.ledger.wishes.iter_mut().filter(|wish| wish.call == call && wish.recorded.is_none()) {
            wish.recorded = Some(time);
        }
    }
}

/// 2, 4, 5 and 8: a call leaves now. Gives its number.
pub(super) fn sent(state: &mut State, rules: &Rules, life: &Life, call: CallId, devices: &[ManagedDeviceId]) -> usize {
    let Some(number) = state.db.number_of(call) else {
        state.breach([format!("invariant 2: a call without an intent is sent to {devices:?}")]);
        return usize::MAX;
    };
    state.ledger.sent += 1;
    let (db, row) = (&state.db, &state.db.calls[number]);
    let age = db.time.saturating_sub(row.intended);
    let mut breaches = Vec::new();
    if row.entries.iter().map(|(_, device)| *device).ne(devices.iter().copied()) {
        breaches.push(format!("invariant 2: call {number} is sent to others than it was intended for"));
    }
    // A step forward lets others believe this worker dead; without one, only it can move its call on.
    if row.state != CallState::Sending && !state.stepped {
        breaches.push(format!("invariant 2: call {number} is sent in state {}", row.state));
    }
    for device in devices {
        if let Some(id) = db.busy.get(device)
            && db.queue[id].call != Some(number)
        {
            breaches.push(format!("invariant 4: call {number} is sent while request {id} has its device"));
        }
    }
    if age > rules.contract.worker.send_within {
        breaches.push(format!("invariant 8: call {number} is sent {age:?} after its intent"));
    }
    if db.time >= db.workers[&row.worker].lease_lapses {
        breaches.push(format!("invariant 8: call {number} is sent after its worker's lease has lapsed"));
    }
    // A worker knows what it has read. Others know what was recorded before they made the intent: a call of theirs that
    // was intended before is one that was in flight. A step of the clock ends waits early, but for the one that read it.
    for wish in state.ledger.wishes.iter().filter(|w| w.tenant == row.tenant && w.until > db.time) {
        let known = wish.recorded.is_some_and(|at| at < row.intended) && !state.stepped;
        if known || (wish.read && wish.worker == life.number) {
            breaches
                .push(format!("invariant 5: call {number} is sent before the end of call {}'s Retry-After", wish.call));
        }
    }
    state.breach(breaches);
    number
}

/// 3: once a request.
pub(super) fn after_wipe(state: &mut State, call: usize, device: ManagedDeviceId) {
    let request = |n: usize| state.db.calls[n].entries.iter().find(|(_, d)| *d == device).map(|(id, _)| *id);
    let this = request(call);
    let wipes = state.ledger.wipes[&device].iter().filter(|wipe| request(wipe.call) == this).count();
    if wipes > 1 {
        state.breach([format!("invariant 3: device {device} is wiped {wipes} times for request {this:?}")]);
    }
}

/// Faults have stopped, and time enough has gone by: everything has ended, and truly so.
pub(super) fn at_the_end(state: &mut State) {
    let mut breaches = Vec::new();
    for (id, entry) in &state.db.queue {
        breaches.push(format!("liveness: request {id} is still {}: {}", entry.state, entry.wait_reason));
    }
    for (id, end) in &state.db.finals {
        let device = state.db.requests[usize::try_from(*id - 1).unwrap()];
        let own = |n: usize| state.db.calls[n].entries.iter().any(|(request, _)| request == id);
        let wiped = state.ledger.wipes.get(&device).is_some_and(|wipes| wipes.iter().any(|wipe| own(wipe.call)));
        match (end.bucket, wiped) {
            (Bucket::Successful, false) => {
                breaches.push(format!("request {id} is successful (call {:?}) and was never carried out", end.call));
            }
            (Bucket::Successful, true) | (_, false) => {}
            (bucket, true) => breaches.push(format!("request {id} is {bucket} and was carried out")),
        }
    }
    state.breach(breaches);
}

/// Somebody looks at what is held and says what they see. Held is right where nothing could be read for long, where two
/// requests for one device lie close together, or where the database's clock was set; and nowhere else.
pub(super) fn resolve_held(state: &mut State) {
    let held = |(_, entry): &(&i64, &Queued)| entry.state == EntryState::Held;
    let held: Vec<(i64, usize, ManagedDeviceId)> =
        state.db.queue.iter().filter(held).map(|(id, entry)| (*id, entry.call.unwrap(), entry.device)).collect();
    for (id, call, device) in held {
        let reason = state.db.queue[&id].wait_reason.clone();
        let again = state.db.requests.iter().filter(|other| **other == device).count() > 1;
        if !(again || state.stepped || state.weather.read_back_fails > 0.0) {
            state.breach([format!("request {id} is held although everything could be read: {reason}")]);
        }
        let wiped = state.ledger.wipes.get(&device).is_some_and(|wipes| wipes.iter().any(|wipe| wipe.call == call));
        state.note(format_args!("request {id} was held ({reason}); a person sees that it happened: {wiped}"));
        state.db.resolve(id, wiped);
    }
}

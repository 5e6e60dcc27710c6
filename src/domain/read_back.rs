//! Settling a doubt by what Graph's remote action results show: evidence, or patience, or a person. Never a guess.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::action::Action;
use super::answer::DeviceAnswer;
use super::id::{CallId, CloudPcId, ManagedDeviceId, RequestId};
use super::lifecycle::Bucket;
use super::printable::printable;

/// A queue entry in `unknown`: one device of a call that has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The request.
    pub request_id: RequestId,
    /// Its device.
    pub device: ManagedDeviceId,
    /// The call that may have been carried out.
    pub call_id: CallId,
    /// What it called.
    pub action: Action,
    /// The device's Cloud PC, where the call named it.
    pub cloud_pc: Option<CloudPcId>,
    /// When its intent was committed: it was not sent before, by the database's clock.
    pub sent_at: DateTime<Utc>,
    /// When it was given up: it was not sent after, by the database's clock.
    pub given_up_at: DateTime<Utc>,
    /// Attempts charged, this one among them.
    pub attempts: u32,
    /// Other calls of ours that Graph accepted for this device and that ended no sooner than twice the margin before this
    /// one was sent, so that their actions may be among this one's candidates: as many are theirs.
    pub explained: u32,
    /// The database's now.
    pub now: DateTime<Utc>,
    /// How long this process has had it in view, by a clock that nobody sets.
    pub watched: Duration,
    /// Time from `now` to the read-back, by the same clock.
    pub read_took: Duration,
}

impl Doubt {
    /// Whether its call cannot have sent anything: it takes Cloud PCs and its intent named none.
    pub fn only_looked_up(&self) -> bool {
        self.action.takes_cloud_pc_ids() && self.cloud_pc.is_none()
    }

    /// What is to be read back.
    pub fn subject(&self) -> Subject {
        Subject { call_id: self.call_id, action: self.action, device: self.device, cloud_pc: self.cloud_pc }
    }
}

/// Whose remote actions are read, by the interface of the call that they are to tell about: the setting may have changed
/// since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The call.
    pub call_id: CallId,
    /// What it called.
    pub action: Action,
    /// The device.
    pub device: ManagedDeviceId,
    /// Its Cloud PC, where the call named it.
    pub cloud_pc: Option<CloudPcId>,
}

/// One entry of a device's remote action results (`cloudPcRemoteActionResult`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAction {
    /// `actionName`
    pub name: String,
    /// `actionState`
    pub state: String,
    /// `startDateTime`, by Graph's clock.
    pub started_at: Option<DateTime<Utc>>,
    /// `lastUpdatedDateTime`, by Graph's clock.
    pub updated_at: Option<DateTime<Utc>>,
    /// Code and message of `statusDetail` (or `statusDetails`), where Graph gives one.
    pub status_detail: Option<String>,
}

/// What reading back gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadBack {
    /// The device's remote actions, as Graph shows them now.
    Seen(Seen),
    /// The call itself, found by the name it carried: it was accepted.
    Found(Found),
    /// Nothing could be read.
    Failed {
        /// Why.
        reason: String,
        /// Graph's wish to be left alone, where it has one.
        retry_after: Option<Duration>,
    },
}

/// A call that Graph has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Graph's own id of it.
    pub id: String,
    /// Its state.
    pub status: String,
    /// When Graph made it, by its clock.
    pub created_at: Option<DateTime<Utc>>,
    /// What Graph says of the device.
    pub device: DeviceAnswer,
    /// Graph's `Date`.
    pub read_at: Option<DateTime<Utc>>,
    /// Graph's `request-id`.
    pub graph_request_id: Option<String>,
}

/// A device's remote actions, and which answer of Graph's shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// All that Graph lists.
    pub actions: Vec<RemoteAction>,
    /// Graph's `Date`: when it showed them, by the clock that `started_at` is by.
    pub read_at: Option<DateTime<Utc>>,
    /// Graph's `request-id`.
    pub graph_request_id: Option<String>,
    /// Why what is not among them may have happened all the same.
    pub absence_proves_nothing: Option<&'static str>,
}

/// `[reconcile]`, as far as it decides here.
#[derive(Debug, Clone)]
pub struct ReconcilePolicy {
    /// Not read before.
    pub first_after: Duration,
    /// What is not shown by then did not happen.
    pub settle_after: Duration,
    /// A doubt that nothing could be learnt about by then goes to a person.
    pub give_up_after: Duration,
    /// How far Graph's clock may be from the database's.
    pub clock_margin: Duration,
    /// Attempts a request may be charged with.
    pub max_attempts: u32,
}

/// What becomes of a doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The request ends, on the word of the read-back.
    Final {
        /// Its bucket.
        bucket: Bucket,
        /// The evidence in a sentence.
        detail: String,
        /// The evidence itself, as JSON.
        evidence: String,
    },
    /// It did not happen: queued for a new attempt.
    QueueAgain {
        /// The evidence in a sentence.
        detail: String,
        /// The evidence itself, as JSON.
        evidence: String,
    },
    /// Nothing is proven yet.
    AskAgain {
        /// Time until the next look.
        after: Duration,
        /// What was seen.
        detail: String,
    },
    /// A person decides.
    Hold {
        /// What was seen, and not seen.
        detail: String,
        /// The same as JSON.
        evidence: String,
    },
}

/// Remote actions that are kept as evidence: a device has a handful.
const KEPT_ACTIONS: usize = 50;

/// Characters of a word of Graph's that are kept as evidence.
const KEPT_CHARS: usize = 100;

/// A read-back as it is kept beside the result that stands on it: JSON of bounded size, Reprovisions first, so that what
/// decided is there whatever else the device has been through.
pub fn evidence(read: &ReadBack) -> String {
    let seen = match read {
        ReadBack::Failed { reason, .. } => return not_read(reason),
        ReadBack::Found(found) => {
            return serde_json::json!({
                "read_at": found.read_at,
                "graph_request_id": found.graph_request_id,
                "bulk_action": { "id": found.id, "status": found.status, "created_at": found.created_at },
            })
            .to_string();
        }
        ReadBack::Seen(seen) => seen,
    };
    let (first, then): (Vec<_>, Vec<_>) = seen.actions.iter().partition(|action| action.is_reprovision());
    let actions: Vec<_> = first
        .into_iter()
        .chain(then)
        .take(KEPT_ACTIONS)
        .map(|action| {
            let mut kept = serde_json::json!({
                "name": printable(&action.name, KEPT_CHARS).to_string(),
                "state": printable(&action.state, KEPT_CHARS).to_string(),
                "started_at": action.started_at,
            });
            if let Some(at) = action.updated_at {
                kept["updated_at"] = serde_json::json!(at);
            }
            if let Some(detail) = &action.status_detail {
                kept["status_detail"] = printable(detail, KEPT_CHARS).to_string().into();
            }
            kept
        })
        .collect();
    serde_json::json!({
        "read_at": seen.read_at,
        "graph_request_id": seen.graph_request_id,
        "actions_listed": seen.actions.len(),
        "actions": actions,
    })
    .to_string()
}

/// The evidence of a doubt that nothing was read about.
pub fn not_read(reason: &str) -> String {
    serde_json::json!({ "failed": printable(reason, 1000).to_string() }).to_string()
}

impl RemoteAction {
    /// Whether it is what this daemon asks for.
    pub fn is_reprovision(&self) -> bool {
        self.name.eq_ignore_ascii_case("reprovision")
    }
}

/// Settles one doubt.
///
/// Source: the reference page of `cloudPcRemoteActionResult`: `startDateTime` is Graph's clock, so it is compared with a
/// margin; and an entry that is missing proves nothing until the settling time is over.
pub fn settle(doubt: &Doubt, read: &ReadBack, policy: &ReconcilePolicy) -> Settlement {
    if doubt.only_looked_up() {
        let detail = "the call named no Cloud PC: it only looked its devices up, and nothing was sent".to_owned();
        return Settlement::QueueAgain { evidence: not_read(&detail), detail };
    }
    let margin = TimeDelta::from_std(policy.clock_margin).unwrap_or(TimeDelta::MAX);
    // A call that is found by its own name was accepted, whatever any clock says.
    if set_back(doubt, margin) && !matches!(read, ReadBack::Found(_)) {
        let detail =
            "the database's clock was set back since the call, so that no time of it can be compared with Graph's";
        return Settlement::Hold { detail: detail.to_owned(), evidence: evidence(read) };
    }
    let shown = match read {
        ReadBack::Failed { reason, retry_after } => {
            let reason = format!("nothing could be read back: {reason}");
            return wait_or_hold(doubt, policy, read, reason, retry_after.unwrap_or_default());
        }
        ReadBack::Seen(seen) if apart(doubt.now, doubt.read_took, seen.read_at, margin) => {
            let seen = "the database's clock and Graph's are further apart than reconcile.clock_margin: set them right";
            return wait_or_hold(doubt, policy, read, seen.to_owned(), Duration::ZERO);
        }
        ReadBack::Seen(seen) => seen,
        ReadBack::Found(found) => return accepted(doubt, found, read, policy),
    };
    let earliest = doubt.sent_at.checked_sub_signed(margin).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let reprovisions: Vec<&RemoteAction> = shown.actions.iter().filter(|action| action.is_reprovision()).collect();
    let ours: Vec<&&RemoteAction> =
        reprovisions.iter().filter(|action| action.started_at.is_some_and(|at| at >= earliest)).collect();

    if ours.len() > doubt.explained as usize {
        return ours.iter().max_by_key(|action| action.started_at).map_or_else(
            || wait_or_hold(doubt, policy, read, "read-back is empty".to_owned(), Duration::ZERO),
            |action| happened(action, read),
        );
    }
    if reprovisions.iter().any(|action| action.started_at.is_none()) {
        let seen = "read-back shows a Reprovision without a start time, which may be this one or an old one";
        return wait_or_hold(doubt, policy, read, seen.to_owned(), Duration::ZERO);
    }
    // Another call of ours may account for it, or be too old to show here while this is the one in doubt: Graph's clock may
    // be behind by the margin, so that not even one that began before the call is another's for sure.
    if !ours.is_empty() {
        let seen = "read-back shows a Reprovision that may be this one or that of another accepted call close to it";
        return wait_or_hold(doubt, policy, read, seen.to_owned(), Duration::ZERO);
    }
    match shown.absence_proves_nothing {
        Some(why) => {
            let seen = format!("read-back shows no Reprovision, which proves nothing here: {why}");
            wait_or_hold(doubt, policy, read, seen, Duration::ZERO)
        }
        None => absent(doubt, read, policy),
    }
}

/// Graph does not show it: once the settling time is over, it did not happen.
fn absent(doubt: &Doubt, read: &ReadBack, policy: &ReconcilePolicy) -> Settlement {
    let age = age(doubt);
    if age < policy.settle_after {
        let left = policy.settle_after.saturating_sub(age);
        return Settlement::AskAgain {
            after: next_look(doubt, policy).min(left),
            detail: "read-back shows no Reprovision yet".to_owned(),
        };
    }
    let detail = format!("read-back shows no Reprovision {} s after the call: it did not happen", age.as_secs());
    if doubt.attempts < policy.max_attempts {
        Settlement::QueueAgain { detail, evidence: evidence(read) }
    } else {
        Settlement::Final {
            bucket: Bucket::Failed,
            detail: format!("{detail}, on attempt {} of {}", doubt.attempts, policy.max_attempts),
            evidence: evidence(read),
        }
    }
}

/// The call is there. Where Graph does not say what became of the device it is asked again, though not for ever: `successful`
/// means accepted, and accepted it is.
fn accepted(doubt: &Doubt, found: &Found, read: &ReadBack, policy: &ReconcilePolicy) -> Settlement {
    let shows = format!("read-back shows bulk action {}, {}", found.id, found.status);
    let (bucket, detail) = match &found.device {
        DeviceAnswer::Bucket(bucket, None) => (*bucket, shows),
        DeviceAnswer::Bucket(bucket, Some(detail)) => (*bucket, format!("read-back shows {detail}")),
        DeviceAnswer::Unknown(_) | DeviceAnswer::NotCarriedOut(_) | DeviceAnswer::Refused(_) => {
            if age(doubt) < policy.settle_after {
                return Settlement::AskAgain { after: next_look(doubt, policy), detail: shows };
            }
            (Bucket::Successful, format!("{shows}: it was accepted, and what became of this device is not shown"))
        }
    };
    Settlement::Final { bucket, detail, evidence: evidence(read) }
}

/// A reprovision of ours is there. `successful` means accepted, here as in an answer; how far it got is in the detail.
fn happened(action: &RemoteAction, read: &ReadBack) -> Settlement {
    let started = action.started_at.map_or_else(String::new, |at| format!(" started {}", at.to_rfc3339()));
    let detail = format!("read-back shows Reprovision {}{started} by Graph's clock", printable(&action.state, 40));
    let bucket =
        if action.state.eq_ignore_ascii_case("notSupported") { Bucket::NotSupported } else { Bucket::Successful };
    Settlement::Final { bucket, detail, evidence: evidence(read) }
}

fn wait_or_hold(
    doubt: &Doubt,
    policy: &ReconcilePolicy,
    read: &ReadBack,
    seen: String,
    at_least: Duration,
) -> Settlement {
    if since(doubt.sent_at, doubt.now).max(doubt.watched) >= policy.give_up_after {
        Settlement::Hold { detail: seen, evidence: evidence(read) }
    } else {
        Settlement::AskAgain { after: next_look(doubt, policy).max(at_least), detail: seen }
    }
}

/// Looks get rarer as the doubt gets older: each waits as long again as the doubt is old.
fn next_look(doubt: &Doubt, policy: &ReconcilePolicy) -> Duration {
    policy.first_after.max(age(doubt))
}

/// Time for sure since it was given up. The database's clock may have been set forward meanwhile, and this process may have
/// been started in between: the lesser of what both say.
fn age(doubt: &Doubt) -> Duration {
    since(doubt.given_up_at, doubt.now).min(doubt.watched)
}

/// The call lies in the future. What time it was sent at by a clock that was right since, nobody can say.
fn set_back(doubt: &Doubt, margin: TimeDelta) -> bool {
    doubt.sent_at.max(doubt.given_up_at) - doubt.now > margin
}

/// Whether Graph's `Date`, which is in whole seconds, proves that its clock is not within the margin of the database's.
/// `now` is the database's, `read_took` the time from it to the read-back.
pub(super) fn apart(
    now: DateTime<Utc>,
    read_took: Duration,
    read_at: Option<DateTime<Utc>>,
    margin: TimeDelta,
) -> bool {
    let took = TimeDelta::from_std(read_took).unwrap_or(TimeDelta::MAX);
    let margin = margin + TimeDelta::seconds(1);
    read_at.is_some_and(|at| at - now > margin + took || now - at > margin)
}

fn since(then: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - then).to_std().unwrap_or_default()
}

#[cfg(test)]
mod tests;

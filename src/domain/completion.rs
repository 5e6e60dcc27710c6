//! What became of an accepted reprovision: by Graph's remote action results, or not known. Never a guess.
//!
//! `successful` means that Graph accepted it; whether the Cloud PC came back shows up to an hour later. What is followed here
//! changes no result and wakes no queue: it is told beside them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::action::Action;
use super::id::{CallId, CloudPcId, ManagedDeviceId, RequestId};
use super::lifecycle::words;
use super::printable::printable;
use super::read_back::{ReadBack, RemoteAction, Subject, apart, evidence};

words! {
    /// `completions.state`, and what is shown for it.
    CompletionState {
        /// Not ended yet as far as is known: it is being read back. In views and outputs only.
        Followed = "followed",
        /// Graph shows that it is done.
        Done = "done",
        /// Graph shows that it failed.
        Failed = "failed",
        /// Graph shows that it was canceled.
        Canceled = "canceled",
        /// Graph shows that the Cloud PC does not support it.
        NotSupported = "not_supported",
        /// Its end was not shown in time, and is not looked for any more.
        Untracked = "untracked",
    }
}

/// A reprovision that is being followed: one device of one accepted call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The request.
    pub request_id: RequestId,
    /// Its device.
    pub device: ManagedDeviceId,
    /// The call that Graph accepted.
    pub call_id: CallId,
    /// What it called.
    pub action: Action,
    /// The device's Cloud PC, where the call named it.
    pub cloud_pc: Option<CloudPcId>,
    /// When its intent was committed, by the database's clock.
    pub sent_at: DateTime<Utc>,
    /// When it was recorded as successful, by the database's clock.
    pub accepted_at: DateTime<Utc>,
    /// Other calls of ours that Graph accepted for this device, from a day before this one on.
    pub others: Vec<OtherCall>,
    /// The database's now.
    pub now: DateTime<Utc>,
    /// Time from `now` to the read-back, by a clock that nobody sets.
    pub read_took: Duration,
}

/// A call of ours whose action may be listed beside the one in question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherCall {
    /// Its action did not begin before, by the database's clock.
    pub sent_at: DateTime<Utc>,
    /// It ended then.
    pub finished_at: DateTime<Utc>,
}

impl Watch {
    /// What is to be read back.
    pub fn subject(&self) -> Subject {
        Subject { call_id: self.call_id, action: self.action, device: self.device, cloud_pc: self.cloud_pc }
    }
}

/// `[completion]`, as far as it decides here.
#[derive(Debug, Clone)]
pub struct CompletionPolicy {
    /// From one look to the next at least.
    pub shortest_delay: Duration,
    /// And at most.
    pub longest_delay: Duration,
    /// What has not ended by then is not followed any more.
    pub give_up_after: Duration,
    /// How far Graph's clock may be from the database's.
    pub clock_margin: Duration,
}

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is recorded and not followed any more.
    Ended(Completion),
    /// It goes on.
    LookAgain {
        /// Time until the next look.
        after: Duration,
        /// What was seen.
        seen: String,
    },
}

/// How a reprovision ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// How.
    pub state: CompletionState,
    /// By Graph's clock.
    pub started_at: Option<DateTime<Utc>>,
    /// By Graph's clock.
    pub ended_at: Option<DateTime<Utc>>,
    /// Whole seconds from the one to the other, where they make sense.
    pub took_seconds: Option<i64>,
    /// Graph's status detail; of what is untracked, why.
    pub detail: Option<String>,
    /// What was read last, as JSON.
    pub evidence: String,
}

/// Characters of a detail that are kept.
const DETAIL_CHARS: usize = 1000;

/// Judges one look.
///
/// Source: the reference page of `cloudPcRemoteActionResult`: its states, and that `startDateTime` and `lastUpdatedDateTime`
/// are Graph's clock.
pub fn judge(watch: &Watch, read: &ReadBack, policy: &CompletionPolicy) -> Judgement {
    let margin = TimeDelta::from_std(policy.clock_margin).unwrap_or(TimeDelta::MAX);
    let seen = match read {
        ReadBack::Failed { reason, retry_after } => {
            let seen = format!("nothing could be read back: {}", printable(reason, DETAIL_CHARS));
            return go_on(watch, policy, read, None, seen, retry_after.unwrap_or_default());
        }
        ReadBack::Seen(seen) => seen,
        ReadBack::Found(_) => {
            let seen = "the call itself was found, which says nothing of the device's end";
            return go_on(watch, policy, read, None, seen.to_owned(), Duration::ZERO);
        }
    };
    if apart(watch.now, watch.read_took, seen.read_at, margin) {
        let seen = "the database's clock and Graph's are further apart than reconcile.clock_margin: set them right";
        return go_on(watch, policy, read, None, seen.to_owned(), Duration::ZERO);
    }
    let Some((action, started_at)) = own(watch, &seen.actions, margin) else {
        let seen = "read-back shows no Reprovision that is this one for certain";
        return go_on(watch, policy, read, None, seen.to_owned(), Duration::ZERO);
    };
    let Some(state) = terminal(&action.state) else {
        let state = printable(&action.state, 40);
        let seen = format!("read-back shows Reprovision {state} started {} by Graph's clock", started_at.to_rfc3339());
        return go_on(watch, policy, read, Some(started_at), seen, Duration::ZERO);
    };
    let took = action.updated_at.map(|ended| (ended - started_at).num_seconds());
    Judgement::Ended(Completion {
        state,
        started_at: Some(started_at),
        ended_at: action.updated_at,
        took_seconds: took.filter(|seconds| *seconds >= 0),
        detail: action.status_detail.as_deref().map(|text| printable(text, DETAIL_CHARS).to_string()),
        evidence: evidence(read),
    })
}

/// A state that does not change any more.
fn terminal(state: &str) -> Option<CompletionState> {
    let states = [
        ("done", CompletionState::Done),
        ("failed", CompletionState::Failed),
        ("canceled", CompletionState::Canceled),
        ("cancelled", CompletionState::Canceled),
        ("notSupported", CompletionState::NotSupported),
    ];
    states.into_iter().find(|(word, _)| state.eq_ignore_ascii_case(word)).map(|(_, state)| state)
}

/// The action of this call, with its start.
///
/// Calls of ours for one device follow each other, so their actions are in the order of the calls. Where no other call is near,
/// it is the first that began at or after this one was sent. An earlier call that ended within twice the margin before may
/// have an action among those: then they are counted from that one on. One that may be a later call's is taken only if there
/// are as many as there were calls: Graph may have stopped listing this one's.
fn own<'a>(watch: &Watch, actions: &'a [RemoteAction], margin: TimeDelta) -> Option<(&'a RemoteAction, DateTime<Utc>)> {
    let mut earlier: Vec<OtherCall> = watch.others.iter().copied().filter(|o| o.sent_at < watch.sent_at).collect();
    earlier.sort_by_key(|other| std::cmp::Reverse(other.sent_at));
    let (mut first, mut before) = (watch.sent_at, 0);
    for other in earlier {
        if other.finished_at < first - margin - margin {
            break;
        }
        (first, before) = (other.sent_at, before + 1);
    }
    let later = watch.others.iter().filter(|other| other.sent_at >= watch.sent_at);
    let calls = before + 1 + later.clone().count();
    let dated = actions.iter().filter(|action| action.is_reprovision());
    let mut listed: Vec<_> = dated.filter_map(|action| Some((action, action.started_at?))).collect();
    listed.retain(|(_, started_at)| *started_at >= first - margin);
    listed.sort_by_key(|(_, started_at)| *started_at);
    let complete = listed.len() >= calls;
    let found = listed.into_iter().nth(before)?;
    let next = later.map(|other| other.sent_at).min();
    (complete || next.is_none_or(|next| found.1 < next - margin)).then_some(found)
}

/// Nothing final is shown: a later look, or the last one was this.
fn go_on(
    watch: &Watch,
    policy: &CompletionPolicy,
    read: &ReadBack,
    started_at: Option<DateTime<Utc>>,
    seen: String,
    at_least: Duration,
) -> Judgement {
    let age = (watch.now - watch.accepted_at).to_std().unwrap_or_default();
    if age >= policy.give_up_after {
        return Judgement::Ended(Completion {
            state: CompletionState::Untracked,
            started_at,
            ended_at: None,
            took_seconds: None,
            detail: Some(format!("given up {} s after it was accepted: {seen}", age.as_secs())),
            evidence: evidence(read),
        });
    }
    // Rarer with age: each look is later by a part of what has gone by.
    let after = (age / 4).clamp(policy.shortest_delay, policy.longest_delay.max(policy.shortest_delay));
    Judgement::LookAgain { after: after.max(at_least), seen }
}

#[cfg(test)]
mod tests;

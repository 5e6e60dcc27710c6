//! The steps of an order.
//!
//! The locks of the tenants are taken first. A claim holds its tenant's from its first look at the queue to its commit, so
//! that it sees an order as a whole or is done before it: once a pause is committed, no intent is written against it.

use std::collections::{HashMap, HashSet};

use crate::domain::id::{ManagedDeviceId, RequestId};
use crate::domain::lifecycle::{Bucket, EntryState};
use crate::domain::operator::{Act, Order, Resolution, Scope, ScopeKind};
use crate::store::{StoreError, rows};

use super::{Actions, Counts, Done, Found, Lock, OrderedResults, Outcome, Refused, Steps, Subjects};

/// Carries out an order, but for the commit.
pub(in crate::store) async fn carry_out(steps: &mut impl Steps, order: &Order) -> Result<Outcome, StoreError> {
    match order.act {
        Act::Pause | Act::Resume => hold(steps, order).await,
        Act::Cancel => cancel(steps, order).await,
        Act::Resolve(decision) => resolve(steps, order, decision).await,
    }
}

/// A pause of the scope itself begins or ends; another that holds the same requests back stays.
async fn hold(steps: &mut impl Steps, order: &Order) -> Result<Outcome, StoreError> {
    let pausing = order.act == Act::Pause;
    let (mut subjects, refused) = subjects(steps, order).await?;
    if order.scope == Scope::All {
        // Every tenant has a pause of its own; ordered at once, it is one action.
        subjects.kind = ScopeKind::Tenant;
    } else if subjects.names.is_empty() {
        return Ok(Outcome { done: Vec::new(), refused });
    }
    let mut before = steps.paused(&subjects).await?;
    if pausing {
        steps.pause(&subjects, order).await?;
    } else {
        steps.resume(&subjects).await?;
    }
    let counts = steps.counts(&subjects).await?;
    let of = |name: &String| counts.get(name).copied().unwrap_or_default();
    let requests = |count: Counts| if pausing { count.queued } else { count.queued.saturating_sub(count.paused) };
    let each = subjects.names.iter().map(|name| (Some(name.clone()), requests(of(name))));
    let (scope, rows) = match order.scope {
        Scope::All => (ScopeKind::All, vec![(None, each.map(|(_, requests)| requests).sum())]),
        _ => (subjects.kind, each.collect()),
    };
    let ids = steps.record_actions(&Actions { scope, order, subjects: rows }).await?;
    steps.wake().await?;
    let done = subjects.names.into_iter().map(|name| {
        let count = of(&name);
        let key = Some(name.as_str()).filter(|_| scope != ScopeKind::All);
        Ok(Done {
            action_id: ids.of(key)?,
            scope: subjects.kind,
            requests: requests(count),
            under_way: count.sending,
            in_doubt: count.in_doubt,
            still_paused: if pausing { 0 } else { count.paused },
            pause_before: before.remove(&name),
            subject: Some(name),
        })
    });
    Ok(Outcome { done: done.collect::<Result<_, StoreError>>()?, refused })
}

/// Ends what was not sent; what was is refused, entry by entry.
async fn cancel(steps: &mut impl Steps, order: &Order) -> Result<Outcome, StoreError> {
    let (subjects, mut refused) = subjects(steps, order).await?;
    let after_intent = [EntryState::Sending, EntryState::Unknown, EntryState::Held];
    let (queued, others) = look(steps, &subjects, &[EntryState::Queued], &after_intent).await?;
    refused.extend(without_entry(steps, &subjects, queued.iter().chain(&others)).await?);
    refused.extend(others.into_iter().map(Refused::State));
    let done = end(steps, order, &subjects, queued, (Bucket::Cancelled, "cancelled")).await?;
    Ok(Outcome { done, refused })
}

/// Ends doubts on a person's word. Of a tenant, or of all, only those that wait for a person.
async fn resolve(steps: &mut impl Steps, order: &Order, decision: Resolution) -> Result<Outcome, StoreError> {
    let (subjects, mut refused) = subjects(steps, order).await?;
    let (states, others): (&[EntryState], &[EntryState]) = match subjects.kind {
        ScopeKind::All | ScopeKind::Tenant => (&[EntryState::Held], &[]),
        _ => (&[EntryState::Unknown, EntryState::Held], &[EntryState::Queued, EntryState::Sending]),
    };
    let (doubts, others) = look(steps, &subjects, states, others).await?;
    refused.extend(without_entry(steps, &subjects, doubts.iter().chain(&others)).await?);
    // A device's further requests are not what was asked about, if one of them is in doubt.
    let settled: HashSet<&str> = doubts.iter().map(|entry| entry.device.as_str()).collect();
    let asked = |entry: &Found| subjects.kind == ScopeKind::Request || !settled.contains(entry.device.as_str());
    refused.extend(others.into_iter().filter(asked).map(Refused::State));
    let ends = match decision {
        Resolution::Successful => (Bucket::Successful, "resolved as successful"),
        Resolution::Failed => (Bucket::Failed, "resolved as failed"),
        Resolution::Retry => (Bucket::Unknown, "resolved as retry"),
    };
    Ok(Outcome { done: end(steps, order, &subjects, doubts, ends).await?, refused })
}

/// The entries that an order changes, locked, and those that it leaves. An answer may change the latter at any time, and locks
/// them in an order of its own: they are looked at first, and what has moved since is no longer among them.
async fn look(
    steps: &mut impl Steps,
    subjects: &Subjects,
    changed: &[EntryState],
    left: &[EntryState],
) -> Result<(Vec<Found>, Vec<Found>), StoreError> {
    let mut others = if left.is_empty() { Vec::new() } else { steps.entries(subjects, left, Lock::None).await? };
    let changed = steps.entries(subjects, changed, Lock::Rows).await?;
    let moved: HashSet<RequestId> = changed.iter().map(|entry| entry.request).collect();
    others.retain(|entry| !moved.contains(&entry.request));
    Ok((changed, others))
}

/// Ends entries in a bucket, or, where it is none to end in, queues them again.
async fn end(
    steps: &mut impl Steps,
    order: &Order,
    subjects: &Subjects,
    entries: Vec<Found>,
    (bucket, word): (Bucket, &str),
) -> Result<Vec<Done>, StoreError> {
    let mut per_subject: HashMap<Option<String>, u64> = HashMap::new();
    for entry in &entries {
        *per_subject.entry(subjects.of(entry)).or_default() += 1;
    }
    let rows: Vec<(Option<String>, u64)> = subjects
        .keys()
        .into_iter()
        .map(|key| {
            let requests = per_subject.get(&key).copied().unwrap_or_default();
            (key, requests)
        })
        .collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let actions = Actions { scope: subjects.kind, order, subjects: rows };
    let ids = steps.record_actions(&actions).await?;
    if !entries.is_empty() {
        let by = entries.iter().map(|entry| ids.of(subjects.of(entry).as_deref())).collect::<Result<_, _>>()?;
        let requests: Vec<i64> = entries.iter().map(|entry| entry.request.0).collect();
        let detail = rows::storable(&format!("{word} by {}: {}", order.taken_by, order.reason));
        let results = OrderedResults { requests, actions: by, bucket, detail };
        let asked = results.requests.len();
        rows::expect_rows("order: results", asked, steps.record_results(&results).await?)?;
        if results.is_final() {
            rows::expect_rows("order: requests leave the queue", asked, steps.leave_queue(&results.requests).await?)?;
        } else {
            rows::expect_rows("order: queued again", asked, steps.retry(&results.requests, &results.detail).await?)?;
        }
        // A doubt that ends may let the tenant go on.
        steps.wake().await?;
    }
    let done = actions.subjects.into_iter().map(|(subject, requests)| {
        Ok(Done {
            action_id: ids.of(subject.as_deref())?,
            scope: subjects.kind,
            subject,
            requests,
            under_way: 0,
            in_doubt: 0,
            still_paused: 0,
            pause_before: None,
        })
    });
    done.collect()
}

impl Subjects {
    /// The subject that an entry falls under.
    fn of(&self, entry: &Found) -> Option<String> {
        match self.kind {
            ScopeKind::All => None,
            ScopeKind::Tenant => Some(entry.tenant.clone()),
            ScopeKind::Device => Some(entry.device.clone()),
            ScopeKind::Request => Some(entry.request.to_string()),
        }
    }

    /// Every subject, as in `operator_actions.subject`.
    fn keys(&self) -> Vec<Option<String>> {
        match self.kind {
            ScopeKind::All => vec![None],
            _ => self.names.iter().cloned().map(Some).collect(),
        }
    }
}

/// Locks what an order needs and sorts out what is not there, or has ended.
async fn subjects(steps: &mut impl Steps, order: &Order) -> Result<(Subjects, Vec<Refused>), StoreError> {
    let mut refused = Vec::new();
    let subjects = match &order.scope {
        Scope::All => Subjects { kind: ScopeKind::All, names: steps.lock_tenants(None).await?, requests: Vec::new() },
        Scope::Tenant(tenant) => {
            let names = steps.lock_tenants(Some(tenant)).await?;
            if names.is_empty() {
                refused.push(Refused::NoSuchTenant(tenant.as_str().to_owned()));
            }
            Subjects { kind: ScopeKind::Tenant, names, requests: Vec::new() }
        }
        Scope::Devices(devices) => {
            // Of all: a device's next request may be for any tenant.
            steps.lock_tenants(None).await?;
            let mut names: Vec<String> = devices.iter().map(ManagedDeviceId::to_string).collect();
            once_each(&mut names);
            let known = steps.known_devices(&names).await?;
            // A device may be paused before anybody has asked for it: its future requests wait too.
            let ahead = matches!(order.act, Act::Pause | Act::Resume);
            names.retain(|device| {
                let there = ahead || known.contains(device);
                if !there {
                    refused.push(Refused::NoSuchDevice(device.clone()));
                }
                there
            });
            Subjects { kind: ScopeKind::Device, names, requests: Vec::new() }
        }
        Scope::Requests(requests) => {
            steps.lock_tenants(None).await?;
            let mut requests: Vec<i64> = requests.iter().map(|request| request.0).collect();
            once_each(&mut requests);
            let known = steps.known_requests(&requests).await?;
            requests.retain(|request| {
                let why = match known.get(request) {
                    Some(None) => return true,
                    Some(Some(bucket)) => Refused::Ended { request: RequestId(*request), bucket: *bucket },
                    None => Refused::NoSuchRequest(RequestId(*request)),
                };
                refused.push(why);
                false
            });
            let names = requests.iter().map(ToString::to_string).collect();
            Subjects { kind: ScopeKind::Request, names, requests }
        }
    };
    Ok((subjects, refused))
}

/// What was asked by its own name and has no entry: it ended, be it a moment ago.
async fn without_entry(
    steps: &mut impl Steps,
    subjects: &Subjects,
    found: impl Iterator<Item = &Found>,
) -> Result<Vec<Refused>, StoreError> {
    let there: HashSet<Option<String>> = found.map(|entry| subjects.of(entry)).collect();
    let gone = subjects.names.iter().filter(|name| !there.contains(&Some((*name).clone())));
    match subjects.kind {
        ScopeKind::All | ScopeKind::Tenant => Ok(Vec::new()),
        ScopeKind::Device => Ok(gone.cloned().map(Refused::NothingPending).collect()),
        ScopeKind::Request => {
            let gone: Vec<i64> = gone.filter_map(|name| name.parse().ok()).collect();
            let ended = steps.known_requests(&gone).await?.into_iter();
            let ended = ended.filter_map(|(request, bucket)| Some((RequestId(request), bucket?)));
            Ok(ended.map(|(request, bucket)| Refused::Ended { request, bucket }).collect())
        }
    }
}

fn once_each<T: Clone + Eq + std::hash::Hash>(items: &mut Vec<T>) {
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(item.clone()));
}

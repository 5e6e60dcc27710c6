//! What a person orders, on both databases: the steps of an order, and what came of it. The order of the steps is here, the
//! statements are each database's.
//!
//! The locks of the tenants are taken first. A claim holds its tenant's from its first look at the queue to its commit, so
//! that it sees an order as a whole or is done before it: once a pause is committed, no intent is written against it.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::domain::id::{CallId, ManagedDeviceId, RequestId, TenantName};
use crate::domain::lifecycle::{Bucket, EntryState};
use crate::domain::operator::{Act, Order, Resolution, Scope, ScopeKind};

use super::StoreError;
use super::rows;

/// What came of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Subject by subject, what was done. Each is in `operator_actions`.
    pub done: Vec<Done>,
    /// What was asked and not done.
    pub refused: Vec<Refused>,
}

/// What was done to one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// `operator_actions.id`
    pub action_id: i64,
    /// What kind of subject.
    pub scope: ScopeKind,
    /// The tenant, device or request; nothing where it is all.
    pub subject: Option<String>,
    /// Requests that it changed, holds back from now on, or lets go.
    pub requests: u64,
    /// Requests whose call was under way already: a pause or its end does not touch them.
    pub under_way: u64,
    /// Requests in doubt or held.
    pub in_doubt: u64,
    /// Queued requests that another pause still holds back.
    pub still_paused: u64,
    /// The pause that was there before.
    pub pause_before: Option<PauseBefore>,
}

/// A pause that somebody ordered earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PauseBefore {
    /// Since when.
    pub paused_at: DateTime<Utc>,
    /// By whom.
    pub paused_by: String,
    /// Why.
    pub reason: String,
}

/// Something that was asked and not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// No tenant of this name is registered.
    NoSuchTenant(String),
    /// No request was ever made for this device.
    NoSuchDevice(String),
    /// There is no request with this number.
    NoSuchRequest(RequestId),
    /// The request has its final result already.
    Ended {
        /// The request.
        request: RequestId,
        /// Its final bucket.
        bucket: Bucket,
    },
    /// The device has no pending request.
    NothingPending(String),
    /// The entry is not in a state that this can change.
    State(Found),
}

/// A queue entry that an order is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The request.
    pub request: RequestId,
    /// Its tenant.
    pub tenant: String,
    /// Its device.
    pub device: String,
    /// Where it is.
    pub state: EntryState,
    /// The call it is in.
    pub call: Option<CallId>,
}

/// Queue entries of one subject, by state.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) queued: u64,
    pub(super) sending: u64,
    pub(super) in_doubt: u64,
    /// Of the queued ones, those that any pause holds back.
    pub(super) paused: u64,
}

/// What an order is about, as the statements take it.
#[derive(Debug)]
pub(super) struct Subjects {
    pub(super) kind: ScopeKind,
    /// As in `operator_actions.subject`.
    pub(super) names: Vec<String>,
    /// Where they are requests.
    pub(super) requests: Vec<i64>,
}

/// The statements of an order within its transaction.
#[async_trait]
pub(super) trait Steps: Send {
    /// Locks the rows of the tenants: of one or of all. Gives those that there are.
    async fn lock_tenants(&mut self, only: Option<&TenantName>) -> Result<Vec<String>, StoreError>;
    /// Which of these devices any request was ever made for.
    async fn known_devices(&mut self, devices: &[String]) -> Result<HashSet<String>, StoreError>;
    /// Which of these requests there are, with their final buckets.
    async fn known_requests(&mut self, requests: &[i64]) -> Result<HashMap<i64, Option<Bucket>>, StoreError>;
    /// Locks the entries in these states.
    async fn entries(&mut self, of: &Subjects, states: &[EntryState]) -> Result<Vec<Found>, StoreError>;
    /// Counts the entries of each subject that has any.
    async fn counts(&mut self, of: &Subjects) -> Result<HashMap<String, Counts>, StoreError>;
    /// The subjects' own pauses.
    async fn paused(&mut self, of: &Subjects) -> Result<HashMap<String, PauseBefore>, StoreError>;
    /// Pauses those that are not.
    async fn pause(&mut self, of: &Subjects, order: &Order) -> Result<(), StoreError>;
    /// Ends the subjects' own pauses.
    async fn resume(&mut self, of: &Subjects) -> Result<(), StoreError>;
    /// Writes the actions, a row a subject, and gives their ids.
    async fn record_actions(&mut self, actions: &Actions<'_>) -> Result<HashMap<Option<String>, i64>, StoreError>;
    /// Writes a result for each of the requests, on the word of its action.
    async fn record_results(&mut self, results: &OrderedResults) -> Result<u64, StoreError>;
    /// Takes requests with a final result out of the queue.
    async fn leave_queue(&mut self, requests: &[i64]) -> Result<u64, StoreError>;
    /// Queues entries in doubt for a new attempt.
    async fn retry(&mut self, requests: &[i64], wait_reason: &str) -> Result<u64, StoreError>;
    /// Wakes the workers once this is committed.
    async fn wake(&mut self) -> Result<(), StoreError>;
}

/// Rows for `operator_actions`.
#[derive(Debug)]
pub(super) struct Actions<'a> {
    pub(super) scope: ScopeKind,
    pub(super) order: &'a Order,
    /// Each subject, and how many requests it is about.
    pub(super) subjects: Vec<(Option<String>, u64)>,
}

/// Rows for `device_results` on a person's word.
#[derive(Debug)]
pub(super) struct OrderedResults {
    pub(super) requests: Vec<i64>,
    pub(super) actions: Vec<i64>,
    pub(super) bucket: Bucket,
    pub(super) detail: String,
}

impl OrderedResults {
    pub(super) fn is_final(&self) -> bool {
        self.bucket != Bucket::Unknown
    }
}

/// Carries out an order, but for the commit.
pub(super) async fn carry_out(steps: &mut impl Steps, order: &Order) -> Result<Outcome, StoreError> {
    match order.act {
        Act::Pause | Act::Resume => hold(steps, order).await,
        Act::Cancel => cancel(steps, order).await,
        Act::Resolve(decision) => resolve(steps, order, decision).await,
    }
}

/// A pause of the scope itself begins or ends; another that holds the same requests back stays.
async fn hold(steps: &mut impl Steps, order: &Order) -> Result<Outcome, StoreError> {
    let pausing = order.act == Act::Pause;
    let (mut subjects, refused) = subjects(steps, &order.scope).await?;
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
        let key = if scope == ScopeKind::All { None } else { Some(name.clone()) };
        Ok(Done {
            action_id: action_id(&ids, &key)?,
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
    let (subjects, mut refused) = subjects(steps, &order.scope).await?;
    let found = steps.entries(&subjects, EntryState::ALL).await?;
    refused.extend(without_entry(steps, &subjects, &found).await?);
    let (queued, others): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|entry| entry.state == EntryState::Queued);
    refused.extend(others.into_iter().map(Refused::State));
    let done = end(steps, order, &subjects, queued, (Bucket::Cancelled, "cancelled")).await?;
    Ok(Outcome { done, refused })
}

/// Ends doubts on a person's word. Of a tenant, or of all, only those that wait for a person.
async fn resolve(steps: &mut impl Steps, order: &Order, decision: Resolution) -> Result<Outcome, StoreError> {
    let (subjects, mut refused) = subjects(steps, &order.scope).await?;
    let states = match subjects.kind {
        ScopeKind::All | ScopeKind::Tenant => &[EntryState::Held],
        ScopeKind::Device | ScopeKind::Request => EntryState::ALL,
    };
    let found = steps.entries(&subjects, states).await?;
    refused.extend(without_entry(steps, &subjects, &found).await?);
    let (doubts, others): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|entry| matches!(entry.state, EntryState::Unknown | EntryState::Held));
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
        let by = entries.iter().map(|entry| action_id(&ids, &subjects.of(entry))).collect::<Result<_, _>>()?;
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
            action_id: action_id(&ids, &subject)?,
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
async fn subjects(steps: &mut impl Steps, scope: &Scope) -> Result<(Subjects, Vec<Refused>), StoreError> {
    let mut refused = Vec::new();
    let subjects = match scope {
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
            names.retain(|device| {
                let there = known.contains(device);
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
    found: &[Found],
) -> Result<Vec<Refused>, StoreError> {
    let there: HashSet<Option<String>> = found.iter().map(|entry| subjects.of(entry)).collect();
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

fn action_id(ids: &HashMap<Option<String>, i64>, subject: &Option<String>) -> Result<i64, StoreError> {
    let missing = || StoreError::Conflict("order: an action that was written has no id".to_owned());
    ids.get(subject).copied().ok_or_else(missing)
}

/// Requests with their final buckets, from rows.
pub(super) fn known(found: Vec<(i64, Option<String>)>) -> Result<HashMap<i64, Option<Bucket>>, StoreError> {
    let bucket = |(request, word): (i64, Option<String>)| {
        Ok((request, word.map(|word| rows::word(&word, "bucket", request)).transpose()?))
    };
    found.into_iter().map(bucket).collect()
}

/// A count as databases have it.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Reads the rows of an order's statements from either database; `$id` as in `rows`.
macro_rules! found {
    ($row:expr, $id:ty) => {{
        let request: i64 = $row.try_get("request_id")?;
        let state: &str = $row.try_get("state")?;
        crate::store::operator::Found {
            request: crate::domain::id::RequestId(request),
            tenant: $row.try_get("tenant")?,
            device: $row.try_get("managed_device_id")?,
            state: state.parse().map_err(|error| crate::store::StoreError::Corrupt {
                table: "reprovision_queue",
                row: format!("request_id {request}"),
                what: format!("state: {error}"),
            })?,
            call: $row.try_get::<Option<$id>, _>("call_id")?.map(|call| crate::domain::id::CallId(call.into())),
        }
    }};
}
pub(super) use found;

macro_rules! counts {
    ($row:expr) => {{
        let count = |column: &str| Ok::<_, sqlx::Error>(u64::try_from($row.try_get::<i64, _>(column)?).unwrap_or(0));
        crate::store::operator::Counts {
            queued: count("queued")?,
            sending: count("sending")?,
            in_doubt: count("in_doubt")?,
            paused: count("paused")?,
        }
    }};
}
pub(super) use counts;

macro_rules! pause_before {
    ($row:expr) => {
        crate::store::operator::PauseBefore {
            paused_at: $row.try_get("paused_at")?,
            // A pause from before pauses had names.
            paused_by: $row.try_get::<Option<String>, _>("paused_by")?.unwrap_or_default(),
            reason: $row.try_get::<Option<String>, _>("reason")?.unwrap_or_default(),
        }
    };
}
pub(super) use pause_before;

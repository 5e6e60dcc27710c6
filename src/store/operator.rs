//! What a person orders, on both databases: what an order takes and gives, and the statements it is made of. The order of
//! the steps is in `steps`; the statements are each database's.

mod steps;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::domain::id::{CallId, RequestId, TenantName};
use crate::domain::lifecycle::{Bucket, EntryState};
use crate::domain::operator::{Order, ScopeKind};

use super::StoreError;
use super::rows;

pub(super) use steps::carry_out;

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

/// Whether entries are only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// They are about to be changed: nobody else changes them meanwhile.
    Rows,
    /// They stay as they are. An answer that comes in need not wait, and cannot be waited for.
    None,
}

/// The ids of actions that were written.
#[derive(Debug, Default)]
pub(super) struct ActionIds {
    all: Option<i64>,
    by_subject: HashMap<String, i64>,
}

impl FromIterator<(i64, Option<String>)> for ActionIds {
    fn from_iter<I: IntoIterator<Item = (i64, Option<String>)>>(rows: I) -> Self {
        let mut ids = Self::default();
        for (id, subject) in rows {
            match subject {
                None => ids.all = Some(id),
                Some(subject) => drop(ids.by_subject.insert(subject, id)),
            }
        }
        ids
    }
}

impl ActionIds {
    fn of(&self, subject: Option<&str>) -> Result<i64, StoreError> {
        let id = subject.map_or(self.all, |subject| self.by_subject.get(subject).copied());
        id.ok_or_else(|| StoreError::Conflict("order: an action that was written has no id".to_owned()))
    }
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
    /// The entries in these states.
    async fn entries(&mut self, of: &Subjects, states: &[EntryState], lock: Lock) -> Result<Vec<Found>, StoreError>;
    /// Counts the entries of each subject that has any.
    async fn counts(&mut self, of: &Subjects) -> Result<HashMap<String, Counts>, StoreError>;
    /// The subjects' own pauses.
    async fn paused(&mut self, of: &Subjects) -> Result<HashMap<String, PauseBefore>, StoreError>;
    /// Pauses those that are not.
    async fn pause(&mut self, of: &Subjects, order: &Order) -> Result<(), StoreError>;
    /// Ends the subjects' own pauses.
    async fn resume(&mut self, of: &Subjects) -> Result<(), StoreError>;
    /// Writes the actions, a row a subject, and gives their ids.
    async fn record_actions(&mut self, actions: &Actions<'_>) -> Result<ActionIds, StoreError>;
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

//! The tasks of a process: calls, and what is being fetched for them.

use std::collections::{HashMap, HashSet};

use tokio::task::{JoinError, JoinSet};

use super::EngineError;
use super::call::Answered;
use crate::domain::id::{CallId, TenantName};

/// What a finished task was.
pub(super) enum Done {
    Call(Box<Answered>),
    Preparation(TenantName),
}

/// Tasks under way, and what each is about.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) set: JoinSet<Done>,
    /// Calls whose intent is committed and whose answer is not.
    pub(super) calls: HashMap<CallId, TenantName>,
    /// Answers that are not committed yet, oldest first.
    pub(super) answered: Vec<Answered>,
    pub(super) preparing: HashSet<TenantName>,
}

impl Tasks {
    /// Calls of a tenant that are not recorded.
    pub(super) fn calls_of(&self, tenant: &TenantName) -> usize {
        self.calls.values().filter(|of| *of == tenant).count()
    }

    /// Whether there are answers that the database has not been given yet.
    pub(super) fn has_fresh(&self) -> bool {
        self.answered.iter().any(|answered| answered.failures == 0)
    }

    /// Answers of which it has been logged that the database does not take them.
    pub(super) fn told(&self) -> usize {
        self.answered.iter().filter(|answered| answered.told).count()
    }

    /// Takes the oldest quarter of a tenant's answers that the database has not been given yet, or two of them. Taken all at once, calls
    /// would march in step: what left together is answered together, and waits for each other to be recorded. If the database is
    /// what all wait for, more of them wait, and more go together.
    pub(super) fn take_fresh(&mut self, tenant: &TenantName) -> Vec<Answered> {
        let answered = std::mem::take(&mut self.answered);
        let fresh = |answered: &Answered| answered.failures == 0 && self.is_of(answered, tenant);
        let (mut fresh, others): (Vec<_>, Vec<_>) = answered.into_iter().partition(fresh);
        let later = fresh.split_off(fresh.len().min(fresh.len().div_ceil(4).max(2)));
        self.answered = others;
        self.answered.extend(later);
        fresh
    }

    fn is_of(&self, answered: &Answered, tenant: &TenantName) -> bool {
        self.calls.get(&answered.recording.call_id).is_some_and(|of| of == tenant)
    }

    /// A task has ended. Returns whether calls may be possible now that were not before.
    pub(super) fn finish(&mut self, finished: Result<Done, JoinError>) -> Result<bool, EngineError> {
        match finished.map_err(|error| EngineError::Task(error.to_string()))? {
            Done::Call(answered) => {
                self.answered.push(*answered);
                Ok(false)
            }
            Done::Preparation(tenant) => Ok(self.preparing.remove(&tenant)),
        }
    }
}

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
    /// Slots of a tenant that are taken: an answer that goes with the next turn has given its own back, one that the database
    /// does not take has not.
    pub(super) fn taken(&self, tenant: &TenantName) -> usize {
        let calls = self.calls.values().filter(|of| *of == tenant).count();
        let fresh = |answered: &&Answered| answered.failures == 0 && self.is_of(answered, tenant);
        calls.saturating_sub(self.answered.iter().filter(fresh).count())
    }

    /// Takes a tenant's answers that the database has not been given yet.
    pub(super) fn take_fresh(&mut self, tenant: &TenantName) -> Vec<Answered> {
        let (fresh, others) = std::mem::take(&mut self.answered)
            .into_iter()
            .partition(|answered| answered.failures == 0 && self.is_of(answered, tenant));
        self.answered = others;
        fresh
    }

    fn is_of(&self, answered: &Answered, tenant: &TenantName) -> bool {
        self.calls.get(&answered.recording.call_id).is_some_and(|of| of == tenant)
    }

    /// A task has ended.
    pub(super) fn finish(&mut self, finished: Result<Done, JoinError>) -> Result<(), EngineError> {
        match finished.map_err(|error| EngineError::Task(error.to_string()))? {
            Done::Call(answered) => self.answered.push(*answered),
            Done::Preparation(tenant) => {
                self.preparing.remove(&tenant);
            }
        }
        Ok(())
    }
}

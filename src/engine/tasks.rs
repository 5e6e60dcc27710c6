//! The tasks of a process: calls, and what is being fetched for them.

use std::collections::{HashMap, HashSet};

use tokio::task::{Id, JoinError, JoinSet};

use super::EngineError;
use crate::domain::id::{CallId, TenantName};

/// What a finished task was.
pub(super) enum Done {
    Call,
    Preparation(TenantName),
}

/// Tasks under way, and what each is about.
#[derive(Default)]
pub(super) struct Tasks {
    pub(super) set: JoinSet<Done>,
    pub(super) calls: HashMap<Id, (CallId, TenantName)>,
    pub(super) preparing: HashSet<TenantName>,
}

impl Tasks {
    /// Calls of a tenant under way.
    pub(super) fn calls_of(&self, tenant: &TenantName) -> usize {
        self.calls.values().filter(|(_, of)| of == tenant).count()
    }

    /// A task has ended.
    pub(super) fn finish(&mut self, finished: Result<(Id, Done), JoinError>) -> Result<(), EngineError> {
        let (id, done) = finished.map_err(|error| EngineError::Task(error.to_string()))?;
        self.calls.remove(&id);
        if let Done::Preparation(tenant) = done {
            self.preparing.remove(&tenant);
        }
        Ok(())
    }
}

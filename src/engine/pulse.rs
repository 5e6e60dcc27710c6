//! The engine's signs of life, for whoever restarts a process that gives none.

use crate::domain::id::TenantName;
use crate::domain::plan::Facts;

/// Who is told that the work loop turns. Called from the loop itself: what it does must be quick and must not wait.
pub trait Pulse: Send + Sync {
    /// The loop has come round, or is about to ask the database for the next step. Two beats are never further apart than
    /// [`Pulse::within`] and one step of the database.
    fn beat(&self);

    /// The longest that the loop may sleep without a beat. `None`: as long as it likes.
    fn within(&self) -> Option<std::time::Duration>;

    /// What a look at the queue has shown.
    fn looked(&self, facts: &[(TenantName, Facts)]);
}

/// Nobody is told.
pub struct Untold;

impl Pulse for Untold {
    fn beat(&self) {}

    fn within(&self) -> Option<std::time::Duration> {
        None
    }

    fn looked(&self, _: &[(TenantName, Facts)]) {}
}

//! The two commits of a call, each in a turn of its own.

use reprovisiond::domain::action::Action;
use reprovisiond::domain::answer::Evidence;
use reprovisiond::domain::id::{TenantName, WorkerId};
use reprovisiond::domain::lifecycle::Recording;
use reprovisiond::store::{Answer, Claim, Claimed, Decide, Recorded, Store, StoreError};

/// Commit 1, after any other worker that has the tenant.
pub(crate) async fn claim(
    store: &dyn Store,
    tenant: &TenantName,
    worker: WorkerId,
    fetch: usize,
    decide: &Decide<'_>,
) -> Result<Claimed, StoreError> {
    let fetch = &|_: &_| fetch;
    let claim = Claim { tenant, worker, action: Action::BulkReprovisionCloudPc, fetch, waits: true };
    Ok(store.turn(&[], Some((&claim, decide))).await?.claimed.expect("a claim that waits is made"))
}

/// Commit 2.
pub(crate) async fn record(
    store: &dyn Store,
    recording: &Recording,
    evidence: &Evidence,
) -> Result<Recorded, StoreError> {
    Ok(store.turn(&[Answer { recording, evidence }], None).await?.recorded[0])
}

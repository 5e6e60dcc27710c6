//! Results in a database, put there as a worker does.

use std::time::Duration;

use reprovisiond::config::DatabaseUrl;
use reprovisiond::domain::id::{CallId, TenantName, WorkerId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, Recording, Source, TenantEffect};
use reprovisiond::domain::plan::Entry;
use reprovisiond::store::{self, Decision, Evidence, Intent, NewRequest, Store, WorkerIdentity};

use crate::support::Scratch;

/// A text that would forge a line, clear a screen and run a formula.
pub(crate) const HOSTILE: &str = "=cmd()|' /C calc'!A1\nforged line\u{1b}[2J";

/// The `n`th device.
pub(crate) fn device(n: usize) -> String {
    format!("30d0e128-de93-41dc-89ec-{n:012x}")
}

/// The store, and a worker in it.
pub(crate) struct Filled {
    pub(crate) store: std::sync::Arc<dyn Store>,
    worker: WorkerId,
}

impl Filled {
    pub(crate) async fn new(scratch: &Scratch) -> Self {
        let url = DatabaseUrl::parse(&scratch.url).unwrap();
        let store = store::open(&url, false, store::PATIENCE).await.unwrap();
        let worker = WorkerId::fresh();
        let identity = WorkerIdentity {
            id: worker,
            host: "host-a".to_owned(),
            process: "1@1".to_owned(),
            version: "0.1.0".to_owned(),
        };
        store.start_worker(&identity, Duration::from_mins(10)).await.unwrap();
        Self { store, worker }
    }

    /// Queues devices for a tenant; the first of all has a hostile reason.
    pub(crate) async fn enqueue(&self, tenant: &str, devices: std::ops::Range<usize>) {
        let count = devices.len() as u64;
        let requests: Vec<NewRequest> = devices
            .map(|n| NewRequest {
                managed_device_id: device(n),
                tenant: Some(tenant.to_owned()),
                requested_by: Some("alice@admin01".to_owned()),
                reason: Some(if n == 0 { HOSTILE.to_owned() } else { format!("ticket {n}") }),
                ..NewRequest::default()
            })
            .collect();
        assert_eq!(self.store.enqueue(&requests).await.unwrap().inserted, count);
    }

    /// The intent of one call with the entries of a tenant that may go, at most 500.
    pub(crate) async fn send(&self, tenant: &str) -> Intent {
        let name: TenantName = tenant.parse().unwrap();
        let decide = |snapshot: reprovisiond::domain::plan::Snapshot| Decision {
            intents: vec![Intent {
                call_id: CallId::fresh(),
                entries: snapshot.entries,
                digest: "0".repeat(64),
                cloud_pcs: None,
            }],
            ..Decision::default()
        };
        let claimed = crate::support::claim(&*self.store, &name, self.worker, 500, &decide).await.unwrap();
        claimed.decision.intents.into_iter().next().unwrap()
    }

    /// Such a call, ended by what `effect` says of each entry.
    pub(crate) async fn call(
        &self,
        tenant: &str,
        state: CallState,
        on_tenant: TenantEffect,
        effect: impl Fn(usize) -> EntryEffect,
    ) {
        let Intent { call_id, entries, .. } = self.send(tenant).await;
        let effect = |(n, entry): (usize, &Entry)| (entry.request_id, effect(n));
        let recording = Recording {
            call_id,
            state,
            entries: entries.iter().enumerate().map(effect).collect(),
            tenant: on_tenant,
            leave_alone: None,
            surplus: Vec::new(),
        };
        let evidence =
            Evidence { http_status: Some(200), graph_request_id: Some("graph-1".to_owned()), ..Evidence::default() };
        crate::support::record(&*self.store, &recording, &evidence).await.unwrap();
    }
}

/// The device ends in a bucket.
pub(crate) fn ends(bucket: Bucket, detail: Option<&str>) -> EntryEffect {
    EntryEffect::Final { bucket, source: Source::Answer, detail: detail.map(ToOwned::to_owned) }
}

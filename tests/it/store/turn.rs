//! Answers and the next calls in one commit.

use reprovisiond::domain::action::Action;
use reprovisiond::domain::answer::Evidence;
use reprovisiond::domain::id::{CallId, RequestId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, Recording, TenantEffect, WaitCode};
use reprovisiond::domain::plan::{Bounds, Snapshot};
use reprovisiond::store::{Answer, Claim, Decision, Intent, Recorded, StoreError, Turned};

use super::{Db, HOUR, Other, bounds, claim, ends, in_doubt, requests, requeue, tenant};
use crate::support::{Backend, Scratch, on_both};

impl Db {
    /// Records these answers and claims one call of all that is due.
    async fn turn(&self, recordings: &[Recording], waits: bool) -> Result<Turned, StoreError> {
        let evidence = Evidence { http_status: Some(200), ..Evidence::default() };
        let answers: Vec<Answer<'_>> =
            recordings.iter().map(|recording| Answer { recording, evidence: &evidence }).collect();
        let decide = |snapshot: Snapshot| {
            let intent =
                Intent { call_id: CallId::fresh(), entries: snapshot.entries, digest: String::new(), cloud_pcs: None };
            let waits = snapshot.tenant.wait_until.is_some_and(|at| at > snapshot.now);
            let intents = if intent.entries.is_empty() || waits { Vec::new() } else { vec![intent] };
            Decision { intents, ..Decision::default() }
        };
        let (tenant, fetch) = (tenant(), &|_: &_| 10);
        let claim =
            Claim { tenant: &tenant, worker: self.worker, action: Action::BulkReprovisionCloudPc, fetch, waits };
        self.store.turn(&answers, Some((&claim, &decide))).await
    }

    /// A call for each of these requests' devices.
    async fn calls_of_one(&self, count: u32) -> Vec<Intent> {
        let bounds = Bounds { max_devices: 1, free_slots: count as usize, ..bounds() };
        claim(&*self.store, self.worker, &bounds, 10).await.unwrap().decision.intents
    }
}

fn answered(call: &Intent, effect: &EntryEffect) -> Recording {
    let entries = call.entries.iter().map(|entry| (entry.request_id, effect.clone())).collect();
    Recording {
        call_id: call.call_id,
        state: CallState::Answered,
        entries,
        tenant: TenantEffect::Clear,
        leave_alone: None,
        surplus: Vec::new(),
    }
}

fn intended(turned: Turned) -> Vec<Vec<i64>> {
    requests(&turned.claimed.expect("the tenant was to be had").decision.intents)
}

on_both! {
    async fn several_calls_are_recorded_and_the_next_one_claimed_in_one_commit(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3, 4]).await;
        let calls = db.calls_of_one(3).await;
        assert_eq!(requests(&calls), [[1], [2], [3]]);
        let answers = [
            answered(&calls[0], &ends(Bucket::Successful)),
            Recording { state: CallState::NotSent, ..answered(&calls[1], &requeue(None)) },
            answered(&calls[2], &in_doubt()),
        ];
        let turned = db.turn(&answers, true).await.unwrap();
        assert_eq!(turned.recorded, [Recorded::Done; 3]);
        assert_eq!(intended(turned), [[2, 4]], "what was not sent goes again, with what waited");
        assert_eq!(db.sql("SELECT count(*) FROM graph_calls WHERE state = 'sending'").await.trim(), "1");
        assert_eq!(db.results().await, ["1|1|successful|answer|final", "3|1|unknown|answer|open"]);
    }

    async fn a_device_that_an_answer_sets_free_goes_with_the_same_commit(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let call = db.claim().await.remove(0);
        db.ask(&[1]).await;
        let turned = db.turn(&[answered(&call, &ends(Bucket::Failed))], true).await.unwrap();
        assert_eq!(intended(turned), [[2]]);
    }

    async fn no_call_goes_with_an_answer_that_makes_its_tenant_wait(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2]).await;
        let call = db.calls_of_one(1).await.remove(0);
        let wait = TenantEffect::Wait { delay: HOUR, code: WaitCode::Throttled, reason: "429".to_owned() };
        let refused = Recording { state: CallState::NotCarriedOut, tenant: wait, ..answered(&call, &requeue(None)) };
        let turned = db.turn(&[refused], true).await.unwrap();
        assert_eq!(intended(turned), [[0_i64; 0]; 0]);
    }

    async fn where_one_answer_is_refused_nothing_of_the_turn_is_committed(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3]).await;
        let calls = db.calls_of_one(2).await;
        let before = db.everything().await;
        // A request that is none of the call's.
        let wrong = Recording { entries: vec![(RequestId(3), ends(Bucket::Failed))], ..answered(&calls[1], &in_doubt()) };
        let refused = db.turn(&[answered(&calls[0], &ends(Bucket::Successful)), wrong], true).await;
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        assert_eq!(db.everything().await, before);
    }

    async fn a_call_that_is_completed_already_is_superseded_and_holds_up_nothing(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3]).await;
        let calls = db.calls_of_one(2).await;
        let answers = [answered(&calls[0], &ends(Bucket::Successful)), answered(&calls[1], &ends(Bucket::Failed))];
        db.turn(&answers[..1], true).await.unwrap();
        let turned = db.turn(&answers, true).await.unwrap();
        assert_eq!(turned.recorded, [Recorded::Superseded, Recorded::Done]);
        assert_eq!(db.results().await, ["1|1|successful|answer|final", "2|1|failed|answer|final"]);
    }

    async fn a_refusal_for_the_rate_is_kept_with_its_time_and_no_other_wait_is(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let throttled = "SELECT count(*) FROM tenants WHERE throttled_at IS NOT NULL";
        for (code, kept) in [(WaitCode::Unreachable, "0"), (WaitCode::Throttled, "1")] {
            let wait = TenantEffect::Wait { delay: HOUR, code, reason: "no".to_owned() };
            db.store.defer_tenant(&tenant(), &wait).await.unwrap();
            assert_eq!(db.sql(throttled).await.trim(), kept, "{code:?}");
        }
    }
}

/// On SQLite there is one writer anyway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_waits_for_no_other_worker_that_has_the_tenant() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    db.ask(&[1, 2]).await;
    let call = db.calls_of_one(1).await.remove(0);
    let mut other = Other::connect(&db.scratch).await;
    other.run("BEGIN; SELECT name FROM tenants FOR NO KEY UPDATE").await;
    let turned = db.turn(&[answered(&call, &ends(Bucket::Successful))], false).await.unwrap();
    assert_eq!((turned.recorded.as_slice(), turned.claimed.is_none()), ([Recorded::Done].as_slice(), true));
    assert_eq!(db.queue().await, ["2|queued|0||"]);
    other.run("ROLLBACK").await;
    assert_eq!(intended(db.turn(&[], false).await.unwrap()), [[2]]);
}

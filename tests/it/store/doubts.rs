//! Doubt: calls that are given up, answers that come late, leases, and what settles a doubt.

use std::time::Duration;

use reprovisiond::domain::id::{RequestId, WorkerId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, Recording, TenantEffect};
use reprovisiond::domain::read_back::{Doubt, ReconcilePolicy, Settlement};
use reprovisiond::store::{Evidence, Intent, Recorded, StoreError};

use super::{Backend, Db, HOUR, bounds, claim, device, ends, in_doubt, record, requests, requeue, tenant, try_again};
use crate::support::on_both;

const POLICY: ReconcilePolicy = ReconcilePolicy {
    first_after: Duration::ZERO,
    settle_after: HOUR,
    give_up_after: HOUR,
    clock_margin: Duration::from_mins(2),
    max_attempts: 3,
};

impl Db {
    /// A call for these devices whose worker has stopped.
    async fn given_up(&self, devices: &[u32]) -> Intent {
        self.ask(devices).await;
        let call = self.claim().await.remove(0);
        self.abandon().await;
        call
    }

    /// The worker is there again, and whatever made the tenant cautious is over.
    async fn start_again(&self) {
        self.store.renew_lease(self.worker, HOUR).await.unwrap();
        self.sql("UPDATE tenants SET cautious = (1 = 0)").await;
    }

    /// Takes away what keeps evidence as it is, so that a test can say when something happened.
    async fn let_calls_be_changed(&self) {
        let triggers = ["graph_calls_intent_stands", "graph_calls_complete_once"];
        let table = if self.scratch.backend() == Backend::Sqlite { "" } else { " ON graph_calls" };
        for trigger in triggers {
            self.sql(&format!("DROP TRIGGER {trigger}{table}")).await;
        }
    }

    async fn doubts(&self) -> Vec<Doubt> {
        self.store.doubts(&tenant(), &POLICY, 100).await.unwrap()
    }

    async fn settle(&self, doubt: &Doubt, settlement: Settlement) -> u64 {
        self.store.settle(&[(doubt.clone(), settlement)]).await.unwrap()
    }

    /// The state of every call, the HTTP status and the word for what happened.
    async fn calls(&self) -> String {
        self.sql("SELECT state, http_status, error_code FROM graph_calls ORDER BY id").await
    }
}

fn happened() -> Settlement {
    Settlement::Final { bucket: Bucket::Successful, detail: "seen".to_owned(), evidence: "{\"a\":1}".to_owned() }
}

fn queue_again() -> Settlement {
    Settlement::QueueAgain { detail: "not seen".to_owned(), evidence: "{\"a\":0}".to_owned() }
}

fn hold(detail: &str) -> Settlement {
    Settlement::Hold { detail: detail.to_owned(), evidence: "{\"failed\":\"\"}".to_owned() }
}

on_both! {
    async fn only_calls_of_workers_that_stopped_or_let_their_lease_lapse_are_given_up_and_none_is_queued(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3]).await;
        let (stopped, lapsed) = (WorkerId::fresh(), WorkerId::fresh());
        for worker in [stopped, lapsed] {
            db.start_worker(worker).await;
        }
        let mut calls = Vec::new();
        for worker in [db.worker, stopped, lapsed] {
            calls.extend(claim(&*db.store, worker, &bounds(), 1).await.unwrap().decision.intents);
        }
        assert_eq!(requests(&calls), [[1], [2], [3]]);
        assert!(db.store.abandon_calls().await.unwrap().is_empty());
        db.store.stop_worker(stopped).await.unwrap();
        db.sql(&format!("UPDATE workers SET lease_expires_at = {} WHERE id = '{lapsed}'", db.at(-1))).await;

        let mut given_up = db.store.abandon_calls().await.unwrap();
        given_up.sort_by_key(|call| call.call_id);
        let seen: Vec<_> = given_up.iter().map(|call| (call.call_id, call.worker, call.device_count, &*call.tenant)).collect();
        assert_eq!(seen, [(calls[1].call_id, stopped, 1, "default"), (calls[2].call_id, lapsed, 1, "default")]);
        let reason = "the worker stopped before an answer was recorded";
        assert_eq!(db.queue().await, ["1|sending|0||".to_owned(), format!("2|unknown|1||{reason}"), format!("3|unknown|1||{reason}")]);
        let mut results = db.results().await;
        results.sort();
        assert_eq!(results, ["2|1|unknown|policy|open", "3|1|unknown|policy|open"]);
        assert_eq!(db.calls().await, "sending||\nunknown||abandoned\nunknown||abandoned");
        assert!(db.store.facts(&[tenant()]).await.unwrap()[0].1.tenant.cautious);
        let before = db.everything().await;
        assert!(db.store.abandon_calls().await.unwrap().is_empty());
        assert_eq!(db.everything().await, before);
    }

    async fn a_lease_is_renewed_while_it_holds_and_says_so_when_it_did_not(scratch: Scratch) {
        let db = Db::new(scratch).await;
        assert!(db.store.renew_lease(db.worker, HOUR).await.unwrap());
        db.sql(&format!("UPDATE workers SET lease_expires_at = {}", db.at(-1))).await;
        assert!(!db.store.renew_lease(db.worker, HOUR).await.unwrap());
        assert!(db.store.renew_lease(db.worker, HOUR).await.unwrap());
        db.store.stop_worker(db.worker).await.unwrap();
        assert!(!db.store.renew_lease(db.worker, HOUR).await.unwrap());
        assert!(db.store.renew_lease(db.worker, HOUR).await.unwrap());
        let until = format!("SELECT count(*) FROM workers WHERE lease_expires_at > {} AND lease_expires_at <= {}", db.at(3500), db.at(3600));
        assert_eq!(db.sql(&until).await, "1");
        let gone = db.store.renew_lease(WorkerId::fresh(), HOUR).await;
        assert!(matches!(gone, Err(StoreError::Conflict(_))), "{gone:?}");
    }

    async fn workers_with_open_calls_are_those_of_this_host_that_have_not_stopped(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.start_worker(WorkerId::fresh()).await;
        assert!(db.store.workers_with_open_calls("host").await.unwrap().is_empty());
        db.ask(&[1]).await;
        db.claim().await;
        let found = db.store.workers_with_open_calls("host").await.unwrap();
        assert_eq!(found.iter().map(|w| (w.id, &*w.process)).collect::<Vec<_>>(), [(db.worker, "1")]);
        assert!(db.store.workers_with_open_calls("elsewhere").await.unwrap().is_empty());
        db.store.stop_worker(db.worker).await.unwrap();
        assert!(db.store.workers_with_open_calls("host").await.unwrap().is_empty());
    }

    async fn calls_that_were_never_sent_are_given_back_uncharged_and_those_under_way_stay(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let other = WorkerId::fresh();
        db.start_worker(other).await;
        db.ask(&[1, 2, 3]).await;
        let mut calls = Vec::new();
        for worker in [db.worker, db.worker, other] {
            calls.extend(claim(&*db.store, worker, &bounds(), 1).await.unwrap().decision.intents);
        }
        assert_eq!(db.store.release_unsent(db.worker, &[calls[0].call_id]).await.unwrap(), 1);
        assert_eq!(db.queue().await, ["1|sending|0||", "2|queued|0||not_sent", "3|sending|0||"]);
        assert_eq!(db.calls().await, "sending||\nnot_sent||not_sent\nsending||");
        assert!(db.results().await.is_empty());
        assert_eq!(db.store.release_unsent(db.worker, &[calls[0].call_id]).await.unwrap(), 0);
        assert_eq!(db.store.release_unsent(db.worker, &[]).await.unwrap(), 1);
    }

    async fn an_answer_that_comes_after_its_call_was_given_up_settles_what_is_still_in_doubt(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let call = db.given_up(&[1, 2, 3]).await.call_id;
        // A person is to decide on one of them: the answer decides.
        let second = db.doubts().await.remove(1);
        db.settle(&second, hold("?")).await;
        let effects = [(1, ends(Bucket::Successful)), (2, ends(Bucket::NotFound)), (3, try_again(HOUR))];
        let recorded = record(&*db.store, call, CallState::Answered, &effects, TenantEffect::Clear).await.unwrap();
        assert_eq!(recorded, Recorded::Done);
        assert_eq!(db.calls().await, "answered|200|");
        assert_eq!(db.queue().await, ["3|queued|1||retry_failed"]);
        let mut results = db.results().await.split_off(4);
        results.sort();
        assert_eq!(results, ["1|1|successful|answer|final", "2|1|not_found|answer|final", "3|1|failed|answer|open"]);
        assert!(!db.store.facts(&[tenant()]).await.unwrap()[0].1.tenant.cautious);
        let before = db.everything().await;
        assert_eq!(db.record(call, CallState::Answered, &effects).await, Recorded::Superseded);
        assert_eq!(db.everything().await, before);
    }

    async fn proof_that_a_call_was_not_carried_out_settles_it_even_late_and_takes_its_charge_back(scratch: Scratch) {
        let db = Db::new(scratch).await;
        // A worker that was stopped, lost its lease, woke up and dropped its call; and one that was turned away.
        for state in [CallState::NotSent, CallState::NotCarriedOut] {
            let call = db.given_up(&[1]).await;
            let request = call.entries[0].request_id.0;
            assert_eq!(db.record(call.call_id, state, &[(request, requeue(None))]).await, Recorded::Done, "{state}");
            assert_eq!(db.queue().await, [format!("{request}|queued|0||not_sent")]);
            db.start_again().await;
            let call = db.claim().await.remove(0);
            assert_eq!(db.record(call.call_id, CallState::Answered, &[(request, ends(Bucket::Successful))]).await, Recorded::Done);
            assert_eq!(db.results().await.last().unwrap(), &format!("{request}|1|successful|answer|final"));
        }
    }

    async fn what_settles_nothing_is_kept_on_its_call_once_and_leaves_the_doubt_as_it_is(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let call = db.given_up(&[1, 2]).await.call_id;
        let first = db.doubts().await.remove(0);
        db.settle(&first, happened()).await;
        let rest = "SELECT * FROM reprovision_queue; SELECT * FROM device_results ORDER BY id; SELECT * FROM tenants";
        let before = db.sql(rest).await;
        let entries = vec![(RequestId(1), in_doubt()), (RequestId(2), in_doubt())];
        let recording = Recording { call_id: call, state: CallState::Unknown, entries, tenant: TenantEffect::Caution, leave_alone: None, surplus: Vec::new() };
        let evidence = Evidence {
            http_status: Some(504),
            graph_request_id: Some("graph-9".to_owned()),
            response_body: Some("<html>".to_owned()),
            ..Evidence::default()
        };
        assert_eq!(crate::support::record(&*db.store, &recording, &evidence).await.unwrap(), Recorded::TooLateFor(1));
        assert_eq!(db.sql("SELECT state, http_status, graph_request_id, response_body, error_code FROM graph_calls").await, "unknown|504|graph-9|<html>|");
        assert_eq!(db.sql(rest).await, before);
        assert_eq!(db.store.facts(&[tenant()]).await.unwrap()[0].1.tenant.open_doubts, 1);
        // Once: what comes after that, be it an answer, finds the call completed.
        let before = db.everything().await;
        for state in [CallState::Unknown, CallState::Answered] {
            assert_eq!(db.record(call, state, &[(1, ends(Bucket::Failed)), (2, ends(Bucket::Failed))]).await, Recorded::Superseded);
        }
        assert_eq!(db.everything().await, before);
    }

    async fn a_late_answer_leaves_what_was_settled_as_it_is_and_is_kept_on_its_call(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let call = db.given_up(&[1, 2, 3, 4]).await.call_id;
        let doubts = db.doubts().await;
        assert_eq!(db.store.settle(&[(doubts[0].clone(), happened()), (doubts[1].clone(), queue_again()), (doubts[2].clone(), queue_again())]).await.unwrap(), 3);
        // The third is on its way again, in a call of its own.
        db.sql("UPDATE reprovision_queue SET priority = 9 WHERE request_id = 3").await;
        let again = db.claim().await;
        assert_eq!(requests(&again), [[3]]);

        let effects: Vec<_> = (1..=4).map(|n| (n, ends(Bucket::Failed))).collect();
        assert_eq!(db.record(call, CallState::Answered, &effects).await, Recorded::TooLateFor(3));
        assert_eq!(db.sql(&format!("SELECT state, http_status FROM graph_calls WHERE id = '{call}'")).await, "answered|200");
        assert_eq!(db.queue().await, ["2|queued|1||not seen", "3|sending|1||"]);
        let finals = db.sql("SELECT request_id, bucket, source FROM device_results WHERE final ORDER BY 1").await;
        assert_eq!(finals, "1|successful|read_back\n4|failed|answer");
        let beside = db.sql(&format!("SELECT request_id, attempt, bucket, managed_device_id, detail FROM device_results WHERE NOT final AND source = 'answer' AND call_id = '{call}' ORDER BY 1")).await;
        assert_eq!(beside.lines().collect::<Vec<_>>(), [
            format!("1|1|failed|{}|came after the request had been settled as successful by read_back: contradicts", device(1)),
            format!("2|1|failed|{}|came after the request had been queued again by read_back: agrees", device(2)),
            format!("3|1|failed|{}|came after the request had been queued again by read_back: agrees", device(3)),
        ]);
        assert_eq!(db.record(again[0].call_id, CallState::Answered, &[(3, ends(Bucket::Successful))]).await, Recorded::Done);
    }

    async fn each_settlement_moves_a_doubt_once_and_what_is_settled_stays(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.given_up(&[1, 2, 3, 4]).await;
        let doubts = db.doubts().await;
        assert_eq!(doubts.iter().map(|d| d.request_id.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let ask_again = Settlement::AskAgain { after: HOUR, detail: "not yet".to_owned() };
        let settled: Vec<_> = doubts.iter().cloned().zip([happened(), queue_again(), ask_again.clone(), hold("a\0b")]).collect();
        assert_eq!(db.store.settle(&settled).await.unwrap(), 4);
        assert_eq!(db.queue().await, ["2|queued|1||not seen", "3|unknown|1||not yet", "4|held|1||a\u{fffd}b"]);
        let kept = db.sql("SELECT request_id, attempt, bucket, source, CASE WHEN final THEN 'final' ELSE 'open' END, detail, evidence FROM device_results WHERE id > 4 ORDER BY 1").await;
        assert_eq!(kept.lines().collect::<Vec<_>>(), [
            "1|1|successful|read_back|final|seen|{\"a\":1}",
            "2|1|unknown|read_back|open|not seen|{\"a\":0}",
            "4|1|unknown|read_back|open|a\u{fffd}b|{\"failed\":\"\"}",
        ]);
        let history = db.sql(&format!("SELECT event, evidence FROM device_history WHERE managed_device_id = '{}' ORDER BY at, step", device(2))).await;
        assert_eq!(history, "requested|\nunknown|\nunknown|{\"a\":0}");
        let due = format!("SELECT count(*) FROM reprovision_queue WHERE state = 'unknown' AND due_at > {}", db.at(3500));
        assert_eq!(db.sql(&due).await, "1");
        assert!(db.doubts().await.is_empty(), "looked at before its time");

        let before = db.everything().await;
        for settlement in [happened(), queue_again(), ask_again] {
            for n in [0, 1, 3] {
                assert_eq!(db.settle(&doubts[n], settlement.clone()).await, 0, "{n}");
            }
            assert_eq!(db.everything().await, before);
        }
        db.sql(&format!("UPDATE reprovision_queue SET due_at = {} WHERE request_id = 3", db.at(-1))).await;
        assert_eq!(db.doubts().await.len(), 1);
    }

    async fn a_settlement_of_an_earlier_call_does_not_touch_the_later_one(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.given_up(&[1]).await;
        let first = db.doubts().await.remove(0);
        assert_eq!(db.settle(&first, queue_again()).await, 1);
        db.start_again().await;
        let second = db.claim().await.remove(0);
        assert_eq!(second.entries[0].attempts, 1);
        db.abandon().await;
        let before = db.everything().await;
        for settlement in [happened(), queue_again(), hold("")] {
            assert_eq!(db.settle(&first, settlement).await, 0);
            assert_eq!(db.everything().await, before);
        }
        assert_eq!(db.doubts().await[0].attempts, 2);
    }

    async fn a_doubt_settled_after_a_late_answer_changes_nothing(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let call = db.given_up(&[1]).await.call_id;
        let doubt = db.doubts().await.remove(0);
        db.record(call, CallState::Answered, &[(1, ends(Bucket::Failed))]).await;
        let before = db.everything().await;
        for settlement in [happened(), queue_again(), hold("")] {
            assert_eq!(db.settle(&doubt, settlement).await, 0);
            assert_eq!(db.everything().await, before);
        }
    }

    async fn a_doubt_shows_its_call_and_how_many_others_explain_what_is_seen(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let accepted = db.claim().await.remove(0).call_id;
        db.record(accepted, CallState::Answered, &[(1, ends(Bucket::Successful))]).await;
        let call = db.given_up(&[1, 2]).await.call_id;
        let patient = ReconcilePolicy { first_after: HOUR, ..POLICY };
        assert!(db.store.doubts(&tenant(), &patient, 100).await.unwrap().is_empty());
        assert!(db.store.doubts(&"other".parse().unwrap(), &POLICY, 100).await.unwrap().is_empty());
        assert_eq!(db.store.doubts(&tenant(), &POLICY, 1).await.unwrap().len(), 1);
        let doubts = db.doubts().await;
        let seen: Vec<_> = doubts.iter().map(|d| (d.request_id.0, d.device.to_string(), d.call_id, d.attempts, d.explained)).collect();
        assert_eq!(seen, [(2, device(1), call, 1, 1), (3, device(2), call, 1, 0)]);
        assert!(doubts.iter().all(|d| d.sent_at <= d.given_up_at && d.given_up_at <= d.now));
    }

    async fn a_call_accounts_for_an_action_by_when_it_ended_however_long_it_took(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let slow = db.claim().await.remove(0).call_id;
        db.record(slow, CallState::Answered, &[(1, ends(Bucket::Successful))]).await;
        db.given_up(&[1]).await;
        db.let_calls_be_changed().await;
        for (ended, explained) in [(0, 1), (-600, 0)] {
            db.sql(&format!("UPDATE graph_calls SET sent_at = {}, finished_at = {} WHERE id = '{slow}'", db.at(-3600), db.at(ended))).await;
            assert_eq!(db.doubts().await[0].explained, explained, "{ended}");
        }
    }

    async fn a_doubt_that_lies_in_the_future_is_looked_at_at_once(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.given_up(&[1]).await;
        db.let_calls_be_changed().await;
        db.sql(&format!("UPDATE reprovision_queue SET due_at = {}", db.at(3600))).await;
        assert!(db.doubts().await.is_empty());
        for column in ["sent_at", "finished_at"] {
            db.sql(&format!("UPDATE graph_calls SET {column} = {}", db.at(7200))).await;
            assert_eq!(db.doubts().await.len(), 1, "{column}");
            db.sql(&format!("UPDATE graph_calls SET {column} = {}", db.at(0))).await;
        }
    }

    async fn a_heartbeat_in_the_future_is_no_sign_of_life(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let call = db.claim().await.remove(0).call_id;
        db.sql(&format!("UPDATE workers SET heartbeat_at = {}, lease_expires_at = {}", db.at(5), db.at(65))).await;
        assert!(db.store.abandon_calls().await.unwrap().is_empty(), "clocks of two hosts are never quite the same");
        db.sql(&format!("UPDATE workers SET heartbeat_at = {}, lease_expires_at = {}", db.at(3600), db.at(3660))).await;
        let given_up: Vec<_> = db.store.abandon_calls().await.unwrap().iter().map(|call| call.call_id).collect();
        assert_eq!(given_up, [call]);
    }
}

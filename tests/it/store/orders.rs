//! What a person orders: pause, resume, cancel, resolve. Each is recorded, holds for every worker, and changes nothing that
//! it may not.

use std::time::Duration;

use reprovisiond::domain::id::{CallId, RequestId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryState, TenantEffect};
use reprovisiond::domain::operator::{Act, Order, Resolution, Scope, ScopeKind};
use reprovisiond::domain::read_back::{ReconcilePolicy, Settlement};
use reprovisiond::store::{Done, Outcome, Recorded, Refused, StoreError};

use super::{Db, HOUR, device, ends, in_doubt, record, requests, tenant};
use crate::support::on_both;

pub(super) fn order(act: Act, scope: Scope) -> Order {
    Order { act, scope, taken_by: "ada".to_owned(), reason: "ticket 7".to_owned() }
}

pub(super) fn these(requests: &[i64]) -> Scope {
    Scope::Requests(requests.iter().copied().map(RequestId).collect())
}

fn devices(ns: &[u32]) -> Scope {
    Scope::Devices(ns.iter().map(|n| device(*n).parse().unwrap()).collect())
}

fn default() -> Scope {
    Scope::Tenant(tenant())
}

/// Where an entry was when an order about it was refused.
fn states(refused: &[Refused]) -> Vec<(i64, EntryState, bool)> {
    let state = |refused: &Refused| match refused {
        Refused::State(found) => (found.request.0, found.state, found.call.is_some()),
        other => panic!("{other:?}"),
    };
    refused.iter().map(state).collect()
}

impl Db {
    async fn order(&self, act: Act, scope: Scope) -> Outcome {
        self.store.order(&order(act, scope)).await.unwrap()
    }

    /// One subject, nothing refused.
    async fn ordered(&self, act: Act, scope: Scope) -> Done {
        let mut outcome = self.order(act, scope).await;
        assert_eq!((outcome.done.len(), &outcome.refused[..]), (1, &[][..]));
        outcome.done.remove(0)
    }

    /// The actions, a row a line.
    async fn actions(&self) -> Vec<String> {
        let sql =
            "SELECT action, scope, subject, decision, taken_by, reason, requests FROM operator_actions ORDER BY id";
        self.sql(sql).await.lines().map(str::to_owned).collect()
    }

    /// A call for these devices whose whole outcome is in doubt, those of `held` waiting for a person.
    async fn in_doubt(&self, devices: &[u32], held: &[i64]) -> CallId {
        self.ask(devices).await;
        let call = self.claim().await.remove(0);
        let effects: Vec<_> = call.entries.iter().map(|entry| (entry.request_id.0, in_doubt())).collect();
        self.record(call.call_id, CallState::Unknown, &effects).await;
        let policy = ReconcilePolicy {
            first_after: Duration::ZERO,
            settle_after: HOUR,
            give_up_after: HOUR,
            clock_margin: HOUR,
            max_attempts: 3,
        };
        let doubts = self.store.doubts(&tenant(), &policy, 100).await.unwrap();
        let to_a_person = Settlement::Hold { detail: "?".to_owned(), evidence: "{}".to_owned() };
        let held: Vec<_> = doubts
            .into_iter()
            .filter(|doubt| held.contains(&doubt.request_id.0))
            .map(|doubt| (doubt, to_a_person.clone()))
            .collect();
        self.store.settle(&held).await.unwrap();
        call.call_id
    }

    async fn open_doubts(&self) -> u32 {
        self.store.facts(&[tenant()]).await.unwrap()[0].1.tenant.open_doubts
    }
}

on_both! {
    async fn a_paused_tenant_gets_no_intent_until_it_is_resumed_and_both_are_recorded(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let call = db.claim().await.remove(0).call_id;
        db.ask(&[2, 3]).await;
        let paused = db.ordered(Act::Pause, default()).await;
        assert_eq!((paused.scope, paused.subject.as_deref()), (ScopeKind::Tenant, Some("default")));
        assert_eq!((paused.requests, paused.under_way, paused.in_doubt, paused.pause_before), (2, 1, 0, None));
        assert!(db.claim().await.is_empty());
        // What was under way goes on.
        assert_eq!(db.record(call, CallState::Answered, &[(1, ends(Bucket::Successful))]).await, Recorded::Done);
        let detail = "SELECT DISTINCT detail FROM request_status WHERE state = 'queued'";
        assert_eq!(db.sql(detail).await, "the tenant is paused by ada: ticket 7");

        // Whoever comes second learns of the first, whose pause it stays.
        let second = Order { taken_by: "bob".to_owned(), ..order(Act::Pause, default()) };
        let again = db.store.order(&second).await.unwrap().done.remove(0).pause_before.unwrap();
        assert_eq!((&*again.paused_by, &*again.reason), ("ada", "ticket 7"));
        assert_eq!(db.store.status().await.unwrap().tenants[0].paused_by.as_deref(), Some("ada"));

        let resumed = db.ordered(Act::Resume, default()).await;
        assert_eq!((resumed.requests, resumed.still_paused, resumed.pause_before.is_some()), (2, 0, true));
        assert_eq!(requests(&db.claim().await), [[2, 3]]);
        assert!(db.ordered(Act::Resume, default()).await.pause_before.is_none());
        assert_eq!(db.actions().await, [
            "pause|tenant|default||ada|ticket 7|2",
            "pause|tenant|default||bob|ticket 7|2",
            "resume|tenant|default||ada|ticket 7|2",
            "resume|tenant|default||ada|ticket 7|0",
        ]);
    }

    async fn a_paused_device_or_request_stays_behind_and_so_do_the_devices_future_requests(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3]).await;
        assert_eq!(db.ordered(Act::Pause, devices(&[1])).await.requests, 1);
        assert_eq!(db.ordered(Act::Pause, these(&[2])).await.requests, 1);
        let call = db.claim().await;
        assert_eq!(requests(&call), [[3]]);
        db.record(call[0].call_id, CallState::Answered, &[(3, ends(Bucket::Successful))]).await;
        db.ask(&[1, 2, 3]).await;
        // Of device 2, only one request is paused.
        assert_eq!(requests(&db.claim().await), [[5, 6]]);
        let status = db.store.status().await.unwrap();
        assert_eq!((status.paused_devices, status.paused_requests), (1, 1));
        assert_eq!(db.sql("SELECT request_id, detail FROM request_status WHERE detail IS NOT NULL ORDER BY 1").await,
            "1|the device is paused by ada: ticket 7\n2|paused by ada: ticket 7\n4|the device is paused by ada: ticket 7");

        // A pause of the tenant is another one, whose end does not end these.
        db.ordered(Act::Pause, default()).await;
        let resumed = db.ordered(Act::Resume, default()).await;
        assert_eq!((resumed.requests, resumed.still_paused, resumed.under_way), (0, 3, 2));
        let resumed = db.ordered(Act::Resume, devices(&[1])).await;
        assert_eq!((resumed.requests, resumed.still_paused), (2, 0));
        assert_eq!(requests(&db.claim().await), [[1]]);
    }

    async fn what_is_paused_still_expires(scratch: Scratch) {
        let db = Db::new(scratch).await;
        for n in 1..=3 {
            db.sql(&format!("INSERT INTO reprovision_requests (managed_device_id, not_before, expires_at) VALUES ('{}', {}, {})", device(n), db.at(-20), db.at(-10))).await;
        }
        db.ordered(Act::Pause, devices(&[1])).await;
        db.ordered(Act::Pause, these(&[2])).await;
        db.ordered(Act::Pause, default()).await;
        assert!(db.claim().await.is_empty());
        assert_eq!(db.results().await.len(), 3);
        assert!(db.queue().await.is_empty());
        assert_eq!(db.store.status().await.unwrap().paused_requests, 0);
    }

    async fn a_pause_of_all_is_one_action_and_every_tenants_pause(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.store.register_tenants(&["other".parse().unwrap()]).await.unwrap();
        db.ask(&[1, 2]).await;
        db.sql(&format!("INSERT INTO reprovision_requests (tenant, managed_device_id) VALUES ('other', '{}')", device(3))).await;
        let outcome = db.order(Act::Pause, Scope::All).await;
        let seen: Vec<_> = outcome.done.iter().map(|done| (done.subject.as_deref().unwrap(), done.requests)).collect();
        assert_eq!(seen, [("default", 2), ("other", 1)]);
        assert_eq!(outcome.done[0].action_id, outcome.done[1].action_id);
        assert!(db.claim().await.is_empty());
        db.order(Act::Resume, Scope::All).await;
        assert_eq!(db.actions().await, ["pause|all|||ada|ticket 7|3", "resume|all|||ada|ticket 7|3"]);
        assert_eq!(requests(&db.claim().await), [[1, 2]]);
    }

    async fn a_device_may_be_paused_before_anybody_has_asked_for_it(scratch: Scratch) {
        let db = Db::new(scratch).await;
        assert_eq!(db.order(Act::Pause, devices(&[1])).await.refused, []);
        db.ask(&[1, 2]).await;
        assert_eq!(requests(&db.claim().await), [[2]]);
        assert_eq!(db.order(Act::Resume, devices(&[1])).await.refused, []);
        assert_eq!(requests(&db.claim().await), [[1]]);
    }

    async fn what_is_not_known_or_has_ended_is_refused_and_leaves_no_action(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let call = db.claim().await.remove(0).call_id;
        db.record(call, CallState::Answered, &[(1, ends(Bucket::NotFound))]).await;
        let before = db.everything().await;
        let ended = Refused::Ended { request: RequestId(1), bucket: Bucket::NotFound };
        for act in [Act::Pause, Act::Resume, Act::Cancel, Act::Resolve(Resolution::Retry)] {
            let unknown = db.order(act, Scope::Tenant("nobody".parse().unwrap())).await;
            assert_eq!(unknown.refused, [Refused::NoSuchTenant("nobody".to_owned())]);
            let mixed = db.order(act, these(&[1, 77, 1])).await;
            assert_eq!(mixed.refused, [ended.clone(), Refused::NoSuchRequest(RequestId(77))]);
            assert!(unknown.done.is_empty() && mixed.done.is_empty());
        }
        for act in [Act::Cancel, Act::Resolve(Resolution::Retry)] {
            let unknown = db.order(act, devices(&[9, 9])).await;
            assert_eq!((unknown.refused, unknown.done.len()), (vec![Refused::NoSuchDevice(device(9))], 0));
        }
        assert_eq!(db.everything().await, before);
        let idle = db.order(Act::Cancel, devices(&[1])).await;
        assert_eq!(idle.refused, [Refused::NothingPending(device(1))]);
    }

    async fn an_order_without_a_name_or_a_reason_is_refused_by_the_database(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let before = db.everything().await;
        for (by, reason) in [("", "x"), ("x", ""), (&*"é".repeat(129), "x"), ("x", &*"é".repeat(2001))] {
            for (act, scope) in [(Act::Pause, default()), (Act::Cancel, these(&[1])), (Act::Pause, devices(&[1]))] {
                let order = Order { act, scope, taken_by: by.to_owned(), reason: reason.to_owned() };
                let refused = db.store.order(&order).await;
                assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
                assert_eq!(db.everything().await, before);
            }
        }
        db.ordered(Act::Pause, default()).await;
        for change in ["UPDATE operator_actions SET reason = 'another'", "DELETE FROM operator_actions"] {
            assert!(db.refusal(change).await.contains("append-only"));
        }
    }

    async fn cancel_ends_what_was_not_sent_and_refuses_the_rest_one_by_one(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.in_doubt(&[1, 2], &[2]).await;
        db.ask(&[3]).await;
        db.claim().await;
        db.ask(&[4, 5, 1]).await;
        db.sql("UPDATE reprovision_queue SET attempts = 2 WHERE request_id = 4").await;
        db.ordered(Act::Pause, these(&[5])).await;

        let outcome = db.order(Act::Cancel, default()).await;
        assert_eq!(outcome.done.iter().map(|done| done.requests).collect::<Vec<_>>(), [3]);
        assert_eq!(states(&outcome.refused), [(1, EntryState::Unknown, true), (2, EntryState::Held, true), (3, EntryState::Sending, true)]);
        let ended = db.sql("SELECT request_id, call_id, attempt, bucket, source, detail, operator_action_id FROM device_results WHERE final ORDER BY 1").await;
        let id = outcome.done[0].action_id;
        assert_eq!(ended.lines().collect::<Vec<_>>(), [(4, 2), (5, 0), (6, 0)].map(|(request, attempt)| {
            format!("{request}||{attempt}|cancelled|operator|cancelled by ada: ticket 7|{id}")
        }));
        assert_eq!(db.sql("SELECT request_id FROM reprovision_queue ORDER BY 1").await, "1\n2\n3");
        assert_eq!(db.actions().await.last().unwrap(), "cancel|tenant|default||ada|ticket 7|3");
        assert_eq!(db.store.status().await.unwrap().tenants[0].cancelled, 3);
    }

    async fn cancel_by_device_and_by_request_records_an_action_each(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 1, 2, 3]).await;
        let outcome = db.order(Act::Cancel, devices(&[1, 2])).await;
        assert_eq!(outcome.done.iter().map(|done| done.requests).collect::<Vec<_>>(), [2, 1]);
        let outcome = db.order(Act::Cancel, these(&[4, 1])).await;
        assert_eq!(outcome.refused, [Refused::Ended { request: RequestId(1), bucket: Bucket::Cancelled }]);
        assert_eq!(db.actions().await, [
            format!("cancel|device|{}||ada|ticket 7|2", device(1)),
            format!("cancel|device|{}||ada|ticket 7|1", device(2)),
            "cancel|request|4||ada|ticket 7|1".to_owned(),
        ]);
        let by = "SELECT d.request_id, a.scope FROM device_results d JOIN operator_actions a ON a.id = d.operator_action_id ORDER BY 1";
        assert_eq!(db.sql(by).await, "1|device\n2|device\n3|device\n4|request");
        assert!(db.queue().await.is_empty());
        db.ask(&[5, 6]).await;
        assert_eq!(db.ordered(Act::Cancel, Scope::All).await.requests, 2);
        assert_eq!(db.actions().await.last().unwrap(), "cancel|all|||ada|ticket 7|2");
    }

    async fn a_doubt_ends_as_a_person_decides_and_with_its_last_device_the_call_is_in_doubt_no_more(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let call = db.in_doubt(&[1, 2, 3], &[3]).await;
        assert_eq!(db.open_doubts().await, 1);
        assert_eq!(db.ordered(Act::Resolve(Resolution::Successful), these(&[1])).await.requests, 1);
        assert_eq!(db.ordered(Act::Resolve(Resolution::Failed), devices(&[2])).await.requests, 1);
        assert_eq!(db.open_doubts().await, 1);
        let retried = db.ordered(Act::Resolve(Resolution::Retry), these(&[3])).await;
        assert_eq!(db.open_doubts().await, 0);
        let rows = db.sql("SELECT request_id, call_id, attempt, bucket, CASE WHEN final THEN 'final' ELSE 'open' END, detail FROM device_results WHERE source = 'operator' ORDER BY 1").await;
        assert_eq!(rows.lines().collect::<Vec<_>>(), [
            format!("1|{call}|1|successful|final|resolved as successful by ada: ticket 7"),
            format!("2|{call}|1|failed|final|resolved as failed by ada: ticket 7"),
            format!("3|{call}|1|unknown|open|resolved as retry by ada: ticket 7"),
        ]);
        assert_eq!(db.sql("SELECT operator_action_id FROM device_results WHERE request_id = 3 AND source = 'operator'").await, retried.action_id.to_string());
        assert_eq!(db.actions().await, [
            "resolve|request|1|successful|ada|ticket 7|1".to_owned(),
            format!("resolve|device|{}|failed|ada|ticket 7|1", device(2)),
            "resolve|request|3|retry|ada|ticket 7|1".to_owned(),
        ]);
        // Ready now, for an attempt of its own.
        let again = db.claim().await.remove(0);
        assert_eq!((again.entries.len(), again.entries[0].request_id, again.entries[0].attempts), (1, RequestId(3), 1));
        db.record(again.call_id, CallState::Answered, &[(3, ends(Bucket::Successful))]).await;
        assert_eq!(db.results().await.last().unwrap(), "3|2|successful|answer|final");
    }

    async fn of_a_tenant_only_what_waits_for_a_person_is_resolved(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.in_doubt(&[1, 2, 3], &[2, 3]).await;
        db.ask(&[4]).await;
        assert_eq!(db.ordered(Act::Resolve(Resolution::Failed), default()).await.requests, 2);
        assert_eq!(db.queue().await, ["1|unknown|1||reset", "4|queued|0||"]);
        assert_eq!(db.ordered(Act::Resolve(Resolution::Failed), Scope::All).await.requests, 0);
        assert_eq!(db.actions().await, ["resolve|tenant|default|failed|ada|ticket 7|2", "resolve|all||failed|ada|ticket 7|0"]);
    }

    async fn what_is_not_in_doubt_is_not_resolved(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.in_doubt(&[1], &[]).await;
        db.ask(&[2]).await;
        db.claim().await;
        db.ask(&[3, 1]).await;
        let queue = db.queue().await;
        for act in [Resolution::Successful, Resolution::Retry, Resolution::Failed].map(Act::Resolve) {
            let refused = db.order(act, these(&[2, 3, 4])).await.refused;
            assert_eq!(states(&refused), [(2, EntryState::Sending, true), (3, EntryState::Queued, false), (4, EntryState::Queued, false)]);
            assert_eq!(states(&db.order(act, devices(&[3])).await.refused), [(3, EntryState::Queued, false)]);
        }
        assert_eq!(db.queue().await, queue);
        // A device's other request is no part of its doubt.
        assert_eq!(db.ordered(Act::Resolve(Resolution::Successful), devices(&[1])).await.requests, 1);
        assert_eq!(db.sql("SELECT state FROM request_status WHERE request_id = 4").await, "queued");
    }

    async fn an_answer_that_comes_after_a_persons_decision_is_kept_beside_it(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3]).await;
        let call = db.claim().await.remove(0).call_id;
        db.abandon().await;
        for (request, decision) in [(1, Resolution::Successful), (2, Resolution::Failed), (3, Resolution::Retry)] {
            db.ordered(Act::Resolve(decision), these(&[request])).await;
        }
        let effects: Vec<_> = (1..=3).map(|n| (n, ends(Bucket::Successful))).collect();
        let queue = db.queue().await;
        let recorded = record(&*db.store, call, CallState::Answered, &effects, TenantEffect::Clear).await.unwrap();
        assert_eq!(recorded, Recorded::TooLateFor(3));
        assert_eq!(db.queue().await, queue);
        let beside = db.sql("SELECT request_id, attempt, bucket, detail FROM device_results WHERE source = 'answer' AND NOT final ORDER BY 1").await;
        assert_eq!(beside.lines().collect::<Vec<_>>(), [
            "1|1|successful|came after the request had been settled as successful by operator: agrees",
            "2|1|successful|came after the request had been settled as failed by operator: contradicts",
            "3|1|successful|came after the request had been queued again by operator: contradicts",
        ]);
        assert_eq!(db.sql("SELECT request_id, bucket, source FROM device_results WHERE final ORDER BY 1").await, "1|successful|operator\n2|failed|operator");
    }

    async fn texts_that_no_database_keeps_do_not_lose_an_order(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let order = Order { act: Act::Cancel, scope: these(&[1]), taken_by: "a\0b".to_owned(), reason: "'\n\0".to_owned() };
        assert_eq!(db.store.order(&order).await.unwrap().done[0].requests, 1);
        assert_eq!(db.sql("SELECT detail FROM device_results").await, "cancelled by a\u{fffd}b: '\n\u{fffd}");
    }
}

//! Commit 1: what may be claimed, in which order, and what is written when it is.

use std::sync::Mutex;
use std::time::Duration;

use reprovisiond::domain::id::{CallId, WorkerId};
use reprovisiond::domain::plan::{Attention, Bounds, Snapshot, attention};
use reprovisiond::store::{Decision, Intent, StoreError};

use super::{Backend, Db, Other, bounds, claim, device, open, requests, tenant};
use crate::support::on_both;

async fn look(db: &Db) -> Attention {
    let facts = db.store.facts(&[tenant()]).await.unwrap();
    attention(&facts[0].1, &bounds())
}

on_both! {
    async fn a_claim_takes_each_device_once_and_one_tenant_only(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.store.register_tenants(&["other".parse().unwrap()]).await.unwrap();
        db.ask(&[1, 1, 2]).await;
        db.sql(&format!("INSERT INTO reprovision_requests (managed_device_id, tenant) VALUES ('{}', 'other')", device(3))).await;
        assert_eq!(requests(&db.claim().await), [[1, 3]]);
        assert_eq!(db.sql("SELECT request_id, state FROM reprovision_queue ORDER BY 1").await, "1|sending\n2|queued\n3|sending\n4|queued");
        assert!(db.claim().await.is_empty());
    }

    async fn a_claim_takes_priority_first_then_age_and_no_more_than_it_fetches(scratch: Scratch) {
        let db = Db::new(scratch).await;
        for (n, priority) in [(1, -3), (2, 0), (3, 5), (4, 0), (5, 5)] {
            db.sql(&format!("INSERT INTO reprovision_requests (managed_device_id, priority) VALUES ('{}', {priority})", device(n))).await;
        }
        for expected in [vec![3, 5, 2], vec![4, 1]] {
            let claimed = claim(&*db.store, db.worker, &bounds(), 3).await.unwrap();
            assert_eq!(requests(&claimed.decision.intents), [expected]);
        }
    }

    async fn an_entry_is_not_claimed_before_it_is_due_and_then_it_is(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.sql(&format!("INSERT INTO reprovision_requests (managed_device_id, not_before) VALUES ('{}', {})", device(1), db.at(3600))).await;
        let ahead = look(&db).await;
        assert!(!ahead.call && !ahead.expire);
        assert!(ahead.look_again_in.is_some_and(|wait| wait > Duration::from_mins(59) && wait < Duration::from_mins(61)), "{ahead:?}");
        let before = db.everything().await;
        assert!(db.claim().await.is_empty());
        assert_eq!(db.everything().await, before);

        db.sql(&format!("UPDATE reprovision_queue SET due_at = {}", db.at(-1))).await;
        assert_eq!(look(&db).await, Attention { call: true, expire: false, look_again_in: None });
        assert_eq!(requests(&db.claim().await), [[1]]);
    }

    async fn an_expired_entry_ends_unsent_with_one_final_result_even_while_the_tenant_is_paused(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let (past, later) = (db.at(-1), db.at(3600));
        db.sql(&format!(
            "INSERT INTO reprovision_requests (managed_device_id, expires_at, requested_by, reason)
             VALUES ('{}', {past}, 'ada', 'broken'), ('{}', {later}, NULL, NULL)", device(1), device(2))).await;
        db.sql(&format!("UPDATE tenants SET paused_at = {past}")).await;
        let facts = look(&db).await;
        assert!(facts.expire && !facts.call, "{facts:?}");
        for _ in 0..2 {
            assert!(db.claim().await.is_empty());
            let result = "SELECT request_id, call_id, tenant, managed_device_id, attempt, bucket, source, requested_by, reason FROM device_results WHERE final";
            assert_eq!(db.sql(result).await, format!("1||default|{}|0|expired|policy|ada|broken", device(1)));
            assert_eq!(db.sql("SELECT request_id, state FROM reprovision_queue").await, "2|queued");
        }
        let facts = look(&db).await;
        assert!(!facts.expire && facts.look_again_in.is_some_and(|wait| wait > Duration::from_mins(59)), "{facts:?}");
    }

    async fn a_call_under_way_is_not_ended_by_its_expiry(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.sql(&format!("INSERT INTO reprovision_requests (managed_device_id, expires_at) VALUES ('{}', {})", device(1), db.at(60))).await;
        db.claim().await;
        db.sql(&format!("UPDATE reprovision_queue SET expires_at = {}", db.at(-1))).await;
        let before = db.everything().await;
        assert!(!look(&db).await.expire);
        assert!(db.claim().await.is_empty());
        assert_eq!(db.everything().await, before);
    }

    async fn a_device_with_an_entry_under_way_in_doubt_or_held_is_not_claimed_again(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        db.claim().await;
        db.ask(&[1]).await;
        for state in ["sending", "unknown", "held"] {
            db.sql(&format!("UPDATE reprovision_queue SET state = '{state}' WHERE request_id = 1")).await;
            assert!(db.claim().await.is_empty(), "{state}");
            // Nor by hand: the database itself allows one at most.
            let said = db.refusal("UPDATE reprovision_queue SET state = 'sending', call_id = (SELECT id FROM graph_calls) WHERE request_id = 2").await;
            assert!(said.contains("reprovision_queue"), "{said}");
        }
        db.sql("UPDATE reprovision_queue SET state = 'queued', call_id = NULL WHERE request_id = 1").await;
        assert_eq!(requests(&db.claim().await), [[1]]);
    }

    async fn nothing_is_written_for_a_tenant_that_is_paused_blocked_or_waiting(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2]).await;
        let (ahead, past) = (db.at(3600), db.at(-1));
        for (closed, open) in [
            (format!("paused_at = {past}"), "paused_at = NULL".to_owned()),
            (format!("wait_until = {ahead}, wait_code = 'throttled'"), format!("wait_until = {past}")),
            (format!("blocked_at = {past}, block_code = 'forbidden', probe_at = {ahead}"), format!("probe_at = {past}")),
        ] {
            db.sql(&format!("UPDATE tenants SET {closed}")).await;
            let before = db.everything().await;
            assert!(!look(&db).await.call, "{closed}");
            assert!(db.claim().await.is_empty(), "{closed}");
            assert_eq!(db.everything().await, before, "{closed}");
            db.sql(&format!("UPDATE tenants SET {open}")).await;
            assert!(look(&db).await.call, "{open}");
        }
        // Its probe is due: one device.
        assert_eq!(requests(&db.claim().await), [[1]]);
        assert!(!look(&db).await.call, "while a probe is under way there is no other");
        assert!(db.claim().await.is_empty());
    }

    async fn a_tenant_at_its_limit_of_calls_in_doubt_gets_no_new_one_until_one_is_settled(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3, 4, 5]).await;
        let of_two = Bounds { max_devices: 2, free_slots: 2, ..bounds() };
        let calls = claim(&*db.store, db.worker, &of_two, 1000).await.unwrap().decision.intents;
        assert_eq!(requests(&calls), [[1, 2], [3, 4]]);
        db.store.stop_worker(db.worker).await.unwrap();
        assert_eq!(db.store.abandon_calls().await.unwrap().len(), 2);
        db.sql("UPDATE tenants SET cautious = (1 = 0)").await;
        // A device that a person is to decide on is as open as one that is looked at.
        db.sql("UPDATE reprovision_queue SET state = 'held' WHERE request_id = 1").await;
        let facts = &db.store.facts(&[tenant()]).await.unwrap()[0].1;
        assert_eq!((facts.tenant.open_doubts, facts.tenant.calls_in_flight, facts.ready), (2, 0, true));
        assert!(!look(&db).await.call);
        assert!(db.claim().await.is_empty());

        // Half of a call settled is a call in doubt still.
        for (request, open) in [(3, 2), (4, 1)] {
            db.sql(&format!("UPDATE reprovision_queue SET state = 'queued', call_id = NULL WHERE request_id = {request}")).await;
            assert_eq!(db.store.facts(&[tenant()]).await.unwrap()[0].1.tenant.open_doubts, open);
        }
        assert_eq!(requests(&db.claim().await), [[3, 4, 5]]);
    }

    async fn the_intent_says_what_will_be_sent_by_whom_and_since_when(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[2, 1]).await;
        let calls = db.claim().await;
        let list = |column: &str| match db.scratch.backend() {
            Backend::Sqlite => column.to_owned(),
            Backend::Postgres => format!("array_to_json({column})"),
        };
        let intent = db.sql(&format!(
            "SELECT id, tenant, action, worker, state, device_count, {}, {}, request_digest, finished_at, http_status, error_code FROM graph_calls",
            list("managed_device_ids"), list("request_ids"))).await;
        let expected = format!(r#"{}|default|bulk-reprovision-cloud-pc|{}|sending|2|["{}","{}"]|[1,2]|digest|||"#, calls[0].call_id, db.worker, device(2), device(1));
        assert_eq!(intent, expected);
        let recent = format!("SELECT count(*) FROM graph_calls WHERE sent_at BETWEEN {} AND {}", db.at(-60), db.at(1));
        assert_eq!(db.sql(&recent).await, "1");
        let queue = db.sql("SELECT request_id, state, attempts, call_id FROM reprovision_queue ORDER BY 1").await;
        let call = calls[0].call_id;
        assert_eq!(queue, format!("1|sending|0|{call}\n2|sending|0|{call}"));
        let facts = &db.store.facts(&[tenant(), "nobody".parse().unwrap()]).await.unwrap();
        assert_eq!((facts.len(), facts[0].1.tenant.calls_in_flight, facts[0].1.ready), (1, 1, false));
    }

    async fn a_decision_about_an_entry_that_is_not_queued_is_refused_as_a_whole(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let gone = db.claim().await.remove(0).entries.remove(0);
        db.ask(&[2]).await;
        let before = db.everything().await;
        let intent = |entries| Intent { call_id: CallId::fresh(), entries, digest: String::new(), cloud_pcs: None };
        for expire in [false, true] {
            let decide = |snapshot: Snapshot| {
                let free = intent(snapshot.entries);
                let (intents, expired) = if expire { (vec![free], vec![gone.clone()]) } else { (vec![free, intent(vec![gone.clone()])], vec![]) };
                Decision { intents, expired, ..Decision::default() }
            };
            let tenant = tenant();
            let refused = crate::support::claim(&*db.store, &tenant, db.worker, 10, &decide).await;
            assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
            assert_eq!(db.everything().await, before);
        }
    }

    async fn a_snapshot_holds_nothing_but_free_entries_and_such_as_have_expired_at_its_moment(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        db.claim().await;
        // All for the device that is under way, each expiring a millisecond after the one before.
        let expiry = match db.scratch.backend() {
            Backend::Sqlite => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (n / 1000.0) || ' seconds')",
            Backend::Postgres => "now() + n * interval '1 millisecond'",
        };
        db.sql(&format!(
            "WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 400)
             INSERT INTO reprovision_requests (managed_device_id, expires_at) SELECT '{}', {expiry} FROM s", device(1))).await;
        let early = Mutex::new(Vec::new());
        let seen = Mutex::new(0);
        let decide = |snapshot: Snapshot| {
            *seen.lock().unwrap() = snapshot.entries.len();
            let now = snapshot.now;
            early.lock().unwrap().extend(snapshot.entries.into_iter().filter_map(|e| e.expires_at).filter(|at| *at > now).map(|at| at - now));
            Decision::default()
        };
        let tenant = tenant();
        while *seen.lock().unwrap() < 400 {
            crate::support::claim(&*db.store, &tenant, WorkerId::fresh(), 10, &decide).await.unwrap();
        }
        assert_eq!(*early.lock().unwrap(), [], "time left");
    }

    async fn an_entry_that_expires_while_its_claim_waits_for_another_is_not_sent(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let on_sqlite = db.scratch.backend() == Backend::Sqlite;
        let mut other = Other::connect(&db.scratch).await;
        db.sql(&format!("INSERT INTO reprovision_requests (managed_device_id, expires_at) VALUES ('{}', {})", device(1), db.at(1))).await;
        other.run(if on_sqlite { "BEGIN IMMEDIATE" } else { "BEGIN; SELECT name FROM tenants FOR UPDATE" }).await;
        let (store, worker) = (open(&db.scratch).await.unwrap(), db.worker);
        let waiting = tokio::spawn(async move { claim(&*store, worker, &bounds(), 10).await });
        if !on_sqlite {
            other.until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)").await;
        }
        let now = if on_sqlite { "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')" } else { "clock_timestamp()" };
        other.until(&format!("(SELECT expires_at < {now} FROM reprovision_queue)")).await;
        other.run("COMMIT").await;
        let decision = waiting.await.unwrap().unwrap().decision;
        assert!(decision.intents.is_empty(), "sent after its expiry");
        assert_eq!(db.sql("SELECT bucket FROM device_results WHERE final").await, "expired");
    }
}

//! What auditors and people see: the views, the results, the status; and how a producer is heard.

use std::sync::Arc;
use std::time::Duration;

use reprovisiond::domain::id::{CallId, RequestId};
use reprovisiond::domain::lifecycle::{BlockCode, Bucket, CallState, EntryEffect, TenantEffect};
use reprovisiond::store::{Enqueued, NewRequest, ResultFilter, ResultRow, StoreError, TenantStatus};
use tokio::sync::Notify;

use super::{Backend, Db, HOUR, device, ends, in_doubt, open, record, tenant, try_again};
use crate::support::{Scratch, on_both};

/// A small life: one request ended at its second attempt, one not found, one in doubt, one expired, one waiting, one of
/// another tenant. Gives the calls.
async fn life(db: &Db) -> Vec<CallId> {
    db.store.register_tenants(&["other".parse().unwrap()]).await.unwrap();
    let (past, ahead) = (db.at(-1), db.at(3600));
    db.sql(&format!(
        "INSERT INTO reprovision_requests (managed_device_id, requested_by, reason, external_id, tenant, not_before, expires_at)
         VALUES ('{}', 'ada', 'stolen', 'INC-1', 'default', NULL, NULL), ('{}', NULL, NULL, NULL, 'default', NULL, NULL),
                ('{}', NULL, NULL, NULL, 'default', NULL, NULL), ('{}', NULL, NULL, NULL, 'default', NULL, {past}),
                ('{}', NULL, NULL, NULL, 'default', {ahead}, NULL), ('{}', NULL, NULL, NULL, 'other', NULL, NULL)",
        device(1).to_uppercase(), device(2), device(3), device(4), device(5), device(6),
    ))
    .await;
    let first = db.claim().await.remove(0).call_id;
    db.record(
        first,
        CallState::Answered,
        &[(1, try_again(Duration::ZERO)), (2, ends(Bucket::NotFound)), (3, in_doubt())],
    )
    .await;
    let second = db.claim().await.remove(0).call_id;
    db.record(second, CallState::Answered, &[(1, ends(Bucket::Successful))]).await;
    vec![first, second]
}

/// Truth as the client prints it.
fn yes(db: &Db) -> (&'static str, &'static str) {
    if db.scratch.backend() == Backend::Sqlite { ("1", "0") } else { ("t", "f") }
}

async fn results(db: &Db, filter: &ResultFilter) -> Vec<i64> {
    db.store.results(filter, None, 100).await.unwrap().iter().map(|row| row.request_id.0).collect()
}

on_both! {
    async fn request_status_shows_each_request_once_where_it_is_now(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let calls = life(&db).await;
        let status = db.sql("SELECT request_id, tenant, managed_device_id, external_id, requested_by, reason, state, final, attempts, call_id, detail,
                                    due_at IS NULL, finished_at IS NULL FROM request_status ORDER BY request_id").await;
        let (t, f) = yes(&db);
        assert_eq!(status.lines().collect::<Vec<_>>(), [
            format!("1|default|{}|INC-1|ada|stolen|successful|{t}|2|{}||{t}|{f}", device(1), calls[1]),
            format!("2|default|{}||||not_found|{t}|1|{}||{t}|{f}", device(2), calls[0]),
            format!("3|default|{}||||unknown|{f}|1|{}|reset|{t}|{t}", device(3), calls[0]),
            format!("4|default|{}||||expired|{t}|0||expires_at passed before it could be sent|{t}|{f}", device(4)),
            format!("5|default|{}||||queued|{f}|0||not_before|{f}|{t}", device(5)),
            format!("6|other|{}||||queued|{f}|0|||{f}|{t}", device(6)),
        ]);
    }

    async fn device_history_tells_a_devices_life_in_order(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let calls = life(&db).await;
        let history = db.sql(&format!(
            "SELECT event, request_id, attempt, source, final, detail, requested_by, call_id, http_status, sent_at IS NULL
             FROM device_history WHERE managed_device_id = '{}' ORDER BY at, step", device(1))).await;
        let (t, f) = yes(&db);
        assert_eq!(history.lines().collect::<Vec<_>>(), [
            format!("requested|1|||{f}|stolen|ada|||{t}"),
            format!("failed|1|1|answer|{f}|in failedDeviceIds|ada|{}|200|{f}", calls[0]),
            format!("successful|1|2|answer|{t}||ada|{}|200|{f}", calls[1]),
        ]);
        assert_eq!(db.sql("SELECT count(*), count(DISTINCT managed_device_id) FROM device_history").await, "11|6");
    }

    async fn bucket_totals_count_final_results_by_tenant_and_hour(scratch: Scratch) {
        let db = Db::new(scratch).await;
        life(&db).await;
        let totals = "SELECT tenant, bucket, sum(devices) FROM bucket_totals GROUP BY tenant, bucket ORDER BY bucket";
        assert_eq!(db.sql(totals).await, "default|expired|1\ndefault|not_found|1\ndefault|successful|1");
        let this_hour = format!("SELECT count(*) FROM bucket_totals WHERE hour <= {} AND hour > {}", db.at(0), db.at(-3660));
        assert_eq!(db.sql(&this_hour).await, db.sql("SELECT count(*) FROM bucket_totals").await);
    }

    async fn status_counts_what_is_pending_and_what_has_ended(scratch: Scratch) {
        let db = Db::new(scratch).await;
        life(&db).await;
        db.ask(&[11, 12, 13]).await;
        let tenant_effect = TenantEffect::Block { code: BlockCode::Forbidden, reason: "grant it".to_owned(), probe_after: Duration::ZERO };
        db.store.defer_tenant(&tenant(), &tenant_effect).await.unwrap();
        // A probe of one device, whose whole outcome is in doubt; then one that is under way.
        let probe = db.claim().await.remove(0);
        assert_eq!(probe.entries.len(), 1);
        record(&*db.store, probe.call_id, CallState::Unknown, &[(probe.entries[0].request_id.0, in_doubt())], TenantEffect::Caution).await.unwrap();
        assert_eq!(db.claim().await.len(), 1);

        let status = db.store.status().await.unwrap();
        let default = &status.tenants[0];
        let expected = TenantStatus {
            tenant: "default".to_owned(),
            ready: 1,
            waiting: 1,
            sending: 1,
            unknown: 2,
            calls_in_doubt: 1,
            successful: 1,
            not_found: 1,
            expired: 1,
            cautious: true,
            block_code: Some("forbidden".to_owned()),
            block_reason: Some("grant it".to_owned()),
            oldest_ready_at: default.oldest_ready_at,
            next_due_at: default.next_due_at,
            blocked_at: default.blocked_at,
            probe_at: default.probe_at,
            ..TenantStatus::default()
        };
        assert_eq!(*default, expected);
        assert!(default.oldest_ready_at.is_some_and(|at| at <= status.now) && default.next_due_at.is_some_and(|at| at > status.now));
        assert!(default.blocked_at.is_some_and(|at| at <= status.now) && default.probe_at.is_some_and(|at| at <= status.now));
        let other = &status.tenants[1];
        assert_eq!((&*other.tenant, other.ready, other.oldest_ready_at.is_some()), ("other", 1, true));
        assert_eq!(status.workers.iter().map(|w| (w.id, &*w.host)).collect::<Vec<_>>(), [(db.worker, "host")]);
        db.store.stop_worker(db.worker).await.unwrap();
        assert!(db.store.status().await.unwrap().workers.is_empty());
    }

    async fn results_are_paged_in_order_without_a_gap_and_filtered_by_everything(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let calls = life(&db).await;
        let all = ResultFilter { all_attempts: true, ..ResultFilter::default() };
        let rows = db.store.results(&all, None, 100).await.unwrap();
        assert_eq!(rows.len(), 5);
        let mut paged: Vec<ResultRow> = Vec::new();
        loop {
            let page = db.store.results(&all, paged.last().map(ResultRow::place), 2).await.unwrap();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, rows);
        assert!(rows.windows(2).all(|pair| pair[0].id < pair[1].id));

        let ended = ResultFilter::default();
        let mut finals = results(&db, &ended).await;
        finals.sort_unstable();
        assert_eq!(finals, [1, 2, 4]);
        let last = rows.iter().find(|row| row.request_id == RequestId(1) && row.r#final).unwrap();
        assert_eq!((last.attempt, last.call_id, last.http_status, last.requested_by.as_deref()), (2, Some(calls[1]), Some(200), Some("ada")));
        for (filter, expected) in [
            (ResultFilter { tenant: Some("other".to_owned()), ..all.clone() }, vec![]),
            (ResultFilter { tenant: Some("default".to_owned()), ..ended.clone() }, vec![1, 2, 4]),
            (ResultFilter { device: Some(device(1).parse().unwrap()), ..all.clone() }, vec![1, 1]),
            (ResultFilter { device: Some(device(1).parse().unwrap()), ..ended.clone() }, vec![1]),
            (ResultFilter { device: Some(device(1).parse().unwrap()), request: Some(RequestId(2)), ..all.clone() }, vec![]),
            (ResultFilter { request: Some(RequestId(3)), ..all.clone() }, vec![3]),
            (ResultFilter { request: Some(RequestId(3)), ..ended.clone() }, vec![]),
            (ResultFilter { call: Some(calls[0]), ..all.clone() }, vec![1, 2, 3]),
            (ResultFilter { bucket: Some(Bucket::NotFound), ..ended.clone() }, vec![2]),
            (ResultFilter { since: Some(rows[0].recorded_at), ..ended.clone() }, vec![1, 2, 4]),
            (ResultFilter { until: Some(rows[0].recorded_at), ..ended.clone() }, vec![]),
            (ResultFilter { since: Some(rows[0].recorded_at + HOUR), ..ended.clone() }, vec![]),
        ] {
            let mut found = results(&db, &filter).await;
            found.sort_unstable();
            assert_eq!(found, expected, "{filter:?}");
        }
    }

    async fn enqueue_inserts_all_or_none_and_says_what_was_there_already(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let request = |n: u32, reference: Option<&str>| NewRequest {
            managed_device_id: device(n),
            external_id: reference.map(str::to_owned),
            ..NewRequest::default()
        };
        let batch = [request(1, Some("a")), request(2, None), request(3, Some("a")), request(4, Some("b"))];
        assert_eq!(db.store.enqueue(&batch).await.unwrap(), Enqueued { inserted: 3, already_there: 1 });
        assert_eq!(db.store.enqueue(&batch).await.unwrap(), Enqueued { inserted: 1, already_there: 3 });
        assert_eq!(db.store.enqueue(&[]).await.unwrap(), Enqueued { inserted: 0, already_there: 0 });
        let before = db.everything().await;
        let bad = [request(5, None), NewRequest { managed_device_id: "x".to_owned(), ..NewRequest::default() }];
        let refused = db.store.enqueue(&bad).await;
        assert!(matches!(&refused, Err(StoreError::Refused(sentence)) if sentence.contains("expected a GUID")), "{refused:?}");
        assert_eq!(db.everything().await, before);

        let full = NewRequest {
            managed_device_id: format!("{{{}}}", device(9).to_uppercase()),
            tenant: Some("default".to_owned()),
            requested_by: Some("ada".to_owned()),
            reason: Some("it's \"broken\"\n".to_owned()),
            external_id: Some("c".to_owned()),
            priority: -7,
            not_before: Some("2030-01-01T10:00:00.0005Z".parse().unwrap()),
            expires_at: Some("2030-01-02T10:00:00.250Z".parse().unwrap()),
            force: true,
        };
        db.store.enqueue(&[full]).await.unwrap();
        let kept = "SELECT count(*) FROM reprovision_requests r JOIN reprovision_queue q ON q.request_id = r.id
                    WHERE q.managed_device_id LIKE '%000000000009' AND r.requested_by = 'ada' AND r.reason = 'it''s \"broken\"\n'
                      AND r.external_id = 'c' AND q.priority = -7 AND CAST(r.force AS INTEGER) = 1
                      AND q.due_at > '2030-01-01T10:00:00.000Z' AND q.due_at <= '2030-01-01T10:00:00.001Z' AND q.expires_at = '2030-01-02T10:00:00.250Z'";
        assert_eq!(db.sql(kept).await, "1");
    }

    async fn a_row_that_another_process_inserts_nudges_the_watcher(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let nudge = Arc::new(Notify::new());
        let store = open(&db.scratch).await.unwrap();
        let watcher = tokio::spawn({
            let nudge = Arc::clone(&nudge);
            async move { store.watch(nudge).await }
        });
        // The first look, whatever there is.
        let soon = Duration::from_secs(10);
        tokio::time::timeout(soon, nudge.notified()).await.unwrap();
        for n in 1..=3 {
            // Nothing new, no nudge: several looks long on SQLite.
            let quiet = tokio::time::timeout(Duration::from_millis(100), nudge.notified()).await;
            assert!(quiet.is_err(), "nudged for nothing before {n}");
            db.ask(&[n]).await;
            tokio::time::timeout(soon, nudge.notified()).await.expect("an insert is heard");
        }
        assert!(!watcher.is_finished());
        watcher.abort();
    }
}

#[tokio::test]
async fn a_rules_ending_charges_no_attempt() {
    let db = Db::new(Scratch::new(Backend::Sqlite).await).await;
    db.ask(&[1]).await;
    let call = db.claim().await.remove(0).call_id;
    let ending = EntryEffect::Final {
        bucket: Bucket::Suppressed,
        source: reprovisiond::domain::lifecycle::Source::Policy,
        detail: None,
    };
    db.record(call, CallState::NotSent, &[(1, ending)]).await;
    assert_eq!(db.results().await, ["1|0|suppressed|policy|final"]);
}

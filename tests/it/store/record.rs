//! Commit 2: the evidence, what becomes of each entry, and that it is written once.

use std::time::Duration;

use reprovisiond::domain::id::{CallId, RequestId};
use reprovisiond::domain::lifecycle::{
    BlockCode, Bucket, CallState, EntryEffect, Recording, Source, TenantEffect, WaitCode,
};
use reprovisiond::store::{Evidence, Recorded, StoreError};

use super::{Backend, Db, HOUR, device, ends, in_doubt, record, requests, requeue, try_again};
use crate::support::on_both;

on_both! {
    async fn each_device_ends_in_its_bucket_and_leaves_the_queue(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3, 4]).await;
        let call = db.claim().await.remove(0).call_id;
        let buckets = [Bucket::Successful, Bucket::Failed, Bucket::NotFound, Bucket::NotSupported];
        let effects: Vec<_> = (1..).zip(buckets.map(ends)).collect();
        assert_eq!(db.record(call, CallState::Answered, &effects).await, Recorded::Done);
        assert!(db.queue().await.is_empty());
        assert_eq!(db.results().await, [
            "1|1|successful|answer|final", "2|1|failed|answer|final", "3|1|not_found|answer|final", "4|1|not_supported|answer|final",
        ]);
    }

    async fn one_answer_may_end_one_repeat_one_and_leave_one_in_doubt(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3]).await;
        let call = db.claim().await.remove(0).call_id;
        let effects = [(3, in_doubt()), (1, ends(Bucket::Successful)), (2, try_again(HOUR))];
        assert_eq!(db.record(call, CallState::Answered, &effects).await, Recorded::Done);
        assert_eq!(db.queue().await, ["2|queued|1||retry_failed", "3|unknown|1||reset"]);
        let mut results = db.results().await;
        results.sort();
        assert_eq!(results, ["1|1|successful|answer|final", "2|1|failed|answer|open", "3|1|unknown|answer|open"]);
        // Whole call answered: one device in doubt does not count as a call in doubt.
        assert_eq!(db.sql("SELECT count(*) FROM reprovision_queue WHERE call_id IS NOT NULL").await, "1");
        assert!(db.claim().await.is_empty());
    }

    async fn a_repetition_waits_its_delay_is_charged_and_is_numbered_on(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        for attempt in 1..=2 {
            let call = db.claim().await.remove(0);
            assert_eq!(call.entries[0].attempts, attempt - 1);
            db.record(call.call_id, CallState::Answered, &[(1, try_again(HOUR))]).await;
            let due = format!("SELECT count(*) FROM reprovision_queue WHERE due_at > {} AND due_at <= {}", db.at(3500), db.at(3600));
            assert_eq!(db.sql(&due).await, "1");
            assert!(db.claim().await.is_empty());
            db.sql(&format!("UPDATE reprovision_queue SET due_at = {}", db.at(-1))).await;
        }
        let call = db.claim().await.remove(0);
        db.record(call.call_id, CallState::Answered, &[(1, ends(Bucket::Failed))]).await;
        assert_eq!(db.results().await, ["1|1|failed|answer|open", "1|2|failed|answer|open", "1|3|failed|answer|final"]);
    }

    async fn what_was_not_carried_out_is_queued_again_uncharged_without_a_result_and_in_its_old_place(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3]).await;
        let due = "SELECT due_at FROM reprovision_queue ORDER BY request_id";
        let before = db.sql(due).await;
        let call = db.claim().await.remove(0).call_id;
        let effects: Vec<_> = (1..=3).map(|n| (n, requeue(None))).collect();
        db.record(call, CallState::NotSent, &effects).await;
        assert_eq!(db.queue().await, ["1|queued|0||not_sent", "2|queued|0||not_sent", "3|queued|0||not_sent"]);
        assert_eq!(db.sql(due).await, before);
        assert!(db.results().await.is_empty());
        assert_eq!(requests(&db.claim().await), [[1, 2, 3]]);
    }

    async fn the_largest_call_is_halved_kept_through_waits_and_forgotten_with_an_attempt(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3, 4]).await;
        let all = |cap| (1..=4).map(|n| (n, requeue(cap))).collect::<Vec<_>>();
        let call = db.claim().await.remove(0).call_id;
        db.record(call, CallState::NotCarriedOut, &all(Some(2))).await;
        let calls = db.claim().await;
        assert_eq!(requests(&calls), [[1, 2], [3, 4]]);
        for (call, entries) in calls.iter().zip([[1, 2], [3, 4]]) {
            // A call that was throttled in between says nothing about the poison.
            db.record(call.call_id, CallState::NotCarriedOut, &entries.map(|n| (n, requeue(None)))).await;
        }
        let calls = db.claim().await;
        assert_eq!(requests(&calls), [[1, 2], [3, 4]]);
        db.record(calls[0].call_id, CallState::NotCarriedOut, &[(1, requeue(Some(1))), (2, requeue(Some(1)))]).await;
        db.record(calls[1].call_id, CallState::Answered, &[(3, try_again(Duration::ZERO)), (4, in_doubt())]).await;
        assert_eq!(db.queue().await, ["1|queued|0|1|not_sent", "2|queued|0|1|not_sent", "3|queued|1||retry_failed", "4|unknown|1||reset"]);
    }

    async fn the_evidence_is_kept_whole_and_characters_no_database_takes_do_not_lose_it(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2, 3]).await;
        let call_id = db.claim().await.remove(0).call_id;
        let nul = || "a\0b'\u{1f4a3}".to_owned();
        let evidence = Evidence {
            http_status: Some(400),
            graph_request_id: Some(nul()),
            graph_date: Some("2026-01-31T22:00:00Z".parse().unwrap()),
            error_code: Some(nul()),
            error_message: Some(nul()),
            response_body: Some(nul()),
        };
        let entries = vec![
            (RequestId(1), EntryEffect::Final { bucket: Bucket::Failed, source: Source::Answer, detail: Some(nul()) }),
            (RequestId(2), EntryEffect::TryAgain { detail: Some(nul()), delay: HOUR }),
            (RequestId(3), EntryEffect::Unknown { detail: nul() }),
        ];
        let tenant = TenantEffect::Block { code: BlockCode::Forbidden, reason: nul(), probe_after: HOUR };
        let recording = Recording { call_id, state: CallState::Answered, entries, tenant, leave_alone: None, surplus: vec![nul(), "x".to_owned()] };
        assert_eq!(crate::support::record(&*db.store, &recording, &evidence).await.unwrap(), Recorded::Done);
        let kept = "a\u{fffd}b'\u{1f4a3}";
        let surplus = if db.scratch.backend() == Backend::Sqlite { "surplus_ids" } else { "array_to_json(surplus_ids)" };
        let call = db.sql(&format!("SELECT state, http_status, graph_request_id, error_code, error_message, response_body, {surplus} FROM graph_calls")).await;
        assert_eq!(call, format!("answered|400|{kept}|{kept}|{kept}|{kept}|[\"{kept}\",\"x\"]"));
        let dated = "SELECT count(*) FROM graph_calls WHERE graph_date = '2026-01-31T22:00:00.000Z' AND finished_at >= sent_at";
        assert_eq!(db.sql(dated).await, "1");
        assert_eq!(db.sql("SELECT DISTINCT detail FROM device_results").await, kept);
        assert_eq!(db.sql("SELECT block_reason FROM tenants").await, kept);
    }

    async fn a_second_record_of_a_call_is_superseded_and_changes_nothing(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2]).await;
        let call = db.claim().await.remove(0).call_id;
        db.record(call, CallState::Answered, &[(1, ends(Bucket::Successful)), (2, in_doubt())]).await;
        let before = db.everything().await;
        for (state, effect) in [
            (CallState::Answered, ends(Bucket::Failed)),
            (CallState::NotCarriedOut, requeue(None)),
            (CallState::NotSent, requeue(None)),
            (CallState::Unknown, in_doubt()),
        ] {
            let wait = TenantEffect::Wait { delay: HOUR, code: WaitCode::Throttled, reason: "x".to_owned() };
            let second = record(&*db.store, call, state, &[(1, effect.clone()), (2, effect)], wait).await.unwrap();
            assert_eq!(second, Recorded::Superseded, "{state}");
            assert_eq!(db.everything().await, before, "{state}");
        }
        assert_eq!(db.record(CallId::fresh(), CallState::Answered, &[(2, ends(Bucket::Failed))]).await, Recorded::Superseded);
        assert_eq!(db.everything().await, before);
    }

    async fn a_call_in_doubt_by_what_was_seen_of_it_is_not_rewritten_by_a_later_record(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let call = db.claim().await.remove(0).call_id;
        db.record(call, CallState::Unknown, &[(1, in_doubt())]).await;
        let before = db.everything().await;
        assert_eq!(db.record(call, CallState::Answered, &[(1, ends(Bucket::Successful))]).await, Recorded::Superseded);
        assert_eq!(db.everything().await, before);
    }

    async fn a_record_that_names_an_entry_of_another_call_is_refused_as_a_whole(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2]).await;
        let call = db.claim().await.remove(0).call_id;
        db.ask(&[3]).await;
        db.claim().await;
        let before = db.everything().await;
        for foreign in [ends(Bucket::Successful), try_again(HOUR), requeue(None), in_doubt()] {
            let effects = [(1, ends(Bucket::Successful)), (3, foreign)];
            let refused = record(&*db.store, call, CallState::Answered, &effects, TenantEffect::Clear).await;
            assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
            assert_eq!(db.everything().await, before);
        }
    }

    async fn a_record_that_leaves_an_entry_out_or_names_it_twice_is_refused_as_a_whole(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1, 2]).await;
        let call = db.claim().await.remove(0).call_id;
        let before = db.everything().await;
        for effect in [ends(Bucket::Successful), try_again(HOUR), requeue(None), in_doubt()] {
            for effects in [vec![], vec![(1, effect.clone())], vec![(1, effect.clone()), (1, effect.clone())]] {
                let refused = record(&*db.store, call, CallState::Answered, &effects, TenantEffect::Clear).await;
                assert!(refused.is_err(), "{effects:?}");
                assert_eq!(db.everything().await, before);
            }
        }
    }

    async fn a_request_never_has_two_final_results_not_even_by_hand(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.ask(&[1]).await;
        let call = db.claim().await.remove(0).call_id;
        db.record(call, CallState::Answered, &[(1, ends(Bucket::Successful))]).await;
        let row = |bucket: &str, source: &str, last: &str| format!(
            "INSERT INTO device_results (request_id, tenant, managed_device_id, attempt, bucket, source, final, recorded_at)
             SELECT request_id, tenant, managed_device_id, 2, '{bucket}', '{source}', (1 = {last}), recorded_at FROM device_results WHERE final");
        let said = db.refusal(&row("failed", "policy", "1")).await;
        assert!(said.contains("one_final") || said.contains("final one of this request"), "{said}");
        for (bucket, source, last) in [("unknown", "policy", "1"), ("perhaps", "policy", "0"), ("failed", "operator", "0"), ("failed", "rumour", "0"), ("failed", "answer", "0")] {
            let said = db.refusal(&row(bucket, source, last)).await.to_lowercase();
            assert!(said.contains("check constraint") || said.contains("final one of this request"), "{bucket} {source}: {said}");
        }
        assert_eq!(db.results().await, ["1|1|successful|answer|final"]);
        db.sql(&row("failed", "policy", "0")).await;
    }

    async fn a_result_says_who_asked_and_why_without_a_join(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.sql(&format!("INSERT INTO reprovision_requests (managed_device_id, requested_by, reason) VALUES ('{{{}}}', 'ada', 'stolen')", device(10).to_uppercase())).await;
        let call = db.claim().await.remove(0).call_id;
        db.record(call, CallState::Answered, &[(1, in_doubt())]).await;
        let row = "SELECT call_id, tenant, managed_device_id, requested_by, reason, detail FROM device_results";
        assert_eq!(db.sql(row).await, format!("{call}|default|{}|ada|stolen|reset", device(10)));
    }
}

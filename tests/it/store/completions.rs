//! What is followed after Graph has accepted it: from the result on, by any number of workers, to an end that is recorded.

use std::time::Duration;

use reprovisiond::domain::budget::Budget;
use reprovisiond::domain::completion::{Completion, CompletionState, Judgement, Watch};
use reprovisiond::domain::id::RequestId;
use reprovisiond::domain::lifecycle::{Bucket, CallState, TenantEffect, WaitCode};
use reprovisiond::domain::rate::Rate;
use reprovisiond::domain::read_back::{ReconcilePolicy, Settlement};
use reprovisiond::store::{ClaimedCompletions, CompletionClaim, ResultFilter, Store};

use super::{Backend, Db, HOUR, device, ends, in_doubt, open, tenant};
use crate::support::on_both;

/// More than any test takes.
const PLENTY: Budget = Budget { rate: Rate { calls: 1_000_000, period: Duration::from_secs(1) } };

/// Three at once, and then one in two minutes.
const SCARCE: Budget = Budget { rate: Rate { calls: 30, period: HOUR } };

impl Db {
    /// What is accepted from now on is followed, with the first look at once.
    async fn follow(&self) {
        assert_eq!(self.store.track_completions(&[tenant()], Some(Duration::ZERO)).await.unwrap(), 0);
    }

    /// Requests for these devices, whose call ends `successful`.
    async fn accepted(&self, devices: &[u32]) {
        self.ask(devices).await;
        for intent in self.claim().await {
            let effects: Vec<_> =
                intent.entries.iter().map(|entry| (entry.request_id.0, ends(Bucket::Successful))).collect();
            self.record(intent.call_id, CallState::Answered, &effects).await;
        }
    }

    async fn watches(&self) -> String {
        self.sql("SELECT request_id, looks FROM completion_watches ORDER BY request_id").await
    }

    async fn due(&self) -> Vec<Watch> {
        due(&*self.store, PLENTY, Duration::ZERO).await.watches
    }

    async fn judged(&self, judged: &[(Watch, Judgement)]) -> u64 {
        self.store.record_completions(&tenant(), judged, None).await.unwrap()
    }
}

async fn due(store: &dyn Store, budget: Budget, put_off: Duration) -> ClaimedCompletions {
    let name = tenant();
    store.claim_completions(&CompletionClaim { tenant: &name, limit: 8, budget, put_off }).await.unwrap()
}

fn ended(state: CompletionState) -> Judgement {
    Judgement::Ended(Completion {
        state,
        started_at: Some("2026-11-23T10:00:00.1234567Z".parse().unwrap()),
        ended_at: Some("2026-11-23T10:31:00Z".parse().unwrap()),
        took_seconds: Some(1859),
        detail: (state == CompletionState::Failed).then(|| "internalServerError: no\0 luck".to_owned()),
        evidence: "{\"a\":1}".to_owned(),
    })
}

fn again(after: Duration) -> Judgement {
    Judgement::LookAgain { after, seen: "active".to_owned() }
}

on_both! {
    async fn what_ends_successful_is_followed_on_whose_word_it_may_stand_and_nothing_else_is(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.accepted(&[1]).await;
        db.follow().await;
        assert_eq!(db.watches().await, "", "a result from before is not followed");
        // By an answer; and what is refused, or in doubt, is not.
        db.ask(&[2, 3, 4, 5]).await;
        let call = db.claim().await.remove(0).call_id;
        db.record(call, CallState::Answered, &[(2, ends(Bucket::Successful)), (3, ends(Bucket::Failed)), (4, in_doubt()), (5, in_doubt())]).await;
        assert_eq!(db.watches().await, "2|0");
        // By a read-back.
        let policy = ReconcilePolicy { first_after: Duration::ZERO, settle_after: HOUR, give_up_after: HOUR, clock_margin: HOUR, max_attempts: 3 };
        let doubts = db.store.doubts(&tenant(), &policy, 10).await.unwrap();
        let happened = Settlement::Final { bucket: Bucket::Successful, detail: "seen".to_owned(), evidence: "{}".to_owned() };
        db.store.settle(&[(doubts[0].clone(), happened)]).await.unwrap();
        assert_eq!(db.watches().await, "2|0\n4|0");
        // By a person, who decides on a call that may have been carried out.
        let program = std::process::Command::new(env!("CARGO_BIN_EXE_reprovisiond"))
            .args(["resolve", "--as", "successful", "--request", "5", "--by", "ada", "--reason", "seen in Intune", "--database", &db.scratch.url])
            .output()
            .unwrap();
        assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stderr));
        assert_eq!(db.watches().await, "2|0\n4|0\n5|0");
        assert_eq!(db.due().await.iter().map(|watch| (watch.request_id.0, watch.call_id)).collect::<Vec<_>>(), [(2, call), (4, call), (5, call)]);
        // Of a tenant that is not followed: nothing.
        db.store.register_tenants(&["other".parse().unwrap()]).await.unwrap();
        db.sql(&format!("INSERT INTO reprovision_requests (tenant, managed_device_id) VALUES ('other', '{}')", device(9))).await;
        assert_eq!(db.sql("SELECT count(*) FROM completion_tenants").await, "1");
    }

    async fn the_first_look_comes_when_it_is_due_and_no_sooner(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.store.track_completions(&[tenant()], Some(HOUR)).await.unwrap();
        db.accepted(&[1]).await;
        let claimed = due(&*db.store, PLENTY, HOUR).await;
        assert!(claimed.watches.is_empty());
        let wait = claimed.look_again_in.unwrap();
        assert!(wait > HOUR * 9 / 10 && wait <= HOUR, "{wait:?}");
        db.sql(&format!("UPDATE completion_watches SET next_look_at = {}", db.at(-1))).await;
        assert_eq!(due(&*db.store, PLENTY, HOUR).await.watches.len(), 1);
        // A crash now delays it, and loses nothing.
        let claimed = due(&*db.store, PLENTY, HOUR).await;
        assert!(claimed.watches.is_empty() && claimed.look_again_in.unwrap() > HOUR * 9 / 10, "{claimed:?}");
        db.sql(&format!("UPDATE completion_watches SET next_look_at = {}", db.at(-1))).await;
        let watch = due(&*db.store, PLENTY, HOUR).await.watches.remove(0);
        assert_eq!(db.watches().await, "1|2");
        db.judged(&[(watch, ended(CompletionState::Done))]).await;
        assert_eq!(due(&*db.store, PLENTY, HOUR).await, ClaimedCompletions::default());
    }

    async fn an_end_is_recorded_once_however_many_workers_have_seen_it(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        db.accepted(&[1, 2, 3, 4, 5, 6]).await;
        let other = open(&db.scratch).await.unwrap();
        let (mine, theirs) = (db.due().await, due(&*other, PLENTY, Duration::ZERO).await.watches);
        assert_eq!(mine.iter().map(|w| w.request_id).collect::<Vec<_>>(), theirs.iter().map(|w| w.request_id).collect::<Vec<_>>());
        let done: Vec<_> = mine.into_iter().map(|watch| (watch, ended(CompletionState::Done))).collect();
        // In the other order, so that a lock taken in the order of the list would meet the other's.
        let failed: Vec<_> = theirs.into_iter().rev().map(|watch| (watch, ended(CompletionState::Failed))).collect();
        let name = tenant();
        let (first, second) = tokio::join!(
            db.store.record_completions(&name, &done, None),
            other.record_completions(&name, &failed, Some(Duration::ZERO)),
        );
        assert_eq!(first.unwrap() + second.unwrap(), 6);
        assert_eq!(db.sql("SELECT count(*), count(DISTINCT request_id), count(DISTINCT state) FROM completions").await, "6|6|1");
        assert_eq!(db.watches().await, "");
        assert_eq!(db.judged(&done).await, 0, "a COMMIT whose answer was lost is found done");
    }

    async fn workers_take_different_watches_and_share_one_budget(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        db.accepted(&(1..=40).collect::<Vec<_>>()).await;
        let other = open(&db.scratch).await.unwrap();
        let mut taken = Vec::new();
        for _ in 0..4 {
            let name = tenant();
            let claim = CompletionClaim { tenant: &name, limit: 2, budget: SCARCE, put_off: HOUR };
            let (mine, theirs) = tokio::join!(db.store.claim_completions(&claim), other.claim_completions(&claim));
            for claimed in [mine.unwrap(), theirs.unwrap()] {
                taken.extend(claimed.watches.iter().map(|watch| watch.request_id));
                if taken.len() == 3 {
                    let wait = claimed.look_again_in.unwrap();
                    assert!(wait > Duration::from_secs(100) && wait < Duration::from_mins(5), "{wait:?}");
                }
            }
        }
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 3);
        assert_eq!(db.sql("SELECT sum(looks) FROM completion_watches").await, "3");
    }

    async fn a_watch_that_goes_on_is_due_again_when_it_was_put_off_to(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        db.accepted(&[1, 2, 3]).await;
        let watches = db.due().await;
        let judgements = [again(HOUR), again(Duration::ZERO), ended(CompletionState::Canceled)];
        assert_eq!(db.judged(&watches.into_iter().zip(judgements).collect::<Vec<_>>()).await, 1);
        assert_eq!(db.due().await.iter().map(|watch| watch.request_id).collect::<Vec<_>>(), [RequestId(2)]);
        assert_eq!(db.watches().await, "1|1\n2|2");
    }

    async fn nothing_is_looked_at_before_a_wait_is_over_be_it_the_reads_or_the_tenants(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        db.accepted(&[1, 2]).await;
        let wait = TenantEffect::Wait { delay: HOUR, code: WaitCode::Throttled, reason: "429".to_owned() };
        db.store.defer_tenant(&tenant(), &wait).await.unwrap();
        assert!(db.due().await.is_empty());
        db.sql("UPDATE tenants SET wait_until = NULL, wait_code = NULL").await;
        let watches = db.due().await;
        assert_eq!(watches.len(), 2);
        let judged: Vec<_> = watches.into_iter().map(|watch| (watch, again(Duration::ZERO))).collect();
        db.store.record_completions(&tenant(), &judged, Some(HOUR)).await.unwrap();
        let claimed = due(&*db.store, PLENTY, Duration::ZERO).await;
        assert!(claimed.watches.is_empty() && claimed.look_again_in.unwrap() > HOUR * 9 / 10, "{claimed:?}");
        // A shorter one that comes later does not end it; and it holds up no call.
        db.store.record_completions(&tenant(), &[], Some(Duration::ZERO)).await.unwrap();
        assert!(db.due().await.is_empty());
        db.ask(&[3]).await;
        assert_eq!(db.claim().await.len(), 1);
    }

    async fn turned_off_nothing_new_is_followed_and_what_is_followed_ends_as_untracked(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        db.accepted(&[1, 2]).await;
        let watches = db.due().await;
        assert_eq!(db.store.track_completions(&["other".parse().unwrap()], None).await.unwrap(), 0);
        assert_eq!(db.store.track_completions(&[tenant()], None).await.unwrap(), 2);
        assert_eq!(db.store.track_completions(&[tenant()], None).await.unwrap(), 0);
        db.accepted(&[3]).await;
        assert_eq!(db.watches().await, "");
        assert_eq!(due(&*db.store, PLENTY, Duration::ZERO).await, ClaimedCompletions::default());
        // A worker that has just read them back comes too late.
        let late: Vec<_> = watches.into_iter().map(|watch| (watch, ended(CompletionState::Done))).collect();
        assert_eq!(db.judged(&late).await, 0);
        let why = "completion.track was turned off before its end was shown";
        assert_eq!(
            db.sql("SELECT request_id, state, detail, looks FROM completions ORDER BY 1").await,
            format!("1|untracked|{why}|1\n2|untracked|{why}|1")
        );
        db.follow().await;
        db.accepted(&[4]).await;
        assert_eq!(db.watches().await, "4|0");
    }

    async fn registering_tenants_does_not_switch_it(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        db.store.register_tenants(&[tenant(), "other".parse().unwrap()]).await.unwrap();
        assert_eq!(db.sql("SELECT tenant, first_after_ms FROM completion_tenants").await, "default|0");
    }

    async fn a_completion_is_never_changed_and_nothing_that_is_followed_is_dropped(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        db.accepted(&[1, 2]).await;
        let watch = db.due().await.remove(0);
        db.judged(&[(watch, ended(CompletionState::Done))]).await;
        let before = db.everything().await;
        let mut refused = vec!["UPDATE completions SET state = 'failed'", "DELETE FROM completions", "UPDATE completions SET detail = 'x' WHERE id = 1"];
        if db.scratch.backend() == Backend::Sqlite {
            refused.extend([
                "INSERT OR REPLACE INTO completions SELECT * FROM completions",
                "INSERT OR REPLACE INTO completions SELECT 9, request_id, call_id, tenant, managed_device_id, cloud_pc_id, 'failed', started_at, ended_at, took_seconds, detail, looks, requested_by, reason, recorded_at, evidence FROM completions",
                "UPDATE OR REPLACE completions SET request_id = 1",
            ]);
        } else {
            refused.push("TRUNCATE completions");
        }
        for sql in refused {
            let said = db.refusal(sql).await;
            assert!(said.contains("completions is append-only"), "{sql}: {said}");
        }
        let mut refused = vec!["DELETE FROM completion_watches"];
        if db.scratch.backend() == Backend::Sqlite {
            refused.extend(["INSERT OR REPLACE INTO completion_watches SELECT * FROM completion_watches", "UPDATE OR REPLACE completion_watches SET request_id = 1"]);
        } else {
            refused.push("TRUNCATE completion_watches");
        }
        for sql in refused {
            let said = db.refusal(sql).await;
            assert!(said.contains("completion_watches: "), "{sql}: {said}");
        }
        for state in ["followed", "nonsense"] {
            db.refusal(&format!("INSERT INTO completions (request_id, call_id, tenant, managed_device_id, state, looks, recorded_at, started_at, evidence)
                                 SELECT 2, call_id, tenant, managed_device_id, '{state}', 1, recorded_at, recorded_at, 'x' FROM completions")).await;
        }
        db.refusal("INSERT INTO completions (request_id, call_id, tenant, managed_device_id, state, looks, recorded_at)
                    SELECT 2, call_id, tenant, managed_device_id, 'done', 1, recorded_at FROM completions").await;
        assert_eq!(db.everything().await, before);
    }

    async fn auditors_and_people_see_how_far_it_has_come_and_what_it_stands_on(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        db.sql(&format!("INSERT INTO reprovision_requests (managed_device_id, requested_by, reason) VALUES ('{}', 'ada', 'stolen')", device(1))).await;
        db.accepted(&[2, 3]).await;
        let watches = db.due().await;
        let judgements = [ended(CompletionState::Failed), ended(CompletionState::Done), again(HOUR)];
        db.judged(&watches.into_iter().zip(judgements).collect::<Vec<_>>()).await;
        let status = "SELECT request_id, state, completion, took_seconds, completion_detail, completed_at IS NULL FROM request_status ORDER BY request_id";
        let (yes, no) = if db.scratch.backend() == Backend::Sqlite { ("1", "0") } else { ("t", "f") };
        assert_eq!(db.sql(status).await, format!(
            "1|successful|failed|1859|internalServerError: no\u{fffd} luck|{no}\n2|successful|done|1859||{no}\n3|successful|followed|||{yes}"));
        let history = db.sql(&format!(
            "SELECT event, request_id, source, final, detail, requested_by, http_status, evidence FROM device_history
             WHERE managed_device_id = '{}' ORDER BY at, step", device(1))).await;
        assert_eq!(history, format!(
            "requested|1||{no}|stolen|ada||\nsuccessful|1|answer|{yes}||ada|200|\ncompletion_failed|1|read_back|{no}|internalServerError: no\u{fffd} luck|ada|200|{{\"a\":1}}"));
        let row = "SELECT request_id, tenant, managed_device_id, state, took_seconds, looks, requested_by, reason, recorded_at >= ended_at, evidence FROM completions WHERE state = 'failed'";
        assert_eq!(db.sql(row).await, format!("1|default|{}|failed|1859|1|ada|stolen|{yes}|{{\"a\":1}}", device(1)));
        let totals = "SELECT tenant, state, devices, average_seconds, longest_seconds FROM completion_totals ORDER BY state";
        assert_eq!(db.sql(totals).await, "default|done|1|1859|1859\ndefault|failed|1|1859|1859");

        let rows = db.store.results(&ResultFilter::default(), None, 10).await.unwrap();
        let shown: Vec<_> = rows.iter().map(|row| (row.completion.unwrap().as_str(), row.took_seconds, row.completed_at.is_some())).collect();
        assert_eq!(shown, [("failed", Some(1859), true), ("done", Some(1859), true), ("followed", None, false)]);
        let of_device = ResultFilter { device: Some(device(1).parse().unwrap()), ..ResultFilter::default() };
        assert_eq!(db.store.results(&of_device, None, 10).await.unwrap(), rows[..1]);
        let tenant = db.store.status().await.unwrap().tenants.remove(0);
        assert_eq!((tenant.completion_followed, tenant.completion_done, tenant.completion_failed, tenant.completion_untracked), (1, 1, 1, 0));
    }

    async fn a_watch_knows_its_call_and_the_others_of_its_device(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.follow().await;
        for _ in 0..3 {
            db.accepted(&[1]).await;
        }
        let watches = db.due().await;
        assert_eq!(watches.len(), 3);
        for watch in &watches {
            let mut others: Vec<_> = watch.others.iter().map(|other| other.sent_at).collect();
            others.sort();
            let expected: Vec<_> = watches.iter().filter(|w| w.request_id != watch.request_id).map(|w| w.sent_at).collect();
            assert_eq!(others, expected);
            assert!(watch.others.iter().all(|other| other.sent_at <= other.finished_at));
            assert!(watch.sent_at <= watch.accepted_at && watch.accepted_at <= watch.now && watch.device.to_string() == device(1));
        }
    }
}

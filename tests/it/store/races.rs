//! Several processes on one database, at the same moment: nothing twice, nothing lost.

use std::collections::HashSet;
use std::sync::Arc;

use reprovisiond::domain::id::{CallId, WorkerId};
use reprovisiond::domain::lifecycle::{Bucket, CallState, EntryEffect, TenantEffect};
use reprovisiond::domain::operator::{Act, Resolution, Scope};
use reprovisiond::domain::plan::Bounds;
use reprovisiond::domain::rate::Rate;
use reprovisiond::domain::read_back::{ReconcilePolicy, Settlement};
use reprovisiond::store::{Decision, Intent, NewRequest, Recorded, Store, StoreError};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::orders::{order, these};
use super::{Backend, Db, HOUR, Other, Scratch, bounds, claim, device, ends, open, record, tenant};
use crate::support::on_both;

const PROCESSES: usize = 4;

impl Db {
    /// As many stores as there are processes, all with their connections made.
    async fn stores(&self, processes: usize) -> Vec<Arc<dyn Store>> {
        let mut stores = Vec::new();
        for _ in 0..processes {
            let store = open(&self.scratch).await.unwrap();
            store.facts(&[tenant()]).await.unwrap();
            stores.push(store);
        }
        stores
    }

    /// Every request is in exactly one place: in the queue, or ended once.
    async fn nothing_is_lost_or_ended_twice(&self) {
        let astray = self
            .sql(
                "SELECT r.id FROM reprovision_requests r LEFT JOIN reprovision_queue q ON q.request_id = r.id
                 LEFT JOIN device_results d ON d.request_id = r.id AND d.final
                 GROUP BY r.id HAVING count(q.request_id) + count(d.id) <> 1",
            )
            .await;
        assert_eq!(astray, "");
        let torn = self
            .sql(
                "SELECT q.request_id, q.state, c.state FROM reprovision_queue q JOIN graph_calls c ON c.id = q.call_id
                 WHERE (q.state = 'sending') <> (c.state = 'sending')",
            )
            .await;
        assert_eq!(torn, "");
    }
}

fn effects(call: &Intent, effect: &EntryEffect) -> Vec<(i64, EntryEffect)> {
    call.entries.iter().map(|entry| (entry.request_id.0, effect.clone())).collect()
}

on_both! {
    async fn claimers_and_producers_at_once_send_each_request_once_and_no_device_twice_at_a_time(scratch: Scratch) {
        let db = Arc::new(Db::new(scratch).await);
        let stores = db.stores(PROCESSES).await;
        let (producers, rows, devices) = (3, 60, 40);
        let mut tasks = JoinSet::new();
        for producer in 0..producers {
            let db = Arc::clone(&db);
            tasks.spawn(async move {
                for batch in 0..3_u32 {
                    // Each device is asked for several times over.
                    let asked: Vec<u32> = (0..rows / 3).map(|n| 1 + (n + batch * 20 + producer) % devices).collect();
                    db.ask(&asked).await;
                }
                Vec::new()
            });
        }
        let total = (producers * rows) as usize;
        let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        for store in stores {
            let (worker, done) = (WorkerId::fresh(), Arc::clone(&done));
            db.start_worker(worker).await;
            tasks.spawn(async move {
                let of_seven = Bounds { max_devices: 7, free_slots: 2, ..bounds() };
                let mut sent = Vec::new();
                while done.load(std::sync::atomic::Ordering::SeqCst) < total {
                    for call in claim(&*store, worker, &of_seven, 20).await.unwrap().decision.intents {
                        let effects = effects(&call, &ends(Bucket::Successful));
                        let recorded = record(&*store, call.call_id, CallState::Answered, &effects, TenantEffect::Clear).await;
                        assert_eq!(recorded.unwrap(), Recorded::Done);
                        done.fetch_add(call.entries.len(), std::sync::atomic::Ordering::SeqCst);
                        sent.extend(call.entries.iter().map(|entry| entry.request_id.0));
                    }
                }
                sent
            });
        }
        let sent: Vec<i64> = tasks.join_all().await.concat();
        let once: HashSet<i64> = sent.iter().copied().collect();
        assert_eq!((sent.len(), once.len()), (total, total));
        assert!(db.queue().await.is_empty());
        db.nothing_is_lost_or_ended_twice().await;
        // Two calls for one device never overlapped.
        let overlaps = "
            SELECT count(*) FROM device_results a JOIN graph_calls ca ON ca.id = a.call_id
            JOIN device_results b ON b.managed_device_id = a.managed_device_id AND b.id > a.id
            JOIN graph_calls cb ON cb.id = b.call_id WHERE cb.sent_at < ca.finished_at";
        assert_eq!(db.sql(overlaps).await, "0");
    }

    async fn claimers_at_the_same_moment_never_share_an_entry_or_a_device(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(PROCESSES).await;
        let devices: Vec<u32> = (0..200).map(|n| 1 + n % 100).collect();
        db.ask(&devices).await;
        let barrier = Arc::new(Barrier::new(PROCESSES));
        let mut tasks = JoinSet::new();
        for store in stores {
            let barrier = Arc::clone(&barrier);
            let worker = WorkerId::fresh();
            db.start_worker(worker).await;
            tasks.spawn(async move {
                barrier.wait().await;
                let of_ten = Bounds { max_devices: 10, ..bounds() };
                claim(&*store, worker, &of_ten, 1000).await.unwrap().decision.intents
            });
        }
        let calls: Vec<Intent> = tasks.join_all().await.concat();
        let taken: Vec<_> = calls.iter().flat_map(|call| &call.entries).collect();
        let entries: HashSet<_> = taken.iter().map(|entry| entry.request_id).collect();
        let devices: HashSet<_> = taken.iter().map(|entry| entry.device).collect();
        assert_eq!((taken.len(), entries.len(), devices.len()), (100, 100, 100));
        db.nothing_is_lost_or_ended_twice().await;
    }

    async fn claimers_at_the_same_moment_share_one_rate_budget(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(PROCESSES).await;
        db.ask(&(1..=100).collect::<Vec<_>>()).await;
        let barrier = Arc::new(Barrier::new(PROCESSES));
        let mut tasks = JoinSet::new();
        for store in stores {
            let (barrier, worker) = (Arc::clone(&barrier), db.worker);
            tasks.spawn(async move {
                barrier.wait().await;
                let one_an_hour = Bounds { max_devices: 10, rate: Rate { calls: 1, period: HOUR }, ..bounds() };
                claim(&*store, worker, &one_an_hour, 1000).await.unwrap().decision
            });
        }
        let decisions: Vec<Decision> = tasks.join_all().await;
        let calls: usize = decisions.iter().map(|decision| decision.intents.len()).sum();
        assert_eq!(calls, 1, "{decisions:?}");
        let told_to_wait = decisions.iter().filter(|d| d.look_again_in.is_some_and(|time| time > HOUR / 2)).count();
        assert_eq!(told_to_wait, PROCESSES, "the one that went has more to do than its budget lets it");
    }

    async fn an_answer_and_the_giving_up_of_its_call_at_the_same_moment_end_in_the_answer(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(2).await;
        for round in 0..25_u32 {
            db.ask(&[1 + 2 * round, 2 + 2 * round]).await;
            let worker = WorkerId::fresh();
            db.start_worker(worker).await;
            db.sql("UPDATE tenants SET cautious = (1 = 0)").await;
            let call = claim(&*db.store, worker, &bounds(), 10).await.unwrap().decision.intents.remove(0);
            db.store.stop_worker(worker).await.unwrap();
            let mut answer = effects(&call, &ends(Bucket::Successful));
            answer[1].1 = EntryEffect::Requeue { reason: "x", max_batch: None };
            let barrier = Barrier::new(2);
            let (recorded, given_up) = tokio::join!(
                async { barrier.wait().await; record(&*stores[0], call.call_id, CallState::Answered, &answer, TenantEffect::Clear).await },
                async { barrier.wait().await; stores[1].abandon_calls().await },
            );
            assert_eq!(recorded.unwrap(), Recorded::Done);
            assert!(given_up.unwrap().len() <= 1);
            assert_eq!(db.sql("SELECT DISTINCT state FROM graph_calls").await, "answered");
            db.nothing_is_lost_or_ended_twice().await;
            let left = db.queue().await;
            assert_eq!(left, [format!("{}|queued|0||x", answer[1].0)]);
            // Out of the way of the next round.
            let rest = claim(&*db.store, db.worker, &bounds(), 10).await.unwrap().decision.intents.remove(0);
            let gone = effects(&rest, &ends(Bucket::NotFound));
            record(&*db.store, rest.call_id, CallState::Answered, &gone, TenantEffect::Clear).await.unwrap();
        }
    }

    async fn settlements_and_a_late_answer_at_the_same_moment_settle_each_doubt_once(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(3).await;
        let policy = ReconcilePolicy { first_after: std::time::Duration::ZERO, settle_after: HOUR, give_up_after: HOUR, clock_margin: HOUR, max_attempts: 3 };
        for round in 0..25_u32 {
            let asked: Vec<u32> = (1..=6).map(|n| n + 6 * round).collect();
            db.ask(&asked).await;
            let worker = WorkerId::fresh();
            db.start_worker(worker).await;
            db.sql("UPDATE tenants SET cautious = (1 = 0)").await;
            let call = claim(&*db.store, worker, &bounds(), 10).await.unwrap().decision.intents.remove(0);
            db.store.stop_worker(worker).await.unwrap();
            db.store.abandon_calls().await.unwrap();
            let doubts = db.store.doubts(&tenant(), &policy, 100).await.unwrap();
            let happened = Settlement::Final { bucket: Bucket::Successful, detail: "seen".to_owned(), evidence: "{}".to_owned() };
            let forwards: Vec<_> = doubts.iter().cloned().map(|doubt| (doubt, happened.clone())).collect();
            let backwards: Vec<_> = forwards.iter().cloned().rev().collect();
            let answer = effects(&call, &ends(Bucket::Successful));
            let barrier = Barrier::new(3);
            let (first, second, recorded) = tokio::join!(
                async { barrier.wait().await; stores[0].settle(&forwards).await },
                async { barrier.wait().await; stores[1].settle(&backwards).await },
                async { barrier.wait().await; record(&*stores[2], call.call_id, CallState::Answered, &answer, TenantEffect::None).await },
            );
            let by_answer = match recorded.unwrap() {
                Recorded::Done => 6,
                Recorded::TooLateFor(devices) => 6 - devices as u64,
                Recorded::Superseded => panic!("the answer is lost"),
            };
            assert_eq!(first.unwrap() + second.unwrap() + by_answer, 6, "in round {round}");
            assert!(db.queue().await.is_empty());
            db.nothing_is_lost_or_ended_twice().await;
        }
    }

    async fn a_pause_and_a_claim_at_the_same_moment_agree_on_what_was_under_way(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(2).await;
        for round in 0..30_u32 {
            db.ask(&[1 + round]).await;
            let request = i64::from(1 + round);
            let scope = match round % 3 {
                0 => Scope::Tenant(tenant()),
                1 => Scope::Devices(vec![device(1 + round).parse().unwrap()]),
                _ => these(&[request]),
            };
            let pause = order(Act::Pause, scope.clone());
            let barrier = Barrier::new(2);
            let (claimed, paused) = tokio::join!(
                async { barrier.wait().await; claim(&*stores[0], db.worker, &bounds(), 10).await },
                async { barrier.wait().await; stores[1].order(&pause).await },
            );
            let sent = claimed.unwrap().decision.intents;
            let paused = paused.unwrap().done.remove(0);
            let expected = if sent.is_empty() { (1, 0) } else { (0, 1) };
            assert_eq!((paused.requests, paused.under_way), expected, "in round {round}");
            // From its commit on, for every worker.
            assert!(claim(&*stores[0], db.worker, &bounds(), 10).await.unwrap().decision.intents.is_empty());
            assert_eq!(db.sql(&format!("SELECT count(*) FROM reprovision_queue WHERE request_id = {request} AND state = 'sending'")).await, sent.len().to_string());
            db.store.order(&order(Act::Resume, scope)).await.unwrap();
            let mut sent = sent;
            sent.extend(claim(&*db.store, db.worker, &bounds(), 10).await.unwrap().decision.intents);
            let call = sent.remove(0);
            record(&*db.store, call.call_id, CallState::Answered, &effects(&call, &ends(Bucket::Successful)), TenantEffect::Clear).await.unwrap();
        }
    }

    async fn what_is_cancelled_is_not_sent_and_what_is_sent_is_not_cancelled(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(3).await;
        for round in 0..25_u32 {
            let asked: Vec<u32> = (1..=6).map(|n| n + 6 * round).collect();
            db.ask(&asked).await;
            let cancel = match round % 2 {
                0 => order(Act::Cancel, Scope::Tenant(tenant())),
                _ => order(Act::Cancel, Scope::Devices(asked.iter().map(|n| device(*n).parse().unwrap()).collect())),
            };
            let of_two = Bounds { max_devices: 2, free_slots: 1, ..bounds() };
            let barrier = Barrier::new(3);
            let (first, second, cancelled) = tokio::join!(
                async { barrier.wait().await; claim(&*stores[0], db.worker, &of_two, 2).await },
                async { barrier.wait().await; claim(&*stores[1], db.worker, &of_two, 2).await },
                async { barrier.wait().await; stores[2].order(&cancel).await },
            );
            let sent = [first.unwrap().decision.intents, second.unwrap().decision.intents].concat();
            let under_way: usize = sent.iter().map(|call| call.entries.len()).sum();
            let cancelled = cancelled.unwrap();
            let ended: u64 = cancelled.done.iter().map(|done| done.requests).sum();
            assert_eq!((ended + under_way as u64, cancelled.refused.len()), (6, under_way), "in round {round}");
            for call in sent {
                let effects = effects(&call, &ends(Bucket::Successful));
                assert_eq!(record(&*db.store, call.call_id, CallState::Answered, &effects, TenantEffect::Clear).await.unwrap(), Recorded::Done);
            }
            assert!(db.queue().await.is_empty());
            db.nothing_is_lost_or_ended_twice().await;
        }
    }

    async fn an_answer_on_time_and_orders_about_its_requests_never_wait_for_each_other_in_a_circle(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(3).await;
        for round in 0..25_u32 {
            db.ask(&(1..=20).map(|n| n + 20 * round).collect::<Vec<_>>()).await;
            let call = claim(&*db.store, db.worker, &bounds(), 20).await.unwrap().decision.intents.remove(0);
            let ids: Vec<i64> = call.entries.iter().map(|entry| entry.request_id.0).collect();
            let mut answer = effects(&call, &EntryEffect::Requeue { reason: "x", max_batch: None });
            // The other way round than an order takes them.
            answer.reverse();
            let (cancel, resolve) = (order(Act::Cancel, these(&ids)), order(Act::Resolve(Resolution::Failed), these(&ids)));
            let barrier = Barrier::new(3);
            let (recorded, cancelled, resolved) = tokio::join!(
                async { barrier.wait().await; record(&*stores[0], call.call_id, CallState::NotCarriedOut, &answer, TenantEffect::None).await },
                async { barrier.wait().await; stores[1].order(&cancel).await },
                async { barrier.wait().await; stores[2].order(&resolve).await },
            );
            assert_eq!(recorded.unwrap(), Recorded::Done);
            let cancelled = cancelled.unwrap();
            let ended: u64 = cancelled.done.iter().map(|done| done.requests).sum();
            assert_eq!((usize::try_from(ended).unwrap() + cancelled.refused.len(), resolved.unwrap().refused.len()), (20, 20), "in round {round}");
            assert_eq!(db.queue().await.len(), 20 - usize::try_from(ended).unwrap());
            db.store.order(&order(Act::Cancel, Scope::All)).await.unwrap();
            db.nothing_is_lost_or_ended_twice().await;
        }
    }

    async fn two_decisions_and_a_late_answer_at_the_same_moment_settle_each_doubt_once(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(3).await;
        for round in 0..25_u32 {
            let asked: Vec<u32> = (1..=4).map(|n| n + 4 * round).collect();
            db.ask(&asked).await;
            let worker = WorkerId::fresh();
            db.start_worker(worker).await;
            db.sql("UPDATE tenants SET cautious = (1 = 0)").await;
            let call = claim(&*db.store, worker, &bounds(), 10).await.unwrap().decision.intents.remove(0);
            db.store.stop_worker(worker).await.unwrap();
            db.store.abandon_calls().await.unwrap();
            let mut ids: Vec<i64> = call.entries.iter().map(|entry| entry.request_id.0).collect();
            let one = order(Act::Resolve(Resolution::Successful), these(&ids));
            ids.reverse();
            let other = order(Act::Resolve(Resolution::Failed), these(&ids));
            let answer = effects(&call, &ends(Bucket::Successful));
            let barrier = Barrier::new(3);
            let (one, other, recorded) = tokio::join!(
                async { barrier.wait().await; stores[0].order(&one).await },
                async { barrier.wait().await; stores[1].order(&other).await },
                // An effect on the tenant takes its lock too.
                async { barrier.wait().await; record(&*stores[2], call.call_id, CallState::Answered, &answer, TenantEffect::Clear).await },
            );
            let (one, other) = (one.unwrap(), other.unwrap());
            let resolved: u64 = one.done.iter().chain(&other.done).map(|done| done.requests).sum();
            let by_answer = match recorded.unwrap() {
                Recorded::Done => 4,
                Recorded::TooLateFor(devices) => 4 - devices as u64,
                Recorded::Superseded => panic!("the answer is lost"),
            };
            assert_eq!(resolved + by_answer, 4, "in round {round}");
            assert_eq!((one.refused.len() + other.refused.len()) as u64, 8 - resolved);
            assert!(db.queue().await.is_empty());
            db.nothing_is_lost_or_ended_twice().await;
            let beside = format!("SELECT count(*) FROM device_results WHERE NOT final AND source = 'answer' AND call_id = '{}'", call.call_id);
            assert_eq!(db.sql(&beside).await, resolved.to_string());
        }
    }

    async fn a_call_is_given_up_once_however_many_notice(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(PROCESSES).await;
        db.ask(&(1..=40).collect::<Vec<_>>()).await;
        let of_four = Bounds { max_devices: 4, ..bounds() };
        assert_eq!(claim(&*db.store, db.worker, &of_four, 1000).await.unwrap().decision.intents.len(), 10);
        db.store.stop_worker(db.worker).await.unwrap();
        let barrier = Arc::new(Barrier::new(PROCESSES));
        let mut tasks = JoinSet::new();
        for store in stores {
            let barrier = Arc::clone(&barrier);
            tasks.spawn(async move {
                barrier.wait().await;
                store.abandon_calls().await.unwrap()
            });
        }
        assert_eq!(tasks.join_all().await.concat().len(), 10);
        assert_eq!(db.results().await.len(), 40);
        assert_eq!(db.sql("SELECT DISTINCT state, attempts FROM reprovision_queue").await, "unknown|1");
        db.nothing_is_lost_or_ended_twice().await;
    }

    async fn the_same_references_enqueued_at_the_same_moment_are_inserted_once_each(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let stores = db.stores(PROCESSES).await;
        let barrier = Arc::new(Barrier::new(PROCESSES));
        let mut tasks = JoinSet::new();
        for (n, store) in stores.into_iter().enumerate() {
            let barrier = Arc::clone(&barrier);
            let mut requests: Vec<NewRequest> = (1..=50)
                .map(|n| NewRequest { managed_device_id: device(n), external_id: Some(format!("INC-{n}")), ..NewRequest::default() })
                .collect();
            // In another order each: whoever waits for whom, somebody gets through.
            requests.rotate_left(n * 13);
            tasks.spawn(async move {
                barrier.wait().await;
                loop {
                    match store.enqueue(&requests).await {
                        Ok(enqueued) => break enqueued,
                        Err(StoreError::Unavailable(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        let enqueued = tasks.join_all().await;
        assert_eq!(enqueued.iter().map(|e| e.inserted).sum::<u64>(), 50);
        assert!(enqueued.iter().all(|e| e.inserted + e.already_there == 50));
        assert_eq!(db.sql("SELECT count(*), count(DISTINCT external_id) FROM request_status WHERE state = 'queued'").await, "50|50");
    }
}

/// What a worker sees whose connection broke at COMMIT, while the server has not decided it yet. (SQLite has one writer.)
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_claim_that_may_still_commit_is_released_only_once_it_is_decided() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    db.ask(&[1]).await;
    let (store, worker) = (open(&db.scratch).await.unwrap(), db.worker);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let deciding = Arc::new(tokio::sync::Notify::new());
    let decides = Arc::clone(&deciding);
    let claiming = tokio::spawn(async move {
        let decide = |snapshot: reprovisiond::domain::plan::Snapshot| {
            decides.notify_one();
            tokio::task::block_in_place(|| wait.lock().unwrap().recv().unwrap());
            let intent = Intent {
                call_id: CallId::fresh(),
                entries: snapshot.entries,
                digest: "digest".to_owned(),
                cloud_pcs: None,
            };
            Decision { intents: vec![intent], ..Decision::default() }
        };
        crate::support::claim(&*store, &tenant(), worker, 10, &decide).await
    });
    let mut other = Other::connect(&db.scratch).await;
    let mine = "FROM pg_stat_activity WHERE datname = current_database()";
    deciding.notified().await;
    let store = open(&db.scratch).await.unwrap();
    let releasing = tokio::spawn(async move { store.release_unsent(worker, &[]).await });
    other.until(&format!("EXISTS (SELECT {mine} AND wait_event_type = 'Lock')")).await;
    go.send(()).unwrap();
    claiming.await.unwrap().unwrap();
    assert_eq!(releasing.await.unwrap().unwrap(), 1);
    assert_eq!(db.queue().await, ["1|queued|0||not_sent"]);
}

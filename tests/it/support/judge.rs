//! What must hold when all is over, whatever has happened: by the simulator's ledger and by the database, never by the
//! daemon's own word.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use reprovisiond::simulator::Simulator;

use super::{Backend, Scratch};

/// Judges a run after which nothing is pending, with a simulator whose devices all succeed and whose read-back is truthful
/// and immediate: every request has ended exactly once, every device was wiped exactly as often as requests of it ended
/// `successful`, nothing left without its committed intent, and the database is sound. `run` names the run in a failure.
pub(crate) async fn judge(scratch: &Scratch, simulator: &Simulator, run: &str) {
    let mut complaints = Vec::new();
    complaints.extend(ends(scratch).await);
    complaints.extend(wipes(scratch, simulator).await);
    complaints.extend(intents(scratch, simulator).await);
    complaints.extend(soundness(scratch).await);
    assert!(complaints.is_empty(), "{run}: {} complaint(s)\n{}", complaints.len(), complaints.join("\n"));
}

/// Requests that have not exactly one final result, or have one and are pending all the same.
async fn ends(scratch: &Scratch) -> Vec<String> {
    let sql = "SELECT id, finals, pending FROM (
                   SELECT r.id, (SELECT count(*) FROM device_results d WHERE d.request_id = r.id AND d.final) AS finals,
                          (SELECT count(*) FROM reprovision_queue q WHERE q.request_id = r.id) AS pending
                   FROM reprovision_requests r) AS counted
               WHERE finals <> 1 OR pending <> 0";
    let rows = scratch.rows(sql).await;
    rows.lines().map(|row| format!("request|final results|pending: {row}")).collect()
}

/// Devices that were wiped more often, or less, than the results say.
async fn wipes(scratch: &Scratch, simulator: &Simulator) -> Vec<String> {
    let mut wiped: BTreeMap<String, usize> = BTreeMap::new();
    for entry in simulator.ledger() {
        *wiped.entry(entry.managed_device_id.to_string()).or_default() += 1;
    }
    let sql = "SELECT managed_device_id, count(*) FROM device_results WHERE final AND bucket = 'successful' GROUP BY 1";
    let told: BTreeMap<String, usize> = scratch
        .rows(sql)
        .await
        .lines()
        .map(|row| row.split_once('|').unwrap())
        .map(|(device, count)| (device.to_owned(), count.parse().unwrap()))
        .collect();
    let devices: BTreeSet<&String> = wiped.keys().chain(told.keys()).collect();
    let mut complaints = Vec::new();
    for device in devices {
        let count = |of: &BTreeMap<String, usize>| of.get(device).copied().unwrap_or_default();
        if count(&wiped) != count(&told) {
            let sql = format!("SELECT * FROM device_results WHERE managed_device_id = '{device}' ORDER BY id");
            let results = scratch.rows(&sql).await;
            let ledger: Vec<_> =
                simulator.ledger().into_iter().filter(|e| e.managed_device_id.to_string() == *device).collect();
            complaints.push(format!(
                "{device} was wiped {} time(s), the results say {}:\n{results}\n{ledger:?}",
                count(&wiped),
                count(&told)
            ));
        }
    }
    complaints
}

/// Requests over the wire that no committed intent accounts for, or that were made more than once.
async fn intents(scratch: &Scratch, simulator: &Simulator) -> Vec<String> {
    let calls: BTreeMap<String, Vec<String>> = scratch
        .rows("SELECT id, managed_device_ids FROM graph_calls")
        .await
        .lines()
        .map(|row| row.split_once('|').unwrap())
        // A list is JSON on SQLite and an array on Postgres.
        .map(|(id, devices)| {
            (
                id.to_owned(),
                devices
                    .split(['[', ']', '{', '}', ',', '"'])
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect(),
            )
        })
        .collect();
    let mut seen = BTreeSet::new();
    let mut complaints = Vec::new();
    for request in simulator.requests() {
        let id = request.client_request_id.clone().unwrap_or_default();
        // Without its body, a request that was broken off has no devices and does nothing.
        if !request.managed_device_ids.is_empty() && calls.get(&id) != Some(&request.managed_device_ids) {
            complaints.push(format!("no intent stands for {request:?}, but {:?}", calls.get(&id)));
        }
        if !seen.insert(id) {
            complaints.push(format!("sent a second time: {request:?}"));
        }
    }
    complaints
}

/// Nothing was sent that was older than `send_within`, by the simulator's clock and the database's, which are one here.
pub(crate) async fn nothing_left_late(scratch: &Scratch, simulator: &Simulator, send_within: TimeDelta, run: &str) {
    let milliseconds = match scratch.backend() {
        Backend::Sqlite => "CAST(round((julianday(sent_at) - 2440587.5) * 86400000) AS INTEGER)",
        Backend::Postgres => "floor(extract(epoch FROM sent_at) * 1000)::bigint",
    };
    let rows = scratch.rows(&format!("SELECT id, {milliseconds} FROM graph_calls")).await;
    let intents: BTreeMap<&str, DateTime<Utc>> = rows
        .lines()
        .map(|row| row.split_once('|').unwrap())
        .map(|(id, at)| (id, DateTime::from_timestamp_millis(at.parse().unwrap()).unwrap()))
        .collect();
    for request in simulator.requests() {
        let intended = intents[request.client_request_id.as_deref().unwrap()];
        // It may have been written in time and read a moment later, on a machine that has much to do; what was stopped past
        // its lease would come two seconds late.
        let late = request.at - intended > send_within + TimeDelta::milliseconds(1200);
        assert!(!late, "{run}: intended at {intended}, and yet {request:?}");
    }
}

/// What the database's own checks find.
async fn soundness(scratch: &Scratch) -> Vec<String> {
    let (sql, sound) = match scratch.backend() {
        Backend::Sqlite => ("PRAGMA integrity_check; PRAGMA foreign_key_check", "ok"),
        Backend::Postgres => (
            "CREATE EXTENSION IF NOT EXISTS amcheck;
             DO $$ BEGIN
                 PERFORM bt_index_check(i.indexrelid, true) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                 WHERE c.relnamespace = current_schema()::regnamespace AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree');
             END $$;
             SELECT c.relname, v.* FROM pg_class c, LATERAL verify_heapam(c.oid) v
             WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'",
            "",
        ),
    };
    let found = scratch.sqlite3_or_psql(sql).await.unwrap_or_else(|refusal| refusal);
    (found != sound).then(|| format!("the database is not sound: {found}")).into_iter().collect()
}

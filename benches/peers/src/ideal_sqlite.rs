//! The yardstick on SQLite: queue, calls and results through rusqlite with prepared statements, where the end of one batch
//! of 100 and the claim of the next share a commit. No checks, no triggers, no foreign keys, and no index but the primary
//! keys and the one that finds the next.

use rusqlite::Connection;
use uuid::Uuid;

use crate::{Failure, Watch};

const BATCH: usize = 100;

const TABLES: &str = "
    CREATE TABLE queue (request_id INTEGER PRIMARY KEY, device_id TEXT NOT NULL, state TEXT NOT NULL) STRICT;
    CREATE INDEX queue_next ON queue (request_id) WHERE state = 'queued';
    CREATE TABLE calls (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, state TEXT NOT NULL, device_ids TEXT NOT NULL,
                        sent_at TEXT NOT NULL, http_status INTEGER, body TEXT) STRICT, WITHOUT ROWID;
    CREATE TABLE results (id INTEGER PRIMARY KEY, request_id INTEGER NOT NULL, call_id TEXT NOT NULL, tenant TEXT NOT NULL,
                          device_id TEXT NOT NULL, bucket TEXT NOT NULL, recorded_at TEXT NOT NULL) STRICT;";

const NOW: &str = "2026-01-31T22:00:00.000Z";

struct Batch {
    call: String,
    entries: Vec<(i64, String)>,
}

pub fn run(url: &str, n: usize) -> Result<(), Failure> {
    let mut connection = Connection::open(url.trim_start_matches("sqlite:"))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch(TABLES)?;
    let fill = connection.transaction()?;
    for request in 0..n as i64 {
        fill.prepare_cached("INSERT INTO queue VALUES (?1, ?2, 'queued')")?
            .execute((request, Uuid::from_u128(request as u128).to_string()))?;
    }
    fill.commit()?;

    let watch = Watch::start();
    let mut under_way: Option<Batch> = None;
    loop {
        let commit = connection.transaction()?;
        if let Some(batch) = &under_way {
            finish(&commit, batch)?;
        }
        under_way = claim(&commit)?;
        commit.commit()?;
        if under_way.is_none() {
            break;
        }
    }
    watch.end(n);
    let results: i64 = connection.query_row("SELECT count(*) FROM results", [], |row| row.get(0))?;
    if results == n as i64 { Ok(()) } else { Err(format!("{results} results of {n}").into()) }
}

fn claim(connection: &Connection) -> rusqlite::Result<Option<Batch>> {
    let mut due = connection.prepare_cached(
        "SELECT request_id, device_id FROM queue WHERE state = 'queued' ORDER BY request_id LIMIT ?1",
    )?;
    let entries: Vec<(i64, String)> =
        due.query_map([BATCH as i64], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    if entries.is_empty() {
        return Ok(None);
    }
    let call = Uuid::now_v7().to_string();
    let devices = entries.iter().map(|(_, device)| format!("{device:?}")).collect::<Vec<_>>().join(",");
    connection.prepare_cached("INSERT INTO calls VALUES (?1, 'default', 'sending', ?2, ?3, NULL, NULL)")?.execute((
        &call,
        format!("[{devices}]"),
        NOW,
    ))?;
    let mut send = connection.prepare_cached("UPDATE queue SET state = 'sending' WHERE request_id = ?1")?;
    for (request, _) in &entries {
        send.execute([request])?;
    }
    Ok(Some(Batch { call, entries }))
}

fn finish(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let devices = batch.entries.iter().map(|(_, device)| format!("{device:?}")).collect::<Vec<_>>().join(",");
    connection
        .prepare_cached("UPDATE calls SET state = 'answered', http_status = 200, body = ?2 WHERE id = ?1")?
        .execute((&batch.call, format!("{{\"successfulDeviceIds\":[{devices}]}}")))?;
    let mut result = connection.prepare_cached(
        "INSERT INTO results (request_id, call_id, tenant, device_id, bucket, recorded_at)
         VALUES (?1, ?2, 'default', ?3, 'successful', ?4)",
    )?;
    let mut leave = connection.prepare_cached("DELETE FROM queue WHERE request_id = ?1")?;
    for (request, device) in &batch.entries {
        result.execute((request, &batch.call, device, NOW))?;
        leave.execute([request])?;
    }
    Ok(())
}

//! Every statement on SQLite, in the order of `store::postgres::sql`. Lists come as JSON.

use crate::store::rows::statements;

/// A request's device as the queue and the results have it: word for word what `reprovision_requests_device` indexes.
macro_rules! canonical_device {
    () => {
        "lower(CASE WHEN substr(r.managed_device_id, 1, 1) = '{' AND substr(r.managed_device_id, -1) = '}' THEN substr(r.managed_device_id, 2, length(r.managed_device_id) - 2) ELSE r.managed_device_id END)"
    };
}

/// The Cloud PC that call `c` names for the device of `$of`.
macro_rules! cloud_pc {
    ($of:literal) => {
        concat!(
            "(SELECT c.cloud_pc_ids ->> u.key FROM json_each(c.managed_device_ids) u WHERE u.value = ",
            $of,
            ".managed_device_id)"
        )
    };
}

/// What the calls asked for and is still theirs: they name their requests, so that no index of the queue need name the calls.
macro_rules! of_calls {
    ($which:literal) => {
        concat!(
            "request_id IN (SELECT u.value FROM graph_calls c, json_each(c.request_ids) u WHERE c.id ",
            $which,
            ") AND call_id ",
            $which
        )
    };
}

/// Entries of an operator's scope: ?1 is its kind, ?2 tenants or devices, ?3 requests. An arm whose kind it is not is never
/// entered, and the others find their entries by an index.
macro_rules! in_scope {
    () => {
        concat!(
            "q.request_id IN (SELECT request_id FROM reprovision_queue WHERE ?1 = 'all'
              UNION ALL SELECT request_id FROM reprovision_queue WHERE ?1 = 'tenant' AND tenant IN (SELECT value FROM json_each(?2))
              UNION ALL SELECT r.id FROM json_each(?2) u JOIN reprovision_requests r ON ",
            canonical_device!(),
            " = u.value WHERE ?1 = 'device'
              UNION ALL SELECT value FROM json_each(?3) WHERE ?1 = 'request')"
        )
    };
}

/// Results after a place in their order (?1, ?2), of a filter (?3 to ?10).
macro_rules! results {
    ($at:literal, $found:expr) => {
        concat!(
            "SELECT d.id, d.request_id, d.tenant, d.managed_device_id, d.attempt, d.bucket, d.source, d.final, d.detail,
               d.requested_by, d.reason, d.recorded_at, d.call_id, c.sent_at, c.http_status, c.graph_request_id,
               d.evidence, coalesce(k.state, CASE WHEN w.request_id IS NOT NULL THEN 'followed' END) AS completion,
               k.ended_at AS completed_at, k.took_seconds, k.detail AS completion_detail
        FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id
        LEFT JOIN completions k ON k.request_id = d.request_id AND d.final = 1
        LEFT JOIN completion_watches w ON w.request_id = d.request_id AND d.final = 1
        WHERE ", filter!($at), " AND ", $found, " ORDER BY ", $at, ", d.id LIMIT ?11"
        )
    };
}

macro_rules! results_before {
    ($at:literal, $found:expr) => {
        concat!(
            "SELECT d.recorded_at, d.id FROM device_results d WHERE ",
            filter!($at),
            " AND ",
            $found,
            " ORDER BY ",
            $at,
            " DESC, d.id DESC LIMIT 1 OFFSET ?11"
        )
    };
}

/// The plus keeps the range to the later of its two beginnings.
macro_rules! filter {
    ($at:literal) => {
        concat!(
            "(+d.recorded_at, d.id) > (coalesce(?1, ''), coalesce(?2, 0))
          AND ", $at, " >= max(coalesce(?1, ''), coalesce(?9, '')) AND ", $at, " < coalesce(?10, '~')
          AND (d.final = 1 OR ?3) AND (?4 IS NULL OR d.tenant = ?4) AND (?5 IS NULL OR d.managed_device_id = ?5)
          AND (?6 IS NULL OR d.request_id = ?6) AND (?7 IS NULL OR d.call_id = ?7) AND (?8 IS NULL OR d.bucket = ?8)"
        )
    };
}

macro_rules! of_devices {
    () => {
        concat!(
            "d.managed_device_id IN (SELECT ?5 UNION SELECT ", canonical_device!(), " FROM reprovision_requests r WHERE r.id = ?6
                                      UNION SELECT u.value FROM graph_calls c, json_each(c.managed_device_ids) u WHERE c.id = ?7)"
        )
    };
}

statements! {
    APPLIED = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    HAS_MIGRATIONS = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = '_sqlx_migrations')";
    // Differs because Postgres notifies: this is how another process's commit is noticed.
    DATA_VERSION = "PRAGMA data_version";
    // Differs because Postgres always has its own.
    JOURNAL_MODE = "PRAGMA journal_mode";

    REGISTER_TENANTS = "INSERT INTO tenants (name) SELECT value FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING";
    PROBE_BLOCKED = "
        UPDATE tenants SET probe_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        WHERE name IN (SELECT value FROM json_each(?1)) AND probe_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    DEFER_TENANT = "
        UPDATE tenants SET wait_until = max(coalesce(wait_until, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (?2 / 1000.0) || ' seconds')), wait_code = ?3,
               wait_reason = ?4, waits_in_a_row = waits_in_a_row + 1,
               throttled_at = CASE WHEN ?3 = 'throttled' THEN strftime('%Y-%m-%dT%H:%M:%fZ', 'now') ELSE throttled_at END
        WHERE name = ?1";
    BLOCK_TENANT = "
        UPDATE tenants SET blocked_at = coalesce(blocked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), block_code = ?3, block_reason = ?4,
               probe_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (?2 / 1000.0) || ' seconds')
        WHERE name = ?1";
    CAUTION_TENANT = "UPDATE tenants SET cautious = 1 WHERE name = ?1 AND cautious = 0";
    // A wait that still runs stands: a call that left before it proves nothing about it.
    CLEAR_TENANT = "
        UPDATE tenants SET wait_until = CASE WHEN wait_until > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN wait_until END,
               wait_code = CASE WHEN wait_until > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN wait_code END,
               wait_reason = CASE WHEN wait_until > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN wait_reason END,
               waits_in_a_row = CASE WHEN wait_until > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN waits_in_a_row ELSE 0 END,
               blocked_at = NULL, block_code = NULL, block_reason = NULL, probe_at = NULL, cautious = 0
        WHERE name = ?1 AND (wait_code IS NOT NULL OR waits_in_a_row > 0 OR blocked_at IS NOT NULL OR cautious = 1)";

    START_WORKER = "
        INSERT INTO workers (id, host, process, version, started_at, heartbeat_at, lease_expires_at)
        VALUES (?1, ?2, ?3, ?4, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (?5 / 1000.0) || ' seconds'))";
    // Differs because RETURNING shows new values only on SQLite: read here, renewed by the next statement.
    LEASE_HELD = "SELECT stopped_at IS NULL AND lease_expires_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS held FROM workers WHERE id = ?1";
    RENEW_LEASE = "
        UPDATE workers SET heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), lease_expires_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (?2 / 1000.0) || ' seconds'), stopped_at = NULL
        WHERE id = ?1";
    STOP_WORKER = "UPDATE workers SET stopped_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE id = ?1 AND stopped_at IS NULL";
    // As a list: for each worker, SQLite would make an index of all calls first.
    WORKERS_WITH_OPEN_CALLS = "
        SELECT id, host, process, version FROM workers
        WHERE host = ?1 AND stopped_at IS NULL
          AND id IN (SELECT worker FROM graph_calls WHERE state = 'sending')";

    // A heartbeat in the future is of a clock that has been set back since: its lease would be believed for as long.
    ABANDON_CALLS = "
        UPDATE graph_calls SET state = 'unknown', finished_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), error_code = 'abandoned',
               error_message = 'its worker stopped before an answer was recorded: the call may or may not have been carried out'
        WHERE state = 'sending'
          AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = graph_calls.worker AND w.stopped_at IS NULL
                          AND w.lease_expires_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
                          AND w.heartbeat_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '10 seconds'))
        RETURNING id, tenant, device_count, worker";
    ABANDON_RESULTS = concat!("
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id, q.attempts + 1, 'unknown', 'policy', 0,
               'the worker stopped before an answer was recorded', r.requested_by, r.reason, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        FROM reprovision_queue q JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.", of_calls!("IN (SELECT value FROM json_each(?1))"), " AND q.state = 'sending'");
    ABANDON_ENTRIES = concat!("
        UPDATE reprovision_queue SET state = 'unknown', attempts = attempts + 1,
               wait_reason = 'the worker stopped before an answer was recorded'
        WHERE ", of_calls!("IN (SELECT value FROM json_each(?1))"), " AND state = 'sending'");
    ABANDON_TENANTS = "UPDATE tenants SET cautious = 1 WHERE name IN (SELECT value FROM json_each(?1))";

    RELEASE_CALLS = "
        UPDATE graph_calls SET state = 'not_sent', finished_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), error_code = 'not_sent',
               error_message = 'the answer to the commit of the intent was lost, so the call was never made'
        WHERE state = 'sending' AND worker = ?1 AND id NOT IN (SELECT value FROM json_each(?2)) RETURNING id";
    RELEASE_ENTRIES = concat!("
        UPDATE reprovision_queue SET state = 'queued', call_id = NULL, wait_reason = 'not_sent'
        WHERE ", of_calls!("IN (SELECT value FROM json_each(?1))"), " AND state = 'sending'");

    FACTS = "
        SELECT t.name, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now, t.paused_at IS NOT NULL AS paused, t.probe_at, t.wait_until,
               t.next_call_at, t.pace, t.paced_at, t.throttled_at, t.cautious, t.waits_in_a_row,
               (SELECT count(*) FROM graph_calls c WHERE c.tenant = t.name AND c.state = 'sending') AS calls_in_flight,
               (SELECT count(DISTINCT q.call_id) FROM reprovision_queue q
                JOIN graph_calls c ON c.id = q.call_id AND c.state = 'unknown'
                WHERE q.tenant = t.name AND q.state IN ('unknown', 'held')) AS open_doubts,
               EXISTS (SELECT 1 FROM reprovision_queue q WHERE q.tenant = t.name AND q.state = 'queued' AND q.ready = 1) AS ready,
               (SELECT min(q.due_at) FROM reprovision_queue q WHERE q.tenant = t.name AND q.state = 'queued' AND q.ready = 0) AS next_due,
               (SELECT min(q.expires_at) FROM reprovision_queue q
                WHERE q.tenant = t.name AND q.state = 'queued' AND q.expires_at IS NOT NULL) AS next_expiry
        FROM tenants t WHERE t.name IN (SELECT value FROM json_each(?1)) ORDER BY t.name";

    PROMOTE_DUE = "
        UPDATE reprovision_queue SET ready = 1, wait_reason = NULL
        WHERE request_id IN (SELECT request_id FROM reprovision_queue
                             WHERE tenant = ?1 AND state = 'queued' AND ready = 0
                               AND due_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
                             ORDER BY due_at LIMIT ?2)";
    OVERDUE = "
        SELECT request_id, managed_device_id, due_at, expires_at, attempts, max_batch FROM reprovision_queue
        WHERE tenant = ?1 AND state = 'queued' AND expires_at IS NOT NULL
          AND expires_at <= ?3 ORDER BY expires_at LIMIT ?2";
    DUE = "
        SELECT q.request_id, q.managed_device_id, q.due_at, q.expires_at, q.attempts, q.max_batch FROM reprovision_queue q
        WHERE q.tenant = ?1 AND q.state = 'queued' AND q.ready = 1
          AND NOT EXISTS (SELECT 1 FROM reprovision_queue b WHERE b.managed_device_id = q.managed_device_id AND b.state <> 'queued')
          AND NOT EXISTS (SELECT 1 FROM pauses p WHERE p.scope = 'device' AND p.subject = q.managed_device_id)
          AND NOT EXISTS (SELECT 1 FROM pauses p WHERE p.scope = 'request' AND p.subject = CAST(q.request_id AS TEXT))
        ORDER BY q.priority DESC, q.request_id LIMIT ?2";
    // Differ because Postgres can do all of it in one statement.
    INSERT_INTENTS = "
        INSERT INTO graph_calls (id, tenant, action, worker, state, device_count, managed_device_ids, request_ids, request_digest,
                                 cloud_pc_ids, sent_at)
        SELECT value ->> 0, ?1, ?2, ?3, 'sending', json_array_length(value -> 1), value ->> 1, value ->> 2, value ->> 3, value ->> 4,
               strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        FROM json_each(?4)";
    START_SENDING = "
        UPDATE reprovision_queue SET state = 'sending', call_id = u.call_id, wait_reason = NULL
        FROM (SELECT value ->> 0 AS request_id, value ->> 1 AS call_id FROM json_each(?1)) AS u
        WHERE reprovision_queue.request_id = u.request_id AND reprovision_queue.state = 'queued'";
    CHARGE_RATE = "UPDATE tenants SET next_call_at = ?2, pace = ?3, paced_at = ?4 WHERE name = ?1";
    EXPIRE_RESULTS = "
        INSERT INTO device_results (request_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.tenant, q.managed_device_id, q.attempts, 'expired', 'policy', 1,
               'expires_at passed before it could be sent', r.requested_by, r.reason, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        FROM json_each(?1) u JOIN reprovision_queue q ON q.request_id = u.value
        JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.state = 'queued'";
    LEAVE_QUEUE = "DELETE FROM reprovision_queue WHERE request_id IN (SELECT value FROM json_each(?1))";

    COMPLETE_CALLS = "
        UPDATE graph_calls SET state = u.state, finished_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), http_status = u.http_status,
               graph_request_id = u.graph_request_id, graph_date = u.graph_date, error_code = u.error_code,
               error_message = u.error_message, response_body = u.response_body, surplus_ids = u.surplus
        FROM (SELECT value ->> 0 AS id, value ->> 1 AS state, value ->> 2 AS http_status, value ->> 3 AS graph_request_id,
                     value ->> 4 AS graph_date, value ->> 5 AS error_code, value ->> 6 AS error_message,
                     value ->> 7 AS response_body, value ->> 8 AS surplus FROM json_each(?1)) AS u
        WHERE graph_calls.id = u.id AND graph_calls.state = ?2 AND (graph_calls.state = 'sending' OR graph_calls.error_code = 'abandoned')
        RETURNING id, tenant, device_count";
    OPEN_ENTRIES = concat!("
        SELECT request_id FROM reprovision_queue WHERE ", of_calls!("= ?1"), " AND state IN ('unknown', 'held') ORDER BY request_id");
    // The settlement that this answer comes after: the last word on each request about this call. A bare column is that of
    // the row with the maximum.
    SETTLED_BEFORE = "
        SELECT d.request_id, d.managed_device_id, d.attempt, d.bucket, d.source, max(d.id)
        FROM graph_calls c JOIN json_each(c.managed_device_ids) u
        JOIN device_results d ON d.managed_device_id = u.value AND d.call_id = c.id
        WHERE c.id = ?1 AND d.request_id NOT IN (SELECT value FROM json_each(?2)) AND d.source IN ('read_back', 'operator')
        GROUP BY d.request_id";
    LATE_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT r.id, ?1, r.tenant, u.value ->> 1, u.value ->> 2, u.value ->> 3, 'answer', 0, u.value ->> 4, r.requested_by, r.reason,
               strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        FROM json_each(?2) u JOIN reprovision_requests r ON r.id = u.value ->> 0";
    RECORD_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id,
               q.attempts + CASE WHEN q.state = 'sending' THEN u.value ->> 5 ELSE 0 END, u.value ->> 1, u.value ->> 2, u.value ->> 3,
               u.value ->> 4, r.requested_by, r.reason, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        FROM json_each(?1) u
        JOIN reprovision_queue q ON q.request_id = u.value ->> 0
        JOIN reprovision_requests r ON r.id = q.request_id
        WHERE +q.call_id = u.value ->> 6";
    // What is in doubt was charged when it was given up; an answer that it was not carried out takes that back.
    KEEP_IN_QUEUE = "
        UPDATE reprovision_queue
        SET state = u.state, call_id = CASE WHEN u.state = 'queued' THEN NULL ELSE reprovision_queue.call_id END,
            ready = u.delay_ms IS NULL,
            due_at = CASE WHEN u.delay_ms IS NULL THEN min(reprovision_queue.due_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
                          ELSE strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (u.delay_ms / 1000.0) || ' seconds') END,
            wait_reason = u.wait_reason,
            attempts = reprovision_queue.attempts + u.charge - CASE WHEN reprovision_queue.state = 'sending' THEN 0 ELSE 1 END,
            max_batch = CASE WHEN u.charge = 1 THEN NULL ELSE coalesce(u.max_batch, reprovision_queue.max_batch) END
        FROM (SELECT value ->> 0 AS request_id, value ->> 1 AS state, value ->> 2 AS delay_ms, value ->> 3 AS wait_reason,
                     value ->> 4 AS charge, value ->> 5 AS max_batch, value ->> 6 AS call_id FROM json_each(?1)) AS u
        WHERE reprovision_queue.request_id = u.request_id AND +reprovision_queue.call_id = u.call_id";

    // What lies in the future shows that the clock was set back: it is looked at while that can still be seen. The
    // state is said twice for the index, which has the same words.
    DOUBTS = "
        SELECT q.request_id, q.managed_device_id, q.call_id, q.attempts, c.sent_at, c.finished_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now,
               c.action, (SELECT c.cloud_pc_ids ->> u.key FROM json_each(c.managed_device_ids) u
                          WHERE u.value = q.managed_device_id) AS cloud_pc_id,
               (SELECT count(DISTINCT o.id) FROM device_results d JOIN graph_calls o ON o.id = d.call_id
                WHERE d.managed_device_id = q.managed_device_id AND d.bucket = 'successful' AND d.call_id <> q.call_id
                  AND o.finished_at >= strftime('%Y-%m-%dT%H:%M:%fZ', c.sent_at, (?3 / -500.0) || ' seconds')) AS explained
        FROM reprovision_queue q JOIN graph_calls c ON c.id = q.call_id
        WHERE q.tenant = ?1 AND q.state = 'unknown' AND q.state IN ('unknown', 'held')
          AND (q.due_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
               AND c.finished_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (-?2 / 1000.0) || ' seconds')
               OR max(c.sent_at, c.finished_at) > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (?3 / 1000.0) || ' seconds'))
        ORDER BY c.finished_at, q.request_id LIMIT ?4";
    SETTLE_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at, evidence)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id, q.attempts, u.value ->> 2, 'read_back', u.value ->> 3,
               u.value ->> 4, r.requested_by, r.reason, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), u.value ->> 5
        FROM json_each(?1) u
        JOIN reprovision_queue q ON q.request_id = u.value ->> 0 AND +q.call_id = u.value ->> 1 AND q.state = 'unknown'
        JOIN reprovision_requests r ON r.id = q.request_id
        WHERE true
        RETURNING request_id, final";
    SETTLE_ENTRIES = "
        UPDATE reprovision_queue
        SET state = u.state, call_id = CASE WHEN u.state = 'queued' THEN NULL ELSE reprovision_queue.call_id END,
            ready = u.state = 'queued',
            due_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (u.delay_ms / 1000.0) || ' seconds'), wait_reason = u.wait_reason
        FROM (SELECT value ->> 0 AS request_id, value ->> 1 AS call_id, value ->> 2 AS state, value ->> 3 AS delay_ms,
                     value ->> 4 AS wait_reason FROM json_each(?1)) AS u
        WHERE reprovision_queue.request_id = u.request_id AND +reprovision_queue.call_id = u.call_id
          AND reprovision_queue.state = 'unknown'";

    TRACK_TENANTS = "
        INSERT INTO completion_tenants (tenant, first_after_ms) SELECT value, ?2 FROM json_each(?1) WHERE true
        ON CONFLICT (tenant) DO UPDATE SET first_after_ms = excluded.first_after_ms";
    UNTRACK_TENANTS = "DELETE FROM completion_tenants WHERE tenant IN (SELECT value FROM json_each(?1))";
    WATCHES_OF_TENANTS = "
        SELECT request_id FROM completion_watches WHERE tenant IN (SELECT value FROM json_each(?1)) ORDER BY request_id";
    UNTRACK_WATCHES = concat!("
        INSERT INTO completions (request_id, call_id, tenant, managed_device_id, cloud_pc_id, state, detail, looks, requested_by, reason, recorded_at)
        SELECT w.request_id, w.call_id, w.tenant, w.managed_device_id, ", cloud_pc!("w"), ", 'untracked', ?2, w.looks, r.requested_by, r.reason,
               strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        FROM json_each(?1) u
        JOIN completion_watches w ON w.request_id = u.value
        JOIN graph_calls c ON c.id = w.call_id
        JOIN reprovision_requests r ON r.id = w.request_id");
    COMPLETION_BUDGET = "
        SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now, k.next_read_at, nullif(max(coalesce(k.wait_until, ''), coalesce(t.wait_until, '')), '') AS wait_until
        FROM completion_tenants k JOIN tenants t ON t.name = k.tenant WHERE k.tenant = ?1";
    // Which actions are whose is told by the other calls that Graph accepted for the device.
    DUE_WATCHES = concat!("
        SELECT w.request_id, w.managed_device_id, w.call_id, w.accepted_at, c.action, c.sent_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now, ", cloud_pc!("w"), " AS cloud_pc_id,
               (SELECT json_group_array(json_array(o.sent_at, o.finished_at)) FROM graph_calls o
                WHERE o.id <> c.id AND o.finished_at >= strftime('%Y-%m-%dT%H:%M:%fZ', c.sent_at, '-1 day')
                  AND o.id IN (SELECT d.call_id FROM device_results d
                               WHERE d.managed_device_id = w.managed_device_id AND d.bucket = 'successful')) AS others
        FROM completion_watches w JOIN graph_calls c ON c.id = w.call_id
        WHERE w.tenant = ?1 AND w.next_look_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        ORDER BY w.next_look_at, w.request_id LIMIT ?2");
    PUT_OFF_WATCHES = "
        UPDATE completion_watches SET next_look_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (?2 / 1000.0) || ' seconds'), looks = looks + 1
        WHERE request_id IN (SELECT value FROM json_each(?1))";
    CHARGE_READS = "UPDATE completion_tenants SET next_read_at = ?2 WHERE tenant = ?1";
    NEXT_LOOK = "SELECT min(next_look_at) FROM completion_watches WHERE tenant = ?1";
    WAIT_WITH_READS = "
        UPDATE completion_tenants SET wait_until = max(coalesce(wait_until, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (?2 / 1000.0) || ' seconds'))
        WHERE tenant = ?1";
    RECORD_COMPLETIONS = concat!("
        INSERT INTO completions (request_id, call_id, tenant, managed_device_id, cloud_pc_id, state, started_at, ended_at, took_seconds,
                                 detail, looks, requested_by, reason, recorded_at, evidence)
        SELECT w.request_id, w.call_id, w.tenant, w.managed_device_id, ", cloud_pc!("w"), ", u.value ->> 1, u.value ->> 2, u.value ->> 3,
               u.value ->> 4, u.value ->> 5, w.looks, r.requested_by, r.reason, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), u.value ->> 6
        FROM json_each(?1) u
        JOIN completion_watches w ON w.request_id = u.value ->> 0
        JOIN graph_calls c ON c.id = w.call_id
        JOIN reprovision_requests r ON r.id = w.request_id
        WHERE true
        RETURNING request_id");
    LEAVE_WATCHES = "DELETE FROM completion_watches WHERE request_id IN (SELECT value FROM json_each(?1))";
    LOOK_AGAIN = "
        UPDATE completion_watches SET next_look_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', (u.after_ms / 1000.0) || ' seconds')
        FROM (SELECT value ->> 0 AS request_id, value ->> 1 AS after_ms FROM json_each(?1)) AS u
        WHERE completion_watches.request_id = u.request_id";

    // Differs because SQLite has one writer anyway: BEGIN IMMEDIATE is the lock.
    LOCK_TENANTS = "SELECT name FROM tenants WHERE ?1 IS NULL OR name = ?1 ORDER BY name";
    KNOWN_DEVICES = concat!("
        SELECT u.value FROM json_each(?1) u
        WHERE EXISTS (SELECT 1 FROM reprovision_requests r WHERE ", canonical_device!(), " = u.value)");
    KNOWN_REQUESTS = "
        SELECT r.id, f.bucket FROM json_each(?1) u JOIN reprovision_requests r ON r.id = u.value
        LEFT JOIN device_results f ON f.request_id = r.id AND f.final = 1";
    SCOPE_ENTRIES = concat!("
        SELECT q.request_id, q.tenant, q.managed_device_id, q.state, q.call_id FROM reprovision_queue q
        WHERE ", in_scope!(), " AND q.state IN (SELECT value FROM json_each(?4)) ORDER BY q.request_id");
    SCOPE_COUNTS = concat!("
        SELECT CASE ?1 WHEN 'tenant' THEN q.tenant WHEN 'device' THEN q.managed_device_id ELSE CAST(q.request_id AS TEXT) END AS subject,
               count(*) FILTER (WHERE q.state = 'queued') AS queued,
               count(*) FILTER (WHERE q.state = 'sending') AS sending,
               count(*) FILTER (WHERE q.state IN ('unknown', 'held')) AS in_doubt,
               count(*) FILTER (WHERE q.state = 'queued' AND (t.paused_at IS NOT NULL
                   OR EXISTS (SELECT 1 FROM pauses p WHERE p.scope = 'device' AND p.subject = q.managed_device_id)
                   OR EXISTS (SELECT 1 FROM pauses p WHERE p.scope = 'request' AND p.subject = CAST(q.request_id AS TEXT)))) AS paused
        FROM reprovision_queue q JOIN tenants t ON t.name = q.tenant
        WHERE ", in_scope!(), " GROUP BY 1");
    PAUSED = "
        SELECT name AS subject, paused_at, paused_by, pause_reason AS reason FROM tenants
        WHERE ?1 = 'tenant' AND name IN (SELECT value FROM json_each(?2)) AND paused_at IS NOT NULL
        UNION ALL
        SELECT subject, paused_at, paused_by, reason FROM pauses
        WHERE scope = ?1 AND subject IN (SELECT value FROM json_each(?2))";
    PAUSE_TENANTS = "
        UPDATE tenants SET paused_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), paused_by = ?2, pause_reason = ?3
        WHERE name IN (SELECT value FROM json_each(?1)) AND paused_at IS NULL";
    PAUSE_SUBJECTS = "
        INSERT INTO pauses (scope, subject, paused_at, paused_by, reason)
        SELECT ?1, u.value, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), ?3, ?4 FROM json_each(?2) u WHERE true ON CONFLICT DO NOTHING";
    RESUME_TENANTS = "
        UPDATE tenants SET paused_at = NULL, paused_by = NULL, pause_reason = NULL
        WHERE name IN (SELECT value FROM json_each(?1)) AND paused_at IS NOT NULL";
    RESUME_SUBJECTS = "DELETE FROM pauses WHERE scope = ?1 AND subject IN (SELECT value FROM json_each(?2))";
    RECORD_ACTIONS = "
        INSERT INTO operator_actions (action, scope, subject, decision, taken_by, reason, requests, recorded_at)
        SELECT ?1, ?2, u.value ->> 0, ?3, ?4, ?5, u.value ->> 1, strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
        FROM json_each(?6) u WHERE true RETURNING id, subject";
    ORDERED_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at, operator_action_id)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id, q.attempts, ?2, 'operator', ?3, ?4, r.requested_by, r.reason,
               strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), u.value ->> 1
        FROM json_each(?1) u
        JOIN reprovision_queue q ON q.request_id = u.value ->> 0
        JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.state <> 'sending'";
    RETRY_ENTRIES = "
        UPDATE reprovision_queue SET state = 'queued', call_id = NULL, ready = 1, due_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), wait_reason = ?2
        WHERE request_id IN (SELECT value FROM json_each(?1)) AND state IN ('unknown', 'held')";

    NOW = "SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";
    ENQUEUE = "
        INSERT INTO reprovision_requests (managed_device_id, tenant, requested_by, reason, external_id, priority, not_before,
                                          expires_at, force)
        SELECT value ->> 0, coalesce(value ->> 1, 'default'), value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
               value ->> 7, value ->> 8
        FROM json_each(?1) WHERE true
        ON CONFLICT (tenant, external_id) DO NOTHING";

    DEPTH = "
        SELECT count(*) FILTER (WHERE state = 'queued' AND (ready = 1 OR due_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))),
               count(*) FILTER (WHERE state = 'queued' AND NOT (ready = 1 OR due_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))),
               count(*) FILTER (WHERE state = 'sending'), count(*) FILTER (WHERE state = 'unknown'), count(*) FILTER (WHERE state = 'held')
        FROM reprovision_queue";
    STATUS_TENANTS = "
        SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now, name, paused_at, paused_by, pause_reason, wait_until, wait_reason, blocked_at, block_code,
               block_reason, probe_at, cautious FROM tenants ORDER BY name";
    STATUS_PAUSES = "
        SELECT count(*) FILTER (WHERE p.scope = 'device') AS devices,
               count(*) FILTER (WHERE p.scope = 'request'
                   AND EXISTS (SELECT 1 FROM reprovision_queue q WHERE q.request_id = CAST(p.subject AS INTEGER))) AS requests
        FROM pauses p";
    STATUS_QUEUE = "
        SELECT q.tenant,
               count(*) FILTER (WHERE q.state = 'queued' AND (q.ready = 1 OR q.due_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))) AS ready,
               count(*) FILTER (WHERE q.state = 'queued' AND q.ready = 0 AND q.due_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) AS waiting,
               count(*) FILTER (WHERE q.state = 'sending') AS sending,
               count(*) FILTER (WHERE q.state = 'unknown') AS unknown,
               count(*) FILTER (WHERE q.state = 'held') AS held,
               min(q.due_at) FILTER (WHERE q.state = 'queued' AND (q.ready = 1 OR q.due_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))) AS oldest_ready_at,
               min(q.due_at) FILTER (WHERE q.state = 'queued' AND q.ready = 0 AND q.due_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) AS next_due_at,
               count(DISTINCT q.call_id) FILTER (WHERE q.state IN ('unknown', 'held') AND c.state = 'unknown') AS calls_in_doubt
        FROM reprovision_queue q LEFT JOIN graph_calls c ON c.id = q.call_id GROUP BY q.tenant";
    STATUS_BUCKETS = "SELECT tenant, bucket, count(*) AS devices FROM device_results WHERE final = 1 GROUP BY tenant, bucket";
    STATUS_COMPLETIONS = "
        SELECT tenant, state, count(*) AS devices FROM completions GROUP BY tenant, state";
    STATUS_FOLLOWED = "
        SELECT tenant, 'followed' AS state, count(*) AS devices FROM completion_watches GROUP BY tenant";
    STATUS_WORKERS = "
        SELECT id, host, version, started_at, heartbeat_at FROM workers
        WHERE stopped_at IS NULL AND lease_expires_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') ORDER BY started_at";

    // By time, and of one time by id.
    RESULTS = results!("d.recorded_at", "1");
    RESULTS_BEFORE = results_before!("d.recorded_at", "1");
    // What is no success is rare, and has an index of its own.
    RESULTS_OF_BUCKET = results!("d.recorded_at", "d.bucket <> 'successful' AND d.bucket = ?8");
    RESULTS_BEFORE_OF_BUCKET = results_before!("d.recorded_at", "d.bucket <> 'successful' AND d.bucket = ?8");
    // A request is found by its device, and so are those of a call; never by time, whatever SQLite thinks of it.
    RESULTS_OF_DEVICES = results!("+d.recorded_at", of_devices!());
    RESULTS_BEFORE_OF_DEVICES = results_before!("+d.recorded_at", of_devices!());

    OLDEST_CALLS = "
        SELECT q.tenant, q.state, min(c.sent_at) AS sent_at FROM reprovision_queue q JOIN graph_calls c ON c.id = q.call_id
        WHERE q.state <> 'queued' GROUP BY q.tenant, q.state";
    DOUBTFUL = "
        SELECT q.request_id, q.tenant, q.managed_device_id, q.state, q.call_id, c.sent_at
        FROM reprovision_queue q LEFT JOIN graph_calls c ON c.id = q.call_id
        WHERE q.state IN ('unknown', 'held') ORDER BY q.state, c.sent_at, q.call_id, q.request_id LIMIT ?1";
    ACTIVITY_CALLS = "
        SELECT CAST((julianday('now') - julianday(sent_at)) * 86400 AS INTEGER) / ?2 AS slot, 'calls' AS of, state AS word, count(*) AS count FROM graph_calls
        WHERE sent_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -?1 || ' seconds') GROUP BY 1, 3";
    ACTIVITY_RESULTS = "
        SELECT CAST((julianday('now') - julianday(recorded_at)) * 86400 AS INTEGER) / ?2 AS slot, 'results' AS of, bucket AS word, count(*) AS count FROM device_results
        WHERE final = 1 AND recorded_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -?1 || ' seconds') GROUP BY 1, 3";
    ACTIVITY_COMPLETIONS = "
        SELECT CAST((julianday('now') - julianday(recorded_at)) * 86400 AS INTEGER) / ?2 AS slot, 'completions' AS of, state AS word, count(*) AS count FROM completions
        WHERE recorded_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now', -?1 || ' seconds') GROUP BY 1, 3";
    LAST_CALLS = "
        SELECT id, tenant, action, state, device_count, sent_at, finished_at, http_status, graph_request_id, error_code, error_message
        FROM graph_calls ORDER BY sent_at DESC LIMIT ?1";
    PENDING_OF_DEVICE = "
        SELECT request_id, tenant, state, attempts, detail, call_id, requested_at, due_at FROM request_status
        WHERE managed_device_id = ?1 AND final = 0 ORDER BY request_id DESC LIMIT ?2";
    DEVICE_HISTORY = "
        SELECT at, event, managed_device_id, tenant, request_id, attempt, source, final, detail, requested_by, call_id, sent_at,
               http_status, graph_request_id, evidence
        FROM device_history WHERE managed_device_id = ?1 ORDER BY at DESC, step DESC LIMIT ?2";
}

//! Every statement on Postgres, in the order of `store::sqlite::sql`.

use crate::store::rows::statements;

/// The Cloud PC that call `c` names for the device of `$of`.
macro_rules! cloud_pc {
    ($of:literal) => {
        concat!("c.cloud_pc_ids[array_position(c.managed_device_ids, ", $of, ".managed_device_id)]")
    };
}

/// What the calls asked for and is still theirs: they name their requests, so that no index of the queue need name the calls.
macro_rules! of_calls {
    ($which:literal) => {
        concat!(
            "request_id = ANY(ARRAY(SELECT unnest(c.request_ids) FROM graph_calls c WHERE c.id ",
            $which,
            ")) AND call_id ",
            $which
        )
    };
}

/// Entries of an operator's scope: $1 is its kind, $2 tenants or devices, $3 requests. The kind is known when the
/// statement is planned, so that only its own arm remains, with that arm's index.
macro_rules! in_scope {
    () => {
        "($1 = 'all' OR ($1 = 'tenant' AND q.tenant = ANY($2))
          OR ($1 = 'device' AND q.request_id = ANY(ARRAY(SELECT id FROM reprovision_requests WHERE managed_device_id = ANY($2))))
          OR ($1 = 'request' AND q.request_id = ANY($3)))"
    };
}

/// Results after a place in their order ($1, $2), of a filter ($3 to $10).
macro_rules! results {
    ($found:expr, $order:literal) => {
        concat!(
            "SELECT d.id, d.request_id, d.tenant, d.managed_device_id, d.attempt, d.bucket, d.source, d.final, d.detail,
               d.requested_by, d.reason, d.recorded_at, d.call_id, c.sent_at, c.http_status, c.graph_request_id,
               d.evidence, coalesce(k.state, CASE WHEN w.request_id IS NOT NULL THEN 'followed' END) AS completion,
               k.ended_at AS completed_at, k.took_seconds, k.detail AS completion_detail
        FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id
        LEFT JOIN completions k ON k.request_id = d.request_id AND d.final
        LEFT JOIN completion_watches w ON w.request_id = d.request_id AND d.final
        WHERE ", filter!(), " AND ", $found, " ORDER BY ", $order
        )
    };
}

macro_rules! results_before {
    ($found:expr) => {
        concat!(
            "SELECT d.recorded_at, d.id FROM device_results d WHERE ",
            filter!(),
            " AND ",
            $found,
            " ORDER BY d.recorded_at DESC, d.id DESC LIMIT 1 OFFSET $11"
        )
    };
}

macro_rules! filter {
    () => {
        "(d.recorded_at, d.id) > (coalesce($1, '-infinity'::timestamptz), coalesce($2, 0::bigint))
          AND d.recorded_at >= coalesce($9, '-infinity'::timestamptz) AND d.recorded_at < coalesce($10, 'infinity'::timestamptz)
          AND (d.final OR $3) AND ($4::text IS NULL OR d.tenant = $4) AND ($5::text IS NULL OR d.managed_device_id = $5)
          AND ($6::bigint IS NULL OR d.request_id = $6) AND ($7::uuid IS NULL OR d.call_id = $7) AND ($8::text IS NULL OR d.bucket = $8)"
    };
}

macro_rules! of_devices {
    () => {
        "d.managed_device_id = ANY(ARRAY(SELECT $5 UNION SELECT r.managed_device_id FROM reprovision_requests r WHERE r.id = $6
                                         UNION SELECT unnest(c.managed_device_ids) FROM graph_calls c WHERE c.id = $7))"
    };
}

/// What there is to do for each tenant that `$which` names. Not now(), which is when the transaction began: a claim may have waited
/// long for its lock since. OFFSET 0 keeps a look-up for each call in doubt: as a join it may read every call. An EXISTS may
/// be hashed, which reads the queue from end to end.
macro_rules! facts {
    ($which:literal) => {
        concat!("SELECT t.name, statement_timestamp() AS now, t.paused_at IS NOT NULL AS paused, t.probe_at, t.wait_until, t.next_call_at, t.pace, t.paced_at, t.throttled_at, t.cautious, t.waits_in_a_row,
                   (SELECT count(*) FROM graph_calls c WHERE c.tenant = t.name AND c.state = 'sending') AS calls_in_flight,
                   (SELECT count(*) FROM (SELECT DISTINCT q.call_id FROM reprovision_queue q
                                          WHERE q.tenant = t.name AND q.state IN ('unknown', 'held')) q
                    WHERE EXISTS (SELECT FROM graph_calls c WHERE c.id = q.call_id AND c.state = 'unknown' OFFSET 0)) AS open_doubts,
                   coalesce((SELECT true FROM reprovision_queue q WHERE q.tenant = t.name AND q.state = 'queued' AND q.ready LIMIT 1), false) AS ready,
                   (SELECT min(q.due_at) FROM reprovision_queue q WHERE q.tenant = t.name AND q.state = 'queued' AND NOT q.ready) AS next_due,
                   (SELECT min(q.expires_at) FROM reprovision_queue q
                    WHERE q.tenant = t.name AND q.state = 'queued' AND q.expires_at IS NOT NULL) AS next_expiry
            FROM tenants t WHERE ", $which, " ORDER BY t.name")
    };
}

statements! {
    APPLIED = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    HAS_MIGRATIONS = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";

    // Differ because a SQLite file has no roles. Tables that are not there are missed elsewhere.
    SERVER = "
        SELECT quote_ident(current_user) AS role, r.rolsuper AS superuser, current_setting('server_version_num')::integer AS version,
               current_setting('transaction_read_only') = 'on' AS read_only,
               EXISTS (SELECT FROM pg_class c WHERE c.oid = to_regclass('reprovision_queue') AND pg_has_role(c.relowner, 'USAGE')) AS owner
        FROM pg_roles r WHERE r.rolname = current_user";
    MISSING_PRIVILEGES = "
        SELECT u.relation, u.privilege FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (relation, privilege, n)
        WHERE NOT has_table_privilege(to_regclass(u.relation), u.privilege) ORDER BY u.n";

    // Differs because SQLite has its write lock. The transaction's, so that it goes with it behind a pooler too.
    LOCK_MIGRATIONS = "SELECT pg_advisory_xact_lock(7021932861950116)";

    REGISTER_TENANTS = "INSERT INTO tenants (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";
    // In one order, like every statement that takes the locks of several tenants.
    PROBE_BLOCKED = "
        UPDATE tenants SET probe_at = now()
        WHERE name IN (SELECT name FROM tenants WHERE name = ANY($1) AND probe_at > now() ORDER BY name FOR NO KEY UPDATE)";
    DEFER_TENANT = "
        UPDATE tenants SET wait_until = greatest(wait_until, now() + $2 * interval '1 millisecond'), wait_code = $3,
               wait_reason = $4, waits_in_a_row = waits_in_a_row + 1,
               throttled_at = CASE WHEN $3 = 'throttled' THEN now() ELSE throttled_at END
        WHERE name = $1";
    BLOCK_TENANT = "
        UPDATE tenants SET blocked_at = coalesce(blocked_at, now()), block_code = $3, block_reason = $4,
               probe_at = now() + $2 * interval '1 millisecond'
        WHERE name = $1";
    CAUTION_TENANT = "UPDATE tenants SET cautious = true WHERE name = $1 AND NOT cautious";
    // A wait that still runs stands: a call that left before it proves nothing about it.
    CLEAR_TENANT = "
        UPDATE tenants SET wait_until = CASE WHEN wait_until > now() THEN wait_until END,
               wait_code = CASE WHEN wait_until > now() THEN wait_code END,
               wait_reason = CASE WHEN wait_until > now() THEN wait_reason END,
               waits_in_a_row = CASE WHEN wait_until > now() THEN waits_in_a_row ELSE 0 END,
               blocked_at = NULL, block_code = NULL, block_reason = NULL, probe_at = NULL, cautious = false
        WHERE name = $1 AND (wait_code IS NOT NULL OR waits_in_a_row > 0 OR blocked_at IS NOT NULL OR cautious)";

    START_WORKER = "
        INSERT INTO workers (id, host, process, version, started_at, heartbeat_at, lease_expires_at)
        VALUES ($1, $2, $3, $4, now(), now(), now() + $5 * interval '1 millisecond')";
    // The old row is read before it is written: whether the lease still held is part of the answer.
    RENEW_LEASE = "
        UPDATE workers w SET heartbeat_at = now(), lease_expires_at = now() + $2 * interval '1 millisecond', stopped_at = NULL
        FROM (SELECT id, stopped_at IS NULL AND lease_expires_at > now() AS held FROM workers WHERE id = $1 FOR UPDATE) old
        WHERE w.id = old.id RETURNING old.held";
    STOP_WORKER = "UPDATE workers SET stopped_at = now() WHERE id = $1 AND stopped_at IS NULL";
    WORKERS_WITH_OPEN_CALLS = "
        SELECT id, host, process, version FROM workers w
        WHERE host = $1 AND stopped_at IS NULL
          AND EXISTS (SELECT FROM graph_calls c WHERE c.worker = w.id AND c.state = 'sending')";

    // A heartbeat in the future is of a clock that has been set back since: its lease would be believed for as long.
    ABANDON_CALLS = "
        UPDATE graph_calls c SET state = 'unknown', finished_at = now(), error_code = 'abandoned',
               error_message = 'its worker stopped before an answer was recorded: the call may or may not have been carried out'
        WHERE c.state = 'sending'
          AND NOT EXISTS (SELECT FROM workers w WHERE w.id = c.worker AND w.stopped_at IS NULL AND w.lease_expires_at > now()
                          AND w.heartbeat_at <= now() + interval '10 seconds')
        RETURNING c.id, c.tenant, c.device_count, c.worker";
    ABANDON_RESULTS = concat!("
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id, q.attempts + 1, 'unknown', 'policy', false,
               'the worker stopped before an answer was recorded', r.requested_by, r.reason, now()
        FROM reprovision_queue q JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.", of_calls!("= ANY($1)"), " AND q.state = 'sending'");
    ABANDON_ENTRIES = concat!("
        UPDATE reprovision_queue SET state = 'unknown', attempts = attempts + 1,
               wait_reason = 'the worker stopped before an answer was recorded'
        WHERE ", of_calls!("= ANY($1)"), " AND state = 'sending'");
    ABANDON_TENANTS = "
        UPDATE tenants SET cautious = true
        WHERE name IN (SELECT name FROM tenants WHERE name = ANY($1) ORDER BY name FOR NO KEY UPDATE)";

    RELEASE_CALLS = "
        UPDATE graph_calls SET state = 'not_sent', finished_at = now(), error_code = 'not_sent',
               error_message = 'the answer to the commit of the intent was lost, so the call was never made'
        WHERE state = 'sending' AND worker = $1 AND id <> ALL($2) RETURNING id";
    RELEASE_ENTRIES = concat!("
        UPDATE reprovision_queue SET state = 'queued', call_id = NULL, wait_reason = 'not_sent'
        WHERE ", of_calls!("= ANY($1)"), " AND state = 'sending'");

    FACTS = facts!("t.name = ANY($1)");
    // Differs because a server that plans for any list expects ten tenants, finds that dear, and plans anew each time: 0.5 ms for what
    // takes 0.07.
    FACTS_OF = facts!("t.name = $1");

    // Differs because SQLite has one writer anyway: the row lock makes claims of one tenant follow each other.
    LOCK_TENANT = "SELECT name FROM tenants WHERE name = $1 FOR NO KEY UPDATE";
    TRY_LOCK_TENANT = "SELECT name FROM tenants WHERE name = $1 FOR NO KEY UPDATE SKIP LOCKED";
    // Found first, as a list: as a join it may read the queue from end to end.
    PROMOTE_DUE = "
        UPDATE reprovision_queue SET ready = true, wait_reason = NULL
        WHERE request_id = ANY(ARRAY(SELECT request_id FROM reprovision_queue
                                     WHERE tenant = $1 AND state = 'queued' AND NOT ready AND due_at <= now()
                                     ORDER BY due_at LIMIT $2))";
    OVERDUE = "
        SELECT request_id, managed_device_id, due_at, expires_at, attempts, max_batch FROM reprovision_queue
        WHERE tenant = $1 AND state = 'queued' AND expires_at <= $3 ORDER BY expires_at LIMIT $2";
    // Each OFFSET 0 keeps an index look-up for each row: as joins, which the planner prefers where it expects one busy row, they
    // compare every row with every busy one (2.7 s for 4,000 and 4,000; 17 ms so).
    DUE = "
        SELECT q.request_id, q.managed_device_id, q.due_at, q.expires_at, q.attempts, q.max_batch FROM reprovision_queue q
        WHERE q.tenant = $1 AND q.state = 'queued' AND q.ready
          AND NOT EXISTS (SELECT FROM reprovision_queue b WHERE b.managed_device_id = q.managed_device_id AND b.state <> 'queued' OFFSET 0)
          AND NOT EXISTS (SELECT FROM pauses p WHERE p.scope = 'device' AND p.subject = q.managed_device_id OFFSET 0)
          AND NOT EXISTS (SELECT FROM pauses p WHERE p.scope = 'request' AND p.subject = q.request_id::text OFFSET 0)
        ORDER BY q.priority DESC, q.request_id LIMIT $2";
    // Differs because SQLite needs a statement for each: this is one round trip between a wake-up and its call.
    INTEND = "
        WITH intended AS (
            INSERT INTO graph_calls (id, tenant, action, worker, state, device_count, managed_device_ids, request_ids, request_digest,
                                     cloud_pc_ids, sent_at)
            VALUES ($1, $2, $3, $4, 'sending', cardinality($5::text[]), $5, $6, $7, $8, statement_timestamp())
        ), charged AS (
            UPDATE tenants SET next_call_at = $9, pace = $10, paced_at = $11 WHERE name = $2 AND $9::timestamptz IS NOT NULL
        )
        UPDATE reprovision_queue SET state = 'sending', call_id = $1, wait_reason = NULL
        WHERE request_id = ANY($6::bigint[]) AND state = 'queued'";
    EXPIRE_RESULTS = "
        INSERT INTO device_results (request_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.tenant, q.managed_device_id, q.attempts, 'expired', 'policy', true,
               'expires_at passed before it could be sent', r.requested_by, r.reason, now()
        FROM reprovision_queue q JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.request_id = ANY($1) AND q.state = 'queued'";
    LEAVE_QUEUE = "DELETE FROM reprovision_queue WHERE request_id = ANY($1)";

    COMPLETE_CALLS = "
        UPDATE graph_calls c SET state = u.state, finished_at = now(), http_status = u.http_status, graph_request_id = u.graph_request_id,
               graph_date = u.graph_date, error_code = u.error_code, error_message = u.error_message, response_body = u.response_body,
               surplus_ids = CASE WHEN u.surplus IS NOT NULL THEN ARRAY(SELECT json_array_elements_text(u.surplus::json)) END
        FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::text[], $9::text[])
             AS u (id, state, http_status, graph_request_id, graph_date, error_code, error_message, response_body, surplus)
        WHERE c.id = ANY($1) AND c.id = u.id AND c.state = $10 AND (c.state = 'sending' OR c.error_code = 'abandoned')
        RETURNING c.id, c.tenant, c.device_count";
    // Locked in one order, so that a late answer and a settlement of the same doubts follow each other.
    OPEN_ENTRIES = concat!("
        SELECT request_id FROM reprovision_queue WHERE ", of_calls!("= $1"), " AND state IN ('unknown', 'held')
        ORDER BY request_id FOR UPDATE");
    // The settlement that this answer comes after: the last word on each request about this call.
    SETTLED_BEFORE = "
        SELECT DISTINCT ON (d.request_id) d.request_id, d.managed_device_id, d.attempt, d.bucket, d.source
        FROM graph_calls c CROSS JOIN unnest(c.managed_device_ids, c.request_ids) AS u (device, request_id)
        JOIN device_results d ON d.managed_device_id = u.device AND d.request_id = u.request_id AND d.call_id = c.id
        WHERE c.id = $1 AND u.request_id <> ALL($2) AND d.source IN ('read_back', 'operator')
        ORDER BY d.request_id, d.id DESC";
    LATE_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT r.id, $1, r.tenant, r.managed_device_id, u.attempt, u.bucket, 'answer', false, u.detail, r.requested_by, r.reason, now()
        FROM unnest($2::bigint[], $3::text[], $4::integer[], $5::text[], $6::text[]) AS u (request_id, device, attempt, bucket, detail)
        JOIN reprovision_requests r ON r.id = u.request_id AND r.managed_device_id = u.device";
    // OFFSET 0 keeps the look-up of each entry: as a join it begins with the call's entries, and reads the list again for each.
    RECORD_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id,
               q.attempts + CASE WHEN q.state = 'sending' THEN u.charge ELSE 0 END, u.bucket, u.source, u.final, u.detail,
               r.requested_by, r.reason, now()
        FROM unnest($1::bigint[], $2::text[], $3::text[], $4::boolean[], $5::text[], $6::integer[], $7::uuid[])
             AS u (request_id, bucket, source, final, detail, charge, call_id)
        CROSS JOIN LATERAL (SELECT * FROM reprovision_queue b WHERE b.request_id = u.request_id OFFSET 0) q
        CROSS JOIN LATERAL (SELECT * FROM reprovision_requests b WHERE b.id = u.request_id OFFSET 0) r
        WHERE q.call_id = u.call_id";
    // What is in doubt was charged when it was given up; an answer that it was not carried out takes that back.
    KEEP_IN_QUEUE = "
        UPDATE reprovision_queue q
        SET state = u.state, call_id = CASE WHEN u.state = 'queued' THEN NULL ELSE q.call_id END,
            ready = u.delay_ms IS NULL,
            due_at = CASE WHEN u.delay_ms IS NULL THEN least(q.due_at, now()) ELSE now() + u.delay_ms * interval '1 millisecond' END,
            wait_reason = u.wait_reason,
            attempts = q.attempts + u.charge - CASE WHEN q.state = 'sending' THEN 0 ELSE 1 END,
            max_batch = CASE WHEN u.charge = 1 THEN NULL ELSE coalesce(u.max_batch, q.max_batch) END
        FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::integer[], $6::integer[], $7::uuid[])
             AS u (request_id, state, delay_ms, wait_reason, charge, max_batch, call_id)
        WHERE q.request_id = ANY($1) AND q.request_id = u.request_id AND q.call_id = u.call_id";

    // What lies in the future shows that the clock was set back: it is looked at while that can still be seen. OFFSET 0 as above.
    DOUBTS = "
        SELECT q.request_id, q.managed_device_id, q.call_id, q.attempts, c.sent_at, c.finished_at, now() AS now,
               c.action, c.cloud_pc_ids[array_position(c.managed_device_ids, q.managed_device_id)] AS cloud_pc_id,
               (SELECT count(DISTINCT o.id) FROM device_results d JOIN graph_calls o ON o.id = d.call_id
                WHERE d.managed_device_id = q.managed_device_id AND d.bucket = 'successful' AND d.call_id <> q.call_id
                  AND o.finished_at >= c.sent_at - $3 * interval '2 milliseconds') AS explained
        FROM (SELECT * FROM reprovision_queue b WHERE b.tenant = $1 AND b.state = 'unknown' OFFSET 0) q
        CROSS JOIN LATERAL (SELECT * FROM graph_calls b WHERE b.id = q.call_id OFFSET 0) c
        WHERE (q.due_at <= now() AND c.finished_at <= now() - $2 * interval '1 millisecond'
               OR greatest(c.sent_at, c.finished_at) > now() + $3 * interval '1 millisecond')
        ORDER BY c.finished_at, q.request_id LIMIT $4";
    LOCK_DOUBTS = "
        SELECT request_id FROM reprovision_queue WHERE request_id = ANY($1) ORDER BY request_id FOR UPDATE";
    // IS NOT DISTINCT FROM serves no index: by that of doubts, all of a call would be read for each of its requests.
    SETTLE_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at, evidence)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id, q.attempts, u.bucket, 'read_back', u.final, u.detail,
               r.requested_by, r.reason, now(), u.evidence
        FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::boolean[], $5::text[], $6::text[])
             AS u (request_id, call_id, bucket, final, detail, evidence)
        JOIN reprovision_queue q ON q.request_id = u.request_id AND q.call_id IS NOT DISTINCT FROM u.call_id AND q.state = 'unknown'
        JOIN reprovision_requests r ON r.id = q.request_id
        RETURNING request_id, final";
    SETTLE_ENTRIES = "
        UPDATE reprovision_queue q
        SET state = u.state, call_id = CASE WHEN u.state = 'queued' THEN NULL ELSE q.call_id END, ready = u.state = 'queued',
            due_at = now() + u.delay_ms * interval '1 millisecond', wait_reason = u.wait_reason
        FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::text[])
             AS u (request_id, call_id, state, delay_ms, wait_reason)
        WHERE q.request_id = u.request_id AND q.call_id IS NOT DISTINCT FROM u.call_id AND q.state = 'unknown'";

    TRACK_TENANTS = "
        INSERT INTO completion_tenants (tenant, first_after_ms) SELECT u.tenant, $2 FROM unnest($1::text[]) AS u (tenant) ORDER BY 1
        ON CONFLICT (tenant) DO UPDATE SET first_after_ms = excluded.first_after_ms";
    // In one order, like every statement that takes the locks of several tenants; and before any watch's lock, as everywhere.
    UNTRACK_TENANTS = "
        DELETE FROM completion_tenants
        WHERE tenant IN (SELECT tenant FROM completion_tenants WHERE tenant = ANY($1) ORDER BY tenant FOR UPDATE)";
    WATCHES_OF_TENANTS = "
        SELECT request_id FROM completion_watches WHERE tenant = ANY($1) ORDER BY request_id FOR UPDATE";
    UNTRACK_WATCHES = concat!("
        INSERT INTO completions (request_id, call_id, tenant, managed_device_id, cloud_pc_id, state, detail, looks, requested_by, reason, recorded_at)
        SELECT w.request_id, w.call_id, w.tenant, w.managed_device_id, ", cloud_pc!("w"), ", 'untracked', $2, w.looks, r.requested_by, r.reason,
               now()
        FROM completion_watches w
        JOIN graph_calls c ON c.id = w.call_id
        JOIN reprovision_requests r ON r.id = w.request_id
        WHERE w.request_id = ANY($1)");
    // The lock makes claims of one tenant follow each other. It is not the queue's, so that neither waits for the other.
    COMPLETION_BUDGET = "
        SELECT statement_timestamp() AS now, k.next_read_at, greatest(k.wait_until, t.wait_until) AS wait_until
        FROM completion_tenants k JOIN tenants t ON t.name = k.tenant WHERE k.tenant = $1 FOR NO KEY UPDATE OF k";
    // Which actions are whose is told by the other calls that Graph accepted for the device.
    DUE_WATCHES = concat!("
        SELECT w.request_id, w.managed_device_id, w.call_id, w.accepted_at, c.action, c.sent_at, now() AS now, ", cloud_pc!("w"), " AS cloud_pc_id,
               coalesce((SELECT json_agg(json_build_array(o.sent_at, o.finished_at))::text FROM graph_calls o
                WHERE o.id <> c.id AND o.finished_at >= c.sent_at - interval '1 day'
                  AND o.id IN (SELECT d.call_id FROM device_results d
                               WHERE d.managed_device_id = w.managed_device_id AND d.bucket = 'successful')), '[]') AS others
        FROM completion_watches w JOIN graph_calls c ON c.id = w.call_id
        WHERE w.tenant = $1 AND w.next_look_at <= now()
        ORDER BY w.next_look_at, w.request_id LIMIT $2");
    PUT_OFF_WATCHES = "
        UPDATE completion_watches SET next_look_at = now() + $2 * interval '1 millisecond', looks = looks + 1
        WHERE request_id IN (SELECT request_id FROM completion_watches WHERE request_id = ANY($1) ORDER BY request_id FOR UPDATE)";
    CHARGE_READS = "UPDATE completion_tenants SET next_read_at = $2 WHERE tenant = $1";
    NEXT_LOOK = "SELECT min(next_look_at) FROM completion_watches WHERE tenant = $1";
    WAIT_WITH_READS = "
        UPDATE completion_tenants SET wait_until = greatest(wait_until, now() + $2 * interval '1 millisecond') WHERE tenant = $1";
    // Differs because SQLite has one writer anyway: of two workers that look at one watch, the second finds it gone.
    LOCK_WATCHES = "
        SELECT request_id FROM completion_watches WHERE request_id = ANY($1) ORDER BY request_id FOR UPDATE";
    RECORD_COMPLETIONS = concat!("
        INSERT INTO completions (request_id, call_id, tenant, managed_device_id, cloud_pc_id, state, started_at, ended_at, took_seconds,
                                 detail, looks, requested_by, reason, recorded_at, evidence)
        SELECT w.request_id, w.call_id, w.tenant, w.managed_device_id, ", cloud_pc!("w"), ", u.state, u.started_at, u.ended_at,
               u.took_seconds, u.detail, w.looks, r.requested_by, r.reason, now(), u.evidence
        FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::text[], $7::text[])
             AS u (request_id, state, started_at, ended_at, took_seconds, detail, evidence)
        JOIN completion_watches w ON w.request_id = u.request_id
        JOIN graph_calls c ON c.id = w.call_id
        JOIN reprovision_requests r ON r.id = w.request_id
        RETURNING request_id");
    LEAVE_WATCHES = "DELETE FROM completion_watches WHERE request_id = ANY($1)";
    LOOK_AGAIN = "
        UPDATE completion_watches w SET next_look_at = now() + u.after_ms * interval '1 millisecond'
        FROM unnest($1::bigint[], $2::bigint[]) AS u (request_id, after_ms) WHERE w.request_id = u.request_id";

    // Differs because SQLite has one writer anyway: whoever claims waits, and then sees what was ordered. In one order,
    // and before any entry's lock, as everywhere.
    LOCK_TENANTS = "
        SELECT name FROM tenants WHERE $1::text IS NULL OR name = $1 ORDER BY name FOR NO KEY UPDATE";
    KNOWN_DEVICES = "SELECT DISTINCT managed_device_id FROM reprovision_requests WHERE managed_device_id = ANY($1)";
    KNOWN_REQUESTS = "
        SELECT r.id, f.bucket FROM reprovision_requests r LEFT JOIN device_results f ON f.request_id = r.id AND f.final
        WHERE r.id = ANY($1)";
    SCOPE_ENTRIES = concat!("
        SELECT q.request_id, q.tenant, q.managed_device_id, q.state, q.call_id FROM reprovision_queue q
        WHERE ", in_scope!(), " AND q.state = ANY($4) ORDER BY q.request_id");
    // Differs because SQLite has one writer anyway.
    LOCK_ENTRIES = concat!("
        SELECT q.request_id, q.tenant, q.managed_device_id, q.state, q.call_id FROM reprovision_queue q
        WHERE ", in_scope!(), " AND q.state = ANY($4) ORDER BY q.request_id FOR UPDATE");
    SCOPE_COUNTS = concat!("
        SELECT CASE $1 WHEN 'tenant' THEN q.tenant WHEN 'device' THEN q.managed_device_id ELSE q.request_id::text END AS subject,
               count(*) FILTER (WHERE q.state = 'queued') AS queued,
               count(*) FILTER (WHERE q.state = 'sending') AS sending,
               count(*) FILTER (WHERE q.state IN ('unknown', 'held')) AS in_doubt,
               count(*) FILTER (WHERE q.state = 'queued' AND (t.paused_at IS NOT NULL
                   OR EXISTS (SELECT FROM pauses p WHERE p.scope = 'device' AND p.subject = q.managed_device_id)
                   OR EXISTS (SELECT FROM pauses p WHERE p.scope = 'request' AND p.subject = q.request_id::text))) AS paused
        FROM reprovision_queue q JOIN tenants t ON t.name = q.tenant
        WHERE ", in_scope!(), " GROUP BY 1");
    PAUSED = "
        SELECT name AS subject, paused_at, paused_by, pause_reason AS reason FROM tenants
        WHERE $1 = 'tenant' AND name = ANY($2) AND paused_at IS NOT NULL
        UNION ALL
        SELECT subject, paused_at, paused_by, reason FROM pauses WHERE scope = $1 AND subject = ANY($2)";
    PAUSE_TENANTS = "
        UPDATE tenants SET paused_at = now(), paused_by = $2, pause_reason = $3 WHERE name = ANY($1) AND paused_at IS NULL";
    PAUSE_SUBJECTS = "
        INSERT INTO pauses (scope, subject, paused_at, paused_by, reason)
        SELECT $1, u.subject, now(), $3, $4 FROM unnest($2::text[]) AS u (subject) ON CONFLICT DO NOTHING";
    RESUME_TENANTS = "
        UPDATE tenants SET paused_at = NULL, paused_by = NULL, pause_reason = NULL WHERE name = ANY($1) AND paused_at IS NOT NULL";
    RESUME_SUBJECTS = "DELETE FROM pauses WHERE scope = $1 AND subject = ANY($2)";
    RECORD_ACTIONS = "
        INSERT INTO operator_actions (action, scope, subject, decision, taken_by, reason, requests, recorded_at)
        SELECT $1, $2, u.subject, $3, $4, $5, u.requests, now()
        FROM unnest($6::text[], $7::bigint[]) AS u (subject, requests) RETURNING id, subject";
    ORDERED_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at, operator_action_id)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id, q.attempts, $3, 'operator', $4, $5, r.requested_by,
               r.reason, now(), u.action
        FROM unnest($1::bigint[], $2::bigint[]) AS u (request_id, action)
        JOIN reprovision_queue q ON q.request_id = u.request_id
        JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.state <> 'sending'";
    RETRY_ENTRIES = "
        UPDATE reprovision_queue SET state = 'queued', call_id = NULL, ready = true, due_at = now(), wait_reason = $2
        WHERE request_id = ANY($1) AND state IN ('unknown', 'held')";
    // Differs because on SQLite the commit itself is noticed.
    WAKE = "SELECT pg_notify('reprovisiond', '')";

    NOW = "SELECT now()";
    ENQUEUE = "
        INSERT INTO reprovision_requests (managed_device_id, tenant, requested_by, reason, external_id, priority, not_before,
                                          expires_at, force)
        SELECT u.device, coalesce(u.tenant, 'default'), u.requested_by, u.reason, u.external_id, u.priority, u.not_before,
               u.expires_at, u.force
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::timestamptz[],
                    $8::timestamptz[], $9::boolean[]) WITH ORDINALITY
             AS u (device, tenant, requested_by, reason, external_id, priority, not_before, expires_at, force, n)
        ORDER BY u.n
        ON CONFLICT (tenant, external_id) DO NOTHING";

    DEPTH = "
        SELECT count(*) FILTER (WHERE state = 'queued' AND (ready OR due_at <= now())),
               count(*) FILTER (WHERE state = 'queued' AND NOT (ready OR due_at <= now())),
               count(*) FILTER (WHERE state = 'sending'), count(*) FILTER (WHERE state = 'unknown'), count(*) FILTER (WHERE state = 'held')
        FROM reprovision_queue";
    STATUS_TENANTS = "
        SELECT now() AS now, name, paused_at, paused_by, pause_reason, wait_until, wait_reason, blocked_at, block_code, block_reason, probe_at,
               cautious FROM tenants ORDER BY name";
    STATUS_PAUSES = "
        SELECT count(*) FILTER (WHERE p.scope = 'device') AS devices,
               count(*) FILTER (WHERE p.scope = 'request'
                   AND EXISTS (SELECT FROM reprovision_queue q WHERE q.request_id::text = p.subject)) AS requests
        FROM pauses p";
    STATUS_QUEUE = "
        SELECT q.tenant,
               count(*) FILTER (WHERE q.state = 'queued' AND (q.ready OR q.due_at <= now())) AS ready,
               count(*) FILTER (WHERE q.state = 'queued' AND NOT q.ready AND q.due_at > now()) AS waiting,
               count(*) FILTER (WHERE q.state = 'sending') AS sending,
               count(*) FILTER (WHERE q.state = 'unknown') AS unknown,
               count(*) FILTER (WHERE q.state = 'held') AS held,
               min(q.due_at) FILTER (WHERE q.state = 'queued' AND (q.ready OR q.due_at <= now())) AS oldest_ready_at,
               min(q.due_at) FILTER (WHERE q.state = 'queued' AND NOT q.ready AND q.due_at > now()) AS next_due_at,
               count(DISTINCT q.call_id) FILTER (WHERE q.state IN ('unknown', 'held') AND c.state = 'unknown') AS calls_in_doubt
        FROM reprovision_queue q LEFT JOIN graph_calls c ON c.id = q.call_id GROUP BY q.tenant";
    STATUS_BUCKETS = "SELECT tenant, bucket, count(*) AS devices FROM device_results WHERE final GROUP BY tenant, bucket";
    STATUS_COMPLETIONS = "
        SELECT tenant, state, count(*) AS devices FROM completions GROUP BY tenant, state";
    STATUS_FOLLOWED = "
        SELECT tenant, 'followed' AS state, count(*) AS devices FROM completion_watches GROUP BY tenant";
    STATUS_WORKERS = "
        SELECT id, host, version, started_at, heartbeat_at FROM workers
        WHERE stopped_at IS NULL AND lease_expires_at > now() ORDER BY started_at";

    // By time, and of one time by id. Planned for its parameters each time it is asked (`filtered!`).
    RESULTS = results!("true", "d.recorded_at, d.id LIMIT $11");
    RESULTS_BEFORE = results_before!("true");
    // What is no success is rare, and has an index of its own.
    RESULTS_OF_BUCKET = results!("d.bucket <> 'successful' AND d.bucket = $8", "d.recorded_at, d.id LIMIT $11");
    RESULTS_BEFORE_OF_BUCKET = results_before!("d.bucket <> 'successful' AND d.bucket = $8");
    // A request is found by its device, and so are those of a call.
    RESULTS_OF_DEVICES = results!(of_devices!(), "d.recorded_at, d.id LIMIT $11");
    RESULTS_BEFORE_OF_DEVICES = results_before!(of_devices!());

    OLDEST_CALLS = "
        SELECT q.tenant, q.state, min(c.sent_at) AS sent_at FROM reprovision_queue q JOIN graph_calls c ON c.id = q.call_id
        WHERE q.state <> 'queued' GROUP BY q.tenant, q.state";
    DOUBTFUL = "
        SELECT q.request_id, q.tenant, q.managed_device_id, q.state, q.call_id, c.sent_at
        FROM reprovision_queue q LEFT JOIN graph_calls c ON c.id = q.call_id
        WHERE q.state IN ('unknown', 'held') ORDER BY q.state, c.sent_at, q.call_id, q.request_id LIMIT $1";
    ACTIVITY_CALLS = "
        SELECT (extract(epoch FROM now() - sent_at)::bigint / $2::bigint) AS slot, 'calls' AS of, state AS word, count(*) AS count FROM graph_calls
        WHERE sent_at > now() - make_interval(secs => $1::bigint) GROUP BY 1, 3";
    ACTIVITY_RESULTS = "
        SELECT (extract(epoch FROM now() - recorded_at)::bigint / $2::bigint) AS slot, 'results' AS of, bucket AS word, count(*) AS count FROM device_results
        WHERE final AND recorded_at > now() - make_interval(secs => $1::bigint) GROUP BY 1, 3";
    ACTIVITY_COMPLETIONS = "
        SELECT (extract(epoch FROM now() - recorded_at)::bigint / $2::bigint) AS slot, 'completions' AS of, state AS word, count(*) AS count FROM completions
        WHERE recorded_at > now() - make_interval(secs => $1::bigint) GROUP BY 1, 3";
    LAST_CALLS = "
        SELECT id, tenant, action, state, device_count, sent_at, finished_at, http_status, graph_request_id, error_code, error_message
        FROM graph_calls ORDER BY sent_at DESC LIMIT $1";
    // Both without their views, which the worker's role need not read.
    PENDING_OF_DEVICE = "
        SELECT q.request_id, q.tenant, q.state, q.attempts, q.call_id, r.created_at AS requested_at,
               coalesce(CASE WHEN q.state = 'queued' THEN coalesce(
                   (SELECT 'the tenant is paused by ' || t.paused_by || ': ' || t.pause_reason FROM tenants t
                    WHERE t.name = q.tenant AND t.paused_at IS NOT NULL),
                   (SELECT 'the device is paused by ' || p.paused_by || ': ' || p.reason FROM pauses p
                    WHERE p.scope = 'device' AND p.subject = q.managed_device_id),
                   (SELECT 'paused by ' || p.paused_by || ': ' || p.reason FROM pauses p
                    WHERE p.scope = 'request' AND p.subject = q.request_id::text)) END, q.wait_reason) AS detail,
               CASE WHEN q.state = 'queued' THEN q.due_at END AS due_at
        FROM reprovision_requests r JOIN reprovision_queue q ON q.request_id = r.id
        WHERE r.managed_device_id = $1 ORDER BY q.request_id DESC LIMIT $2";
    DEVICE_HISTORY = "
        SELECT r.created_at AS at, 0 AS step, 'requested' AS event, r.managed_device_id, r.tenant, r.id AS request_id,
               NULL::integer AS attempt, NULL AS source, false AS final, r.reason AS detail, r.requested_by, NULL::uuid AS call_id,
               NULL::timestamptz AS sent_at, NULL::integer AS http_status, NULL AS graph_request_id, NULL AS evidence
        FROM reprovision_requests r WHERE r.managed_device_id = $1
        UNION ALL
        SELECT d.recorded_at, d.id, d.bucket, d.managed_device_id, d.tenant, d.request_id, d.attempt, d.source, d.final, d.detail,
               d.requested_by, d.call_id, c.sent_at, c.http_status, c.graph_request_id, d.evidence
        FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id WHERE d.managed_device_id = $1
        UNION ALL
        SELECT k.recorded_at, k.id, 'completion_' || k.state, k.managed_device_id, k.tenant, k.request_id, NULL::integer,
               CASE k.state WHEN 'untracked' THEN 'policy' ELSE 'read_back' END, false, k.detail, k.requested_by, k.call_id, c.sent_at,
               c.http_status, c.graph_request_id, k.evidence
        FROM completions k JOIN graph_calls c ON c.id = k.call_id WHERE k.managed_device_id = $1
        ORDER BY at DESC, step DESC LIMIT $2";
}

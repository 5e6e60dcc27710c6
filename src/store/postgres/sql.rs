//! Every statement on Postgres, in the order of `store::sqlite::sql`.

use crate::store::rows::statements;

statements! {
    APPLIED = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";
    HAS_MIGRATIONS = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";

    // Differs because SQLite has its write lock. The transaction's, so that it goes with it behind a pooler too.
    LOCK_MIGRATIONS = "SELECT pg_advisory_xact_lock(7021932861950116)";

    REGISTER_TENANTS = "INSERT INTO tenants (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";
    PROBE_BLOCKED = "UPDATE tenants SET probe_at = now() WHERE name = ANY($1) AND probe_at > now()";
    DEFER_TENANT = "
        UPDATE tenants SET wait_until = greatest(wait_until, now() + $2 * interval '1 millisecond'), wait_code = $3,
               wait_reason = $4, waits_in_a_row = waits_in_a_row + 1
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

    ABANDON_CALLS = "
        UPDATE graph_calls c SET state = 'unknown', finished_at = now(), error_code = 'abandoned',
               error_message = 'its worker stopped before an answer was recorded: the call may or may not have been carried out'
        WHERE c.state = 'sending'
          AND NOT EXISTS (SELECT FROM workers w WHERE w.id = c.worker AND w.stopped_at IS NULL AND w.lease_expires_at > now())
        RETURNING c.id, c.tenant, c.device_count, c.worker";
    ABANDON_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id, q.attempts + 1, 'unknown', 'policy', false,
               'the worker stopped before an answer was recorded', r.requested_by, r.reason, now()
        FROM reprovision_queue q JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.call_id = ANY($1) AND q.state = 'sending'";
    ABANDON_ENTRIES = "
        UPDATE reprovision_queue SET state = 'unknown', attempts = attempts + 1,
               wait_reason = 'the worker stopped before an answer was recorded'
        WHERE call_id = ANY($1) AND state = 'sending'";
    ABANDON_TENANTS = "UPDATE tenants SET cautious = true WHERE name = ANY($1)";

    // Differs because SQLite has one writer anyway.
    LOCK_TENANTS = "SELECT name FROM tenants ORDER BY name FOR NO KEY UPDATE";
    RELEASE_CALLS = "
        UPDATE graph_calls SET state = 'not_sent', finished_at = now(), error_code = 'not_sent',
               error_message = 'the answer to the commit of the intent was lost, so the call was never made'
        WHERE state = 'sending' AND worker = $1 AND id <> ALL($2) RETURNING id";
    RELEASE_ENTRIES = "
        UPDATE reprovision_queue SET state = 'queued', call_id = NULL, wait_reason = 'not_sent'
        WHERE call_id = ANY($1) AND state = 'sending'";

    // Not now(), which is when the transaction began: a claim may have waited long for its lock since.
    FACTS = "
        SELECT t.name, statement_timestamp() AS now, t.paused_at IS NOT NULL AS paused, t.probe_at, t.wait_until, t.cautious, t.waits_in_a_row,
               (SELECT count(*) FROM graph_calls c WHERE c.tenant = t.name AND c.state = 'sending') AS calls_in_flight,
               (SELECT count(DISTINCT q.call_id) FROM reprovision_queue q
                JOIN graph_calls c ON c.id = q.call_id AND c.state = 'unknown'
                WHERE q.tenant = t.name AND q.state IN ('unknown', 'held')) AS open_doubts,
               EXISTS (SELECT FROM reprovision_queue q WHERE q.tenant = t.name AND q.state = 'queued' AND q.ready) AS ready,
               (SELECT min(q.due_at) FROM reprovision_queue q WHERE q.tenant = t.name AND q.state = 'queued' AND NOT q.ready) AS next_due,
               (SELECT min(q.expires_at) FROM reprovision_queue q
                WHERE q.tenant = t.name AND q.state = 'queued' AND q.expires_at IS NOT NULL) AS next_expiry
        FROM tenants t WHERE t.name = ANY($1) ORDER BY t.name";

    // Differs because SQLite has one writer anyway: the row lock makes claims of one tenant follow each other.
    LOCK_TENANT = "SELECT name FROM tenants WHERE name = $1 FOR NO KEY UPDATE";
    PROMOTE_DUE = "
        UPDATE reprovision_queue SET ready = true, wait_reason = NULL
        WHERE request_id IN (SELECT request_id FROM reprovision_queue
                             WHERE tenant = $1 AND state = 'queued' AND NOT ready AND due_at <= now()
                             ORDER BY due_at LIMIT $2)";
    OVERDUE = "
        SELECT request_id, managed_device_id, due_at, expires_at, attempts, max_batch FROM reprovision_queue
        WHERE tenant = $1 AND state = 'queued' AND expires_at <= $3 ORDER BY expires_at LIMIT $2";
    DUE = "
        SELECT q.request_id, q.managed_device_id, q.due_at, q.expires_at, q.attempts, q.max_batch FROM reprovision_queue q
        WHERE q.tenant = $1 AND q.state = 'queued' AND q.ready
          AND NOT EXISTS (SELECT FROM reprovision_queue b WHERE b.managed_device_id = q.managed_device_id AND b.state <> 'queued')
        ORDER BY q.priority DESC, q.request_id LIMIT $2";
    INSERT_INTENT = "
        INSERT INTO graph_calls (id, tenant, action, worker, state, device_count, managed_device_ids, request_ids, request_digest, sent_at)
        VALUES ($1, $2, $3, $4, 'sending', cardinality($5::text[]), $5, $6, $7, statement_timestamp())";
    START_SENDING = "
        UPDATE reprovision_queue SET state = 'sending', call_id = $2, wait_reason = NULL
        WHERE request_id = ANY($1) AND state = 'queued'";
    EXPIRE_RESULTS = "
        INSERT INTO device_results (request_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.tenant, q.managed_device_id, q.attempts, 'expired', 'policy', true,
               'expires_at passed before it could be sent', r.requested_by, r.reason, now()
        FROM reprovision_queue q JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.request_id = ANY($1) AND q.state = 'queued'";
    LEAVE_QUEUE = "DELETE FROM reprovision_queue WHERE request_id = ANY($1)";

    COMPLETE_CALL = "
        UPDATE graph_calls SET state = $2, finished_at = now(), http_status = $3, graph_request_id = $4, graph_date = $5,
               error_code = $6, error_message = $7, response_body = $8, surplus_ids = $9
        WHERE id = $1 AND state = $10 AND (state = 'sending' OR (error_code = 'abandoned' AND $2 <> 'unknown'))
        RETURNING tenant, device_count";
    // Locked in one order, so that a late answer and a settlement of the same doubts follow each other.
    OPEN_ENTRIES = "
        SELECT request_id FROM reprovision_queue WHERE call_id = $1 AND state IN ('unknown', 'held')
        ORDER BY request_id FOR UPDATE";
    RECORD_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id,
               q.attempts + CASE WHEN q.state = 'sending' THEN u.charge ELSE 0 END, u.bucket, u.source, u.final, u.detail,
               r.requested_by, r.reason, now()
        FROM unnest($2::bigint[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::integer[])
             AS u (request_id, bucket, source, final, detail, charge)
        JOIN reprovision_queue q ON q.request_id = u.request_id
        JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.call_id = $1";
    // What is in doubt was charged when it was given up; an answer that it was not carried out takes that back.
    KEEP_IN_QUEUE = "
        UPDATE reprovision_queue q
        SET state = u.state, call_id = CASE WHEN u.state = 'queued' THEN NULL ELSE q.call_id END,
            ready = u.delay_ms IS NULL,
            due_at = CASE WHEN u.delay_ms IS NULL THEN least(q.due_at, now()) ELSE now() + u.delay_ms * interval '1 millisecond' END,
            wait_reason = u.wait_reason,
            attempts = q.attempts + u.charge - CASE WHEN q.state = 'sending' THEN 0 ELSE 1 END,
            max_batch = CASE WHEN u.charge = 1 THEN NULL ELSE coalesce(u.max_batch, q.max_batch) END
        FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::integer[], $7::integer[])
             AS u (request_id, state, delay_ms, wait_reason, charge, max_batch)
        WHERE q.request_id = u.request_id AND q.call_id = $1";

    DOUBTS = "
        SELECT q.request_id, q.managed_device_id, q.call_id, q.attempts, c.sent_at, c.finished_at, now() AS now,
               (SELECT count(DISTINCT o.id) FROM device_results d JOIN graph_calls o ON o.id = d.call_id
                WHERE d.managed_device_id = q.managed_device_id AND d.bucket = 'successful' AND d.call_id <> q.call_id
                  AND o.sent_at >= c.sent_at - $3 * interval '1 millisecond') AS explained
        FROM reprovision_queue q JOIN graph_calls c ON c.id = q.call_id
        WHERE q.tenant = $1 AND q.state = 'unknown' AND q.due_at <= now()
          AND c.finished_at <= now() - $2 * interval '1 millisecond'
        ORDER BY c.finished_at, q.request_id LIMIT $4";
    LOCK_DOUBTS = "
        SELECT request_id FROM reprovision_queue WHERE request_id = ANY($1) ORDER BY request_id FOR UPDATE";
    SETTLE_RESULTS = "
        INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, detail,
                                    requested_by, reason, recorded_at)
        SELECT q.request_id, q.call_id, q.tenant, q.managed_device_id, q.attempts, $3, $4, true, $5, r.requested_by, r.reason, now()
        FROM reprovision_queue q JOIN reprovision_requests r ON r.id = q.request_id
        WHERE q.request_id = $1 AND q.call_id = $2 AND q.state = 'unknown'";
    SETTLE_ENTRY = "
        UPDATE reprovision_queue SET state = $3, call_id = CASE WHEN $3 = 'queued' THEN NULL ELSE call_id END,
               ready = $3 = 'queued', due_at = now() + $4 * interval '1 millisecond', wait_reason = $5
        WHERE request_id = $1 AND call_id = $2 AND state = 'unknown'";

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

    STATUS_TENANTS = "
        SELECT now() AS now, name, paused_at, pause_reason, wait_until, wait_reason, blocked_at, block_code, block_reason, probe_at,
               cautious FROM tenants ORDER BY name";
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
    STATUS_WORKERS = "
        SELECT id, host, version, started_at, heartbeat_at FROM workers
        WHERE stopped_at IS NULL AND lease_expires_at > now() ORDER BY started_at";

    RESULTS = "
        SELECT d.id, d.request_id, d.tenant, d.managed_device_id, d.attempt, d.bucket, d.source, d.final, d.detail,
               d.requested_by, d.reason, d.recorded_at, d.call_id, c.sent_at, c.http_status, c.graph_request_id
        FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id
        WHERE d.id > $1 AND (d.final OR $2) AND ($3::text IS NULL OR d.tenant = $3)
          AND ($4::text IS NULL OR d.managed_device_id = $4) AND ($5::bigint IS NULL OR d.request_id = $5)
          AND ($6::uuid IS NULL OR d.call_id = $6) AND ($7::text IS NULL OR d.bucket = $7)
          AND ($8::timestamptz IS NULL OR d.recorded_at >= $8) AND ($9::timestamptz IS NULL OR d.recorded_at < $9)
        ORDER BY d.id LIMIT $10";
    RESULTS_BEFORE = "
        SELECT d.id FROM device_results d
        WHERE d.id > $1 AND (d.final OR $2) AND ($3::text IS NULL OR d.tenant = $3)
          AND ($4::text IS NULL OR d.managed_device_id = $4) AND ($5::bigint IS NULL OR d.request_id = $5)
          AND ($6::uuid IS NULL OR d.call_id = $6) AND ($7::text IS NULL OR d.bucket = $7)
          AND ($8::timestamptz IS NULL OR d.recorded_at >= $8) AND ($9::timestamptz IS NULL OR d.recorded_at < $9)
        ORDER BY d.id DESC LIMIT 1 OFFSET $10";
}

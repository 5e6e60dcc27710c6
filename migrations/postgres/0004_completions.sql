-- What became of accepted reprovisions: followed by reading back until Graph shows their end.
--
-- Results from before this migration are not followed: nobody has watched them, and Graph may not show them any more.

-- Tenants whose accepted reprovisions are followed: no row, no cost. Apart from tenants, whose row is the lock of the queue.
CREATE TABLE completion_tenants (
    tenant         text PRIMARY KEY REFERENCES tenants (name),
    -- From the acceptance to the first look.
    first_after_ms bigint NOT NULL CHECK (first_after_ms >= 0),
    -- The budget of reads, charged with each claim, so that it holds for all workers.
    next_read_at   timestamptz,
    -- Graph has asked to be left alone.
    wait_until     timestamptz
);

-- What is being followed: a row a request whose final result is successful, until its completion is recorded.
CREATE TABLE completion_watches (
    request_id        bigint PRIMARY KEY REFERENCES reprovision_requests (id),
    call_id           uuid NOT NULL REFERENCES graph_calls (id),
    tenant            text NOT NULL,
    managed_device_id text NOT NULL,
    accepted_at       timestamptz NOT NULL,
    next_look_at      timestamptz NOT NULL,
    looks             integer NOT NULL DEFAULT 0 CHECK (looks >= 0)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE INDEX completion_watches_due ON completion_watches (tenant, next_look_at);

-- How it ended: at most one row a request. Insert only. It carries what an auditor needs without a join.
CREATE TABLE completions (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id        bigint NOT NULL UNIQUE REFERENCES reprovision_requests (id),
    call_id           uuid NOT NULL REFERENCES graph_calls (id),
    tenant            text NOT NULL,
    managed_device_id text NOT NULL,
    cloud_pc_id       uuid,
    state             text NOT NULL CHECK (state IN ('done', 'failed', 'canceled', 'not_supported', 'untracked')),
    -- Both by the clock of Graph.
    started_at        timestamptz,
    ended_at          timestamptz,
    took_seconds      bigint CHECK (took_seconds >= 0),
    detail            text,
    looks             integer NOT NULL CHECK (looks >= 0),
    requested_by      text,
    reason            text,
    recorded_at       timestamptz NOT NULL,
    evidence          text,
    -- Only what is not followed any more has no end, and then it says why.
    CHECK (state = 'untracked' OR (started_at IS NOT NULL AND evidence IS NOT NULL)),
    CHECK (state <> 'untracked' OR (ended_at IS NULL AND detail IS NOT NULL))
);

CREATE INDEX completions_device ON completions (managed_device_id, id);
CREATE INDEX completions_totals ON completions (tenant, state);

CREATE TRIGGER completions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON completions
    FOR EACH STATEMENT EXECUTE FUNCTION reprovisiond_refuse('completions is append-only: what became of a reprovision is never changed or deleted');

-- In the transaction of the result, whoever writes it, so that no crash can lose one. A result that a person decided is
-- followed where it names the call that may have been carried out.
--
-- The lock is what a foreign key takes: it waits for nobody but whoever turns tracking off, and leaves nothing behind there.
CREATE FUNCTION device_results_follow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO completion_watches (request_id, call_id, tenant, managed_device_id, accepted_at, next_look_at)
    SELECT i.request_id, i.call_id, i.tenant, i.managed_device_id, i.recorded_at,
           i.recorded_at + t.first_after_ms * interval '1 millisecond'
    FROM inserted i JOIN completion_tenants t ON t.tenant = i.tenant
    WHERE i.final AND i.bucket = 'successful' AND i.call_id IS NOT NULL
    FOR KEY SHARE OF t;
    RETURN NULL;
END $$;
CREATE TRIGGER device_results_follow AFTER INSERT ON device_results
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION device_results_follow();

-- What is followed is followed to an end that is recorded.
CREATE FUNCTION completion_watches_leave_by_a_completion() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM removed r WHERE NOT EXISTS (SELECT FROM completions k WHERE k.request_id = r.request_id)) THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE =
            'completion_watches: a request leaves only with a completion';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER completion_watches_leave_by_a_completion AFTER DELETE ON completion_watches
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION completion_watches_leave_by_a_completion();
CREATE TRIGGER completion_watches_no_truncate BEFORE TRUNCATE ON completion_watches
    FOR EACH STATEMENT EXECUTE FUNCTION reprovisiond_refuse('completion_watches: a request leaves only with a completion');

-- A request, and its state now or its final bucket; and how far the reprovision has come, where it is followed.
CREATE OR REPLACE VIEW request_status AS
SELECT r.id AS request_id, r.tenant, r.managed_device_id, r.external_id, r.requested_by, r.reason,
       coalesce(f.bucket, q.state) AS state, f.id IS NOT NULL AS final, coalesce(f.attempt, q.attempts) AS attempts,
       coalesce(f.call_id, q.call_id) AS call_id,
       coalesce(f.detail,
                CASE WHEN q.state = 'queued' THEN coalesce(
                    (SELECT 'the tenant is paused by ' || t.paused_by || ': ' || t.pause_reason FROM tenants t
                     WHERE t.name = q.tenant AND t.paused_at IS NOT NULL),
                    (SELECT 'the device is paused by ' || p.paused_by || ': ' || p.reason FROM pauses p
                     WHERE p.scope = 'device' AND p.subject = q.managed_device_id),
                    (SELECT 'paused by ' || p.paused_by || ': ' || p.reason FROM pauses p
                     WHERE p.scope = 'request' AND p.subject = q.request_id::text)) END,
                q.wait_reason) AS detail,
       r.created_at AS requested_at, CASE WHEN q.state = 'queued' THEN q.due_at END AS due_at, f.recorded_at AS finished_at,
       coalesce(k.state, CASE WHEN w.request_id IS NOT NULL THEN 'followed' END) AS completion, k.ended_at AS completed_at,
       k.took_seconds, k.detail AS completion_detail
FROM reprovision_requests r
LEFT JOIN reprovision_queue q ON q.request_id = r.id
LEFT JOIN device_results f ON f.request_id = r.id AND f.final
LEFT JOIN completions k ON k.request_id = r.id
LEFT JOIN completion_watches w ON w.request_id = r.id;

-- Everything that ever happened to a device; order by at, step.
CREATE OR REPLACE VIEW device_history AS
SELECT r.managed_device_id, r.created_at AS at, 0 AS step, 'requested' AS event, r.tenant, r.id AS request_id,
       NULL::integer AS attempt, NULL AS source, false AS final, r.reason AS detail, r.requested_by, NULL::uuid AS call_id,
       NULL::timestamptz AS sent_at, NULL::integer AS http_status, NULL AS graph_request_id, NULL AS evidence
FROM reprovision_requests r
UNION ALL
SELECT d.managed_device_id, d.recorded_at, d.id, d.bucket, d.tenant, d.request_id,
       d.attempt, d.source, d.final, d.detail, d.requested_by, d.call_id, c.sent_at, c.http_status, c.graph_request_id, d.evidence
FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id
UNION ALL
SELECT k.managed_device_id, k.recorded_at, k.id, 'completion_' || k.state, k.tenant, k.request_id,
       NULL::integer, CASE k.state WHEN 'untracked' THEN 'policy' ELSE 'read_back' END, false, k.detail, k.requested_by, k.call_id,
       c.sent_at, c.http_status, c.graph_request_id, k.evidence
FROM completions k JOIN graph_calls c ON c.id = k.call_id;

-- How followed reprovisions ended, by tenant, hour and state, and how long they took.
CREATE VIEW completion_totals AS
SELECT tenant, date_trunc('hour', recorded_at, 'UTC') AS hour, state, count(*) AS devices,
       round(avg(took_seconds))::bigint AS average_seconds, max(took_seconds) AS longest_seconds
FROM completions
GROUP BY 1, 2, 3;

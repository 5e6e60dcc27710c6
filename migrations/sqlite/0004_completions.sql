-- What became of accepted reprovisions: followed by reading back until Graph shows their end.
--
-- Results from before this migration are not followed: nobody has watched them, and Graph may not show them any more.

-- Tenants whose accepted reprovisions are followed: no row, no cost. Apart from tenants, whose row is the lock of the queue.
CREATE TABLE completion_tenants (
    tenant         TEXT PRIMARY KEY NOT NULL REFERENCES tenants (name),
    -- From the acceptance to the first look.
    first_after_ms INTEGER NOT NULL CHECK (first_after_ms >= 0),
    -- The budget of reads, charged with each claim, so that it holds for all workers.
    next_read_at   TEXT,
    -- Graph has asked to be left alone.
    wait_until     TEXT
) STRICT, WITHOUT ROWID;

-- What is being followed: a row a request whose final result is successful, until its completion is recorded.
CREATE TABLE completion_watches (
    request_id        INTEGER PRIMARY KEY NOT NULL REFERENCES reprovision_requests (id),
    call_id           TEXT NOT NULL REFERENCES graph_calls (id),
    tenant            TEXT NOT NULL,
    managed_device_id TEXT NOT NULL,
    accepted_at       TEXT NOT NULL,
    next_look_at      TEXT NOT NULL,
    looks             INTEGER NOT NULL DEFAULT 0 CHECK (looks >= 0)
) STRICT;

CREATE INDEX completion_watches_due ON completion_watches (tenant, next_look_at);

-- How it ended: at most one row a request. Insert only. It carries what an auditor needs without a join.
CREATE TABLE completions (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id        INTEGER NOT NULL UNIQUE REFERENCES reprovision_requests (id),
    call_id           TEXT NOT NULL REFERENCES graph_calls (id),
    tenant            TEXT NOT NULL,
    managed_device_id TEXT NOT NULL,
    cloud_pc_id       TEXT,
    state             TEXT NOT NULL CHECK (state IN ('done', 'failed', 'canceled', 'not_supported', 'untracked')),
    -- Both by the clock of Graph.
    started_at        TEXT,
    ended_at          TEXT,
    took_seconds      INTEGER CHECK (took_seconds >= 0),
    detail            TEXT,
    looks             INTEGER NOT NULL CHECK (looks >= 0),
    requested_by      TEXT,
    reason            TEXT,
    recorded_at       TEXT NOT NULL,
    evidence          TEXT,
    -- Only what is not followed any more has no end, and then it says why.
    CHECK (state = 'untracked' OR (started_at IS NOT NULL AND evidence IS NOT NULL)),
    CHECK (state <> 'untracked' OR (ended_at IS NULL AND detail IS NOT NULL))
) STRICT;

CREATE INDEX completions_device ON completions (managed_device_id, id);
CREATE INDEX completions_totals ON completions (tenant, state);

CREATE TRIGGER completions_no_update BEFORE UPDATE ON completions
BEGIN SELECT RAISE(ABORT, 'completions is append-only: what became of a reprovision is never changed'); END;
CREATE TRIGGER completions_no_delete BEFORE DELETE ON completions
BEGIN SELECT RAISE(ABORT, 'completions is append-only: what became of a reprovision is never deleted'); END;
CREATE TRIGGER completions_no_replace BEFORE INSERT ON completions
WHEN EXISTS (SELECT 1 FROM completions WHERE id = NEW.id OR request_id = NEW.request_id)
BEGIN SELECT RAISE(ABORT, 'completions is append-only: this completion, or the one of this request, is there already'); END;

-- In the transaction of the result, whoever writes it, so that no crash can lose one. A result that a person decided is
-- followed where it names the call that may have been carried out.
CREATE TRIGGER device_results_follow AFTER INSERT ON device_results
WHEN NEW.final = 1 AND NEW.bucket = 'successful' AND NEW.call_id IS NOT NULL
BEGIN
    INSERT INTO completion_watches (request_id, call_id, tenant, managed_device_id, accepted_at, next_look_at)
    SELECT NEW.request_id, NEW.call_id, NEW.tenant, NEW.managed_device_id, NEW.recorded_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', NEW.recorded_at, (t.first_after_ms / 1000.0) || ' seconds')
    FROM completion_tenants t WHERE t.tenant = NEW.tenant;
END;

-- What is followed is followed to an end that is recorded.
CREATE TRIGGER completion_watches_leave_by_a_completion BEFORE DELETE ON completion_watches
WHEN NOT EXISTS (SELECT 1 FROM completions WHERE request_id = OLD.request_id)
BEGIN SELECT RAISE(ABORT, 'completion_watches: a request leaves only with a completion'); END;
CREATE TRIGGER completion_watches_no_replace BEFORE INSERT ON completion_watches
WHEN EXISTS (SELECT 1 FROM completion_watches WHERE request_id = NEW.request_id)
BEGIN SELECT RAISE(ABORT, 'completion_watches: one row a request'); END;
CREATE TRIGGER completion_watches_no_replacing_update BEFORE UPDATE ON completion_watches
WHEN NEW.request_id <> OLD.request_id
BEGIN SELECT RAISE(ABORT, 'completion_watches: one row a request'); END;

-- A request, and its state now or its final bucket; and how far the reprovision has come, where it is followed.
DROP VIEW request_status;
CREATE VIEW request_status AS
SELECT r.id AS request_id, r.tenant, lower(CASE WHEN substr(r.managed_device_id, 1, 1) = '{' AND substr(r.managed_device_id, -1) = '}' THEN substr(r.managed_device_id, 2, length(r.managed_device_id) - 2) ELSE r.managed_device_id END) AS managed_device_id, r.external_id, r.requested_by, r.reason,
       coalesce(f.bucket, q.state) AS state, f.id IS NOT NULL AS final, coalesce(f.attempt, q.attempts) AS attempts,
       coalesce(f.call_id, q.call_id) AS call_id,
       coalesce(f.detail,
                CASE WHEN q.state = 'queued' THEN coalesce(
                    (SELECT 'the tenant is paused by ' || t.paused_by || ': ' || t.pause_reason FROM tenants t
                     WHERE t.name = q.tenant AND t.paused_at IS NOT NULL),
                    (SELECT 'the device is paused by ' || p.paused_by || ': ' || p.reason FROM pauses p
                     WHERE p.scope = 'device' AND p.subject = q.managed_device_id),
                    (SELECT 'paused by ' || p.paused_by || ': ' || p.reason FROM pauses p
                     WHERE p.scope = 'request' AND p.subject = CAST(q.request_id AS TEXT))) END,
                q.wait_reason) AS detail,
       r.created_at AS requested_at, CASE WHEN q.state = 'queued' THEN q.due_at END AS due_at, f.recorded_at AS finished_at,
       coalesce(k.state, CASE WHEN w.request_id IS NOT NULL THEN 'followed' END) AS completion, k.ended_at AS completed_at,
       k.took_seconds, k.detail AS completion_detail
FROM reprovision_requests r
LEFT JOIN reprovision_queue q ON q.request_id = r.id
LEFT JOIN device_results f ON f.request_id = r.id AND f.final = 1
LEFT JOIN completions k ON k.request_id = r.id
LEFT JOIN completion_watches w ON w.request_id = r.id;

-- Everything that ever happened to a device; order by at, step.
DROP VIEW device_history;
CREATE VIEW device_history AS
SELECT lower(CASE WHEN substr(r.managed_device_id, 1, 1) = '{' AND substr(r.managed_device_id, -1) = '}' THEN substr(r.managed_device_id, 2, length(r.managed_device_id) - 2) ELSE r.managed_device_id END) AS managed_device_id, r.created_at AS at, 0 AS step, 'requested' AS event, r.tenant, r.id AS request_id,
       NULL AS attempt, NULL AS source, 0 AS final, r.reason AS detail, r.requested_by, NULL AS call_id, NULL AS sent_at,
       NULL AS http_status, NULL AS graph_request_id, NULL AS evidence
FROM reprovision_requests r
UNION ALL
SELECT d.managed_device_id, d.recorded_at, d.id, d.bucket, d.tenant, d.request_id,
       d.attempt, d.source, d.final, d.detail, d.requested_by, d.call_id, c.sent_at, c.http_status, c.graph_request_id, d.evidence
FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id
UNION ALL
SELECT k.managed_device_id, k.recorded_at, k.id, 'completion_' || k.state, k.tenant, k.request_id,
       NULL, CASE k.state WHEN 'untracked' THEN 'policy' ELSE 'read_back' END, 0, k.detail, k.requested_by, k.call_id, c.sent_at,
       c.http_status, c.graph_request_id, k.evidence
FROM completions k JOIN graph_calls c ON c.id = k.call_id;

-- How followed reprovisions ended, by tenant, hour and state, and how long they took.
CREATE VIEW completion_totals AS
SELECT tenant, strftime('%Y-%m-%dT%H:00:00Z', recorded_at) AS hour, state, count(*) AS devices,
       CAST(round(avg(took_seconds)) AS INTEGER) AS average_seconds, max(took_seconds) AS longest_seconds
FROM completions
GROUP BY 1, 2, 3;

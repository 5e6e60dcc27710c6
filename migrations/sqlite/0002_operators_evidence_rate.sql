-- What operators decide, the evidence that settles a doubt, and the rate budget of a tenant.

-- Who paused, resumed, cancelled or resolved what, when and why. Insert only.
CREATE TABLE operator_actions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    action      TEXT NOT NULL CHECK (action IN ('pause', 'resume', 'cancel', 'resolve')),
    scope       TEXT NOT NULL CHECK (scope IN ('all', 'tenant', 'device', 'request')),
    -- The tenant's name, the device or the request; nothing where it is about all.
    subject     TEXT,
    -- How doubts are resolved.
    decision    TEXT CHECK (decision IN ('successful', 'retry', 'failed')),
    taken_by    TEXT NOT NULL CHECK (taken_by <> '' AND length(CAST(taken_by AS BLOB)) <= 256),
    reason      TEXT NOT NULL CHECK (reason <> '' AND length(CAST(reason AS BLOB)) <= 4000),
    -- Queue entries that it changed, or that it holds back from now on.
    requests    INTEGER NOT NULL CHECK (requests >= 0),
    recorded_at TEXT NOT NULL,
    CHECK ((scope = 'all') = (subject IS NULL)),
    CHECK ((action = 'resolve') = (decision IS NOT NULL))
) STRICT;
CREATE TRIGGER operator_actions_no_update BEFORE UPDATE ON operator_actions
BEGIN SELECT RAISE(ABORT, 'operator_actions is append-only: what was decided is never changed'); END;
CREATE TRIGGER operator_actions_no_delete BEFORE DELETE ON operator_actions
BEGIN SELECT RAISE(ABORT, 'operator_actions is append-only: what was decided is never deleted'); END;
CREATE TRIGGER operator_actions_no_replace BEFORE INSERT ON operator_actions
WHEN EXISTS (SELECT 1 FROM operator_actions WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'operator_actions is append-only: this action is there already'); END;

-- Devices and requests that are paused; a tenant's pause is in tenants.
CREATE TABLE pauses (
    scope     TEXT NOT NULL CHECK (scope IN ('device', 'request')),
    subject   TEXT NOT NULL,
    paused_at TEXT NOT NULL,
    paused_by TEXT NOT NULL,
    reason    TEXT NOT NULL,
    PRIMARY KEY (scope, subject)
) STRICT, WITHOUT ROWID;

-- What was read back, as JSON, where the result stands on it; and the decision, where it stands on a person's word.
ALTER TABLE device_results ADD COLUMN evidence TEXT;
ALTER TABLE device_results ADD COLUMN operator_action_id INTEGER REFERENCES operator_actions (id)
    CHECK (source <> 'operator' OR operator_action_id IS NOT NULL);

-- The rate budget: no call before. Charged with the intent, so that it holds for all workers.
ALTER TABLE tenants ADD COLUMN next_call_at TEXT;

-- Any answer that comes after its call was given up completes it once, be it that it settles nothing.
DROP TRIGGER graph_calls_complete_once;
CREATE TRIGGER graph_calls_complete_once BEFORE UPDATE ON graph_calls
WHEN OLD.state <> 'sending' AND NOT (OLD.state = 'unknown' AND OLD.error_code IS 'abandoned'
                                     AND NEW.state <> 'sending' AND NEW.error_code IS NOT 'abandoned')
BEGIN SELECT RAISE(ABORT, 'graph_calls is completed once: evidence is never changed'); END;

-- A request, and its state now or its final bucket. What is paused says by whom and why.
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
       r.created_at AS requested_at, CASE WHEN q.state = 'queued' THEN q.due_at END AS due_at, f.recorded_at AS finished_at
FROM reprovision_requests r
LEFT JOIN reprovision_queue q ON q.request_id = r.id
LEFT JOIN device_results f ON f.request_id = r.id AND f.final = 1;

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
FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id;

-- What operators decide, the evidence that settles a doubt, and the rate budget of a tenant.

-- Who paused, resumed, cancelled or resolved what, when and why. Insert only.
CREATE TABLE operator_actions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action      text NOT NULL CHECK (action IN ('pause', 'resume', 'cancel', 'resolve')),
    scope       text NOT NULL CHECK (scope IN ('all', 'tenant', 'device', 'request')),
    -- The tenant's name, the device or the request; nothing where it is about all.
    subject     text,
    -- How doubts are resolved.
    decision    text CHECK (decision IN ('successful', 'retry', 'failed')),
    taken_by    text NOT NULL CHECK (taken_by <> '' AND octet_length(taken_by) <= 256),
    reason      text NOT NULL CHECK (reason <> '' AND octet_length(reason) <= 4000),
    -- Queue entries that it changed, or that it holds back from now on.
    requests    bigint NOT NULL CHECK (requests >= 0),
    recorded_at timestamptz NOT NULL,
    CHECK ((scope = 'all') = (subject IS NULL)),
    CHECK ((action = 'resolve') = (decision IS NOT NULL))
);
CREATE TRIGGER operator_actions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_actions
    FOR EACH STATEMENT EXECUTE FUNCTION reprovisiond_refuse('operator_actions is append-only: what was decided is never changed or deleted');

-- Devices and requests that are paused; a tenant's pause is in tenants.
CREATE TABLE pauses (
    scope     text NOT NULL CHECK (scope IN ('device', 'request')),
    subject   text NOT NULL,
    paused_at timestamptz NOT NULL,
    paused_by text NOT NULL,
    reason    text NOT NULL,
    PRIMARY KEY (scope, subject)
);

-- What was read back, as JSON, where the result stands on it; and the decision, where it stands on a person's word.
ALTER TABLE device_results ADD COLUMN evidence text;
ALTER TABLE device_results ADD COLUMN operator_action_id bigint REFERENCES operator_actions (id);
ALTER TABLE device_results ADD CHECK (source <> 'operator' OR operator_action_id IS NOT NULL);

-- The rate budget: no call before. Charged with the intent, so that it holds for all workers.
ALTER TABLE tenants ADD COLUMN next_call_at timestamptz;

-- Any answer that comes after its call was given up completes it once, be it that it settles nothing.
DROP TRIGGER graph_calls_complete_once ON graph_calls;
CREATE TRIGGER graph_calls_complete_once BEFORE UPDATE ON graph_calls FOR EACH ROW
    WHEN (OLD.state <> 'sending' AND NOT (OLD.state = 'unknown' AND OLD.error_code IS NOT DISTINCT FROM 'abandoned'
                                          AND NEW.state <> 'sending' AND NEW.error_code IS DISTINCT FROM 'abandoned'))
    EXECUTE FUNCTION reprovisiond_refuse('graph_calls is completed once: evidence is never changed');

-- A request, and its state now or its final bucket. What is paused says by whom and why.
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
       r.created_at AS requested_at, CASE WHEN q.state = 'queued' THEN q.due_at END AS due_at, f.recorded_at AS finished_at
FROM reprovision_requests r
LEFT JOIN reprovision_queue q ON q.request_id = r.id
LEFT JOIN device_results f ON f.request_id = r.id AND f.final;

-- Everything that ever happened to a device; order by at, step.
CREATE OR REPLACE VIEW device_history AS
SELECT r.managed_device_id, r.created_at AS at, 0 AS step, 'requested' AS event, r.tenant, r.id AS request_id,
       NULL::integer AS attempt, NULL AS source, false AS final, r.reason AS detail, r.requested_by, NULL::uuid AS call_id,
       NULL::timestamptz AS sent_at, NULL::integer AS http_status, NULL AS graph_request_id, NULL AS evidence
FROM reprovision_requests r
UNION ALL
SELECT d.managed_device_id, d.recorded_at, d.id, d.bucket, d.tenant, d.request_id,
       d.attempt, d.source, d.final, d.detail, d.requested_by, d.call_id, c.sent_at, c.http_status, c.graph_request_id, d.evidence
FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id;

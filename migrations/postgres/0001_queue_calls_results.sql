-- What was asked, what is pending, what was done, what came of it. The same tables, columns, states and checks as
-- migrations/sqlite; only types and locking differ.

-- One row a configured tenant: what holds for all its calls, by all workers. A worker locks the row while it claims,
-- so throttle, pause, block and doubts hold for all of them.
CREATE TABLE tenants (
    name           text PRIMARY KEY,
    registered_at  timestamptz NOT NULL DEFAULT now(),
    paused_at      timestamptz,
    paused_by      text,
    pause_reason   text,
    wait_until     timestamptz,
    wait_code      text,
    wait_reason    text,
    waits_in_a_row integer NOT NULL DEFAULT 0 CHECK (waits_in_a_row >= 0),
    blocked_at     timestamptz,
    block_code     text,
    block_reason   text,
    probe_at       timestamptz,
    cautious       boolean NOT NULL DEFAULT false,
    CHECK ((wait_until IS NULL) = (wait_code IS NULL)),
    CHECK ((blocked_at IS NULL) = (block_code IS NULL) AND (blocked_at IS NULL) = (probe_at IS NULL))
);

-- What was asked: the producers' contract. Insert only.
CREATE TABLE reprovision_requests (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant            text NOT NULL DEFAULT 'default' REFERENCES tenants (name),
    managed_device_id text NOT NULL,
    requested_by      text,
    reason            text,
    external_id       text,
    priority          integer NOT NULL DEFAULT 0,
    not_before        timestamptz,
    expires_at        timestamptz,
    force             boolean NOT NULL DEFAULT false,
    created_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, external_id)
);

CREATE INDEX reprovision_requests_device ON reprovision_requests (managed_device_id);

-- One POST each: inserted as the intent, completed once with the evidence.
CREATE TABLE graph_calls (
    id                 uuid PRIMARY KEY,
    tenant             text NOT NULL,
    action             text NOT NULL,
    worker             uuid NOT NULL,
    state              text NOT NULL CHECK (state IN ('sending', 'answered', 'not_carried_out', 'not_sent', 'unknown')),
    device_count       integer NOT NULL CHECK (device_count > 0),
    managed_device_ids text[] NOT NULL CHECK (cardinality(managed_device_ids) = device_count),
    request_ids        bigint[] NOT NULL CHECK (cardinality(request_ids) = device_count),
    request_digest     text NOT NULL,
    sent_at            timestamptz NOT NULL,
    finished_at        timestamptz,
    http_status        integer,
    graph_request_id   text,
    graph_date         timestamptz,
    error_code         text,
    error_message      text,
    response_body      text,
    surplus_ids        text[],
    CHECK ((state = 'sending') = (finished_at IS NULL))
);

CREATE INDEX graph_calls_sending ON graph_calls (tenant, worker) WHERE state = 'sending';
CREATE INDEX graph_calls_sent_at ON graph_calls (sent_at);

-- What is pending: a row a request that has no final result yet, whatever the history's size.
CREATE TABLE reprovision_queue (
    request_id        bigint PRIMARY KEY REFERENCES reprovision_requests (id),
    tenant            text NOT NULL,
    managed_device_id text NOT NULL,
    priority          integer NOT NULL,
    state             text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sending', 'unknown', 'held')),
    -- Whether due_at has come: kept as a column so that a claim never reads past rows that are not due.
    ready             boolean NOT NULL,
    due_at            timestamptz NOT NULL,
    expires_at        timestamptz,
    wait_reason       text,
    attempts          integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    max_batch         integer CHECK (max_batch >= 1),
    call_id           uuid REFERENCES graph_calls (id),
    CHECK ((state = 'queued') = (call_id IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE INDEX reprovision_queue_next ON reprovision_queue (tenant, priority DESC, request_id) WHERE state = 'queued' AND ready;
CREATE INDEX reprovision_queue_due ON reprovision_queue (tenant, due_at) WHERE state = 'queued' AND NOT ready;
CREATE INDEX reprovision_queue_expiry ON reprovision_queue (tenant, expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX reprovision_queue_call ON reprovision_queue (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX reprovision_queue_doubt ON reprovision_queue (tenant, call_id) WHERE state IN ('unknown', 'held');
-- No device is sent while another of its entries is out or in doubt.
CREATE UNIQUE INDEX reprovision_queue_busy ON reprovision_queue (managed_device_id) WHERE state <> 'queued';

-- What came of it: a row a device and attempt, exactly one final a request. Insert only. It carries what an auditor
-- needs without a join.
CREATE TABLE device_results (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id        bigint NOT NULL REFERENCES reprovision_requests (id),
    call_id           uuid REFERENCES graph_calls (id),
    tenant            text NOT NULL,
    managed_device_id text NOT NULL,
    attempt           integer NOT NULL CHECK (attempt >= 0),
    bucket            text NOT NULL CHECK (bucket IN ('successful', 'failed', 'not_found', 'not_supported', 'expired', 'cancelled', 'suppressed', 'unknown')),
    source            text NOT NULL CHECK (source IN ('answer', 'read_back', 'operator', 'policy')),
    final             boolean NOT NULL,
    detail            text,
    requested_by      text,
    reason            text,
    recorded_at       timestamptz NOT NULL,
    CHECK (NOT (final AND bucket = 'unknown')),
    CHECK (source NOT IN ('answer', 'read_back') OR call_id IS NOT NULL)
);

CREATE UNIQUE INDEX device_results_one_final ON device_results (request_id) WHERE final;
CREATE INDEX device_results_device ON device_results (managed_device_id, id);

-- Living and past daemon processes, by the database's clock.
CREATE TABLE workers (
    id               uuid PRIMARY KEY,
    host             text NOT NULL,
    process          text NOT NULL,
    version          text NOT NULL,
    started_at       timestamptz NOT NULL,
    heartbeat_at     timestamptz NOT NULL,
    lease_expires_at timestamptz NOT NULL,
    stopped_at       timestamptz
);

-- Intake: refused here, with a sentence, or accepted for good. The device ID is stored in canonical form.
CREATE FUNCTION reprovision_requests_check() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    too_long text;
BEGIN
    IF NEW.managed_device_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'not_null_violation', MESSAGE =
            'reprovision_requests.managed_device_id is required: give an Intune managed device ID';
    END IF;
    IF NEW.managed_device_id LIKE '{%}' THEN
        NEW.managed_device_id := substr(NEW.managed_device_id, 2, length(NEW.managed_device_id) - 2);
    END IF;
    IF length(NEW.managed_device_id) <> 36 OR lower(NEW.managed_device_id) !~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = format(
            'reprovision_requests.managed_device_id is not an Intune managed device ID: expected a GUID such as 30d0e128-de93-41dc-89ec-33d84bb662a0, with or without braces, not %L',
            left(NEW.managed_device_id, 60));
    END IF;
    NEW.managed_device_id := lower(NEW.managed_device_id);
    IF NEW.managed_device_id = '00000000-0000-0000-0000-000000000000' THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE =
            'reprovision_requests.managed_device_id is the GUID of zeros, which is no device';
    END IF;
    IF NOT EXISTS (SELECT FROM tenants WHERE name = NEW.tenant) THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', MESSAGE = format(
            'reprovision_requests.tenant is not a configured tenant: add [tenants.NAME] to the configuration and run reprovisiond migrate, or correct the name %L',
            left(NEW.tenant, 80));
    END IF;
    IF NEW.expires_at <= NEW.not_before THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE =
            'reprovision_requests.expires_at must lie after not_before';
    END IF;
    IF NEW.not_before IN ('infinity', '-infinity') OR NEW.expires_at IN ('infinity', '-infinity')
        OR extract(year FROM NEW.not_before) NOT BETWEEN 1 AND 9999 OR extract(year FROM NEW.expires_at) NOT BETWEEN 1 AND 9999 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE =
            'reprovision_requests.not_before and expires_at must be times between the years 1 and 9999: leave a column out for no bound';
    END IF;
    IF NEW.priority NOT BETWEEN -1000 AND 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE =
            'reprovision_requests.priority must be a whole number from -1000 to 1000 (higher goes first)';
    END IF;
    too_long := CASE WHEN octet_length(NEW.requested_by) > 256 THEN 'requested_by must be text of at most 256 bytes'
                     WHEN octet_length(NEW.reason) > 4000 THEN 'reason must be text of at most 4000 bytes'
                     WHEN octet_length(NEW.external_id) > 256 THEN 'external_id must be text of at most 256 bytes' END;
    IF too_long IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = 'reprovision_requests.' || too_long;
    END IF;
    IF NEW.created_at <> now() THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE =
            'reprovision_requests.created_at is given by the database: leave it out';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER reprovision_requests_check BEFORE INSERT ON reprovision_requests
    FOR EACH ROW EXECUTE FUNCTION reprovision_requests_check();

-- Once a statement, whatever the number of rows: queue them and wake the workers.
CREATE FUNCTION reprovision_requests_queue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO reprovision_queue (request_id, tenant, managed_device_id, priority, ready, due_at, expires_at, wait_reason)
    SELECT id, tenant, managed_device_id, priority, coalesce(not_before <= created_at, true),
           greatest(created_at, not_before), expires_at, CASE WHEN not_before > created_at THEN 'not_before' END
    FROM inserted;
    PERFORM pg_notify('reprovisiond', '');
    RETURN NULL;
END $$;
CREATE TRIGGER reprovision_requests_queue AFTER INSERT ON reprovision_requests
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION reprovision_requests_queue();

CREATE FUNCTION reprovisiond_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE = TG_ARGV[0];
END $$;
CREATE TRIGGER reprovision_requests_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reprovision_requests
    FOR EACH STATEMENT EXECUTE FUNCTION reprovisiond_refuse('reprovision_requests is insert only: what was asked is never changed or deleted');
CREATE TRIGGER device_results_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON device_results
    FOR EACH STATEMENT EXECUTE FUNCTION reprovisiond_refuse('device_results is append-only: a result is never changed or deleted');
CREATE TRIGGER graph_calls_append_only BEFORE DELETE OR TRUNCATE ON graph_calls
    FOR EACH STATEMENT EXECUTE FUNCTION reprovisiond_refuse('graph_calls is append-only: evidence is never deleted');
-- What comes after its call was given up completes it once: an answer, or proof that it was never sent.
CREATE TRIGGER graph_calls_complete_once BEFORE UPDATE ON graph_calls FOR EACH ROW
    WHEN (OLD.state <> 'sending' AND NOT (OLD.state = 'unknown' AND OLD.error_code IS NOT DISTINCT FROM 'abandoned'
                                          AND NEW.state NOT IN ('sending', 'unknown')))
    EXECUTE FUNCTION reprovisiond_refuse('graph_calls is completed once: evidence is never changed');
CREATE TRIGGER graph_calls_intent_stands BEFORE UPDATE ON graph_calls FOR EACH ROW
    WHEN ((OLD.id, OLD.tenant, OLD.action, OLD.worker, OLD.managed_device_ids, OLD.request_ids, OLD.request_digest, OLD.sent_at)
        IS DISTINCT FROM (NEW.id, NEW.tenant, NEW.action, NEW.worker, NEW.managed_device_ids, NEW.request_ids, NEW.request_digest, NEW.sent_at))
    EXECUTE FUNCTION reprovisiond_refuse('graph_calls: an intent is never changed');

-- A request leaves the queue only by its final result.
CREATE FUNCTION reprovision_queue_leaves_by_a_result() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM removed r
               WHERE NOT EXISTS (SELECT FROM device_results d WHERE d.request_id = r.request_id AND d.final)) THEN
        RAISE EXCEPTION USING ERRCODE = 'restrict_violation', MESSAGE =
            'reprovision_queue: a request leaves the queue only with a final result';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER reprovision_queue_leaves_by_a_result AFTER DELETE ON reprovision_queue
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION reprovision_queue_leaves_by_a_result();
CREATE TRIGGER reprovision_queue_no_truncate BEFORE TRUNCATE ON reprovision_queue
    FOR EACH STATEMENT EXECUTE FUNCTION reprovisiond_refuse('reprovision_queue: a request leaves the queue only with a final result');

-- A request, and its state now or its final bucket.
CREATE VIEW request_status AS
SELECT r.id AS request_id, r.tenant, r.managed_device_id, r.external_id, r.requested_by, r.reason,
       coalesce(f.bucket, q.state) AS state, f.id IS NOT NULL AS final, coalesce(f.attempt, q.attempts) AS attempts,
       coalesce(f.call_id, q.call_id) AS call_id, coalesce(f.detail, q.wait_reason) AS detail,
       r.created_at AS requested_at, CASE WHEN q.state = 'queued' THEN q.due_at END AS due_at, f.recorded_at AS finished_at
FROM reprovision_requests r
LEFT JOIN reprovision_queue q ON q.request_id = r.id
LEFT JOIN device_results f ON f.request_id = r.id AND f.final;

-- Everything that ever happened to a device; order by at, step.
CREATE VIEW device_history AS
SELECT r.managed_device_id, r.created_at AS at, 0 AS step, 'requested' AS event, r.tenant, r.id AS request_id,
       NULL::integer AS attempt, NULL AS source, false AS final, r.reason AS detail, r.requested_by, NULL::uuid AS call_id,
       NULL::timestamptz AS sent_at, NULL::integer AS http_status, NULL AS graph_request_id
FROM reprovision_requests r
UNION ALL
SELECT d.managed_device_id, d.recorded_at, d.id, d.bucket, d.tenant, d.request_id,
       d.attempt, d.source, d.final, d.detail, d.requested_by, d.call_id, c.sent_at, c.http_status, c.graph_request_id
FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id;

-- Final results by tenant, hour and bucket.
CREATE VIEW bucket_totals AS
SELECT tenant, date_trunc('hour', recorded_at, 'UTC') AS hour, bucket, count(*) AS devices
FROM device_results WHERE final
GROUP BY 1, 2, 3;

-- What was asked, what is pending, what was done, what came of it. The same tables, columns, states and checks as
-- migrations/postgres; only types and locking differ. Producers' own SQLite parses this schema when they insert, so it
-- keeps to what SQLite 3.37 (2021, the first with STRICT) understands: RAISE takes a literal, no newer functions.
--
-- Times are RFC 3339 text in UTC with milliseconds, so that text order is time order.

-- One row a configured tenant: what holds for all its calls, by all workers.
CREATE TABLE tenants (
    name           TEXT PRIMARY KEY NOT NULL,
    registered_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    paused_at      TEXT,
    paused_by      TEXT,
    pause_reason   TEXT,
    wait_until     TEXT,
    wait_code      TEXT,
    wait_reason    TEXT,
    waits_in_a_row INTEGER NOT NULL DEFAULT 0 CHECK (waits_in_a_row >= 0),
    blocked_at     TEXT,
    block_code     TEXT,
    block_reason   TEXT,
    probe_at       TEXT,
    cautious       INTEGER NOT NULL DEFAULT 0 CHECK (cautious IN (0, 1)),
    CHECK ((wait_until IS NULL) = (wait_code IS NULL)),
    CHECK ((blocked_at IS NULL) = (block_code IS NULL) AND (blocked_at IS NULL) = (probe_at IS NULL))
) STRICT;

-- What was asked: the producers' contract. Insert only.
CREATE TABLE reprovision_requests (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant            TEXT NOT NULL DEFAULT 'default' REFERENCES tenants (name),
    managed_device_id TEXT NOT NULL,
    requested_by      TEXT,
    reason            TEXT,
    external_id       TEXT,
    priority          INTEGER NOT NULL DEFAULT 0,
    not_before        TEXT,
    expires_at        TEXT,
    force             INTEGER NOT NULL DEFAULT 0,
    created_at        TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    UNIQUE (tenant, external_id)
) STRICT;

-- One POST each: inserted as the intent, completed once with the evidence.
CREATE TABLE graph_calls (
    id                 TEXT PRIMARY KEY NOT NULL,
    tenant             TEXT NOT NULL,
    action             TEXT NOT NULL,
    worker             TEXT NOT NULL,
    state              TEXT NOT NULL CHECK (state IN ('sending', 'answered', 'not_carried_out', 'not_sent', 'unknown')),
    device_count       INTEGER NOT NULL CHECK (device_count > 0),
    managed_device_ids TEXT NOT NULL CHECK (json_array_length(managed_device_ids) = device_count),
    request_ids        TEXT NOT NULL CHECK (json_array_length(request_ids) = device_count),
    request_digest     TEXT NOT NULL,
    sent_at            TEXT NOT NULL,
    finished_at        TEXT,
    http_status        INTEGER,
    graph_request_id   TEXT,
    graph_date         TEXT,
    error_code         TEXT,
    error_message      TEXT,
    response_body      TEXT,
    surplus_ids        TEXT,
    CHECK ((state = 'sending') = (finished_at IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX graph_calls_sending ON graph_calls (tenant, worker) WHERE state = 'sending';
CREATE INDEX graph_calls_sent_at ON graph_calls (sent_at);

-- What is pending: a row a request that has no final result yet, whatever the history's size.
CREATE TABLE reprovision_queue (
    request_id        INTEGER PRIMARY KEY NOT NULL REFERENCES reprovision_requests (id),
    tenant            TEXT NOT NULL,
    managed_device_id TEXT NOT NULL,
    priority          INTEGER NOT NULL,
    state             TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sending', 'unknown', 'held')),
    -- Whether due_at has come: kept as a column so that a claim never reads past rows that are not due.
    ready             INTEGER NOT NULL CHECK (ready IN (0, 1)),
    due_at            TEXT NOT NULL,
    expires_at        TEXT,
    wait_reason       TEXT,
    attempts          INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    max_batch         INTEGER CHECK (max_batch >= 1),
    call_id           TEXT REFERENCES graph_calls (id),
    CHECK ((state = 'queued') = (call_id IS NULL))
) STRICT;

CREATE INDEX reprovision_queue_next ON reprovision_queue (tenant, priority DESC, request_id) WHERE state = 'queued' AND ready = 1;
CREATE INDEX reprovision_queue_due ON reprovision_queue (tenant, due_at) WHERE state = 'queued' AND ready = 0;
CREATE INDEX reprovision_queue_expiry ON reprovision_queue (tenant, expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX reprovision_queue_call ON reprovision_queue (call_id) WHERE call_id IS NOT NULL;
CREATE INDEX reprovision_queue_doubt ON reprovision_queue (tenant, call_id) WHERE state IN ('unknown', 'held');
-- No device is sent while another of its entries is out or in doubt.
CREATE UNIQUE INDEX reprovision_queue_busy ON reprovision_queue (managed_device_id) WHERE state <> 'queued';

-- What came of it: a row a device and attempt, exactly one final a request. Insert only. It carries what an auditor
-- needs without a join.
CREATE TABLE device_results (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id        INTEGER NOT NULL REFERENCES reprovision_requests (id),
    call_id           TEXT REFERENCES graph_calls (id),
    tenant            TEXT NOT NULL,
    managed_device_id TEXT NOT NULL,
    attempt           INTEGER NOT NULL CHECK (attempt >= 0),
    bucket            TEXT NOT NULL CHECK (bucket IN ('successful', 'failed', 'not_found', 'not_supported', 'expired', 'cancelled', 'suppressed', 'unknown')),
    source            TEXT NOT NULL CHECK (source IN ('answer', 'read_back', 'operator', 'policy')),
    final             INTEGER NOT NULL CHECK (final IN (0, 1)),
    detail            TEXT,
    requested_by      TEXT,
    reason            TEXT,
    recorded_at       TEXT NOT NULL,
    CHECK (NOT (final = 1 AND bucket = 'unknown')),
    CHECK (source NOT IN ('answer', 'read_back') OR call_id IS NOT NULL)
) STRICT;

CREATE UNIQUE INDEX device_results_one_final ON device_results (request_id) WHERE final = 1;
CREATE INDEX device_results_device ON device_results (managed_device_id, id);
CREATE INDEX reprovision_requests_device ON reprovision_requests (lower(CASE WHEN substr(managed_device_id, 1, 1) = '{' AND substr(managed_device_id, -1) = '}' THEN substr(managed_device_id, 2, length(managed_device_id) - 2) ELSE managed_device_id END));

-- Living and past daemon processes, by the database's clock.
CREATE TABLE workers (
    id               TEXT PRIMARY KEY NOT NULL,
    host             TEXT NOT NULL,
    process          TEXT NOT NULL,
    version          TEXT NOT NULL,
    started_at       TEXT NOT NULL,
    heartbeat_at     TEXT NOT NULL,
    lease_expires_at TEXT NOT NULL,
    stopped_at       TEXT
) STRICT, WITHOUT ROWID;

-- Always one row, always 0: what an INSERT OR REPLACE does to it tells that statement from any other.
CREATE TABLE insert_guard (
    one      INTEGER PRIMARY KEY NOT NULL,
    replaced INTEGER NOT NULL
) STRICT;
INSERT INTO insert_guard VALUES (1, 0);

-- Intake: refused here, with a sentence, or accepted for good.
CREATE TRIGGER reprovision_requests_check BEFORE INSERT ON reprovision_requests
BEGIN
    SELECT RAISE(ABORT, 'reprovision_requests.managed_device_id is required: give an Intune managed device ID')
        WHERE NEW.managed_device_id IS NULL;
    SELECT RAISE(ABORT, 'reprovision_requests.managed_device_id is not an Intune managed device ID: expected a GUID such as 30d0e128-de93-41dc-89ec-33d84bb662a0, with or without braces')
        WHERE typeof(NEW.managed_device_id) <> 'text' OR length(CAST(NEW.managed_device_id AS BLOB)) > 38 OR lower(CASE WHEN substr(NEW.managed_device_id, 1, 1) = '{' AND substr(NEW.managed_device_id, -1) = '}' THEN substr(NEW.managed_device_id, 2, length(NEW.managed_device_id) - 2) ELSE NEW.managed_device_id END)
            NOT GLOB '[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]';
    SELECT RAISE(ABORT, 'reprovision_requests.managed_device_id is the GUID of zeros, which is no device')
        WHERE lower(CASE WHEN substr(NEW.managed_device_id, 1, 1) = '{' AND substr(NEW.managed_device_id, -1) = '}' THEN substr(NEW.managed_device_id, 2, length(NEW.managed_device_id) - 2) ELSE NEW.managed_device_id END) = '00000000-0000-0000-0000-000000000000';
    SELECT RAISE(ABORT, 'reprovision_requests.tenant is not a configured tenant: add [tenants.NAME] to the configuration and run reprovisiond migrate, or correct the name')
        WHERE NOT EXISTS (SELECT 1 FROM tenants WHERE name = NEW.tenant);
    SELECT RAISE(ABORT, 'reprovision_requests.not_before is not a time: write UTC such as 2026-01-31T22:00:00Z')
        WHERE NEW.not_before IS NOT NULL AND (NEW.not_before NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]*' OR strftime('%Y-%m-%dT%H:%M:%fZ', NEW.not_before) IS NULL
            OR date(julianday(substr(NEW.not_before, 1, 10))) IS NOT substr(NEW.not_before, 1, 10));
    SELECT RAISE(ABORT, 'reprovision_requests.expires_at is not a time: write UTC such as 2026-01-31T22:00:00Z')
        WHERE NEW.expires_at IS NOT NULL AND (NEW.expires_at NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]*' OR strftime('%Y-%m-%dT%H:%M:%fZ', NEW.expires_at) IS NULL
            OR date(julianday(substr(NEW.expires_at, 1, 10))) IS NOT substr(NEW.expires_at, 1, 10));
    SELECT RAISE(ABORT, 'reprovision_requests.expires_at must lie after not_before')
        WHERE strftime('%Y-%m-%dT%H:%M:%fZ', NEW.expires_at) <= strftime('%Y-%m-%dT%H:%M:%fZ', NEW.not_before);
    SELECT RAISE(ABORT, 'reprovision_requests.priority must be a whole number from -1000 to 1000 (higher goes first)')
        WHERE typeof(NEW.priority) <> 'integer' OR NEW.priority NOT BETWEEN -1000 AND 1000;
    SELECT RAISE(ABORT, 'reprovision_requests.force must be 0 or 1')
        WHERE typeof(NEW.force) <> 'integer' OR NEW.force NOT IN (0, 1);
    SELECT RAISE(ABORT, 'reprovision_requests.requested_by must be text of at most 256 bytes without NUL characters')
        WHERE NEW.requested_by IS NOT NULL AND (typeof(NEW.requested_by) <> 'text' OR length(CAST(NEW.requested_by AS BLOB)) > 256 OR instr(NEW.requested_by, char(0)) > 0);
    SELECT RAISE(ABORT, 'reprovision_requests.reason must be text of at most 4000 bytes without NUL characters')
        WHERE NEW.reason IS NOT NULL AND (typeof(NEW.reason) <> 'text' OR length(CAST(NEW.reason AS BLOB)) > 4000 OR instr(NEW.reason, char(0)) > 0);
    SELECT RAISE(ABORT, 'reprovision_requests.external_id must be text of at most 256 bytes without NUL characters')
        WHERE NEW.external_id IS NOT NULL AND (typeof(NEW.external_id) <> 'text' OR length(CAST(NEW.external_id AS BLOB)) > 256 OR instr(NEW.external_id, char(0)) > 0);
    SELECT RAISE(ABORT, 'reprovision_requests.id is given by the database: leave it out')
        WHERE NEW.id IS NOT NULL AND NEW.id <> -1;
    SELECT RAISE(ABORT, 'reprovision_requests.created_at is given by the database: leave it out')
        WHERE NEW.created_at IS NOT strftime('%Y-%m-%dT%H:%M:%fZ', 'now');
END;

-- INSERT OR REPLACE would delete the earlier request without a trace. ON CONFLICT DO NOTHING and INSERT OR IGNORE
-- leave the guard's row as it is; OR REPLACE overrides the clause below and so gives itself away.
CREATE TRIGGER reprovision_requests_no_replace BEFORE INSERT ON reprovision_requests
WHEN EXISTS (SELECT 1 FROM reprovision_requests WHERE tenant = NEW.tenant AND external_id = NEW.external_id)
BEGIN
    INSERT OR IGNORE INTO insert_guard VALUES (1, 1);
    SELECT RAISE(ABORT, 'reprovision_requests is insert only, so INSERT OR REPLACE is refused: use INSERT … ON CONFLICT DO NOTHING')
        WHERE EXISTS (SELECT 1 FROM insert_guard WHERE replaced = 1);
END;

CREATE TRIGGER reprovision_requests_queue AFTER INSERT ON reprovision_requests
BEGIN
    -- Before the insert, -1 stands for an id that is not given yet; here it is one that was given.
    SELECT RAISE(ABORT, 'reprovision_requests.id is given by the database: leave it out') WHERE NEW.id < 1;
    INSERT INTO reprovision_queue (request_id, tenant, managed_device_id, priority, ready, due_at, expires_at, wait_reason)
    VALUES (NEW.id, NEW.tenant, lower(CASE WHEN substr(NEW.managed_device_id, 1, 1) = '{' AND substr(NEW.managed_device_id, -1) = '}' THEN substr(NEW.managed_device_id, 2, length(NEW.managed_device_id) - 2) ELSE NEW.managed_device_id END), NEW.priority,
            coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', NEW.not_before) <= NEW.created_at, 1),
            max(NEW.created_at, coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', NEW.not_before), NEW.created_at)), strftime('%Y-%m-%dT%H:%M:%fZ', NEW.expires_at),
            CASE WHEN strftime('%Y-%m-%dT%H:%M:%fZ', NEW.not_before) > NEW.created_at THEN 'not_before' END);
END;

CREATE TRIGGER reprovision_requests_no_update BEFORE UPDATE ON reprovision_requests
BEGIN SELECT RAISE(ABORT, 'reprovision_requests is insert only: what was asked is never changed'); END;
CREATE TRIGGER reprovision_requests_no_delete BEFORE DELETE ON reprovision_requests
BEGIN SELECT RAISE(ABORT, 'reprovision_requests is insert only: what was asked is never deleted'); END;

CREATE TRIGGER device_results_no_update BEFORE UPDATE ON device_results
BEGIN SELECT RAISE(ABORT, 'device_results is append-only: a result is never changed'); END;
CREATE TRIGGER device_results_no_delete BEFORE DELETE ON device_results
BEGIN SELECT RAISE(ABORT, 'device_results is append-only: a result is never deleted'); END;

-- What comes after its call was given up completes it once: an answer, or proof that it was never sent.
CREATE TRIGGER graph_calls_complete_once BEFORE UPDATE ON graph_calls
WHEN OLD.state <> 'sending' AND NOT (OLD.state = 'unknown' AND OLD.error_code IS 'abandoned' AND NEW.state NOT IN ('sending', 'unknown'))
BEGIN SELECT RAISE(ABORT, 'graph_calls is completed once: evidence is never changed'); END;
CREATE TRIGGER graph_calls_intent_stands BEFORE UPDATE ON graph_calls
WHEN (OLD.id, OLD.tenant, OLD.action, OLD.worker, OLD.managed_device_ids, OLD.request_ids, OLD.request_digest, OLD.sent_at)
    IS NOT (NEW.id, NEW.tenant, NEW.action, NEW.worker, NEW.managed_device_ids, NEW.request_ids, NEW.request_digest, NEW.sent_at)
BEGIN SELECT RAISE(ABORT, 'graph_calls: an intent is never changed'); END;
CREATE TRIGGER graph_calls_no_delete BEFORE DELETE ON graph_calls
BEGIN SELECT RAISE(ABORT, 'graph_calls is append-only: evidence is never deleted'); END;

-- A request leaves the queue only by its final result.
CREATE TRIGGER reprovision_queue_leaves_by_a_result BEFORE DELETE ON reprovision_queue
WHEN NOT EXISTS (SELECT 1 FROM device_results WHERE request_id = OLD.request_id AND final = 1)
BEGIN SELECT RAISE(ABORT, 'reprovision_queue: a request leaves the queue only with a final result'); END;

-- OR REPLACE, on an INSERT or an UPDATE, deletes the row in its way and no DELETE trigger hears of it.
CREATE TRIGGER device_results_no_replace BEFORE INSERT ON device_results
WHEN EXISTS (SELECT 1 FROM device_results WHERE id = NEW.id)
    OR NEW.final = 1 AND EXISTS (SELECT 1 FROM device_results WHERE request_id = NEW.request_id AND final = 1)
BEGIN SELECT RAISE(ABORT, 'device_results is append-only: this result, or the final one of this request, is there already'); END;
CREATE TRIGGER graph_calls_no_replace BEFORE INSERT ON graph_calls
WHEN EXISTS (SELECT 1 FROM graph_calls WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'graph_calls is append-only: this call is there already'); END;
CREATE TRIGGER reprovision_queue_no_replace BEFORE INSERT ON reprovision_queue
WHEN EXISTS (SELECT 1 FROM reprovision_queue WHERE request_id = NEW.request_id)
    OR NEW.state <> 'queued' AND EXISTS (SELECT 1 FROM reprovision_queue WHERE managed_device_id = NEW.managed_device_id AND state <> 'queued')
BEGIN SELECT RAISE(ABORT, 'reprovision_queue: one entry a request, and one a device in sending, unknown or held'); END;
CREATE TRIGGER reprovision_queue_no_replacing_update BEFORE UPDATE ON reprovision_queue
WHEN NEW.request_id <> OLD.request_id
    OR NEW.state <> 'queued' AND EXISTS (SELECT 1 FROM reprovision_queue
        WHERE managed_device_id = NEW.managed_device_id AND state <> 'queued' AND request_id <> OLD.request_id)
BEGIN SELECT RAISE(ABORT, 'reprovision_queue: one entry a request, and one a device in sending, unknown or held'); END;

-- A request, and its state now or its final bucket.
CREATE VIEW request_status AS
SELECT r.id AS request_id, r.tenant, lower(CASE WHEN substr(r.managed_device_id, 1, 1) = '{' AND substr(r.managed_device_id, -1) = '}' THEN substr(r.managed_device_id, 2, length(r.managed_device_id) - 2) ELSE r.managed_device_id END) AS managed_device_id, r.external_id, r.requested_by, r.reason,
       coalesce(f.bucket, q.state) AS state, f.id IS NOT NULL AS final, coalesce(f.attempt, q.attempts) AS attempts,
       coalesce(f.call_id, q.call_id) AS call_id, coalesce(f.detail, q.wait_reason) AS detail,
       r.created_at AS requested_at, CASE WHEN q.state = 'queued' THEN q.due_at END AS due_at, f.recorded_at AS finished_at
FROM reprovision_requests r
LEFT JOIN reprovision_queue q ON q.request_id = r.id
LEFT JOIN device_results f ON f.request_id = r.id AND f.final = 1;

-- Everything that ever happened to a device; order by at, step.
CREATE VIEW device_history AS
SELECT lower(CASE WHEN substr(r.managed_device_id, 1, 1) = '{' AND substr(r.managed_device_id, -1) = '}' THEN substr(r.managed_device_id, 2, length(r.managed_device_id) - 2) ELSE r.managed_device_id END) AS managed_device_id, r.created_at AS at, 0 AS step, 'requested' AS event, r.tenant, r.id AS request_id,
       NULL AS attempt, NULL AS source, 0 AS final, r.reason AS detail, r.requested_by, NULL AS call_id, NULL AS sent_at,
       NULL AS http_status, NULL AS graph_request_id
FROM reprovision_requests r
UNION ALL
SELECT d.managed_device_id, d.recorded_at, d.id, d.bucket, d.tenant, d.request_id,
       d.attempt, d.source, d.final, d.detail, d.requested_by, d.call_id, c.sent_at, c.http_status, c.graph_request_id
FROM device_results d LEFT JOIN graph_calls c ON c.id = d.call_id;

-- Final results by tenant, hour and bucket.
CREATE VIEW bucket_totals AS
SELECT tenant, strftime('%Y-%m-%dT%H:00:00Z', recorded_at) AS hour, bucket, count(*) AS devices
FROM device_results WHERE final = 1
GROUP BY 1, 2, 3;

-- What a question reads depends on what it asks for, not on how much there is.

-- Every result by time, so that a range of time is found whichever results are asked for; with all that is counted by time.
DROP INDEX device_results_recorded_at;
CREATE INDEX device_results_recorded_at ON device_results (recorded_at, bucket, final);
-- Of a bucket: the rows that need it are few, and successes, which are not, cost nothing by it.
CREATE INDEX device_results_not_successful ON device_results (bucket, recorded_at) WHERE bucket <> 'successful';
-- Entries are found by the requests that their call names: an index of the calls was written for each device (80 bytes of WAL of 1,140 a device).
DROP INDEX reprovision_queue_call;

-- Final results by tenant, hour and bucket: an hour is looked up by its time, so that some hours do not cost all of them.
CREATE OR REPLACE VIEW bucket_totals AS
SELECT d.tenant, h.hour, d.bucket, count(*) AS devices
FROM (SELECT generate_series(date_trunc('hour', min(recorded_at), 'UTC'), max(recorded_at), interval '1 hour') AS hour
      FROM device_results) h
CROSS JOIN LATERAL (SELECT tenant, bucket FROM device_results
                    WHERE recorded_at >= h.hour AND recorded_at < h.hour + interval '1 hour' AND final OFFSET 0) d
GROUP BY 1, 2, 3;

-- How followed reprovisions ended, by tenant, hour and state, and how long they took.
CREATE OR REPLACE VIEW completion_totals AS
SELECT k.tenant, h.hour, k.state, count(*) AS devices,
       round(avg(k.took_seconds))::bigint AS average_seconds, max(k.took_seconds) AS longest_seconds
FROM (SELECT generate_series(date_trunc('hour', min(recorded_at), 'UTC'), max(recorded_at), interval '1 hour') AS hour
      FROM completions) h
CROSS JOIN LATERAL (SELECT tenant, state, took_seconds FROM completions
                    WHERE recorded_at >= h.hour AND recorded_at < h.hour + interval '1 hour' OFFSET 0) k
GROUP BY 1, 2, 3;

-- Rows that are only ever inserted: vacuumed by how many came since, not by their share of the years, so that what counts the last
-- day finds it in an index alone, and no vacuum has much to do. PostgreSQL 12 does not know these settings.
DO $$ BEGIN
    IF current_setting('server_version_num')::integer >= 130000 THEN
        ALTER TABLE device_results SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
        ALTER TABLE reprovision_requests SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
        ALTER TABLE completions SET (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
    END IF;
END $$;
-- Each row is updated once. Never in place, since an index has its state in it: room in its page would serve nothing.
ALTER TABLE graph_calls SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
-- reprovision_queue keeps its fillfactor of 50. No update of it is in place either, for the same reason; but one that stays in its
-- page takes 95 bytes of WAL less, of 1,230 a device. tenants and completion_tenants need none: no index has anything of theirs that
-- changes, and their updates are in place as they are.

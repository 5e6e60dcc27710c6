-- What a question reads depends on what it asks for, not on how much there is.

-- Every result by time, so that a range of time is found whichever results are asked for; with all that is counted by time.
DROP INDEX device_results_recorded_at;
CREATE INDEX device_results_recorded_at ON device_results (recorded_at, bucket, final);
-- Of a bucket: the rows that need it are few, and successes, which are not, cost nothing by it.
CREATE INDEX device_results_not_successful ON device_results (bucket, recorded_at) WHERE bucket <> 'successful';
-- Entries are found by the requests that their call names: an index of the calls was written for each device.
DROP INDEX reprovision_queue_call;

-- Final results by tenant, hour and bucket: an hour is looked up by its time, so that some hours do not cost all of them.
DROP VIEW bucket_totals;
CREATE VIEW bucket_totals AS
WITH RECURSIVE hours (hour, last) AS (
    SELECT strftime('%Y-%m-%dT%H:00:00Z', (SELECT min(recorded_at) FROM device_results)), (SELECT max(recorded_at) FROM device_results)
    UNION ALL
    SELECT strftime('%Y-%m-%dT%H:00:00Z', hour, '1 hour'), last FROM hours
    WHERE strftime('%Y-%m-%dT%H:00:00.000Z', hour, '1 hour') <= last
)
SELECT d.tenant, h.hour, d.bucket, count(*) AS devices
FROM hours h CROSS JOIN device_results d INDEXED BY device_results_recorded_at
WHERE d.recorded_at >= strftime('%Y-%m-%dT%H:%M:%fZ', h.hour) AND d.recorded_at < strftime('%Y-%m-%dT%H:%M:%fZ', h.hour, '1 hour') AND d.final = 1
GROUP BY 1, 2, 3;

-- How followed reprovisions ended, by tenant, hour and state, and how long they took.
DROP VIEW completion_totals;
CREATE VIEW completion_totals AS
WITH RECURSIVE hours (hour, last) AS (
    SELECT strftime('%Y-%m-%dT%H:00:00Z', (SELECT min(recorded_at) FROM completions)), (SELECT max(recorded_at) FROM completions)
    UNION ALL
    SELECT strftime('%Y-%m-%dT%H:00:00Z', hour, '1 hour'), last FROM hours
    WHERE strftime('%Y-%m-%dT%H:00:00.000Z', hour, '1 hour') <= last
)
SELECT k.tenant, h.hour, k.state, count(*) AS devices,
       CAST(round(avg(k.took_seconds)) AS INTEGER) AS average_seconds, max(k.took_seconds) AS longest_seconds
FROM hours h CROSS JOIN completions k INDEXED BY completions_recorded_at
WHERE k.recorded_at >= strftime('%Y-%m-%dT%H:%M:%fZ', h.hour) AND k.recorded_at < strftime('%Y-%m-%dT%H:%M:%fZ', h.hour, '1 hour')
GROUP BY 1, 2, 3;

-- Final results of the last hour and day are counted without reading the history.
CREATE INDEX device_results_recorded_at ON device_results (recorded_at, bucket) WHERE final = 1;

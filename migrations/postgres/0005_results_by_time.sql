-- What ended in the last hour and day is counted without reading the history.
CREATE INDEX device_results_recorded_at ON device_results (recorded_at, bucket) WHERE final;
CREATE INDEX completions_recorded_at ON completions (recorded_at, state);

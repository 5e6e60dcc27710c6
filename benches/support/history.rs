//! A database with years behind it: history and a backlog, written by a few statements without the triggers that a producer
//! and the daemon meet. The rows are as these would have left them.

use super::client::Client;

/// Devices in a call of the history.
const BATCH: usize = 100;

impl Client {
    /// `history` requests that have ended, and `waiting` that have not: half of these are due in a month, the other half
    /// now, behind every request of ordinary priority.
    pub(crate) async fn fill(&mut self, history: usize, waiting: usize) {
        let triggers = self.triggers_off().await;
        self.ended(history).await;
        self.waiting(history, waiting).await;
        self.execute(&triggers).await;
        self.tidy().await;
    }

    /// Returns what turns them on again.
    async fn triggers_off(&mut self) -> String {
        match self {
            Self::Postgres(_) => {
                self.execute("SET session_replication_role = replica").await;
                "SET session_replication_role = DEFAULT".to_owned()
            }
            Self::Sqlite(connection) => {
                let of_schema = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'";
                let triggers: Vec<(String, String)> =
                    sqlx::query_as(of_schema).fetch_all(&mut *connection).await.unwrap();
                let drop: Vec<String> = triggers.iter().map(|(name, _)| format!("DROP TRIGGER {name};")).collect();
                self.execute(&format!("PRAGMA foreign_keys = OFF; {}", drop.concat())).await;
                triggers
                    .iter()
                    .map(|(_, sql)| format!("{sql};\n"))
                    .chain(["PRAGMA foreign_keys = ON".to_owned()])
                    .collect()
            }
        }
    }

    async fn ended(&mut self, n: usize) {
        let (rows, device, call, past) = (self.rows(n), self.device(), self.call(), self.past());
        self.execute(&format!(
            "INSERT INTO reprovision_requests (managed_device_id, created_at) SELECT {device}, {past} FROM {rows} ORDER BY n"
        ))
        .await;
        let (devices, requests, worker) = match self {
            Self::Postgres(_) => ("array_agg(", "array_agg(n ORDER BY n)", "gen_random_uuid()"),
            Self::Sqlite(_) => ("json_group_array(", "json_group_array(n)", "'00000000-0000-7000-8000-000000000000'"),
        };
        let order = if matches!(self, Self::Postgres(_)) { " ORDER BY n" } else { "" };
        self.execute(&format!(
            "INSERT INTO graph_calls (id, tenant, action, worker, state, device_count, managed_device_ids, request_ids,
                                      request_digest, sent_at, finished_at, http_status, response_body)
             SELECT {call}, 'default', 'bulk-reprovision-cloud-pc', {worker}, 'answered', count(*), {devices}{device}{order}),
                    {requests}, 'none', min({past}), min({past}), 200, min({device})
             FROM {rows} GROUP BY (n - 1) / {BATCH}"
        ))
        .await;
        let yes = if matches!(self, Self::Postgres(_)) { "true" } else { "1" };
        self.execute(&format!(
            "INSERT INTO device_results (request_id, call_id, tenant, managed_device_id, attempt, bucket, source, final, recorded_at)
             SELECT n, {call}, 'default', {device}, 1, 'successful', 'answer', {yes}, {past} FROM {rows} ORDER BY n"
        ))
        .await;
    }

    async fn waiting(&mut self, after: usize, n: usize) {
        let (rows, device) = (self.rows(n), self.random_device());
        self.execute(&format!(
            "INSERT INTO reprovision_requests (managed_device_id, priority, not_before)
             SELECT {device}, -1, CASE WHEN n % 2 = 0 THEN {month} END FROM {rows} ORDER BY n",
            month = self.in_a_month()
        ))
        .await;
        self.execute(&format!(
            "INSERT INTO reprovision_queue (request_id, tenant, managed_device_id, priority, ready, due_at, wait_reason)
             SELECT id, tenant, managed_device_id, priority, not_before IS NULL, coalesce(not_before, created_at),
                    CASE WHEN not_before IS NOT NULL THEN 'not_before' END
             FROM reprovision_requests WHERE id > {after}"
        ))
        .await;
    }

    /// The device of request `n` of the history: in no order, as real ones are.
    fn device(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "md5(n::text)::uuid::text",
            Self::Sqlite(_) => {
                "printf('%08x-%04x-4000-8000-%012x', (n * 2654435761) & 4294967295, (n * 40503) & 65535, n)"
            }
        }
    }

    /// The call of request `n` of the history; real ones too are in the order of time.
    fn call(&self) -> String {
        match self {
            Self::Postgres(_) => {
                format!("('00000000-0000-7000-8000-' || lpad(to_hex((n - 1) / {BATCH}), 12, '0'))::uuid")
            }
            Self::Sqlite(_) => format!("printf('00000000-0000-7000-8000-%012x', (n - 1) / {BATCH})"),
        }
    }

    fn past(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "now() - interval '400 days' + n * interval '1 second'",
            Self::Sqlite(_) => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-400 days', n || ' seconds')",
        }
    }

    fn in_a_month(&self) -> &'static str {
        match self {
            Self::Postgres(_) => "now() + interval '30 days' + n * interval '1 second'",
            Self::Sqlite(_) => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '30 days', n || ' seconds')",
        }
    }
}

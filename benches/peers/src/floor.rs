//! The floor on Postgres: of all that the daemon writes only the call's row and the result rows, in one commit a batch of
//! 100. No queue, no claim, no intent before the call, and no index or constraint but the primary keys.

use sqlx::postgres::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{Failure, Watch};

const BATCH: usize = 100;

const TABLES: &str = "
    CREATE TABLE calls (id uuid PRIMARY KEY, tenant text NOT NULL, state text NOT NULL, device_ids text[] NOT NULL,
                        sent_at timestamptz NOT NULL, http_status integer, body text);
    CREATE TABLE results (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, request_id bigint NOT NULL, call_id uuid NOT NULL,
                          tenant text NOT NULL, device_id text NOT NULL, bucket text NOT NULL, recorded_at timestamptz NOT NULL);";

/// One statement is one commit.
const WRITE: &str = "
    WITH call AS (INSERT INTO calls VALUES ($1, 'default', 'answered', $2, now(), 200, $4))
    INSERT INTO results (request_id, call_id, tenant, device_id, bucket, recorded_at)
    SELECT u.request_id, $1, 'default', u.device, 'successful', now()
    FROM unnest($3::bigint[], $2::text[]) AS u (request_id, device)";

pub async fn run(url: &str, n: usize, loops: usize) -> Result<(), Failure> {
    let pool = PgPool::connect(url).await?;
    sqlx::raw_sql(TABLES).execute(&pool).await?;
    let mut connections = Vec::new();
    for _ in 0..loops {
        connections.push(pool.acquire().await?.detach());
    }
    let watch = Watch::start();
    let batches = n / BATCH;
    let tasks = connections
        .into_iter()
        .enumerate()
        .map(|(first, connection)| tokio::spawn(write(connection, (first..batches).step_by(loops))));
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    watch.end(n);
    Ok(())
}

async fn write(mut connection: PgConnection, batches: impl Iterator<Item = usize>) -> Result<(), sqlx::Error> {
    for batch in batches {
        let requests: Vec<i64> = (0..BATCH).map(|i| (batch * BATCH + i) as i64).collect();
        let devices: Vec<String> =
            requests.iter().map(|request| Uuid::from_u128(*request as u128).to_string()).collect();
        // As long as the answer that the daemon keeps.
        let body = format!("{{\"successfulDeviceIds\":[\"{}\"]}}", devices.join("\",\""));
        sqlx::query(WRITE)
            .bind(Uuid::now_v7())
            .bind(&devices)
            .bind(&requests)
            .bind(body)
            .execute(&mut connection)
            .await?;
    }
    Ok(())
}

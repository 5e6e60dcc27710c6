//! The scratch databases do what the other tests rely on.

use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use crate::support::{Backend, Scratch, on_both};

on_both! {
    async fn a_producers_rows_are_seen_through_the_daemons_url(scratch: Scratch) {
        let said = scratch
            .sqlite3_or_psql("CREATE TABLE t (n INTEGER, s TEXT); INSERT INTO t VALUES (1, 'a'), (2, NULL);")
            .await;
        assert_eq!(said.as_deref(), Ok(""));
        assert_eq!(scratch.sqlite3_or_psql("SELECT n, s FROM t ORDER BY n").await.as_deref(), Ok("1|a\n2|"));

        let count = "SELECT count(*) FROM t WHERE n > 0";
        let rows: i64 = match scratch.backend() {
            Backend::Sqlite => {
                let mut daemon = SqliteConnection::connect(&scratch.url).await.unwrap();
                sqlx::query_scalar(count).fetch_one(&mut daemon).await.unwrap()
            }
            Backend::Postgres => {
                let mut daemon = PgConnection::connect(&scratch.url).await.unwrap();
                sqlx::query_scalar(count).fetch_one(&mut daemon).await.unwrap()
            }
        };
        assert_eq!(rows, 2);
    }

    async fn a_producer_stops_at_its_first_error_and_hears_of_it(scratch: Scratch) {
        let said = scratch.sqlite3_or_psql("CREATE TABLE t (n INT); SELECT * FROM nosuch; DROP TABLE t;").await;
        assert!(said.clone().is_err_and(|e| e.contains("nosuch")), "{said:?}");
        assert_eq!(scratch.sqlite3_or_psql("SELECT count(*) FROM t").await.as_deref(), Ok("0"));
    }

    async fn a_producer_may_send_megabytes_in_one_statement(scratch: Scratch) {
        let text = "x".repeat(2_000_000);
        let said = scratch.sqlite3_or_psql(&format!("SELECT '{text}'")).await;
        assert!(said.is_ok_and(|s| s == text));
    }

    async fn two_scratch_databases_share_nothing(scratch: Scratch) {
        let other = Scratch::new(scratch.backend()).await;
        scratch.sqlite3_or_psql("CREATE TABLE mine (n INT)").await.unwrap();
        assert!(other.sqlite3_or_psql("SELECT * FROM mine").await.is_err());
    }
}

#[tokio::test]
async fn a_scratch_database_goes_even_if_somebody_is_still_connected() {
    let watcher = Scratch::new(Backend::Postgres).await;
    let scratch = Scratch::new(Backend::Postgres).await;
    let name = scratch.url.split(['/', '?']).find(|part| part.starts_with("scratch_")).unwrap().to_owned();
    let mut late = PgConnection::connect(&scratch.url).await.unwrap();
    drop(scratch);

    assert!(late.execute("SELECT 1").await.is_err());
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    assert_eq!(watcher.sqlite3_or_psql(&count).await.as_deref(), Ok("0"));
}

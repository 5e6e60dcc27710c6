//! What the databases do by themselves is told to them by the schema, and by the connection: nothing grows for want of it.

use reprovisiond::config::DatabaseUrl;
use reprovisiond::domain::lifecycle::{Bucket, CallState};
use reprovisiond::store::statements;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::{Backend, Db, Other, ends, tenant};
use crate::support::Scratch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_vacuums_hot_and_growing_tables_by_what_has_changed_not_by_their_share_of_the_years() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    let settings = "SELECT relname, array_to_string(reloptions, ' ') FROM pg_class WHERE reloptions IS NOT NULL AND relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname";
    let updated = "autovacuum_vacuum_scale_factor=0.02 autovacuum_vacuum_threshold=1000";
    let inserted = "autovacuum_vacuum_insert_scale_factor=0 autovacuum_vacuum_insert_threshold=100000";
    assert_eq!(
        db.sql(settings).await.lines().collect::<Vec<_>>(),
        [
            format!("completion_watches|{updated}"),
            format!("completions|{inserted}"),
            format!("device_results|{inserted}"),
            format!("graph_calls|{updated}"),
            format!("reprovision_queue|fillfactor=50 {updated}"),
            format!("reprovision_requests|{inserted}"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_updates_what_each_claim_charges_in_place() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    db.sql("INSERT INTO completion_tenants (tenant, first_after_ms) VALUES ('default', 0)").await;
    let kind = DatabaseUrl::parse(&db.scratch.url).unwrap().kind();
    let mut connection = PgConnection::connect(&db.scratch.url).await.unwrap();
    connection.execute("BEGIN").await.unwrap();
    for (name, given) in [
        ("INTEND", "gen_random_uuid(), 'default', '', gen_random_uuid(), '{x}', '{1}', '', NULL, now(), 1000, NULL"),
        ("DEFER_TENANT", "'default', 1000, 'throttled', 'x'"),
        ("CAUTION_TENANT", "'default'"),
        ("CLEAR_TENANT", "'default'"),
        ("CHARGE_READS", "'default', now()"),
        ("WAIT_WITH_READS", "'default', 1000"),
    ] {
        let (_, sql) = statements(&kind).iter().find(|(other, _)| *other == name).unwrap();
        let run = format!("PREPARE asked AS {sql}; EXECUTE asked({given}); DEALLOCATE asked");
        sqlx::raw_sql(AssertSqlSafe(run)).execute(&mut connection).await.unwrap();
    }
    let in_place =
        "SELECT relname::text, n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE n_tup_upd > 0 ORDER BY 1";
    let in_place: Vec<(String, i64, i64)> = sqlx::query_as(in_place).fetch_all(&mut connection).await.unwrap();
    assert_eq!(in_place, [("completion_tenants".to_owned(), 2, 2), ("tenants".to_owned(), 4, 4)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_asked_one_thing_after_the_other_over_one_connection() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    for _ in 0..20 {
        db.store.facts(&[tenant()]).await.unwrap();
    }
    // Not at once: the one that tried the URL may still be on its way out.
    let one = "(SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'reprovisiond' AND datname = current_database())";
    Other::connect(&db.scratch).await.until(one).await;
}

/// Checkpoints follow a commit when it has come to 1000 pages.
const CHECKPOINT: u64 = 1000 * 4096;

/// `journal_size_limit`
const LIMIT: u64 = 16 << 20;

struct Worked(Db);

impl Worked {
    /// A thousand devices, taken through.
    async fn work(&self, from: u32) {
        self.0.ask(&(from..from + 1000).collect::<Vec<_>>()).await;
        for intent in self.0.claim().await {
            let all: Vec<_> =
                intent.entries.iter().map(|entry| (entry.request_id.0, ends(Bucket::Successful))).collect();
            self.0.record(intent.call_id, CallState::Answered, &all).await;
        }
    }

    fn wal(&self) -> u64 {
        std::fs::metadata(self.0.scratch.file().with_extension("db-wal")).unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_its_wal_short_and_after_a_long_reader_makes_it_short_again() {
    let worked = Worked(Db::new(Scratch::new(Backend::Sqlite).await).await);
    let mut n = 0;
    let mut longest = 0;
    while n < 10_000 {
        worked.work(n).await;
        n += 1000;
        longest = longest.max(worked.wal());
    }
    // The commit that comes to it, and the one of a thousand requests by somebody else.
    assert!(longest <= 3 * CHECKPOINT, "{longest} bytes");

    let mut reader = SqliteConnection::connect(&worked.0.scratch.url).await.unwrap();
    reader.execute("BEGIN").await.unwrap();
    let seen = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM device_results");
    assert_eq!(seen.fetch_one(&mut reader).await.unwrap(), i64::from(n));
    while worked.wal() <= 2 * LIMIT {
        worked.work(n).await;
        n += 1000;
    }
    reader.execute("ROLLBACK").await.unwrap();
    worked.work(n).await;
    worked.work(n + 1000).await;
    assert!(worked.wal() <= LIMIT, "{} bytes", worked.wal());
    assert_eq!(worked.0.sql("SELECT count(*) FROM device_results").await, (n + 2000).to_string());
}

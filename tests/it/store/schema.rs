//! One schema on two databases, and what a program says of a database whose schema is not its own.

use reprovisiond::store::{self, StoreError};

use super::{Backend, Db, Scratch, open, tenant};
use crate::support::on_both;

/// Every table and view but sqlx's and the databases' own, with its columns in order.
async fn columns(db: &Db) -> Vec<String> {
    let sql = match db.scratch.backend() {
        // `insert_guard` is there for INSERT OR REPLACE, which only SQLite has.
        Backend::Sqlite => {
            "SELECT m.type, m.name, c.name, m.type = 'table' AND c.\"notnull\" = 0 AND c.pk = 0
             FROM sqlite_schema m, pragma_table_info(m.name) c
             WHERE m.type IN ('table', 'view') AND m.name NOT IN ('_sqlx_migrations', 'insert_guard', 'sqlite_sequence')
             ORDER BY m.name, c.cid"
        }
        Backend::Postgres => {
            "SELECT CASE t.table_type WHEN 'VIEW' THEN 'view' ELSE 'table' END, t.table_name, c.column_name,
                    (t.table_type <> 'VIEW' AND c.is_nullable = 'YES')::int
             FROM information_schema.tables t JOIN information_schema.columns c USING (table_schema, table_name)
             WHERE t.table_schema = 'public' AND t.table_name <> '_sqlx_migrations'
             ORDER BY t.table_name COLLATE \"C\", c.ordinal_position"
        }
    };
    db.sql(sql).await.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn both_databases_have_the_same_tables_and_views_with_the_same_columns() {
    let sqlite = columns(&Db::new(Scratch::new(Backend::Sqlite).await).await).await;
    let postgres = columns(&Db::new(Scratch::new(Backend::Postgres).await).await).await;
    assert!(sqlite.contains(&"table|device_results|bucket|0".to_owned()), "{sqlite:#?}");
    assert!(sqlite.iter().any(|column| column.starts_with("view|request_status|state|")), "{sqlite:#?}");
    assert_eq!(sqlite, postgres);
}

#[tokio::test]
async fn both_databases_check_the_same_words() {
    let words = ["reprovision_queue", "graph_calls", "device_results", "completions"];
    let mut found = Vec::new();
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let db = Db::new(Scratch::new(backend).await).await;
        let mut checks = Vec::new();
        for table in words {
            let sql = match backend {
                Backend::Sqlite => format!("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = '{table}'"),
                Backend::Postgres => format!(
                    "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'c'"
                ),
            };
            let said = db.sql(&sql).await;
            let mut words: Vec<String> = said.split('\'').skip(1).step_by(2).map(str::to_owned).collect();
            words.sort();
            words.dedup();
            checks.push(words);
        }
        found.push(checks);
    }
    // Defaults are in SQLite's text of the table and not among Postgres' checks; `queued` is a word of both.
    assert_eq!(found[0], found[1]);
    assert_eq!(found[0][0], ["held", "queued", "sending", "unknown"]);
}

on_both! {
    async fn migrating_again_changes_nothing_and_keeps_every_row(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let insert = "INSERT INTO reprovision_requests (managed_device_id) VALUES ('30d0e128-de93-41dc-89ec-33d84bb662a0')";
        db.sql(insert).await;
        let before = columns(&db).await;
        db.store.migrate().await.unwrap();
        db.store.check_schema().await.unwrap();
        assert_eq!(columns(&db).await, before);
        assert_eq!(db.sql("SELECT count(*), count(DISTINCT tenant) FROM reprovision_queue").await, "1|1");
    }

    async fn processes_that_migrate_at_the_same_moment_all_succeed(scratch: Scratch) {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let store = open(&scratch).await.unwrap();
            tasks.spawn(async move { store.migrate().await });
        }
        for migrated in tasks.join_all().await {
            migrated.unwrap();
        }
        open(&scratch).await.unwrap().check_schema().await.unwrap();
    }

    async fn a_schema_that_is_newer_than_the_program_is_refused_and_says_what_to_install(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let none = match db.scratch.backend() {
            Backend::Sqlite => "x''",
            Backend::Postgres => "''::bytea",
        };
        db.sql(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9001, 'of a later version', true, {none}, 0)"
        ))
        .await;
        for refused in [db.store.check_schema().await, db.store.migrate().await] {
            let Err(StoreError::Schema(sentence)) = refused else { panic!("{refused:?}") };
            assert!(sentence.contains("newer (migration 9001)") && sentence.contains("install"), "{sentence}");
        }
    }

    async fn a_database_without_a_schema_is_refused_and_names_the_command_that_makes_one(scratch: Scratch) {
        let store = open(&scratch).await.unwrap();
        let refused = store.check_schema().await;
        let Err(StoreError::Schema(sentence)) = refused else { panic!("{refused:?}") };
        assert!(sentence.contains("`reprovisiond migrate`"), "{sentence}");
        store.migrate().await.unwrap();
        store.check_schema().await.unwrap();
    }

    async fn registering_a_tenant_again_leaves_its_pause_as_it_is(scratch: Scratch) {
        let db = Db::new(scratch).await;
        db.sql("UPDATE tenants SET paused_at = registered_at, pause_reason = 'patch day'").await;
        db.store.register_tenants(&[tenant(), "other".parse().unwrap()]).await.unwrap();
        assert_eq!(db.sql("SELECT name, pause_reason FROM tenants ORDER BY name").await, "default|patch day\nother|");
    }
}

#[tokio::test]
async fn a_sqlite_file_that_is_not_there_is_created_only_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("queue.db");
    let url = reprovisiond::config::DatabaseUrl::parse(&format!("sqlite:{}", file.display())).unwrap();
    let Err(StoreError::Schema(sentence)) = store::open(&url, false, store::PATIENCE).await else { panic!("opened") };
    assert!(sentence.contains("reprovisiond migrate") && !file.exists(), "{sentence}");
    store::open(&url, true, store::PATIENCE).await.unwrap().migrate().await.unwrap();
    assert!(file.exists());
}

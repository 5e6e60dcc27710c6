//! Every statement is one that the schema understands: a misspelt column shows here, not in production.

use reprovisiond::config::DatabaseUrl;
use sqlx::{Connection, Executor, PgConnection, SqlSafeStr, SqliteConnection};

use super::{Backend, Db};
use crate::support::on_both;

const WRONG: &[(&str, &str)] = &[("WRONG", "SELECT no_such_column FROM reprovision_queue")];

on_both! {
    async fn every_statement_is_prepared_on_a_migrated_schema(scratch: Scratch) {
        let db = Db::new(scratch).await;
        let statements = reprovisiond::store::statements(&DatabaseUrl::parse(&db.scratch.url).unwrap().kind());
        assert!(statements.len() > 30, "only {} statements are listed", statements.len());
        for (statements, expected) in [(statements, 0), (WRONG, 1)] {
            let refused = refused(&db, statements).await;
            assert_eq!(refused.len(), expected, "{}", refused.join("\n"));
        }
    }
}

async fn refused(db: &Db, statements: &'static [(&str, &str)]) -> Vec<String> {
    let mut refused = Vec::new();
    match db.scratch.backend() {
        Backend::Sqlite => {
            let mut connection = SqliteConnection::connect(&db.scratch.url).await.unwrap();
            for (name, sql) in statements {
                let prepared = connection.prepare(sql.into_sql_str()).await.err();
                refused.extend(prepared.map(|e| format!("{name}: {e}")));
            }
        }
        Backend::Postgres => {
            let mut connection = PgConnection::connect(&db.scratch.url).await.unwrap();
            for (name, sql) in statements {
                let prepared = connection.prepare(sql.into_sql_str()).await.err();
                refused.extend(prepared.map(|e| format!("{name}: {e}")));
            }
        }
    }
    refused
}

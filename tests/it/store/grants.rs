//! What the daemon's role may do on Postgres: what the statements need, and nothing else.

use reprovisiond::config::DatabaseUrl;
use reprovisiond::store::{PRIVILEGES, statements};
use sqlx::{AssertSqlSafe, Connection, Either, Executor, PgConnection, SqlSafeStr as _, Statement};

use super::{Backend, Db};
use crate::support::{Role, Scratch};

/// Statements that only commands make, which people run under roles of their own.
const OF_PEOPLE: [&str; 4] = ["ENQUEUE", "PAUSE_SUBJECTS", "RECORD_ACTIONS", "RESUME_SUBJECTS"];

/// The names of the statements that the role may not make, found out by the server's own check, which EXPLAIN makes too.
async fn forbidden(url: &str, scratch_url: &str) -> Vec<&'static str> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut forbidden = Vec::new();
    for (name, sql) in statements(&DatabaseUrl::parse(scratch_url).unwrap().kind()) {
        let parameters = match connection.prepare(sql.into_sql_str()).await.unwrap().parameters() {
            Some(Either::Left(types)) => types.len(),
            Some(Either::Right(number)) => number,
            None => 0,
        };
        let nulls = vec!["NULL"; parameters].join(", ");
        let values = if parameters == 0 { String::new() } else { format!("({nulls})") };
        let explained = format!("PREPARE x AS {sql}; EXPLAIN EXECUTE x{values}; DEALLOCATE x");
        if let Err(error) = connection.execute(AssertSqlSafe(explained)).await {
            assert!(error.to_string().contains("permission denied"), "{name}: {error}");
            // What was prepared stays, whatever became of the rest.
            let _ = connection.execute("DEALLOCATE ALL").await;
            forbidden.push(*name);
        }
    }
    forbidden
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_privileges_that_are_asked_for_are_those_that_the_daemons_statements_need() {
    let db = Db::new(Scratch::new(Backend::Postgres).await).await;
    let role = Role::new(&db.scratch).await;
    let readme = include_str!("../../../README.md");
    for grant in readme.lines().filter(|line| line.starts_with("GRANT ")) {
        db.sql(&grant.replace("TO reprovisiond", &format!("TO {}", role.name))).await;
    }
    let mut without = forbidden(&role.url, &db.scratch.url).await;
    without.sort_unstable();
    assert_eq!(without, OF_PEOPLE, "what README grants");
    let all = PRIVILEGES.iter().flat_map(|(table, words)| words.iter().map(move |word| (*table, *word)));
    for (table, word) in all {
        db.sql(&format!("REVOKE {word} ON {table} FROM {}", role.name)).await;
        let without = forbidden(&role.url, &db.scratch.url).await;
        assert!(without.len() > OF_PEOPLE.len(), "no statement needs {word} on {table}");
        db.sql(&format!("GRANT {word} ON {table} TO {}", role.name)).await;
    }
    for more in ["INSERT ON reprovision_requests", "SELECT, INSERT ON operator_actions", "INSERT, DELETE ON pauses"] {
        db.sql(&format!("GRANT {more} TO {}", role.name)).await;
    }
    assert_eq!(forbidden(&role.url, &db.scratch.url).await, [""; 0], "what README says of people and producers");
    role.drop(&db.scratch).await;
}

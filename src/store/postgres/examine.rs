//! Whether the role and the server will do for a worker.

use sqlx::Row as _;

use super::connections::Session;
use super::sql;
use crate::store::StoreError;
use crate::store::condition::{Condition, PRIVILEGES};

/// The oldest server on which the schema can be made.
const OLDEST: i32 = 12;

/// The oldest that PostgreSQL's own project maintains.
const OLDEST_MAINTAINED: i32 = 14;

pub(super) async fn examine(tx: &mut Session) -> Result<Vec<Condition>, StoreError> {
    let server = sqlx::query(sql::SERVER).fetch_one(&mut *tx).await?;
    let role: String = server.try_get("role")?;
    let (tables, privileges_of_them): (Vec<&str>, Vec<&str>) =
        PRIVILEGES.iter().flat_map(|(table, all)| all.iter().map(move |one| (*table, *one))).unzip();
    let missing: Vec<(String, String)> =
        sqlx::query_as(sql::MISSING_PRIVILEGES).bind(tables).bind(privileges_of_them).fetch_all(&mut *tx).await?;
    Ok(vec![
        version(server.try_get("version")?, server.try_get("read_only")?),
        privileges(&role, &missing),
        least(&role, server.try_get("superuser")?, server.try_get("owner")?),
    ])
}

fn version(number: i32, read_only: bool) -> Condition {
    let (what, major) = ("database server", number / 10_000);
    let seen = format!("PostgreSQL {major}");
    if read_only {
        let error = StoreError::Unavailable(format!("{seen} is a standby, or set to read only"));
        return Condition::unfit(what, error, "let database.url name the primary");
    }
    if major < OLDEST {
        let error = StoreError::Schema(format!("{seen} is too old: the schema needs {OLDEST}"));
        return Condition::unfit(what, error, "upgrade the server");
    }
    if major < OLDEST_MAINTAINED {
        return Condition::doubtful(what, format!("{seen}, which its project maintains no more"), "upgrade the server");
    }
    Condition::good(what, seen)
}

/// `missing`: table and privilege, by table. `role` is quoted as SQL wants it.
fn privileges(role: &str, missing: &[(String, String)]) -> Condition {
    let what = "database privileges";
    let by_table: Vec<_> = missing
        .chunk_by(|(one, _), (other, _)| one == other)
        .map(|of_table| {
            let words: Vec<&str> = of_table.iter().map(|(_, privilege)| privilege.as_str()).collect();
            (words.join(", "), of_table[0].0.as_str())
        })
        .collect();
    if by_table.is_empty() {
        return Condition::good(what, format!("the role {role} may do all that a worker does"));
    }
    let lacks: Vec<String> = by_table.iter().map(|(words, table)| format!("{words} on {table}")).collect();
    let grants: Vec<String> =
        by_table.iter().map(|(words, table)| format!("GRANT {words} ON {table} TO {role};")).collect();
    let error = StoreError::Unauthorised(format!("the role {role} lacks {}", lacks.join(" and ")));
    Condition::unfit(what, error, format!("let the tables' owner run: {}", grants.join(" ")))
}

fn least(role: &str, superuser: bool, owner: bool) -> Condition {
    let what = "database role";
    let more = match (superuser, owner) {
        (true, _) => "is a superuser, for whom none of the tables' rules holds for certain",
        (false, true) => "owns the tables, and could change results and drop the rules that protect them",
        (false, false) => return Condition::good(what, format!("{role} is neither superuser nor the tables' owner")),
    };
    let remedy =
        "run `migrate` as the owner, and the daemon as a role of its own with the privileges that README lists";
    Condition::doubtful(what, format!("{role} {more}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_judged_by_its_version_and_by_whether_it_takes_writes() {
        let judged = |number, read_only| match version(number, read_only) {
            Condition { seen: Err(StoreError::Unavailable(_)), .. } => "read only",
            Condition { seen: Err(_), .. } => "too old",
            Condition { remedy: Some(_), .. } => "old",
            _ => "good",
        };
        let cases =
            [(110_022, false), (120_000, false), (139_999, false), (140_000, false), (180_001, false), (180_001, true)];
        let judged: Vec<_> = cases.map(|(number, read_only)| judged(number, read_only)).into();
        assert_eq!(judged, ["too old", "old", "old", "good", "good", "read only"]);
    }

    #[test]
    fn missing_privileges_are_granted_by_the_sentence_that_names_them() {
        let missing = [("pauses", "SELECT"), ("tenants", "INSERT"), ("tenants", "UPDATE")];
        let condition = privileges("\"odd role\"", &missing.map(|(table, word)| (table.to_owned(), word.to_owned())));
        assert_eq!(
            condition.remedy.unwrap(),
            "let the tables' owner run: GRANT SELECT ON pauses TO \"odd role\"; GRANT INSERT, UPDATE ON tenants TO \"odd role\";"
        );
    }
}

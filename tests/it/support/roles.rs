//! A Postgres database with the roles of `deploy/postgres/roles.sql`.

use sqlx::{Connection, PgConnection};
use tokio::process::Command;
use url::Url;

use super::{Backend, Scratch};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/postgres/roles.sql");

/// A database with the roles in it; they belong to the whole server, so their names are this database's own.
pub(crate) struct Roles {
    schema: String,
    pub(crate) scratch: Scratch,
    /// Dropped after the database, with which their privileges go.
    names: Names,
}

struct Names {
    server: String,
    suffix: String,
}

impl Roles {
    /// Roles and schema, as before the first `migrate`.
    pub(crate) async fn new(schema: &str) -> Self {
        let scratch = Scratch::new(Backend::Postgres).await;
        let mut server = Url::parse(&scratch.url).unwrap();
        let suffix = server.path().trim_start_matches("/scratch_").to_owned();
        server.set_path("/postgres");
        let roles = Self { schema: schema.to_owned(), scratch, names: Names { server: server.into(), suffix } };
        // So that what the test itself asks as a superuser finds the tables too.
        roles.sql(&format!("ALTER DATABASE scratch_{} SET search_path = {schema}", roles.names.suffix)).await;
        assert!(roles.apply().await.contains("Run `reprovisiond migrate`"));
        roles
    }

    /// The same, migrated by the migrator.
    pub(crate) async fn migrated(schema: &str) -> Self {
        let roles = Self::new(schema).await;
        roles.program("migrator", &["migrate"]).await.unwrap();
        assert!(roles.apply().await.contains("have their privileges"));
        roles
    }

    /// Runs the script and gives what it printed.
    pub(crate) async fn apply(&self) -> String {
        self.apply_by(&self.scratch.url).await
    }

    pub(crate) async fn apply_by(&self, url: &str) -> String {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-d", url, "-f", SCRIPT, "-v", &format!("schema={}", self.schema)]);
        for role in ["producer", "worker", "operator", "auditor", "migrator"] {
            psql.args(["-v", &format!("{role}={}", self.name(role))]);
        }
        let output = psql.output().await.unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
        said
    }

    /// What the names of its database and roles end in.
    pub(crate) fn suffix(&self) -> &str {
        &self.names.suffix
    }

    /// The role's name in this database.
    pub(crate) fn name(&self, role: &str) -> String {
        self.names.of(role)
    }

    /// The database as this role sees it.
    pub(crate) fn url(&self, role: &str) -> String {
        let url = Url::parse(&self.scratch.url).unwrap();
        let name = self.name(role);
        let others = url.query_pairs().filter(|(key, _)| key != "user");
        let mut ours = url.clone();
        ours.query_pairs_mut().clear().extend_pairs(others).append_pair("user", &name);
        ours.into()
    }

    pub(crate) async fn connect(&self, role: &str) -> PgConnection {
        PgConnection::connect(&self.url(role)).await.unwrap()
    }

    pub(crate) async fn sql(&self, sql: &str) -> String {
        self.scratch.rows(sql).await
    }

    /// Runs a command of the program as this role: what it printed, or what it complained of.
    pub(crate) async fn program(&self, role: &str, args: &[&str]) -> Result<String, String> {
        let mut program = Command::new(env!("CARGO_BIN_EXE_reprovisiond"));
        let output = program.args(args).args(["--database", &self.url(role)]).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl Names {
    fn of(&self, role: &str) -> String {
        format!("{role}_{}", self.suffix)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for role in ["producer", "worker", "operator", "auditor", "migrator", "admin"] {
            let drop = format!("DROP ROLE IF EXISTS {}", self.of(role));
            let dropped =
                std::process::Command::new("psql").args(["-X", "-q", "-d", &self.server, "-c", &drop]).output();
            if !dropped.is_ok_and(|output| output.status.success()) {
                eprintln!("role {} stays behind", self.of(role));
            }
        }
    }
}

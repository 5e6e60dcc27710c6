//! A database of the benchmark's own, on the same disk or server as the real one: a file beside it, or a schema in it. It is
//! removed at the end; what a killed run left is told of and left alone.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

use crate::cli::{Exit, Failure, database};
use crate::config::{DatabaseKind, DatabaseUrl};
use crate::domain::id::WorkerId;

/// What the names of all scratch databases begin with.
const PREFIX: &str = "reprovisiond_bench_";

/// How long making or removing a schema may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the schema that this connection's search path names, and none but a scratch schema: a pooler that swallows the path shows
/// here, before anything is made.
const CREATE: &str = r"DO $$ DECLARE name text := current_setting('search_path'); BEGIN
    IF name !~ '^reprovisiond_bench_[0-9a-f]{32}$' THEN RAISE EXCEPTION USING ERRCODE = '08P01', MESSAGE = 'search_path is ' || name; END IF;
    EXECUTE format('CREATE SCHEMA %I', name);
END $$";

/// Drops the same, likewise.
const DROP: &str = r"DO $$ DECLARE name text := current_setting('search_path'); BEGIN
    IF name !~ '^reprovisiond_bench_[0-9a-f]{32}$' THEN RAISE EXCEPTION USING ERRCODE = '08P01', MESSAGE = 'search_path is ' || name; END IF;
    EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', name);
END $$";

/// Where unqualified names lead; whether the server waits for its disk; and what a role that may not is to be granted.
const LOOK: &str = "SELECT coalesce(current_schema(), ''),
    CASE WHEN current_setting('fsync') = 'off' THEN 'fsync'
         WHEN current_setting('synchronous_commit') = 'off' THEN 'synchronous_commit' ELSE '' END,
    format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user)";

const LEFT_BEHIND: &str =
    "SELECT nspname::text FROM pg_namespace WHERE nspname ~ '^reprovisiond_bench_[0-9a-f]{32}$' ORDER BY nspname";

/// An empty database, made for one run.
pub(super) struct Scratch {
    /// The configured database, for messages.
    real: DatabaseUrl,
    /// The scratch one. Not for messages: nobody asked for it.
    pub(super) url: DatabaseUrl,
    /// The setting by which the server does not wait for its disk, if there is one.
    pub(super) not_durable: Option<String>,
    /// What earlier runs left, each with the way to remove it.
    pub(super) left_behind: Vec<String>,
    name: String,
}

impl Scratch {
    /// Makes it. Whatever fails, nothing of it is there afterwards.
    pub(super) async fn make(real: DatabaseUrl) -> Result<Self, Failure> {
        // Its time sorts it, the rest of it is chance.
        let name = format!("{PREFIX}{}", WorkerId::fresh().0.simple());
        match real.kind() {
            DatabaseKind::Sqlite { path } => Self::file(real, &path, name),
            DatabaseKind::Postgres => Self::schema(real, name).await,
        }
    }

    fn file(real: DatabaseUrl, path: &Path, name: String) -> Result<Self, Failure> {
        // The disk is that of the file itself, wherever a link to it lies.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let wrong = |exit, what: String| Failure::new(exit, format!("{real}: {what}"));
        let cannot = |error: std::io::Error| {
            let exit = match error.kind() {
                ErrorKind::NotFound => Exit::Configuration,
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Exit::Authorisation,
                _ => Exit::Failure,
            };
            let what = "a scratch file cannot be made beside it";
            wrong(
                exit,
                format!(
                    "{what}, in {}: {error}: the directory must be there, and writable for this user",
                    directory.display()
                ),
            )
        };
        let left_behind = files_left_behind(directory).map_err(cannot)?;
        let file = directory.join(format!("{name}.db"));
        let url = DatabaseUrl::parse(&format!("sqlite:{}", file.display())).map_err(|error| {
            wrong(Exit::Usage, format!("{}: {error}: give a database in another directory", directory.display()))
        })?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).map_err(cannot)?;
        Ok(Self { real, url, not_durable: None, left_behind, name })
    }

    async fn schema(real: DatabaseUrl, name: String) -> Result<Self, Failure> {
        // The last one given counts. The search path comes with the connection, so that each of the store's has it from its start.
        let given = real.expose();
        let join = if given.contains('?') { '&' } else { '?' };
        let url = DatabaseUrl::parse(&format!("{given}{join}options=-csearch_path%3D{name}"))
            .map_err(|error| Failure::new(Exit::Usage, format!("{real}: {error}")))?;
        let mut scratch = Self { real, url, not_durable: None, left_behind: Vec::new(), name };
        let mut connection = scratch.connect().await?;
        let made = scratch.within(scratch.create(&mut connection)).await;
        let (not_durable, left_behind) = match made {
            Ok(found) => found,
            Err(failure) => {
                // It may be there all the same, where only the answer was lost.
                let _ = scratch.remove().await;
                return Err(failure);
            }
        };
        let _ = connection.close().await;
        scratch.not_durable = Some(not_durable).filter(|setting| !setting.is_empty());
        scratch.left_behind = left_behind;
        Ok(scratch)
    }

    /// Makes the schema, and sees that names lead there and nowhere else.
    async fn create(&self, connection: &mut PgConnection) -> Result<(String, Vec<String>), Failure> {
        let left = sqlx::raw_sql(LEFT_BEHIND).fetch_all(&mut *connection).await.map_err(|error| self.failed(error))?;
        let left_behind = left
            .iter()
            .filter_map(|row| row.try_get::<String, _>(0).ok())
            .map(|name| format!("the schema {name}: DROP SCHEMA {name} CASCADE"))
            .collect();
        let look = async |connection: &mut PgConnection| {
            let row = sqlx::raw_sql(LOOK).fetch_one(connection).await?;
            Ok::<(String, String, String), sqlx::Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
        };
        let (_, _, grant) = look(&mut *connection).await.map_err(|error| self.failed(error))?;
        sqlx::raw_sql(CREATE).execute(&mut *connection).await.map_err(|error| {
            if code(&error) == "42501" {
                let message = format!(
                    "{}: this role may not make a scratch schema: have its owner say `{grant}` for as long as this is measured, or give a role that may with --database",
                    self.real
                );
                return Failure::new(Exit::Authorisation, message);
            }
            self.failed(error)
        })?;
        let (schema, not_durable, _) = look(connection).await.map_err(|error| self.failed(error))?;
        if schema != self.name {
            let message = format!("{}: names lead to the schema {schema:?}, not to the scratch schema", self.real);
            return Err(Failure::new(Exit::Failure, message));
        }
        Ok((not_durable, left_behind))
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        let options = PgConnectOptions::from_str(self.url.expose())
            .map_err(|error| self.failed(error))?
            .application_name("reprovisiond")
            .extra_float_digits(None);
        self.within(async { options.connect().await.map_err(|error| self.failed(error)) }).await
    }

    async fn within<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        timeout(PATIENCE, step).await.unwrap_or_else(|_| {
            Err(Failure::new(Exit::Unavailable, format!("{}: no answer within {PATIENCE:?}", self.real)))
        })
    }

    fn failed(&self, error: sqlx::Error) -> Failure {
        // A pooler's refusal of a start-up parameter, and ours where one has swallowed it.
        if code(&error) == "08P01" {
            let message = format!(
                "{}: a connection pooler stands between and does not pass on the search path by which a scratch schema is kept apart ({error}): give the server's own address with --database",
                self.real
            );
            return Failure::new(Exit::Configuration, message);
        }
        database::at(&self.real, error.into())
    }

    /// Removes it; what cannot be removed is named with what to do.
    pub(super) async fn remove(&self) -> Result<(), Failure> {
        let (removed, by_hand) = match self.url.kind() {
            DatabaseKind::Sqlite { path } => (database::remove_file(&path), by_hand(&path)),
            DatabaseKind::Postgres => {
                (self.drop_schema().await, format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name))
            }
        };
        removed.map_err(|mut failure| {
            failure.message = format!("{}; the scratch database may still be there: {by_hand}", failure.message);
            failure
        })
    }

    async fn drop_schema(&self) -> Result<(), Failure> {
        let mut connection = self.connect().await?;
        let dropped = async { sqlx::raw_sql(DROP).execute(&mut connection).await.map_err(|error| self.failed(error)) };
        self.within(dropped).await.map(drop)
    }
}

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned()
}

fn files_left_behind(directory: &Path) -> std::io::Result<Vec<String>> {
    let ours = |path: &PathBuf| {
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        named && path.extension().is_some_and(|extension| extension == "db")
    };
    let files = std::fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = files.filter(ours).collect();
    files.sort();
    Ok(files.iter().map(|file| format!("the file {}: {}", file.display(), by_hand(file))).collect())
}

fn by_hand(file: &Path) -> String {
    format!("rm -f '{0}' '{0}-wal' '{0}-shm'", file.display())
}

//! Where the queue is: a URL that never prints a password.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::diagnose::nearest;

/// The parameters that the Postgres driver knows. Any other it ignores and logs with its value, and a misspelt
/// `password` must not get into a log.
const POSTGRES_PARAMETERS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// A database URL that never prints a password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

/// Which database a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A SQLite file.
    Sqlite {
        /// The file; a relative path counts from the directory that the process was started in.
        path: PathBuf,
    },
    /// A Postgres server.
    Postgres,
}

/// Why a text is no database URL. No variant repeats the text: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotADatabaseUrl {
    /// Neither of the two databases.
    #[error("not a database URL: must begin with sqlite: or postgres://")]
    Scheme,
    /// `sqlite:` and nothing more.
    #[error("names no file")]
    NoFile,
    /// A database that only one connection sees.
    #[error("a database in memory is seen by one connection only; the daemon and its commands must share one file")]
    Memory,
    /// What the driver reads as parameters or escapes.
    #[error(
        "a SQLite path takes no parameters, no '%' escapes and no \"file:\": the daemon opens the file its own way"
    )]
    NotAPlainPath,
    /// No URL by its form.
    #[error("not a valid Postgres URL: {0}")]
    Form(url::ParseError),
    /// `postgres://host` without a database.
    #[error("names no database")]
    NoDatabase,
    /// A parameter that the driver does not know.
    #[error("the parameter `{name}` is unknown{}", suggestion.map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    Parameter {
        /// The parameter's name, made safe to print.
        name: String,
        /// The known parameter nearest to it.
        suggestion: Option<&'static str>,
    },
    /// A fragment, most often a password with an unescaped '#'.
    #[error("holds a '#': write '#' in a user name or password as %23")]
    Fragment,
}

impl DatabaseUrl {
    /// `sqlite:PATH`, `sqlite://PATH`, `postgres://…` or `postgresql://…`.
    ///
    /// A SQLite path is taken as it stands, without escapes or parameters.
    pub fn parse(text: &str) -> Result<Self, NotADatabaseUrl> {
        if let Some(path) = sqlite_path(text) {
            return match path {
                "" => Err(NotADatabaseUrl::NoFile),
                ":memory:" => Err(NotADatabaseUrl::Memory),
                _ if path.contains("mode=memory") => Err(NotADatabaseUrl::Memory),
                _ if path.starts_with("file:") || path.contains(['?', '%', '\0']) => {
                    Err(NotADatabaseUrl::NotAPlainPath)
                }
                _ => Ok(Self(text.to_owned())),
            };
        }
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(NotADatabaseUrl::Scheme);
        }
        let url = Url::parse(text).map_err(NotADatabaseUrl::Form)?;
        if url.fragment().is_some() {
            return Err(NotADatabaseUrl::Fragment);
        }
        let mut named = !url.path().trim_start_matches('/').is_empty();
        for (name, value) in url.query_pairs() {
            named |= name == "dbname" && !value.is_empty();
            if !POSTGRES_PARAMETERS.contains(&&*name) && !name.starts_with("options[") {
                return Err(NotADatabaseUrl::Parameter {
                    suggestion: nearest(&name, POSTGRES_PARAMETERS),
                    name: crate::domain::printable::printable(&name, 40).to_string(),
                });
            }
        }
        if named { Ok(Self(text.to_owned())) } else { Err(NotADatabaseUrl::NoDatabase) }
    }

    /// Which database it names.
    pub fn kind(&self) -> DatabaseKind {
        match sqlite_path(&self.0) {
            Some(path) => DatabaseKind::Sqlite { path: PathBuf::from(path) },
            None => DatabaseKind::Postgres,
        }
    }

    /// The URL as it was given, password and all: for the driver, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the URL itself holds a password.
    pub(super) fn has_password(&self) -> bool {
        self.kind() == DatabaseKind::Postgres
            && Url::parse(&self.0)
                .is_ok_and(|url| url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password"))
    }

    /// Names nothing: what the table of keys writes its default over.
    pub(super) fn unset() -> Self {
        Self(String::new())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind() != DatabaseKind::Postgres {
            return f.write_str(&self.0);
        }
        let Ok(mut url) = Url::parse(&self.0) else { return f.write_str("postgres://…") };
        if url.password().is_some() && url.set_password(Some("***")).is_err() {
            return f.write_str("postgres://…");
        }
        if url.query_pairs().any(|(name, _)| name == "password") {
            let pairs: Vec<(String, String)> = url
                .query_pairs()
                .map(|(name, value)| {
                    let shown = if name == "password" { "***".to_owned() } else { value.into_owned() };
                    (name.into_owned(), shown)
                })
                .collect();
            url.query_pairs_mut().clear().extend_pairs(pairs);
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

fn sqlite_path(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("sqlite:")?;
    Some(rest.strip_prefix("//").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlite_url_names_the_file_with_or_without_slashes() {
        for (text, path) in [
            ("sqlite:queue.db", "queue.db"),
            ("sqlite://queue.db", "queue.db"),
            ("sqlite:/var/lib/q.db", "/var/lib/q.db"),
            ("sqlite:///var/lib/q.db", "/var/lib/q.db"),
            ("sqlite:a file#1.db", "a file#1.db"),
        ] {
            let kind = DatabaseUrl::parse(text).map(|url| url.kind());
            assert_eq!(kind, Ok(DatabaseKind::Sqlite { path: path.into() }), "{text}");
        }
    }

    #[test]
    fn a_postgres_url_may_name_its_socket_directory_in_the_query() {
        for text in [
            "postgres://u:p@db.example/queue",
            "postgresql://db.example:5433/queue?sslmode=verify-full",
            "postgres:///queue?host=/run/postgresql",
            "postgres://%2Frun%2Fpostgresql/queue",
            "postgres://u@h?dbname=queue",
            "postgres://u@h/q?options[statement_timeout]=5s",
        ] {
            assert_eq!(DatabaseUrl::parse(text).map(|url| url.kind()), Ok(DatabaseKind::Postgres), "{text}");
            assert_eq!(DatabaseUrl::parse(text).map(|url| url.expose().to_owned()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_no_database_is_refused_without_being_repeated() {
        for (text, why) in [
            ("", NotADatabaseUrl::Scheme),
            ("hunter2", NotADatabaseUrl::Scheme),
            ("mysql://u:hunter2@h/d", NotADatabaseUrl::Scheme),
            ("sqlite:", NotADatabaseUrl::NoFile),
            ("sqlite://", NotADatabaseUrl::NoFile),
            ("sqlite::memory:", NotADatabaseUrl::Memory),
            ("sqlite://:memory:", NotADatabaseUrl::Memory),
            ("sqlite:q.db?mode=memory", NotADatabaseUrl::Memory),
            ("sqlite:q.db?mode=ro", NotADatabaseUrl::NotAPlainPath),
            ("sqlite:file:q.db", NotADatabaseUrl::NotAPlainPath),
            ("sqlite:a%20b", NotADatabaseUrl::NotAPlainPath),
            ("postgres://u:hunter2@h", NotADatabaseUrl::NoDatabase),
            ("postgres://u:hunter2@h/", NotADatabaseUrl::NoDatabase),
            ("postgres://u:hunter2@h:99999/d", NotADatabaseUrl::Form(url::ParseError::InvalidPort)),
            ("postgres://u@h/d#hunter2", NotADatabaseUrl::Fragment),
            (
                "postgres://u@h/d?pasword=hunter2",
                NotADatabaseUrl::Parameter { name: "pasword".into(), suggestion: Some("password") },
            ),
        ] {
            let refusal = DatabaseUrl::parse(text).expect_err(text);
            assert!(!format!("{refusal} {refusal:?}").contains("hunter2"), "{refusal}");
            assert_eq!(refusal, why, "{text:?}");
        }
    }

    #[test]
    fn no_way_of_printing_shows_a_password() {
        for (text, shown) in [
            ("postgres://u:hunter2@h/d", "postgres://u:***@h/d"),
            ("postgres://u@h/d?password=hunter2&sslmode=require", "postgres://u@h/d?password=***&sslmode=require"),
            ("postgres://u@h/d?%70assword=hunter2", "postgres://u@h/d?password=***"),
            ("postgres://u@h/d?application_name=a", "postgres://u@h/d?application_name=a"),
        ] {
            let url = DatabaseUrl::parse(text).expect(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("DatabaseUrl({shown})"));
            assert_eq!(url.has_password(), text.contains("hunter2"), "{text}");
        }
    }
}

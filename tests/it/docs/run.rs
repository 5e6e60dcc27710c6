//! Runs the examples of a page, as a reader would: `psql`, `sqlite3`, a shell, Python.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use url::Url;

use super::page::{Block, Language, blocks, compare, matches};
use crate::support::{Backend, Roles, Scratch};

/// The SQLite file's name in the pages: the package's.
const SQLITE_FILE: &str = "/var/lib/reprovisiond/queue.db";

/// A query of a page whose daemon works is asked until it answers what the page says, for so long at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// The database of a page, empty: on Postgres with its roles.
pub(super) enum Place {
    File(Scratch),
    Roles(Roles),
}

impl Place {
    pub(super) async fn new(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => Self::File(Scratch::new(backend).await),
            Backend::Postgres => Self::Roles(Roles::new("reprovisiond").await),
        }
    }

    pub(super) fn scratch(&self) -> &Scratch {
        match self {
            Self::File(scratch) | Self::Roles(Roles { scratch, .. }) => scratch,
        }
    }

    /// Its URL for a role, which SQLite does not know.
    pub(super) fn url(&self, role: &str) -> String {
        match self {
            Self::File(scratch) => scratch.url.clone(),
            Self::Roles(roles) => roles.url(role),
        }
    }
}

pub(super) struct Runner<'a> {
    pub(super) place: &'a Place,
    /// The role of the page's reader.
    pub(super) role: &'a str,
    /// Whether a daemon works meanwhile: a query may have to be asked again until it has done its part.
    pub(super) live: bool,
    /// The reader's directory, in which files stay from one example to the next.
    pub(super) directory: TempDir,
}

impl Runner<'_> {
    /// Runs the page's examples for this database, in order, but for those that begin with one of `others`, which another
    /// test runs. Fails with all that is wrong with them.
    pub(super) async fn run(&self, file: &str, others: &[&str]) {
        let mistakes = self.mistakes(file, others).await;
        assert!(mistakes.is_empty(), "{} example(s)\n{}", mistakes.len(), mistakes.join("\n\n"));
    }

    async fn mistakes(&self, file: &str, others: &[&str]) -> Vec<String> {
        let markdown = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        let backend = self.place.scratch().backend();
        let blocks = match blocks(file, &markdown) {
            Ok(blocks) => blocks,
            Err(mistakes) => return mistakes,
        };
        let ours = blocks.iter().filter(|block| block.is_for(backend));
        let (mut mistakes, mut ran) = (Vec::new(), 0);
        for block in ours.filter(|block| !others.iter().any(|start| block.body.starts_with(start))) {
            ran += 1;
            if let Err(mistake) = self.example(block, backend).await {
                mistakes.push(format!("{}: on {backend:?}: {mistake}", block.place));
            }
        }
        assert!(ran > 0, "{file} has no examples for {backend:?}");
        mistakes
    }

    async fn example(&self, block: &Block, backend: Backend) -> Result<(), String> {
        let expected = block.expected(backend);
        if block.refused {
            return self.refused(block, expected).await;
        }
        let query = block.language == Language::Sql && block.body.starts_with("SELECT");
        if query && expected.lines().count() < 2 {
            return Err(
                "show the rows that it finds in a text block after it: a query that finds nothing proves nothing"
                    .into(),
            );
        }
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let last = tokio::time::Instant::now() + PATIENCE;
        loop {
            tick.tick().await;
            let output = self.output(block, &block.body).await;
            let error = text(&output.stderr);
            if !output.status.success() {
                return Err(format!("it failed ({}): {error}", output.status));
            }
            let compared = compare(expected, &text(&output.stdout));
            if compared.is_ok() || !(query && self.live) || tokio::time::Instant::now() > last {
                return compared.map_err(|mistake| format!("{mistake}\n{error}"));
            }
        }
    }

    /// Each statement is refused, with what the same line of the output says.
    async fn refused(&self, block: &Block, expected: &str) -> Result<(), String> {
        let statements: Vec<&str> = block.body.split_inclusive(";\n").collect();
        if statements.len() != expected.lines().count() {
            return Err(format!("{} statements and {} refusals", statements.len(), expected.lines().count()));
        }
        for (statement, sentence) in statements.into_iter().zip(expected.lines()) {
            let output = self.output(block, statement).await;
            let said = text(&output.stderr);
            if output.status.success() || !said.lines().any(|line| matches(&format!("…{sentence}…"), line)) {
                return Err(format!("{statement}should be refused with\n{sentence}\nand it said\n{said}"));
            }
        }
        Ok(())
    }

    async fn output(&self, block: &Block, body: &str) -> Output {
        let url = self.place.url(block.role.as_deref().unwrap_or(self.role));
        let sqlite_file = match self.place {
            Place::File(scratch) => scratch.file().display().to_string(),
            Place::Roles(_) => String::new(),
        };
        let (program, args) = match (block.language, self.place) {
            (Language::Sql, Place::File(_)) => {
                ("sqlite3", vec!["-batch", "-bail", "-list", "-header", "-cmd", ".timeout 10000", &sqlite_file])
            }
            (Language::Sql, Place::Roles(_)) => {
                ("psql", vec!["-X", "-q", "-A", "-P", "footer=off", "-v", "ON_ERROR_STOP=1"])
            }
            (Language::Sh, _) => ("bash", vec!["-euo", "pipefail"]),
            (Language::Python, _) => ("python3", vec!["-"]),
        };
        // Debian's Python before any other: psycopg is its package. `env` looks the program up in this path.
        let ours = Path::new(env!("CARGO_BIN_EXE_reprovisiond")).parent().unwrap();
        let path = format!("{}:/usr/bin:{}", ours.display(), std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new("env")
            .arg(program)
            .args(args)
            .env("PATH", path)
            .env("HOME", self.directory.path())
            .env("REPROVISIOND_DATABASE_URL", &url)
            .envs(connection(&url))
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} does not start (tests/run installs it): {error}"));
        let mut stdin = child.stdin.take().unwrap();
        // What a client does not read any more, it has answered by its error.
        let _ = stdin.write_all(body.replace(SQLITE_FILE, &sqlite_file).as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }
}

/// What libpq takes from the environment, as the pages have it.
fn connection(url: &str) -> Vec<(&'static str, String)> {
    let url = Url::parse(url).unwrap();
    if url.scheme() != "postgres" {
        return Vec::new();
    }
    let of = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap();
    vec![("PGHOST", of("host")), ("PGUSER", of("user")), ("PGDATABASE", url.path().trim_start_matches('/').to_owned())]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn an_example_that_does_not_do_what_the_page_says_is_named_by_file_and_line() {
    let place = Place::new(Backend::Sqlite).await;
    let runner = Runner { place: &place, role: "", live: false, directory: tempfile::tempdir().unwrap() };
    for (page, sentence) in [
        ("```sql\nSELECT 1 AS one;\n```\n", "a query that finds nothing proves nothing"),
        ("```sql\nSELECT 1 AS one WHERE 0;\n```\n```text\none\n```\n", "a query that finds nothing proves nothing"),
        ("```sql\nSELECT 1 AS one;\n```\n```text\none\n2\n```\n", "the page says\none\n2\nand it printed\none\n1"),
        ("```sql\nPRAGMA user_version;\n```\n", "the page says\n\nand it printed\nuser_version\n0"),
        ("```sql\nSELECT * FROM absent;\n```\n```text\none\n1\n```\n", "no such table"),
        ("```sql refused\nSELECT 1;\n```\n```text\nno\n```\n", "should be refused with\nno"),
        ("```sql refused\nSELECT x;\nSELECT y;\n```\n```text\nno such column: x\n```\n", "2 statements and 1 refusals"),
        ("```sh\nfalse | true\n```\n", "it failed (exit status: 1)"),
        ("```python\nraise ValueError('no')\n```\n", "ValueError: no"),
    ] {
        let file = runner.directory.path().join("page.md");
        std::fs::write(&file, format!("# Page\n\n{page}")).unwrap();
        let file = file.to_str().unwrap();
        let mistakes = runner.mistakes(file, &[]).await;
        let named =
            mistakes.len() == 1 && mistakes[0].starts_with(&format!("{file}:3: ")) && mistakes[0].contains(sentence);
        assert!(named, "{page}{mistakes:?}");
    }
}

//! The one way to run the program, and to look at what it said.

use std::fmt;
use std::io::Write as _;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::Scratch;

/// The program, with a database and a directory of its own to run in.
pub(crate) struct Program<'a> {
    scratch: &'a Scratch,
    dir: TempDir,
}

impl<'a> Program<'a> {
    /// With a migrated database that knows the tenants `contoso` and `default`.
    pub(crate) async fn new(scratch: &'a Scratch) -> Self {
        let program = Self { scratch, dir: tempfile::tempdir().unwrap() };
        let said = program.run(&["migrate", "--tenant", "contoso", "--tenant", "default"]).await;
        assert_eq!(said.code, 0, "{said}");
        program
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Said {
        self.run_with_stdin(args, "").await
    }

    /// Runs it to its end, with a text on its standard input.
    pub(crate) async fn run_with_stdin(&self, args: &[&str], stdin: &str) -> Said {
        let (mut command, stdin) = (self.command(args), stdin.to_owned());
        tokio::task::spawn_blocking(move || said(&mut command, &stdin)).await.unwrap()
    }

    /// Writes a file into its directory.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The command, for what `run` does not do.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        command.args(["--database", &self.scratch.url]).current_dir(self.dir.path());
        command
    }
}

/// The program without anything of the caller's environment.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reprovisiond"));
    command.env_clear().env("USER", "tester").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program without a database.
pub(crate) fn plain(args: &[&str]) -> Said {
    said(&mut command(args), "")
}

/// Runs a command to its end, with a text on its standard input.
pub(crate) fn said(command: &mut Command, stdin: &str) -> Said {
    let mut child = command.spawn().unwrap();
    // The program may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// How the program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stdout)?;
        f.write_str(&self.stderr)?;
        if self.code != 0 {
            writeln!(f, "[exit {}]", self.code)?;
        }
        Ok(())
    }
}

/// Holds what the program said against a snapshot; what differs from run to run is replaced by its kind.
macro_rules! check {
    ($said:expr, @$snapshot:literal) => {{
        let said = $said.to_string();
        insta::with_settings!({ filters => vec![
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[time]"),
            (r"0[0-9a-f]{7}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "[call or worker id, 36 characters..]"),
            (r"\b\d+ s( ago)?  +", "[n s]$1  "),
            (r"\b\d+ s\b", "[n s]"),
            (r"(?:sqlite|postgres)\S+: ", "[database]: "),
        ]}, {
            // Both databases say the same.
            insta::allow_duplicates! { insta::assert_snapshot!(said, @$snapshot) }
        });
    }};
}
pub(crate) use check;

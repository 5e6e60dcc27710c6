//! The yardsticks of `benches/peers` and the Python script, each a process of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use reprovisiond::simulator::Simulator;
use serde::Deserialize;

use super::database::{Database, Kind};

/// What one of them says of itself.
#[derive(Debug, Deserialize)]
pub struct Run {
    pub n: usize,
    pub seconds: f64,
    pub cpu_seconds: f64,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.n as f64 / self.seconds
    }

    pub fn cpu_us_each(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.n as f64
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Where results are, and what is built and installed for them.
pub fn target() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench");
    std::fs::create_dir_all(&target).unwrap();
    target
}

fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.stderr(Stdio::inherit()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", output.status);
    output.stdout
}

/// Builds the peers; the first time that takes minutes and a package registry.
pub fn build() {
    let manifest = root().join("benches/peers/Cargo.toml");
    eprintln!("building benches/peers");
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo tells this program of its own package would have some crates built anew whenever it is not so.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_")) {
        if name != "CARGO_HOME" {
            cargo.env_remove(name);
        }
    }
    cargo.args(["build", "--release", "--locked", "--quiet", "--manifest-path"]).arg(manifest);
    succeed(cargo.arg("--target-dir").arg(target().join("peers")));
}

/// Runs one of the peers on an empty database, and gives the line that it prints.
pub fn run<T: for<'de> Deserialize<'de>>(name: &str, database: &Database, args: &[String]) -> T {
    let mut peer = Command::new(target().join("peers/release/peers"));
    serde_json::from_slice(&succeed(peer.arg(name).arg(&database.url).args(args))).unwrap()
}

fn python() -> PathBuf {
    target().join("venv/bin/python")
}

/// Installs what the script and huey need, the first time.
pub fn install_python() {
    let (venv, python) = (target().join("venv"), python());
    let ready = Command::new(&python).args(["-c", "import psycopg, huey"]).stderr(Stdio::null()).status();
    if !ready.is_ok_and(|status| status.success()) {
        eprintln!("installing benches/requirements.txt");
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        succeed(Command::new(&python).args(install).arg(root().join("benches/requirements.txt")));
    }
}

/// Runs huey on an empty SQLite database.
pub fn huey(database: &Database, n: usize) -> Run {
    let mut huey = Command::new(python());
    huey.arg(root().join("benches/huey_queue.py")).arg(database.url.trim_start_matches("sqlite:"));
    serde_json::from_slice(&succeed(huey.arg(n.to_string()))).unwrap()
}

/// Runs the script on an empty database: `n` devices, `batch` a call.
pub fn script(database: &Database, simulator: &Simulator, n: usize, batch: usize) -> Run {
    let mut script = Command::new(python());
    script.arg(root().join("benches/script.py"));
    let place = database.url.trim_start_matches("sqlite:");
    script.arg(if database.kind == Kind::Sqlite { "sqlite" } else { "postgres" }).arg(place);
    script.arg(simulator.graph_url()).arg(simulator.authority_url()).arg(simulator.tenant_id().to_string());
    script.arg(simulator.client_id().to_string()).arg(simulator.client_secret_file());
    serde_json::from_slice(&succeed(script.arg(n.to_string()).arg(batch.to_string()))).unwrap()
}

//! What people see of the configuration: each test is one file, some variables, and what is said about them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use insta::assert_snapshot;

use super::keys::{KEYS, Kind};
use super::*;

mod credentials;
mod secrets;
mod shipped;
mod tenants;

/// What a tenant needs, after `[tenants.NAME]`.
const IDS: &str = "tenant_id = \"contoso.example\"\nclient_id = \"30d0e128-de93-41dc-89ec-33d84bb662a0\"\n";
const SECRET: &str = "client_secret_file = \"a.secret\"\n";

/// A directory with a good secret, and a configuration file if there is a text for it.
struct Scene {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl Scene {
    fn new(toml: Option<&[u8]>, env: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a scratch directory");
        write_private(&directory.path().join("a.secret"), b"hunter2\n");
        let file = toml.map(|text| {
            let path = directory.path().join("reprovisiond.toml");
            write_private(&path, text);
            path
        });
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Self { directory, sources: Sources { file, env, database_flag: None } }
    }

    /// Mistakes, or the warnings and what is not a default; the scratch directory as `DIR`.
    fn outcome(&self) -> String {
        let text = match load(&self.sources) {
            Err(mistakes) => mistakes.to_string(),
            Ok(Loaded { warnings, effective, .. }) => {
                let mut text = String::from("ok");
                for warning in &warnings {
                    write!(text, "\nwarning: {warning}").expect("a string takes all");
                }
                for value in effective.iter().filter(|value| value.origin != Origin::Default) {
                    write!(text, "\n{value}").expect("a string takes all");
                }
                text
            }
        };
        self.hide_directory(&text)
    }

    fn database(&self) -> String {
        match load_database_url(&self.sources) {
            Ok(url) => url.to_string(),
            Err(mistakes) => self.hide_directory(&mistakes.to_string()),
        }
    }

    fn hide_directory(&self, text: &str) -> String {
        text.replace(&*self.directory.path().to_string_lossy(), "DIR")
    }
}

fn write_private(path: &Path, content: &[u8]) {
    std::fs::write(path, content).expect("the scratch directory can be written");
    set_mode(path, 0o600);
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("one's own file");
}

fn check(toml: &str, env: &[(&str, &str)]) -> String {
    Scene::new(Some(toml.as_bytes()), env).outcome()
}

/// With one good tenant.
fn check_settings(toml: &str, env: &[(&str, &str)]) -> String {
    check(&format!("{toml}\n[tenants.a]\n{IDS}{SECRET}"), env)
        .lines()
        .filter(|line| !line.starts_with("tenants.a."))
        .collect::<Vec<_>>()
        .join("\n")
}

/// One tenant `a` with these lines after its IDs and secret.
fn check_tenant(toml: &str, env: &[(&str, &str)]) -> String {
    check(&format!("[tenants.a]\n{IDS}{SECRET}{toml}"), env)
}

#[test]
fn every_mistake_is_reported_at_once_in_the_order_of_the_file() {
    let toml = r#"
surprise = 1
[database]
url = "sqlite::memory:"
[worker]
poll_intervall = "30s"
poll_interval = 30
max_calls_in_flight = 0
send_within = "2m"
[batch]
max_devices = "100"
linger = "1s1m"
[graf]
action = "x"
[retry]
multiplier = 0.5
failed = "yes"
max_attempts = 3.5
[reconcile]
unknown_policy = "readback"
settle_after = "3h"
colour = "red"
[tenants.Contoso]
[tenants.a]
cloud = "us-gov-l6"
tenant_id = "common"
client_id = "x"
client_secret = "hunter2"
"#;
    let said =
        check(toml, &[("REPROVISIOND_LIMITS_OPEN_DOUBTS", "101"), ("REPROVISIOND_WORKER_LEASES", "1s"), ("HOME", "/")]);
    assert!(!said.contains("hunter2"), "{said}");
    assert_snapshot!(said, @r#"
    23 mistakes in the configuration:
    DIR/reprovisiond.toml:2:1: unknown section `surprise`
      the sections are database, worker, batch, graph, retry, reconcile, completion, limits, ops, tenants
    DIR/reprovisiond.toml:4:7: database.url: a database in memory is seen by one connection only; the daemon and its commands must share one file
      write sqlite:PATH with a file on a local disk, or postgres://USER@HOST/DATABASE
    DIR/reprovisiond.toml:6:1: unknown key `worker.poll_intervall`; did you mean `poll_interval`?
    DIR/reprovisiond.toml:7:17: worker.poll_interval = 30: a duration needs a unit
      write "30s" for seconds
    DIR/reprovisiond.toml:8:23: worker.max_calls_in_flight = 0: must be a whole number from 1 to 64
      change it, or remove it for the default, 4
    DIR/reprovisiond.toml:9:15: worker.send_within = 2m: must be shorter than worker.lease (default), which is 1m
      change one of them: a call must not leave after others believe its worker dead
    DIR/reprovisiond.toml:11:15: batch.max_devices = "100": must be a whole number
      write it in digits, without quotes
    DIR/reprovisiond.toml:12:10: batch.linger = "1s1m": the units of a duration go from large to small, each once
      write whole numbers with the units h, m, s or ms, such as "1m30s"
    DIR/reprovisiond.toml:13:2: unknown section `graf`; did you mean `graph`?
    DIR/reprovisiond.toml:16:14: retry.multiplier = 0.5: must be a number from 1.0 to 10.0
      change it, or remove it for the default, 2.0
    DIR/reprovisiond.toml:17:10: retry.failed = "yes": must be true or false
      write true or false, without quotes
    DIR/reprovisiond.toml:18:16: retry.max_attempts = 3.5: must be a whole number
      write it in digits, without quotes
    DIR/reprovisiond.toml:20:18: reconcile.unknown_policy = "readback": not one of the known words
      did you mean "read-back"?
    DIR/reprovisiond.toml:21:16: reconcile.give_up_after = 2h: must be longer than reconcile.settle_after (DIR/reprovisiond.toml:21:16), which is 3h
      change one of them: read-back needs the time to settle a doubt before a person is asked
    DIR/reprovisiond.toml:22:1: unknown key `reconcile.colour`
      the keys of [reconcile] are unknown_policy, first_after, settle_after, give_up_after, clock_margin
    DIR/reprovisiond.toml:23:10: tenants.Contoso: not a tenant name: use 1 to 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit
      choose another name; it is also the one in the tenant column of the queue
    DIR/reprovisiond.toml:24:10: tenants.a has no client_secret_file
      add client_secret_file = "PATH"
    DIR/reprovisiond.toml:25:9: tenants.a.cloud = "us-gov-l6": not one of the known words
      did you mean "us-gov-l4"?
    DIR/reprovisiond.toml:26:13: tenants.a.tenant_id = "common": stands for many directories; a daemon signs in to one
      write the directory (tenant) ID that Entra ID shows, or a domain verified in it
    DIR/reprovisiond.toml:27:13: tenants.a.client_id = "x": not a GUID
      write the application (client) ID that the app registration shows
    DIR/reprovisiond.toml:28:1: unknown key `tenants.a.client_secret`: secrets come only from files
      write the secret to a file that only the daemon can read and name it: client_secret_file = "PATH"
    REPROVISIOND_LIMITS_OPEN_DOUBTS: limits.open_doubts = 101: must be a whole number from 1 to 100
      change it, or remove it for the default, 2
    REPROVISIOND_WORKER_LEASES: unknown variable; did you mean `REPROVISIOND_WORKER_LEASE`?
    "#);
}

#[test]
fn a_syntax_error_has_its_place_and_does_not_hide_other_mistakes_or_show_the_line() {
    let said = check("[worker]\nlease = \"60s\nmax_calls_in_flight = 0\n[database]\nurl = hunter2\n[batch\n", &[]);
    assert!(!said.contains("hunter2"), "{said}");
    assert_snapshot!(said, @r#"
    4 mistakes in the configuration:
    DIR/reprovisiond.toml:2:13: not TOML: invalid basic string, expected `"`
      write KEY = VALUE, with texts and durations in double quotes
    DIR/reprovisiond.toml:3:23: worker.max_calls_in_flight = 0: must be a whole number from 1 to 64
      change it, or remove it for the default, 4
    DIR/reprovisiond.toml:5:7: not TOML: string values must be quoted, expected literal string
      write KEY = VALUE, with texts and durations in double quotes
    DIR/reprovisiond.toml:6:7: not TOML: unclosed table, expected `]`
      write KEY = VALUE, with texts and durations in double quotes
    "#);
    assert_snapshot!(check("[worker]\nlease = \"60s\"\n lease = \"50s\"\n", &[]), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:3:2: not TOML: duplicate key
      keep one of the two: each key and each section is there once
    ");
    assert_snapshot!(check("\u{feff}lease = \n", &[]), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:1:9: not TOML: string values must be quoted, expected literal string
      write KEY = VALUE, with texts and durations in double quotes
    ");
}

#[test]
fn a_file_that_is_no_text_or_is_not_there_is_said_so() {
    assert_snapshot!(Scene::new(Some(b"[worker]\nlease = \"\xff\""), &[]).outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:2:10: not UTF-8 from here on
      save the file as UTF-8
    ");
    let mut missing = Scene::new(None, &[]);
    missing.sources.file = Some(missing.directory.path().join("nothing.toml"));
    assert_snapshot!(missing.outcome(), @"
    1 mistake in the configuration:
    DIR/nothing.toml: the configuration file does not exist
      name a TOML file that the daemon's user can read: --config FILE or REPROVISIOND_CONFIG
    ");
    missing.sources.file = Some(missing.directory.path().to_owned());
    assert_snapshot!(missing.outcome(), @"
    1 mistake in the configuration:
    DIR: the configuration file is not a file
      name a TOML file that the daemon's user can read: --config FILE or REPROVISIOND_CONFIG
    ");
    let endless = Scene::new(Some(&b"#".repeat(1024 * 1024 + 1)), &[]);
    assert_snapshot!(endless.outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml: the configuration file is longer than 1048576 bytes
      name a TOML file that the daemon's user can read: --config FILE or REPROVISIOND_CONFIG
    ");
}

#[test]
fn an_unknown_key_is_answered_with_the_one_that_was_meant() {
    assert_snapshot!(check_settings("linger = \"1s\"\nwrker = 1\n[retry]\nlinger = \"1s\"\nmax_retries = 1\n[retry.failed]\nx = 1\n[[batch]]\n", &[]), @"
    6 mistakes in the configuration:
    DIR/reprovisiond.toml:1:1: unknown key `linger`; did you mean `batch.linger`?
    DIR/reprovisiond.toml:2:1: unknown section `wrker`; did you mean `worker`?
    DIR/reprovisiond.toml:4:1: unknown key `retry.linger`; did you mean `batch.linger`?
    DIR/reprovisiond.toml:5:1: unknown key `retry.max_retries`
      the keys of [retry] are first_delay, longest_delay, multiplier, max_attempts, failed, blocked_probe_interval
    DIR/reprovisiond.toml:6:1: retry.failed = [retry.failed]: must be true or false
      write true or false, without quotes
    DIR/reprovisiond.toml:8:3: `batch` is a section
      write [batch]
    ");
}

#[test]
fn variables_win_over_the_file_and_say_so() {
    let env = [
        ("REPROVISIOND_WORKER_LEASE", "90s"),
        ("REPROVISIOND_RETRY_FAILED", "true"),
        ("REPROVISIOND_RETRY_MULTIPLIER", "3"),
        ("REPROVISIOND_DATABASE_URL", "postgres://u:hunter2@h/d"),
        ("REPROVISIOND_CONFIG", "x"),
        ("REPROVISIOND_LOG", "debug"),
        ("DATABASE_URL", "sqlite:other.db"),
    ];
    assert_snapshot!(check_settings("[worker]\nlease = \"2m\"\nsend_within = \"5s\"\n", &env), @"
    ok
    database.url = postgres://u:***@h/d  (REPROVISIOND_DATABASE_URL)
    worker.lease = 90s  (REPROVISIOND_WORKER_LEASE)
    worker.send_within = 5s  (DIR/reprovisiond.toml:3:15)
    retry.multiplier = 3.0  (REPROVISIOND_RETRY_MULTIPLIER)
    retry.failed = true  (REPROVISIOND_RETRY_FAILED)
    ");
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    let env = [
        ("REPROVISIOND_WORKER_LEASE", "90"),
        ("REPROVISIOND_WORKER_MAX_CALLS_IN_FLIGHT", "-1"),
        ("REPROVISIOND_RETRY_FAILED", "TRUE"),
        ("REPROVISIOND_RETRY_MULTIPLIER", "NaN"),
        ("REPROVISIOND_DATABASE_ULR", "sqlite:x"),
        ("REPROVISIOND_DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("REPROVISIOND_GRAPH_ACTION", ""),
        ("REPROVISIOND_TENANTS_A_CLIENT_SECRET", "hunter2"),
        ("REPROVISIOND_TENANTS_A_CLUOD", "china"),
        ("REPROVISIOND_TENANTS__X_CLOUD", "china"),
        ("REPROVISIOND_WHATEVER", "hunter2"),
    ];
    let said = check_settings("", &env);
    assert!(!said.contains("hunter2"), "{said}");
    assert_snapshot!(said, @r#"
    11 mistakes in the configuration:
    REPROVISIOND_DATABASE_ULR: unknown variable; did you mean `REPROVISIOND_DATABASE_URL`?
    REPROVISIOND_DATABASE_URL: database.url: not a database URL: must begin with sqlite: or postgres://
      write sqlite:PATH with a file on a local disk, or postgres://USER@HOST/DATABASE
    REPROVISIOND_GRAPH_ACTION: is set but empty
      give it a value, or unset it for the layer below
    REPROVISIOND_RETRY_FAILED: retry.failed = TRUE: neither true nor false
      write true or false, in lower case
    REPROVISIOND_RETRY_MULTIPLIER: retry.multiplier = NaN: must be a number from 1.0 to 10.0
      change it, or remove it for the default, 2.0
    REPROVISIOND_TENANTS_A_CLIENT_SECRET: unknown variable: secrets come only from files
      write the secret to a file that only the daemon can read and name it: client_secret_file = "PATH"
    REPROVISIOND_TENANTS_A_CLUOD: unknown variable; did you mean `REPROVISIOND_TENANTS_A_CLOUD`?
    REPROVISIOND_TENANTS__X_CLOUD: `_X` is no tenant's name in upper case
      write REPROVISIOND_TENANTS_NAME_KEY, NAME from A-Z, 0-9 and '_'
    REPROVISIOND_WHATEVER: unknown variable
      unset it; the names are REPROVISIOND_SECTION_KEY and REPROVISIOND_TENANTS_NAME_KEY
    REPROVISIOND_WORKER_LEASE: worker.lease = 90: a duration needs a unit
      write "90s" for seconds
    REPROVISIOND_WORKER_MAX_CALLS_IN_FLIGHT: worker.max_calls_in_flight = -1: must be a whole number from 1 to 64
      change it, or remove it for the default, 4
    "#);
}

#[test]
fn a_variable_that_is_not_utf_8_is_a_mistake() {
    use std::os::unix::ffi::OsStringExt;
    let mut scene = Scene::new(Some(format!("[tenants.a]\n{IDS}{SECRET}").as_bytes()), &[]);
    scene.sources.env.insert("REPROVISIOND_BATCH_LINGER".into(), OsString::from_vec(vec![0xff]));
    assert_snapshot!(scene.outcome(), @"
    1 mistake in the configuration:
    REPROVISIOND_BATCH_LINGER: is not UTF-8
      give it a value in UTF-8
    ");
}

#[test]
fn keys_that_bound_each_other_are_reported_with_both_names_and_places() {
    let toml = "[retry]\nlongest_delay = \"1s\"\n[graph]\ncall_timeout = \"10m\"\n[reconcile]\nsettle_after = \"50s\"\ngive_up_after = \"40s\"\n";
    assert_snapshot!(check_settings(toml, &[("REPROVISIOND_WORKER_LEASE", "10s")]), @"
    5 mistakes in the configuration:
    DIR/reprovisiond.toml:2:17: retry.longest_delay = 1s: must be at least retry.first_delay (default), which is 2s
      change one of them: delays grow from the one to the other
    DIR/reprovisiond.toml:6:16: reconcile.settle_after = 50s: must be longer than reconcile.first_after (default), which is 1m
      change one of them: nothing is taken for not done before it was looked for
    DIR/reprovisiond.toml:6:16: reconcile.settle_after = 50s: must be longer than worker.send_within (default) + graph.call_timeout (DIR/reprovisiond.toml:4:16), which is 10m10s
      change one of them: a call that may still be under way must not be sent again
    DIR/reprovisiond.toml:7:17: reconcile.give_up_after = 40s: must be longer than reconcile.settle_after (DIR/reprovisiond.toml:6:16), which is 50s
      change one of them: read-back needs the time to settle a doubt before a person is asked
    REPROVISIOND_WORKER_LEASE: worker.send_within = 10s: must be shorter than worker.lease (REPROVISIOND_WORKER_LEASE), which is 10s
      change one of them: a call must not leave after others believe its worker dead
    ");
}

#[test]
fn a_drain_shorter_than_a_call_is_a_warning_only() {
    assert_snapshot!(check_settings("[worker]\ndrain_timeout = \"30s\"\n", &[]), @"
    ok
    warning: DIR/reprovisiond.toml:2:17: worker.drain_timeout = 30s is shorter than graph.call_timeout = 1m (default)
      a stop can cut off calls that would have been answered, and leaves them in doubt
    worker.drain_timeout = 30s  (DIR/reprovisiond.toml:2:17)
    ");
}

#[test]
fn a_command_that_needs_the_database_alone_demands_no_tenant() {
    let database = |toml: Option<&str>, env: &[(&str, &str)], flag: Option<&str>| {
        let mut scene = Scene::new(toml.map(str::as_bytes), env);
        scene.sources.database_flag = flag.map(ToOwned::to_owned);
        scene.database()
    };
    let file = Some("[database]\nurl = \"sqlite:file.db\"\n[worker]\nlease = 0\n[tenants.a]\n");
    let variable = [("REPROVISIOND_DATABASE_URL", "sqlite:variable.db")];
    let broken = Some("[database]\nurl = \"sqlite:file.db\n");
    assert_eq!(database(None, &[], None), "sqlite:reprovisiond.db");
    assert_eq!(database(Some("[worker]\nlease = 0\n"), &[], None), "sqlite:reprovisiond.db");
    assert_eq!(database(file, &[], None), "sqlite:file.db");
    assert_eq!(database(file, &variable, None), "sqlite:variable.db");
    assert_eq!(database(file, &variable, Some("sqlite:flag.db")), "sqlite:flag.db");
    assert_eq!(database(broken, &variable, None), "sqlite:variable.db");
    assert_eq!(database(broken, &[], Some("sqlite:flag.db")), "sqlite:flag.db");
}

#[test]
fn a_command_never_takes_the_default_database_where_another_was_meant() {
    let database = |toml: &str, env: &[(&str, &str)], flag: Option<&str>| {
        let mut scene = Scene::new(Some(toml.as_bytes()), env);
        scene.sources.database_flag = flag.map(ToOwned::to_owned);
        scene.database()
    };
    assert_snapshot!(database("[database]\nurl = \"sqlite:file.db\n", &[], None), @r#"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:2:22: not TOML: invalid basic string, expected `"`
      write KEY = VALUE, with texts and durations in double quotes
    "#);
    assert_snapshot!(database("[database]\nulr = \"sqlite:file.db\"\n", &[], None), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:2:1: unknown key `database.ulr`; did you mean `url`?
    ");
    assert_snapshot!(database("[db]\nurl = \"sqlite:file.db\"\n[worker]\nlease = 0\n", &[], None), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:1:2: unknown section `db`
      the sections are database, worker, batch, graph, retry, reconcile, completion, limits, ops, tenants
    ");
    assert_snapshot!(database("[database]\nurl = \"sqlite:file.db\"\n", &[("REPROVISIOND_DATABASE_ULR", "sqlite:v.db")], None), @"
    1 mistake in the configuration:
    REPROVISIOND_DATABASE_ULR: unknown variable; did you mean `REPROVISIOND_DATABASE_URL`?
    ");
    assert_snapshot!(database("[database]\nurl = \"sqlite:file.db\"\n", &[], Some("flag.db")), @"
    1 mistake in the configuration:
    --database: database.url: not a database URL: must begin with sqlite: or postgres://
      write sqlite:PATH with a file on a local disk, or postgres://USER@HOST/DATABASE
    ");
}

#[test]
fn every_default_keeps_its_own_rule_and_fills_its_field() {
    for key in KEYS {
        if let (Kind::Setting(setting), Some(default)) = (&key.kind, key.default) {
            assert!(setting.apply(&mut Config::default(), default).is_ok(), "{}", key.path);
        }
    }
    assert_snapshot!(format!("{:#?}", Config::default()), @"
    Config {
        database: Database {
            url: DatabaseUrl(sqlite:reprovisiond.db),
            patience: 30s,
        },
        worker: Worker {
            poll_interval: 30s,
            max_calls_in_flight: 4,
            drain_timeout: 60s,
            lease: 60s,
            send_within: 10s,
        },
        batch: Batch {
            max_devices: 100,
            linger: 0ns,
        },
        graph: Graph {
            action: BulkReprovisionCloudPc,
            call_timeout: 60s,
            cloud_pcs_max_age: 600s,
        },
        retry: Retry {
            first_delay: 2s,
            longest_delay: 300s,
            multiplier: 2.0,
            max_attempts: 3,
            failed: false,
            blocked_probe_interval: 900s,
        },
        reconcile: Reconcile {
            unknown_policy: ReadBack,
            first_after: 60s,
            settle_after: 900s,
            give_up_after: 7200s,
            clock_margin: 120s,
        },
        completion: Completion {
            track: false,
            first_after: 300s,
            shortest_delay: 300s,
            longest_delay: 3600s,
            give_up_after: 86400s,
            reads: Rate {
                calls: 300,
                period: 60s,
            },
        },
        limits: Limits {
            open_doubts: 2,
            rate: Rate {
                calls: 100,
                period: 20s,
            },
        },
        ops: Ops {
            listen: Off,
        },
        tenants: {},
    }
    ");
}

#[test]
fn a_path_names_one_key_and_a_variable_names_one_path() {
    let paths: std::collections::BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
    let variables: std::collections::BTreeSet<_> = KEYS.iter().map(super::keys::Key::variable).collect();
    assert_eq!((paths.len(), variables.len()), (KEYS.len(), KEYS.len()));
}

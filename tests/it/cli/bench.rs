//! `reprovisiond bench`

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::program::{Program, Said, command, plain, said};
use crate::support::{Backend, Bouncer, Roles, Scratch, on_both};

/// What there is beside the queue: files in its directory, or schemas in its database.
async fn places(scratch: &Scratch) -> BTreeSet<String> {
    match scratch.backend() {
        Backend::Sqlite => {
            let directory = scratch.file().parent().unwrap().read_dir().unwrap();
            directory.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
        Backend::Postgres => {
            let schemas = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'";
            scratch.rows(schemas).await.lines().map(str::to_owned).collect()
        }
    }
}

/// All that the queue holds.
async fn content(scratch: &Scratch) -> String {
    if scratch.backend() == Backend::Sqlite {
        return format!("{:?}", std::fs::read(scratch.file()).unwrap());
    }
    let dump = "SELECT table_name, query_to_xml(format('SELECT * FROM %I.%I', table_schema, table_name), true, false, '')
        FROM information_schema.tables WHERE table_schema IN ('public', 'reprovisiond') AND table_type = 'BASE TABLE' ORDER BY 1";
    scratch.rows(dump).await
}

/// How many results there are in a scratch file or schema, if it can be asked already.
async fn results_in(scratch: &Scratch, place: &str) -> u32 {
    let count = match scratch.backend() {
        Backend::Sqlite => {
            let mut sqlite3 = std::process::Command::new("sqlite3");
            sqlite3.arg(scratch.file().with_file_name(place)).arg("SELECT count(*) FROM device_results");
            String::from_utf8(sqlite3.output().unwrap().stdout).unwrap().trim().to_owned()
        }
        Backend::Postgres => {
            scratch.sqlite3_or_psql(&format!("SELECT count(*) FROM {place}.device_results")).await.unwrap_or_default()
        }
    };
    count.parse().unwrap_or(0)
}

async fn bench(scratch: &Scratch, url: &str, args: &[&str]) -> Said {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(&[&["bench", "--database", url], args].concat());
    command.current_dir(directory.path());
    let ended = tokio::task::spawn_blocking(move || said(&mut command, "")).await.unwrap();
    assert!(!ended.to_string().contains("hunter2"), "{ended}");
    assert!(!places(scratch).await.iter().any(|place| place.starts_with("reprovisiond_bench_0")), "{ended}");
    ended
}

#[test]
fn help_says_what_is_touched_and_a_table_or_one_document_is_all_there_is() {
    let help = plain(&["bench", "--help"]);
    assert!(help.stdout.starts_with("Examples:\n  reprovisiond bench "), "{help}");
    assert!(help.stdout.contains("No queue is touched"), "{help}");
    assert_eq!(plain(&["bench", "--output", "csv"]).code, 2);
    assert_eq!(plain(&["bench", "--devices", "0"]).code, 2);
}

on_both! {
    async fn it_says_what_limits_and_leaves_the_queue_and_its_surroundings_as_they_were(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let queued = program.run(&["enqueue", "30d0e128-de93-41dc-89ec-33d84bb662a0"]).await;
        assert_eq!(queued.code, 0, "{queued}");
        let before = (places(&scratch).await, content(&scratch).await);

        let said = bench(&scratch, &scratch.url, &["--devices", "300"]).await;
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said}");
        for part in ["What limits a job ", " as much.\n", "300 devices in ", "The simulated Graph ran in this process"] {
            assert!(said.stdout.contains(part), "{part}: {said}");
        }
        // The tests' server does not wait for its disk, and that is said.
        let told = said.stdout.contains("does not wait for its disk (fsync = off)");
        assert_eq!(told, scratch.backend() == Backend::Postgres, "{said}");
        assert!((places(&scratch).await, content(&scratch).await) == before, "{said}");
    }

    async fn a_program_gets_numbers_with_their_units_and_the_configured_bounds(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        // A secret that this user cannot read does not matter.
        program.file("reprovisiond.toml", "[batch]\nmax_devices = 50\n[worker]\nmax_calls_in_flight = 3\n[limits]\ncalls_per_period = 2\nperiod = \"1s\"
            [tenants.contoso]\naction = \"cloud-pc-reprovision\"\ntenant_id = \"contoso.example\"\nclient_id = \"30d0e128-de93-41dc-89ec-33d84bb662a0\"\nclient_secret_file = \"absent\"\n");
        let said = program.run(&["bench", "--devices", "40", "--output", "json"]).await;
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said}");
        let told: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(told["durable"], scratch.backend() == Backend::Sqlite, "{said}");
        assert_eq!((&told["devices"], &told["devices_per_call"], &told["calls_in_flight"]), (&40.into(), &2.into(), &3.into()));
        assert_eq!((&told["limited_by"], &told["api_devices_per_second"]), (&"api".into(), &2.0.into()), "{said}");
        assert_eq!(told["set"], serde_json::json!({}), "{said}");
        let numbers = ["seconds", "commit_ms", "read_ms", "cpu_us_per_device", "database_devices_per_second", "cpu_devices_per_second"];
        for number in numbers {
            assert!(told[number].as_f64().is_some_and(|number| number > 0.0), "{number}: {said}");
        }
    }

    async fn what_a_signal_ends_is_tidied_up(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        let before = places(&scratch).await;
        // As soon as there is anything, and in the middle of the work.
        for (signal, results) in [(Signal::TERM, 0), (Signal::INT, 200)] {
            let child = program.command(&["bench", "--devices", "30000"]).spawn().unwrap();
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            let reached = tokio::time::timeout(Duration::from_mins(1), async {
                loop {
                    tick.tick().await;
                    let made = places(&scratch).await;
                    let Some(place) = made.iter().find(|place| !before.contains(*place)) else { continue };
                    if results_in(&scratch, place).await >= results {
                        return;
                    }
                }
            });
            assert!(reached.await.is_ok(), "{signal:?}: it never came so far");
            kill_process(Pid::from_child(&child), signal).unwrap();
            let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), said.as_str()), (Some(1), "reprovisiond: ended by a signal, before it was done\n"));
            assert_eq!(places(&scratch).await, before, "{signal:?}");
        }
    }

    async fn what_a_killed_run_left_is_named_with_the_way_to_remove_it_and_left_alone(scratch: Scratch) {
        let name = format!("reprovisiond_bench_{}", "f".repeat(32));
        match scratch.backend() {
            Backend::Sqlite => std::fs::write(scratch.file().with_file_name(format!("{name}.db")), "kept").unwrap(),
            Backend::Postgres => drop(scratch.rows(&format!("CREATE SCHEMA {name}")).await),
        }
        let before = places(&scratch).await;
        // A database without a schema of ours is measured like any other.
        let said = bench(&scratch, &scratch.url, &["--devices", "10"]).await;
        let remedy = match scratch.backend() {
            Backend::Sqlite => format!("{name}.db-shm'\n"),
            Backend::Postgres => format!("left the schema {name}: DROP SCHEMA {name} CASCADE\n"),
        };
        assert!(said.code == 0 && said.stderr.ends_with(&remedy), "{said}");
        assert_eq!(places(&scratch).await, before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_make_no_schema_is_told_what_to_grant_and_then_needs_nothing_else() {
    let roles = Roles::migrated("reprovisiond").await;
    let before = (places(&roles.scratch).await, content(&roles.scratch).await);
    let args = ["bench", "--devices", "50"];
    let refused = roles.program("worker", &args).await.unwrap_err();
    let grant = refused.split('`').nth(1).unwrap_or_default();
    assert!(
        refused.contains("may not make a scratch schema") && grant.starts_with("GRANT CREATE ON DATABASE "),
        "{refused}"
    );
    roles.sql(grant).await;
    // The role's own search path leads to the real schema.
    let said = roles.program("worker", &args).await.unwrap();
    assert!(said.contains("What limits a job "), "{said}");
    assert!((places(&roles.scratch).await, content(&roles.scratch).await) == before, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_nothing_is_made_and_the_server_itself_is_asked_for() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let before = places(&scratch).await;
    // One that refuses the parameter, and one that swallows it.
    for (setting, reason) in [("", "startup parameter"), ("ignore_startup_parameters = options", "search_path is ")] {
        let bouncer = Bouncer::with(&scratch, setting);
        bouncer.until_up().await;
        let said = bench(&scratch, &format!("{}&password=hunter2", bouncer.url(&scratch)), &[]).await;
        assert!(said.code == 78 && said.stderr.contains(reason), "{said}");
        assert!(said.stderr.contains("give the server's own address with --database"), "{said}");
    }
    assert_eq!(places(&scratch).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_cannot_be_written_or_reached_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let absent = format!("sqlite:{}/absent/queue.db", directory.path().display());
    let said = tokio::task::spawn_blocking(move || plain(&["bench", "--database", &absent])).await.unwrap();
    assert!(said.code == 78 && said.stderr.contains("/absent: No such file or directory"), "{said}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://ops:hunter2@{nobody}/queue");
    let said = tokio::task::spawn_blocking(move || plain(&["bench", "--database", &url])).await.unwrap();
    assert!(said.code == 69 && !said.to_string().contains("hunter2"), "{said}");
}

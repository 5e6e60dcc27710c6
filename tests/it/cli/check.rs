//! `reprovisiond check`

use std::time::Duration;

use chrono::TimeDelta;
use reprovisiond::domain::lifecycle::{BlockCode, CallState, EntryEffect, TenantEffect};
use reprovisiond::simulator::{Effect, Endpoint, Fault, Interface, Options, Simulator, StatusFault};
use reprovisiond::store::PRIVILEGES;

use super::fill::Filled;
use super::program::{Program, Said, command, plain, said};
use crate::support::{Backend, Role, Scratch, calm, on_both};

/// A tenant's section, signed in at a simulator.
fn tenant(name: &str, simulator: &Simulator, graph_url: &str, action: &str) -> String {
    format!(
        "[tenants.{name}]\ncloud = \"custom\"\ngraph_url = {graph_url:?}\nauthority_url = {:?}\ntenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret_file = {:?}\naction = {action:?}\n",
        simulator.authority_url(),
        simulator.tenant_id(),
        simulator.client_id(),
        simulator.client_secret_file().display().to_string(),
    )
}

async fn program<'a>(scratch: &'a Scratch, simulator: &Simulator, action: &str) -> Program<'a> {
    let program = Program::new(scratch).await;
    program.file("reprovisiond.toml", tenant("contoso", simulator, simulator.graph_url(), action));
    program
}

/// Runs it, and sees that nothing was asked of Graph that could be carried out, and that nothing secret was said.
async fn checked(program: &Program<'_>, simulator: &Simulator, args: &[&str]) -> Said {
    let said = program.run(&[&["check"], args].concat()).await;
    assert_eq!(simulator.ledger(), [], "{said}");
    for request in simulator.requests() {
        assert!(request.managed_device_ids.is_empty(), "{request:?}");
        assert!(request.cloud_pc_ids.iter().all(|id| id == "00000000-0000-0000-0000-000000000000"), "{request:?}");
    }
    let secret = std::fs::read_to_string(simulator.client_secret_file()).unwrap();
    assert!(!said.to_string().contains(secret.trim()) && !said.to_string().contains("eyJ"), "{said}");
    said
}

/// The lines that begin a finding about `subject`, with their remedies.
fn about(said: &Said, subject: &str) -> String {
    let mut shown = String::new();
    let mut on = false;
    for line in said.stdout.lines() {
        if !line.starts_with(' ') {
            on = line.get(13..).is_some_and(|rest| rest.starts_with(subject));
        }
        if on {
            shown.extend([line, "\n"]);
        }
    }
    shown + &format!("[exit {}]\n", said.code)
}

macro_rules! snapshot {
    ($text:expr, @$snapshot:literal) => {{
        let text = $text;
        insta::with_settings!({ filters => vec![
            (r"client error \(SendRequest\).*", "[connection reset]"),
            (r"https?://127\.0\.0\.1:\d+/?", "[simulator]"),
            (r"(?:sqlite|postgres):\S+", "[database]"),
            (r"\brole_[0-9a-f]{32}\b", "[role]"),
            (r"to within \d+\.\d s", "to within [n] s"),
            (r"\d+\.\d s (ahead|behind)", "[n] s $1"),
            (r"give or take \d+\.\d s", "give or take [n] s"),
            (r"PostgreSQL \d+", "PostgreSQL [n]"),
            (r"/\S+/([a-z_.-]+)", "[dir]/$1"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z", "[time]"),
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[guid]"),
        ]}, {
            insta::allow_duplicates! { insta::assert_snapshot!(text, @$snapshot) }
        });
    }};
}

const V1: &str = "cloud-pc-reprovision";
const DEPRECATED: &str = "bulk-reprovision-cloud-pc";

#[test]
fn help_begins_with_examples_and_says_the_exit_codes() {
    let said = plain(&["check", "--help"]);
    assert!(said.stdout.starts_with("Examples:\n  reprovisiond check "), "{said}");
    assert!(said.stdout.contains("Exit codes: 0 ready"), "{said}");
    assert_eq!(plain(&["check", "--output", "csv"]).code, 2);
}

on_both! {
    async fn a_tenant_that_answers_is_ready(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        let said = checked(&program, &simulator, &[]).await;
        snapshot!(about(&said, "contoso"), @r"
        ok           contoso: queue: registered; requests ready to be sent: 0, waiting for a time: 0
        ok           contoso: token: obtained from [simulator]
        ok           contoso: roles: CloudPC.ReadWrite.All
        ok           contoso: action cloud-pc-reprovision (configured): answered
        note         contoso: action bulk-reprovision-cloud-pc: answered too
        note         contoso: action cloud-pc-bulk-action: answered too
        ok           contoso: Graph's clock: agrees with the database's to within [n] s
        [exit 0]
        ");
        assert!(said.stdout.contains("\nReady") && said.stderr.is_empty(), "{said}");
    }

    async fn an_action_that_is_gone_is_named_with_one_that_is_not(scratch: Scratch) {
        let mut seen = String::new();
        for gone in [Interface::BulkReprovisionCloudPc, Interface::CloudPcBulkAction, Interface::CloudPcReprovision] {
            let simulator = Simulator::start(Options { without: vec![gone], ..calm() }).unwrap();
            let word = serde_json::to_value(gone).unwrap();
            let program = program(&scratch, &simulator, word.as_str().unwrap()).await;
            seen += &about(&checked(&program, &simulator, &[]).await, "contoso: action");
        }
        snapshot!(seen, @r#"
        failure      contoso: action bulk-reprovision-cloud-pc (configured): not answered: HTTP 400 BadRequest: Resource not found for the segment 'bulkReprovisionCloudPc'.
                     remedy: set tenants.contoso.action = "cloud-pc-reprovision" (or graph.action), which this tenant answers
        note         contoso: action cloud-pc-bulk-action: answered too
        note         contoso: action cloud-pc-reprovision: answered too
        [exit 78]
        failure      contoso: action cloud-pc-bulk-action (configured): not answered: HTTP 400 BadRequest: Resource not found for the segment 'bulkActions'.
                     remedy: set tenants.contoso.action = "cloud-pc-reprovision" (or graph.action), which this tenant answers
        note         contoso: action bulk-reprovision-cloud-pc: answered too
        note         contoso: action cloud-pc-reprovision: answered too
        [exit 78]
        failure      contoso: action cloud-pc-reprovision (configured): not answered: HTTP 400 BadRequest: Resource not found for the segment 'reprovision'.
                     remedy: set tenants.contoso.action = "cloud-pc-bulk-action" (or graph.action), which this tenant answers
        note         contoso: action bulk-reprovision-cloud-pc: answered too
        note         contoso: action cloud-pc-bulk-action: answered too
        [exit 78]
        "#);
    }

    async fn a_tenant_without_any_action_has_no_remedy_of_that_kind(scratch: Scratch) {
        let without = vec![Interface::BulkReprovisionCloudPc, Interface::CloudPcBulkAction, Interface::CloudPcReprovision];
        let simulator = Simulator::start(Options { without, ..calm() }).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        snapshot!(about(&checked(&program, &simulator, &[]).await, "contoso: action cloud-pc-reprovision"), @r"
        failure      contoso: action cloud-pc-reprovision (configured): not answered: HTTP 400 BadRequest: Resource not found for the segment 'reprovision'.
                     remedy: no other is answered either: check graph_url and cloud, and that the tenant has Windows 365
        [exit 78]
        ");
    }

    async fn the_deprecated_action_is_warned_of_where_another_is_answered(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, DEPRECATED).await;
        snapshot!(about(&checked(&program, &simulator, &[]).await, "contoso: action"), @r#"
        warning      contoso: action bulk-reprovision-cloud-pc (configured): answered, and deprecated by Microsoft
                     remedy: set tenants.contoso.action = "cloud-pc-reprovision" (or graph.action), which this tenant answers
        note         contoso: action cloud-pc-bulk-action: answered too
        note         contoso: action cloud-pc-reprovision: answered too
        [exit 0]
        "#);
    }

    async fn roles_are_those_of_the_token(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        simulator.grant_roles(["CloudPC.Read.All"]);
        snapshot!(about(&checked(&program, &simulator, &[]).await, "contoso"), @r"
        ok           contoso: queue: registered; requests ready to be sent: 0, waiting for a time: 0
        ok           contoso: token: obtained from [simulator]
        failure      contoso: roles: the token lacks CloudPC.ReadWrite.All; it has CloudPC.Read.All
                     remedy: grant the application permission CloudPC.ReadWrite.All, with admin consent, to this client_id; a managed identity's may take a day
        failure      contoso: action cloud-pc-reprovision (configured): not allowed: HTTP 403 Forbidden: Application is not authorized to perform this operation. Application must have one of the following scopes: CloudPC.ReadWrite.All
                     remedy: grant the application permission CloudPC.ReadWrite.All, with admin consent, to this client_id; a managed identity's may take a day; see that tenant_id and cloud are the tenant's own, and that it has Windows 365
        note         contoso: action bulk-reprovision-cloud-pc: not allowed: HTTP 403 Forbidden: Application is not authorized to perform this operation. Application must have one of the following scopes: CloudPC.ReadWrite.All
        note         contoso: action cloud-pc-bulk-action: answered too
        ok           contoso: Graph's clock: agrees with the database's to within [n] s
        [exit 77]
        ");
        simulator.grant_roles(["CloudPC.ReadWrite.All", "Directory.ReadWrite.All"]);
        snapshot!(about(&checked(&program, &simulator, &[]).await, "contoso: roles"), @r"
        ok           contoso: roles: CloudPC.ReadWrite.All
        note         contoso: roles: the token has more, of which the daemon needs nothing: Directory.ReadWrite.All
        [exit 0]
        ");
    }

    async fn a_token_that_is_refused_or_not_to_be_had_leaves_the_rest_unchecked(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        simulator.add_fault(Fault::from(Effect::status(503)).on(Endpoint::Token)).unwrap();
        snapshot!(about(&checked(&program, &simulator, &[]).await, "contoso"), @r"
        ok           contoso: queue: registered; requests ready to be sent: 0, waiting for a time: 0
        failure      contoso: token: no token: 127.0.0.1 answered HTTP 503 ([simulator])
                     remedy: see that this host reaches authority_url: network, proxy, certificates
        not checked  contoso: roles and actions: there is no token
        [exit 69]
        ");
        let wrong = tenant("contoso", &simulator, simulator.graph_url(), V1)
            .replace(&simulator.client_secret_file().display().to_string(), "wrong.secret");
        program.file("wrong.secret", "not-the-secret");
        program.file("reprovisiond.toml", wrong);
        let said = checked(&program, &simulator, &[]).await;
        assert!(!said.to_string().contains("not-the-secret"), "{said}");
        snapshot!(about(&said, "contoso"), @r"
        ok           contoso: queue: registered; requests ready to be sent: 0, waiting for a time: 0
        failure      contoso: token: no token: 127.0.0.1 refuses client_id [guid] (invalid_client: AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '[guid]'.): check tenant_id, client_id and the secret in wrong.secret ([simulator])
                     remedy: correct how the tenant signs in (README, Signing in)
        not checked  contoso: roles and actions: there is no token
        [exit 77]
        ");
    }

    async fn a_graph_that_is_not_reached_is_not_available(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        for endpoint in [Endpoint::Action, Endpoint::List] {
            simulator.add_fault(Fault::from(Effect::ResetBefore).on(endpoint).always()).unwrap();
        }
        snapshot!(about(&checked(&program, &simulator, &[]).await, "contoso: action"), @r"
        failure      contoso: action cloud-pc-reprovision (configured): could not be told: [connection reset]
                     remedy: see that this host reaches graph_url: network, proxy, certificates; and whether Graph is well
        note         contoso: action bulk-reprovision-cloud-pc: could not be told: no answer: [connection reset]
        note         contoso: action cloud-pc-bulk-action: could not be told: [connection reset]
        [exit 69]
        ");
        let simulator = Simulator::start(Options { tls: true, ..calm() }).unwrap();
        program.file("reprovisiond.toml", tenant("contoso", &simulator, simulator.graph_url(), V1));
        snapshot!(about(&checked(&program, &simulator, &[]).await, "contoso"), @r"
        ok           contoso: queue: registered; requests ready to be sent: 0, waiting for a time: 0
        failure      contoso: token: no token: 127.0.0.1 cannot be reached: client error (Connect): invalid peer certificate: UnknownIssuer ([simulator])
                     remedy: see that this host reaches authority_url: network, proxy, certificates
        not checked  contoso: roles and actions: there is no token
        [exit 69]
        ");
    }

    async fn what_is_throttled_cannot_be_told_now_and_hostile_text_is_shown_as_such(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        let message = Some("slow\ndown \u{1b}[2J".to_owned());
        let throttled = Effect::Status(StatusFault { code: 429, message, ..StatusFault::default() });
        simulator.add_fault(Fault::from(throttled).always()).unwrap();
        let said = checked(&program, &simulator, &[]).await;
        assert!(!said.stdout.contains('\u{1b}'), "{said}");
        snapshot!(about(&said, "contoso: action"), @r"
        warning      contoso: action cloud-pc-reprovision (configured): could not be told now: HTTP 429 TooManyRequests: slow\ndown \u{1b}[2J
                     remedy: check again in a few minutes
        note         contoso: action bulk-reprovision-cloud-pc: could not be told: HTTP 429 TooManyRequests: slow\ndown \u{1b}[2J
        note         contoso: action cloud-pc-bulk-action: answered too
        [exit 0]
        ");
    }

    async fn graphs_clock_is_held_against_the_databases(scratch: Scratch) {
        let mut seen = String::new();
        for ahead in [-10, 300] {
            let simulator = Simulator::start(Options { clock_ahead: TimeDelta::seconds(ahead), ..calm() }).unwrap();
            let program = program(&scratch, &simulator, V1).await;
            seen += &about(&checked(&program, &simulator, &[]).await, "contoso: Graph");
        }
        snapshot!(seen, @r"
        warning      contoso: Graph's clock: [n] s behind the database's, give or take [n] s
                     remedy: keep the clocks of this host and of the database's by NTP (`timedatectl` shows whether they are)
        [exit 0]
        failure      contoso: Graph's clock: [n] s ahead of the database's, give or take [n] s: beyond reconcile.clock_margin (120s) no doubt is settled by reading back, each goes to a person
                     remedy: keep the clocks of this host and of the database's by NTP (`timedatectl` shows whether they are)
        [exit 1]
        ");
    }

    async fn a_configuration_with_mistakes_still_has_its_database_looked_at(scratch: Scratch) {
        let program = Program::new(&scratch).await;
        program.file("reprovisiond.toml", "[tenants.contoso]\ncloud = \"moon\"\n[worker]\nlease = \"5\"\n");
        let said = program.run(&["check"]).await;
        snapshot!(about(&said, "configuration") + &about(&said, "database schema") + &about(&said, "tenants"), @r#"
        failure      configuration: reprovisiond.toml:1:10: tenants.contoso has no tenant_id
                     remedy: add tenant_id = "DIRECTORY-ID-OR-DOMAIN"
        failure      configuration: reprovisiond.toml:1:10: tenants.contoso has no client_id
                     remedy: add client_id = "APPLICATION-ID"
        failure      configuration: reprovisiond.toml:1:10: tenants.contoso has no client_secret_file
                     remedy: add client_secret_file = "PATH"
        failure      configuration: reprovisiond.toml:2:9: tenants.contoso.cloud = "moon": not one of the known words
                     remedy: write "global" or "us-gov-l4" or "us-gov-l5" or "china" or "custom"
        failure      configuration: reprovisiond.toml:4:9: worker.lease = "5": a duration needs a unit
                     remedy: write "5s" for seconds
        [exit 78]
        ok           database schema: the one this program was built with
        [exit 78]
        not checked  tenants: the configuration has mistakes
        [exit 78]
        "#);
    }

    async fn what_the_database_knows_of_a_tenant_is_said(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        let filled = Filled::new(&scratch).await;
        filled.enqueue("contoso", 0..2).await;
        filled
            .call("contoso", CallState::Unknown, TenantEffect::Caution, |_| EntryEffect::Unknown { detail: "timed out".to_owned() })
            .await;
        let block = TenantEffect::Block { code: BlockCode::Forbidden, reason: "Graph says 403: grant it".to_owned(), probe_after: Duration::from_hours(1) };
        filled.store.defer_tenant(&"contoso".parse().unwrap(), &block).await.unwrap();
        filled.store.close().await;
        scratch
            .sqlite3_or_psql("UPDATE tenants SET paused_at = registered_at, paused_by = 'bob', pause_reason = 'change freeze' WHERE name = 'contoso';
                UPDATE reprovision_queue SET state = 'held' WHERE request_id = (SELECT min(request_id) FROM reprovision_queue)")
            .await
            .unwrap();
        let text = tenant("contoso", &simulator, simulator.graph_url(), V1) + &tenant("unknown", &simulator, simulator.graph_url(), V1);
        program.file("reprovisiond.toml", text);
        let said = checked(&program, &simulator, &[]).await;
        snapshot!(about(&said, "contoso: queue") + &about(&said, "unknown: queue"), @r"
        ok           contoso: queue: registered; requests ready to be sent: 0, waiting for a time: 0
        warning      contoso: queue: paused by bob: change freeze
                     remedy: `reprovisiond resume --tenant contoso --by NAME --reason TEXT`, once it may send
        warning      contoso: queue: blocked: Graph says 403: grant it
                     remedy: mend what it names; `reprovisiond run` tries it with one small call when it starts
        warning      contoso: queue: requests held, whose outcome no evidence could settle: 1
                     remedy: `reprovisiond resolve --tenant contoso --as successful|retry|failed --by NAME --reason TEXT`
        warning      contoso: queue: requests in doubt: 1
                     remedy: `reprovisiond run` settles them by reading back; `reprovisiond status` shows how far it is
        [exit 0]
        warning      unknown: queue: not registered in the database: requests for it are refused at the INSERT
                     remedy: `reprovisiond migrate` registers it, and so does `reprovisiond run`
        [exit 0]
        ");
        assert_eq!(scratch.sqlite3_or_psql("SELECT count(*) FROM tenants").await.unwrap(), "2", "it registers nobody");
        let one = checked(&program, &simulator, &["--tenant", "unknown"]).await;
        assert!(!one.stdout.contains("contoso: "), "{one}");
        let none = program.run(&["check", "--tenant", "fabrikam"]).await;
        snapshot!(none.to_string(), @r"
        reprovisiond: --tenant fabrikam: not configured; there is contoso, unknown
        [exit 2]
        ");
    }

    async fn the_schema_must_be_this_programs(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        scratch.sqlite3_or_psql("UPDATE _sqlx_migrations SET version = 9999 WHERE version = 3").await.unwrap();
        let newer = about(&checked(&program, &simulator, &[]).await, "database schema");
        scratch.sqlite3_or_psql("DELETE FROM _sqlx_migrations WHERE version = 9999").await.unwrap();
        let said = checked(&program, &simulator, &[]).await;
        snapshot!(newer + &about(&said, "database schema") + &about(&said, "contoso: queue"), @r"
        failure      database schema: the database's schema is newer (migration 9999) than this program knows
                     remedy: install the version of reprovisiond that made it
        [exit 78]
        failure      database schema: the database has an older schema
                     remedy: run `reprovisiond migrate` with the same database
        [exit 78]
        not checked  contoso: queue: the database could not be read
        [exit 78]
        ");
    }

    async fn several_tenants_are_shown_in_order_and_one_that_is_silent_holds_up_no_other(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, V1).await;
        let silent = Simulator::start(calm()).unwrap();
        silent.add_fault(Fault::from(Effect::Hang).on(Endpoint::List).always()).unwrap();
        let all = [("a", &silent), ("b", &silent), ("c", &silent), ("d", &simulator)];
        let text = all.map(|(name, simulator)| tenant(name, simulator, simulator.graph_url(), V1)).concat();
        program.file("reprovisiond.toml", "graph.call_timeout = \"1s\"\nworker.send_within = \"500ms\"\n".to_owned() + &text);
        let said = checked(&program, &simulator, &[]).await;
        let configured: Vec<&str> = said.stdout.lines().filter(|line| line.contains("(configured)")).collect();
        let words: Vec<(&str, &str)> = configured.iter().map(|line| (line[..13].trim(), &line[13..14])).collect();
        assert_eq!(words, [("failure", "a"), ("failure", "b"), ("failure", "c"), ("ok", "d")], "{said}");
        assert_eq!(said.code, 69);
    }

    async fn a_program_reads_one_document(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let program = program(&scratch, &simulator, DEPRECATED).await;
        let said = checked(&program, &simulator, &["--output", "json"]).await;
        let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((&document["ready"], &document["exit_code"]), (&true.into(), &0.into()), "{said}");
        let checks = document["checks"].as_array().unwrap();
        let warned: Vec<_> = checks.iter().filter(|check| check["status"] == "warning" && check["tenant"] == "contoso").collect();
        assert_eq!(warned.len(), 1, "{said}");
        assert!(warned[0]["remedy"].as_str().unwrap().contains("cloud-pc-reprovision"), "{said}");
        simulator.grant_roles([""; 0]);
        let said = checked(&program, &simulator, &["--output", "json"]).await;
        let document: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((&document["ready"], &document["exit_code"]), (&false.into(), &77.into()), "{said}");
        assert_eq!((said.code, said.stderr.as_str()), (77, ""));
    }
}

/// The same, on another database.
fn on(program: &Program<'_>, url: &str) -> Said {
    let mut command = command(&["check", "--database", url]);
    command.current_dir(program.directory());
    tokio::task::block_in_place(|| said(&mut command, ""))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_file_is_looked_at_and_neither_made_nor_changed() {
    let scratch = Scratch::new(Backend::Sqlite).await;
    let simulator = Simulator::start(calm()).unwrap();
    let program = program(&scratch, &simulator, V1).await;
    let before = std::fs::read(scratch.file()).unwrap();
    let said = checked(&program, &simulator, &[]).await;
    snapshot!(about(&said, "database"), @r"
    ok           database: [database] is reachable
    ok           database schema: the one this program was built with
    ok           database file: it and its directory are writable
    ok           database journal: write-ahead log
    ok           database disk: not on a network file system that is known
    ok           database clock: this host's own
    [exit 0]
    ");
    assert!(std::fs::read(scratch.file()).unwrap() == before, "the file is another one");
    scratch.sqlite3_or_psql("PRAGMA journal_mode = delete").await.unwrap();
    let before = std::fs::read(scratch.file()).unwrap();
    snapshot!(about(&checked(&program, &simulator, &[]).await, "database journal"), @r"
    warning      database journal: journal mode delete: readers and the daemon are in each other's way
                 remedy: whatever set it should not: `migrate` and `run` set it to WAL when they open the file
    [exit 0]
    ");
    assert!(std::fs::read(scratch.file()).unwrap() == before, "the file is another one");

    let missing = scratch.file().with_file_name("missing.db");
    let url = format!("sqlite:{}", missing.display());
    let said = on(&program, &url);
    snapshot!(about(&said, "database") + &about(&said, "schema") + &about(&said, "contoso: queue"), @r"
    failure      database: [database] no database at [dir]/missing.db
                 remedy: check the path, or run `reprovisiond migrate` to create it
    [exit 78]
    not checked  schema, privileges and clock of the database: it cannot be opened
    [exit 78]
    not checked  contoso: queue: the database could not be read
    [exit 78]
    ");
    assert!(!missing.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_on_postgres_must_have_what_the_daemon_needs_and_should_have_no_more() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let simulator = Simulator::start(calm()).unwrap();
    let program = program(&scratch, &simulator, V1).await;
    snapshot!(about(&checked(&program, &simulator, &[]).await, "database"), @r"
    ok           database: [database] is reachable
    ok           database schema: the one this program was built with
    ok           database server: PostgreSQL [n]
    ok           database privileges: the role postgres may do all that a worker does
    warning      database role: postgres is a superuser, for whom none of the tables' rules holds for certain
                 remedy: run `migrate` as the owner, and the daemon as a role of its own with the privileges that README lists
    ok           database clock: agrees with this host's to within [n] s
    [exit 0]
    ");
    let role = Role::new(&scratch).await;
    let as_role = || on(&program, &role.url);
    for (table, words) in PRIVILEGES {
        scratch.sqlite3_or_psql(&format!("GRANT {} ON {table} TO {}", words.join(", "), role.name)).await.unwrap();
    }
    scratch.sqlite3_or_psql(&format!("REVOKE INSERT, UPDATE ON graph_calls FROM {}", role.name)).await.unwrap();
    scratch.sqlite3_or_psql(&format!("REVOKE DELETE ON reprovision_queue FROM {}", role.name)).await.unwrap();
    let refused = as_role();
    snapshot!(about(&refused, "database"), @r"
    ok           database: [database] is reachable
    ok           database schema: the one this program was built with
    ok           database server: PostgreSQL [n]
    failure      database privileges: the database refuses this user: the role [role] lacks DELETE on reprovision_queue and INSERT, UPDATE on graph_calls
                 remedy: let the tables' owner run: GRANT DELETE ON reprovision_queue TO [role]; GRANT INSERT, UPDATE ON graph_calls TO [role];
    ok           database role: [role] is neither superuser nor the tables' owner
    ok           database clock: agrees with this host's to within [n] s
    [exit 77]
    ");
    // The remedy is SQL that mends it.
    let remedy = refused.stdout.lines().find_map(|line| line.split_once("run: ")).unwrap().1.to_owned();
    scratch.sqlite3_or_psql(&remedy).await.unwrap();
    let mended = as_role();
    assert!(mended.stdout.ends_with("\nReady.\n") && mended.code == 0, "{mended}");
    role.drop(&scratch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_not_there_is_not_available_and_tenants_are_checked_all_the_same() {
    let scratch = Scratch::new(Backend::Postgres).await;
    let simulator = Simulator::start(calm()).unwrap();
    let program = program(&scratch, &simulator, V1).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = on(&program, &format!("postgres://ops:hunter2@{nobody}/queue"));
    assert!(!said.to_string().contains("hunter2"), "{said}");
    snapshot!(about(&said, "database") + &about(&said, "schema") + &about(&said, "contoso"), @r"
    failure      database: [database] the database is not available: error communicating with database: Connection refused (os error 111)
                 remedy: see that it runs, that database.url names it, and that the network lets this host through
    [exit 69]
    not checked  schema, privileges and clock of the database: it cannot be opened
    [exit 69]
    not checked  contoso: queue: the database could not be read
    ok           contoso: token: obtained from [simulator]
    ok           contoso: roles: CloudPC.ReadWrite.All
    ok           contoso: action cloud-pc-reprovision (configured): answered
    note         contoso: action bulk-reprovision-cloud-pc: answered too
    note         contoso: action cloud-pc-bulk-action: answered too
    ok           contoso: Graph's clock: agrees with this host's to within [n] s
    [exit 69]
    ");
}

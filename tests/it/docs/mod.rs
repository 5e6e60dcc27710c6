//! The examples of README.md and of the pages in `deploy/docs`, run against a database that the daemon and a simulated Graph
//! fill.

mod history;
mod page;
mod run;

use reprovisiond::domain::lifecycle::{Bucket, EntryState};
use reprovisiond::simulator::{Options, Others, Simulator};

use crate::support::{BRISK, Backend, Daemon, calm, judge};
use history::History;
use run::{Place, Runner};

/// The daemon on the database of a page, on Postgres as the worker.
async fn serve(place: &Place, simulator: &Simulator, settings: &str) -> Daemon {
    let mut daemon = Daemon::migrated(&place.url("migrator"), simulator, settings).await;
    if let Place::Roles(roles) = place {
        roles.apply().await;
        daemon.reconfigure(|text| text.replace(&roles.name("migrator"), &roles.name("worker")));
    }
    daemon.run(simulator).await;
    daemon
}

fn reader<'a>(place: &'a Place, role: &'a str, live: bool) -> Runner<'a> {
    Runner { place, role, live, directory: tempfile::tempdir().unwrap() }
}

/// The producers' page, while the daemon works; and what it asked for is what Graph did.
async fn producers(backend: Backend) {
    let place = Place::new(backend).await;
    let simulator = Simulator::start(Options { others: Others::Success, ..calm() }).unwrap();
    let daemon = serve(&place, &simulator, BRISK).await;
    reader(&place, "producer", true).run("deploy/docs/producers.md", &[]).await;

    daemon.until_all_ended(place.scratch()).await;
    judge(place.scratch(), &simulator, "the producers' page").await;
    assert_eq!(simulator.ledger().len(), 14, "what the page asks for, but for what is refused, expired or withdrawn");
}

/// The auditors' page, on a history with a case for each query. Then README's SQL, which adds to it: its shell examples build
/// and install, and its GRANTs are run by `store::grants`.
async fn auditors(backend: Backend) {
    let place = Place::new(backend).await;
    let _history = History::make(&place).await;
    reader(&place, "auditor", false).run("deploy/docs/auditors.md", &[]).await;
    reader(&place, "auditor", true).run("README.md", &["cargo ", "tests/", "GRANT "]).await;
}

/// The runbook, with a request for a person to decide on.
async fn operators(backend: Backend) {
    let place = Place::new(backend).await;
    let _history = History::trouble(&place).await;
    reader(&place, "operator", true).run("deploy/docs/runbook.md", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_runbook_does_what_it_says_on_sqlite() {
    operators(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_runbook_does_what_it_says_on_postgres() {
    operators(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_for_producers_does_what_the_page_says_on_sqlite() {
    producers(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_for_producers_does_what_the_page_says_on_postgres() {
    producers(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_for_auditors_and_in_readme_finds_what_the_page_says_on_sqlite() {
    auditors(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_for_auditors_and_in_readme_finds_what_the_page_says_on_postgres() {
    auditors(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_name_every_column_and_state_of_their_readers() {
    let place = Place::new(Backend::Sqlite).await;
    place.scratch().order(&["migrate"]).await;
    let page =
        |name: &str| std::fs::read_to_string(format!("{}/deploy/docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (producers, auditors) = (page("producers.md"), page("auditors.md"));
    let columns = "SELECT DISTINCT c.name FROM sqlite_schema s, pragma_table_info(s.name) c WHERE s.name IN
        ('reprovision_requests', 'graph_calls', 'device_results', 'completions', 'operator_actions',
         'request_status', 'device_history', 'bucket_totals', 'completion_totals')";
    let columns = place.scratch().rows(columns).await;
    let asked = place.scratch().rows("SELECT name FROM pragma_table_info('reprovision_requests')").await;
    let states =
        EntryState::ALL.iter().map(|state| state.as_str()).chain(Bucket::ALL.iter().map(|bucket| bucket.as_str()));
    let missing: Vec<&str> = columns
        .lines()
        .filter(|column| !auditors.contains(&format!("`{column}`")))
        .chain(asked.lines().chain(states).filter(|word| !producers.contains(&format!("`{word}`"))))
        .collect();
    assert_eq!(missing, [""; 0]);
}

//! Alert rules, dashboard and runbook: Prometheus's own tool takes them, and they belong together.

use std::collections::BTreeSet;
use std::process::Command;

use reprovisiond::cli::Exit;
use reprovisiond::domain::lifecycle::{BlockCode, WaitCode};
use serde_json::Value;

use super::shipped;

const RULES: &str = "prometheus/reprovisiond.rules.yml";

fn promtool(args: &[&str]) {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus");
    let output = Command::new("promtool").args(args).current_dir(directory).output();
    let output = output.expect("promtool (tests/prerequisites installs it)");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn alerts() -> BTreeSet<String> {
    let rules = shipped(RULES);
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    promtool(&["check", "rules", "reprovisiond.rules.yml"]);
    promtool(&["test", "rules", "reprovisiond.rules.test.yml"]);
    let tests = shipped("prometheus/reprovisiond.rules.test.yml");
    let untested: Vec<_> =
        alerts().into_iter().filter(|alert| !tests.contains(&format!("- alertname: {alert}\n"))).collect();
    assert_eq!(untested, [""; 0]);
}

/// What the panels of the dashboard ask, with its variables filled in.
fn questions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&shipped("grafana/reprovisiond.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let filled =
        |question: &str| question.replace("$job", "x").replace("$tenant", "x").replace("$__rate_interval", "5m");
    targets.map(|target| filled(target["expr"].as_str().unwrap())).collect()
}

#[test]
fn prometheus_understands_each_question_of_the_dashboard() {
    let questions = questions();
    assert!(questions.len() > 20, "{questions:?}");
    let rules = questions
        .iter()
        .enumerate()
        .map(|(n, question)| serde_json::json!({ "record": format!("q{n}"), "expr": question }));
    // YAML is a superset of JSON.
    let rules = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules.collect::<Vec<_>>() }] });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dashboard.yml");
    std::fs::write(&file, rules.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()]);
}

#[test]
fn the_runbook_has_each_alert_each_exit_code_and_each_reason_to_wait_or_block() {
    let runbook = shipped("docs/runbook.md");
    let explained = runbook.lines().filter_map(|line| line.strip_prefix("### Reprovisiond"));
    let explained: BTreeSet<String> = explained.map(|name| format!("Reprovisiond{name}")).collect();
    assert_eq!(explained, alerts());
    let exits = Exit::ALL.iter().map(|exit| (*exit as u8).to_string());
    let codes = BlockCode::ALL.iter().map(|code| code.as_str()).chain(WaitCode::ALL.iter().map(|code| code.as_str()));
    for word in exits.chain(codes.map(|code| format!("`{code}`"))) {
        assert!(runbook.contains(&format!("\n| {word} | ")), "{word}");
    }
}

#[test]
fn each_link_of_the_pages_leads_to_a_heading_or_a_file_that_is_there() {
    for page in
        ["docs/runbook.md", "docs/producers.md", "docs/auditors.md", "docs/monitoring.md", "README.md", "../README.md"]
    {
        let directory = super::path(page).parent().unwrap().to_owned();
        let text = shipped(page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { super::path(page) } else { directory.join(file) };
            let target = std::fs::read_to_string(&target).unwrap_or_else(|error| panic!("{page}: {link}: {error}"));
            assert!(heading.is_empty() || headings(&target).contains(heading), "{page}: {link}");
        }
    }
}

/// The anchors of a page's headings, as GitHub makes them.
fn headings(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
            .collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(anchor).collect()
}

//! The page: what needs a person with the command that resolves it, and nothing of what others wrote gets out of its place.

use reprovisiond::simulator::{FaultScript, Simulator};

use super::Watched;
use crate::support::{BRISK, Backend, Scratch, calm, on_both};

/// Markup, a second line, another direction, a formula; and as long as the database takes it.
pub(super) fn hostile() -> String {
    format!(
        "=cmd|'<script>alert(\"x\")</script><img src=x onerror=alert(1)>\n\u{202e}txt\u{2066}& {}",
        "ה<b>".repeat(600)
    )
}

/// A daemon with one of everything: results, a held request, a blocked tenant, a paused device, and hostile text wherever anybody
/// may write some.
pub(super) async fn troubled(scratch: &Scratch, simulator: &Simulator) -> Watched {
    for fault in ["latency:10ms", "reset-after@2"] {
        simulator.add_fault(fault.parse::<FaultScript>().unwrap().script.remove(0)).unwrap();
    }
    let settings =
        format!("{BRISK}[reconcile]\nunknown_policy = \"hold\"\nfirst_after = \"0s\"\n[batch]\nmax_devices = 8\n");
    let watched = Watched::start(scratch, simulator, &settings).await;
    let text = hostile().replace('\'', "''");
    let text = &text[..text.floor_char_boundary(4000)];
    let who = &text[..text.floor_char_boundary(250)];
    let rows: Vec<String> = simulator.devices()[2..22]
        .iter()
        .map(|device| format!("('{}', '{who}', '{text}')", device.managed_device_id))
        .collect();
    scratch
        .rows(&format!(
            "INSERT INTO reprovision_requests (managed_device_id, requested_by, reason) VALUES {}",
            rows.join(", ")
        ))
        .await;
    watched
        .daemon
        .until_rows(scratch, "SELECT count(*) > 0 FROM reprovision_queue WHERE state = 'held'", yes(scratch))
        .await;
    watched
        .daemon
        .until_rows(scratch, "SELECT count(*) FROM reprovision_queue WHERE state IN ('sending', 'unknown')", "0")
        .await;
    let now = match scratch.backend() {
        Backend::Sqlite => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
        Backend::Postgres => "now()",
    };
    // Tenants of another daemon on this database, which this one only shows.
    scratch
        .rows(&format!(
            "INSERT INTO tenants (name, paused_at, paused_by, pause_reason) VALUES ('paused', {now}, '{who}', '{text}')"
        ))
        .await;
    scratch.rows(&format!("INSERT INTO tenants (name, blocked_at, block_code, block_reason, probe_at) VALUES ('blocked', {now}, 'forbidden', '{text}', {now})")).await;
    scratch.rows("INSERT INTO tenants (name, wait_until, wait_code, wait_reason) VALUES ('throttled', '2999-01-01T00:00:00Z', 'throttled', 'Graph says 429')").await;
    watched.daemon.until("a fresh page", async || watched.get("/").await.body.contains("blocked</span>")).await;
    watched
}

fn yes(scratch: &Scratch) -> &'static str {
    match scratch.backend() {
        Backend::Sqlite => "1",
        Backend::Postgres => "t",
    }
}

fn harmless(body: &str) {
    for bad in ["<script", "<img", "onerror=alert(1)>", "<b>ה", "\u{202e}", "\u{2066}"] {
        assert!(!body.contains(bad), "{bad} in\n{body}");
    }
    assert!(body.contains("&lt;script&gt;"), "{body}");
}

on_both! {
    async fn what_needs_a_person_is_shown_with_its_command_and_hostile_text_stays_text(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let watched = troubled(&scratch, &simulator).await;
        let page = watched.get("/").await;
        assert_eq!(page.status, 200);
        harmless(&page.body);
        for part in [
            "things need you",
            "Tenant default has ",
            "reprovisiond resolve --tenant default --as successful|retry|failed --by NAME --reason TEXT",
            "Tenant blocked is blocked",
            "systemctl restart reprovisiond",
            "Tenant paused is paused",
            "reprovisiond resume --tenant paused --by NAME --reason TEXT",
            "Tenant throttled waits",
            "Graph says 429",
        ] {
            assert!(page.body.contains(part), "no {part:?} in\n{}", page.body);
        }
        let calls = scratch.rows("SELECT id FROM graph_calls").await;
        assert!(calls.lines().count() > 1);
        for call in calls.lines() {
            assert!(page.body.contains(call), "no call {call}");
        }
    }

    async fn a_devices_whole_history_is_looked_up(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let watched = troubled(&scratch, &simulator).await;
        let held = scratch.rows("SELECT managed_device_id FROM reprovision_queue WHERE state = 'held' ORDER BY request_id LIMIT 1").await;
        let call = scratch.rows(&format!("SELECT call_id FROM reprovision_queue WHERE managed_device_id = '{held}'")).await;
        // In any form that a person may paste.
        for form in [held.clone(), held.to_uppercase(), format!("%7B{held}%7D"), format!("+{held}+")] {
            let page = watched.get(&format!("/device?id={form}")).await;
            assert_eq!(page.status, 200, "{form}");
            harmless(&page.body);
            for part in ["held", "unknown", "requested", call.as_str()] {
                assert!(page.body.contains(part), "{form}: no {part}\n{}", page.body);
            }
        }
        let csv = watched.get(&format!("/device.csv?id={held}")).await;
        assert!(csv.headers["content-type"].starts_with("text/csv"));
        assert!(csv.headers["content-disposition"].starts_with("attachment; "));
        let mut rows = csv::Reader::from_reader(csv.body.as_bytes());
        assert_eq!(&rows.headers().unwrap()[1], "event");
        let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
        assert_eq!(&rows[0][1], "requested");
        assert!(rows[0][8].starts_with("'=cmd"), "no spreadsheet runs it: {}", &rows[0][8]);
        let all = watched.get("/results.csv").await.body;
        let results = scratch.rows("SELECT count(*) FROM device_results").await;
        assert_eq!(csv::Reader::from_reader(all.as_bytes()).records().count().to_string(), results);

        let nobody = watched.get("/device?id=30d0e128-de93-41dc-89ec-ffffffffffff").await;
        assert!(nobody.status == 200 && nobody.body.contains("Nobody has asked"), "{}", nobody.body);
        let wrong = watched.get("/device?id=%3Cscript%3E").await;
        assert_eq!(wrong.status, 400);
        harmless(&wrong.body);
    }

    async fn throughput_is_drawn_and_told(scratch: Scratch) {
        let simulator = Simulator::start(calm()).unwrap();
        let watched = Watched::start(&scratch, &simulator, BRISK).await;
        scratch.request(&simulator, 12).await;
        watched.daemon.until_all_ended(&scratch).await;
        let body = watched.get("/").await.body;
        assert!(body.contains("Last hour: <b>12 devices</b>"), "{body}");
        assert_eq!(body.matches("<svg").count(), 4, "{body}");
        assert!(body.contains("Nothing needs you"), "{body}");
    }
}

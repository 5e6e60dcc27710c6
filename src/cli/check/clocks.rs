//! Clocks: how far apart, and whether that matters. The daemon decides by the database's; Graph's says when a reprovision began.

use std::time::Duration;

use chrono::TimeDelta;

use super::line::Line;
use crate::cli::Exit;
use crate::graph::Offset;

/// Clocks that are kept by NTP are never this far apart.
const SUSPICIOUS: TimeDelta = TimeDelta::seconds(2);

/// Differences smaller than this are none.
const NONE: TimeDelta = TimeDelta::milliseconds(100);

const SET_THEM: &str =
    "keep the clocks of this host and of the database's by NTP (`timedatectl` shows whether they are)";

/// The database's, seen from this host. Nothing is decided by this host's, so that no difference is a failure.
pub(super) fn of_database(clock: Offset, on_a_server: bool) -> Line {
    let what = "database clock";
    if !on_a_server {
        return Line::ok(what, "this host's own");
    }
    let seen = apart(clock, "this host's");
    if beyond(clock, SUSPICIOUS) { Line::warning(what, seen, SET_THEM) } else { Line::ok(what, seen) }
}

/// Graph's, against the database's where that is known.
pub(super) fn of_graph(graph: Offset, database: Option<Offset>, margin: Duration) -> Line {
    let what = "Graph's clock";
    let Some(database) = database else {
        let seen = apart(graph, "this host's");
        return if beyond(graph, SUSPICIOUS) { Line::warning(what, seen, SET_THEM) } else { Line::ok(what, seen) };
    };
    let between = Offset { ahead: graph.ahead - database.ahead, within: graph.within + database.within };
    let seen = apart(between, "the database's");
    if beyond(between, TimeDelta::from_std(margin).unwrap_or(TimeDelta::MAX)) {
        let seen = format!(
            "{seen}: beyond reconcile.clock_margin ({margin:?}) no doubt is settled by reading back, each goes to a person"
        );
        Line::failure(Exit::Failure, what, seen, SET_THEM)
    } else if beyond(between, SUSPICIOUS) {
        Line::warning(what, seen, SET_THEM)
    } else {
        Line::ok(what, seen)
    }
}

/// Whether the clocks are further apart than that for certain.
fn beyond(clock: Offset, limit: TimeDelta) -> bool {
    clock.ahead.abs() - clock.within > limit
}

fn apart(clock: Offset, other: &str) -> String {
    let seconds = |span: TimeDelta| span.as_seconds_f64().abs();
    let within = seconds(clock.within.max(NONE));
    if clock.ahead.abs() <= clock.within.max(NONE) {
        return format!("agrees with {other} to within {within:.1} s");
    }
    let way = if clock.ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
    format!("{:.1} s {way} {other}, give or take {within:.1} s", seconds(clock.ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(ahead: i64, within: i64) -> Offset {
        Offset { ahead: TimeDelta::milliseconds(ahead), within: TimeDelta::milliseconds(within) }
    }

    #[test]
    fn clocks_are_apart_only_as_far_as_the_measurement_can_tell() {
        let said = |clock| serde_json::to_value(of_database(clock, true)).unwrap();
        assert_eq!(said(offset(30, 1))["seen"], "agrees with this host's to within 0.1 s");
        assert_eq!(said(offset(-1500, 1))["status"], "ok");
        assert_eq!(said(offset(-2500, 1))["seen"], "2.5 s behind this host's, give or take 0.1 s");
        assert_eq!(said(offset(-2500, 1))["status"], "warning");
        assert_eq!(said(offset(-2500, 600))["status"], "ok");
    }

    #[test]
    fn graphs_clock_is_held_against_the_databases_and_the_margin() {
        let margin = Duration::from_mins(2);
        let said = |graph, database| serde_json::to_value(of_graph(graph, database, margin)).unwrap();
        assert_eq!(said(offset(10_000, 500), Some(offset(10_000, 1)))["status"], "ok");
        assert_eq!(said(offset(0, 500), Some(offset(10_000, 1)))["status"], "warning");
        assert_eq!(said(offset(0, 500), Some(offset(130_000, 1)))["status"], "failure");
        assert_eq!(said(offset(130_000, 500), None)["status"], "warning");
    }
}

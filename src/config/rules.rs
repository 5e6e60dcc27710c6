//! What holds between keys. A rule names both of them, and is silent while either is a mistake of its own.

use std::time::Duration;

use super::Config;
use super::diagnose::{About, Origin};
use super::draft::Draft;
use super::duration::show;

/// One duration that bounds another.
struct Rule {
    key: &'static str,
    value: fn(&Config) -> Duration,
    must_be: &'static str,
    holds: fn(Duration, Duration) -> bool,
    bounds: &'static [&'static str],
    bound: fn(&Config) -> Duration,
    why: &'static str,
}

const LONGER: fn(Duration, Duration) -> bool = |value, bound| value > bound;

const RULES: [Rule; 7] = [
    Rule {
        key: "worker.send_within",
        value: |c| c.worker.send_within,
        must_be: "shorter than",
        holds: |value, bound| value < bound,
        bounds: &["worker.lease"],
        bound: |c| c.worker.lease,
        why: "a call must not leave after others believe its worker dead",
    },
    Rule {
        key: "retry.longest_delay",
        value: |c| c.retry.longest_delay,
        must_be: "at least",
        holds: |value, bound| value >= bound,
        bounds: &["retry.first_delay"],
        bound: |c| c.retry.first_delay,
        why: "delays grow from the one to the other",
    },
    Rule {
        key: "reconcile.settle_after",
        value: |c| c.reconcile.settle_after,
        must_be: "longer than",
        holds: LONGER,
        bounds: &["reconcile.first_after"],
        bound: |c| c.reconcile.first_after,
        why: "nothing is taken for not done before it was looked for",
    },
    Rule {
        key: "reconcile.settle_after",
        value: |c| c.reconcile.settle_after,
        must_be: "longer than",
        holds: LONGER,
        bounds: &["worker.send_within", "graph.call_timeout"],
        bound: |c| c.worker.send_within + c.graph.call_timeout,
        why: "a call that may still be under way must not be sent again",
    },
    Rule {
        key: "reconcile.give_up_after",
        value: |c| c.reconcile.give_up_after,
        must_be: "longer than",
        holds: LONGER,
        bounds: &["reconcile.settle_after"],
        bound: |c| c.reconcile.settle_after,
        why: "read-back needs the time to settle a doubt before a person is asked",
    },
    Rule {
        key: "completion.longest_delay",
        value: |c| c.completion.longest_delay,
        must_be: "at least",
        holds: |value, bound| value >= bound,
        bounds: &["completion.shortest_delay"],
        bound: |c| c.completion.shortest_delay,
        why: "looks get rarer from the one to the other",
    },
    Rule {
        key: "completion.give_up_after",
        value: |c| c.completion.give_up_after,
        must_be: "longer than",
        holds: LONGER,
        bounds: &["completion.first_after"],
        bound: |c| c.completion.first_after,
        why: "nothing is given up before it was looked at",
    },
];

/// The rules that `config` breaks: what was checked apart may not go together.
pub(super) fn broken(config: &Config) -> Vec<String> {
    let broken = RULES.iter().filter(|rule| !(rule.holds)((rule.value)(config), (rule.bound)(config)));
    broken
        .map(|Rule { key, value, must_be, bounds, bound, why, .. }| {
            let (value, bounds, bound) = (show(value(config)), bounds.join(" + "), show(bound(config)));
            format!("{key} = {value}: must be {must_be} {bounds}, which is {bound} until the restart: {why}")
        })
        .collect()
}

/// Checks what holds between keys.
pub(super) fn check(draft: &mut Draft) {
    for Rule { key, value, must_be, holds, bounds, bound, why } in RULES {
        let known = !draft.faulty.contains(key) && !bounds.iter().any(|bound| draft.faulty.contains(bound));
        let (value, bound) = (value(&draft.config), bound(&draft.config));
        if known && !holds(value, bound) {
            let named: Vec<String> = bounds.iter().map(|bound| format!("{bound} ({})", from(draft, bound))).collect();
            let origin = blamed(draft, key, bounds);
            let what =
                format!("{key} = {}: must be {must_be} {}, which is {}", show(value), named.join(" + "), show(bound));
            draft.mistake(origin, About::Key(key), what, format!("change one of them: {why}"));
        }
    }
    warn_of_short_drain(draft);
    warn_of_readable_password(draft);
}

/// Where to look first: the key itself if some layer gives it, else the bound that does.
fn blamed(draft: &Draft, key: &'static str, bounds: &[&'static str]) -> Origin {
    std::iter::once(&key)
        .chain(bounds)
        .find_map(|key| draft.given.get(key))
        .map_or(Origin::Default, |(_, origin)| origin.clone())
}

fn from(draft: &Draft, key: &'static str) -> Origin {
    draft.given.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
}

/// Safe, since what is cut off is read back; but every stop would leave doubts behind.
fn warn_of_short_drain(draft: &mut Draft) {
    let (drain, call) = (draft.config.worker.drain_timeout, draft.config.graph.call_timeout);
    let keys = ["worker.drain_timeout", "graph.call_timeout"];
    if drain < call && !keys.iter().any(|key| draft.faulty.contains(key)) {
        let (origin, other) = (blamed(draft, keys[0], &keys[1..]), from(draft, keys[1]));
        let what = format!(
            "worker.drain_timeout = {} is shorter than graph.call_timeout = {} ({other})",
            show(drain),
            show(call)
        );
        draft.warn(origin, what, "a stop can cut off calls that would have been answered, and leaves them in doubt");
    }
}

/// Secrets come only from files, and only the daemon reads those.
fn warn_of_readable_password(draft: &mut Draft) {
    if !draft.config.database.url.has_password() {
        return;
    }
    let remedy = "leave the password out and name a file that holds it: PGPASSFILE";
    match draft.given.get("database.url").map(|(_, origin)| origin.clone()) {
        Some(origin @ Origin::Flag(_)) => {
            draft.warn(origin, "the URL's password can be seen in the list of processes", remedy);
        }
        Some(Origin::File { path, at }) => {
            let open = std::fs::metadata(&path).is_ok_and(|metadata| super::secret_file::open_to_others(&metadata));
            if open {
                let what = "database.url holds a password, and every user of this host can get at this file";
                draft.warn(Origin::File { path, at }, what, remedy);
            }
        }
        _ => {}
    }
}

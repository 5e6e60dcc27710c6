use proptest::prelude::*;

use super::*;
use crate::domain::read_back::Seen;

const POLICY: CompletionPolicy = CompletionPolicy {
    shortest_delay: Duration::from_mins(5),
    longest_delay: Duration::from_hours(1),
    give_up_after: Duration::from_hours(24),
    clock_margin: Duration::from_mins(2),
};

const MARGIN: i64 = 120;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

/// Sent at 0, accepted at 1.
fn watch(now: i64) -> Watch {
    Watch {
        request_id: RequestId(1),
        device: uuid::Uuid::from_u128(1).try_into().unwrap(),
        call_id: CallId(uuid::Uuid::from_u128(2)),
        action: Action::BulkReprovisionCloudPc,
        cloud_pc: None,
        sent_at: at(0),
        accepted_at: at(1),
        others: Vec::new(),
        now: at(now),
        read_took: Duration::ZERO,
    }
}

fn other(sent_at: i64) -> OtherCall {
    OtherCall { sent_at: at(sent_at), finished_at: at(sent_at + 1) }
}

fn action(state: &str, started: i64) -> RemoteAction {
    RemoteAction {
        name: "Reprovision".to_owned(),
        state: state.to_owned(),
        started_at: Some(at(started)),
        updated_at: Some(at(started + 1800)),
        status_detail: None,
    }
}

fn seen(actions: &[RemoteAction]) -> ReadBack {
    ReadBack::Seen(Seen { actions: actions.to_vec(), ..Seen::default() })
}

/// The start of the action that this look takes for its own, relative to the call.
fn taken(watch: &Watch, actions: &[RemoteAction]) -> Option<i64> {
    match judge(watch, &seen(actions), &POLICY) {
        Judgement::Ended(completion) => completion.started_at.map(|started| (started - at(0)).num_seconds()),
        Judgement::LookAgain { .. } => None,
    }
}

#[test]
fn the_states_that_do_not_change_any_more_end_it_whatever_their_case() {
    for (word, state) in [
        ("done", "done"),
        ("DONE", "done"),
        ("failed", "failed"),
        ("Canceled", "canceled"),
        ("cancelled", "canceled"),
        ("NotSupported", "not_supported"),
    ] {
        let Judgement::Ended(completion) = judge(&watch(3600), &seen(&[action(word, 5)]), &POLICY) else {
            panic!("{word}");
        };
        assert_eq!(completion.state.as_str(), state);
        assert_eq!((completion.started_at, completion.ended_at), (Some(at(5)), Some(at(1805))));
        assert_eq!(completion.took_seconds, Some(1800));
    }
    for word in ["none", "pending", "active", "unknownFutureValue", ""] {
        assert!(
            matches!(judge(&watch(3600), &seen(&[action(word, 5)]), &POLICY), Judgement::LookAgain { .. }),
            "{word}"
        );
    }
}

#[test]
fn graphs_detail_is_kept_on_one_line_and_bounded_and_odd_times_are_no_duration() {
    let detail = format!("internalServerError: line\n{}", "x".repeat(5000));
    let failed = RemoteAction { updated_at: Some(at(1)), status_detail: Some(detail), ..action("failed", 5) };
    let Judgement::Ended(completion) = judge(&watch(3600), &seen(&[failed]), &POLICY) else { panic!() };
    let detail = completion.detail.unwrap();
    assert!(detail.starts_with("internalServerError: line\\nxx") && detail.chars().count() < 1100, "{detail}");
    assert_eq!((completion.ended_at, completion.took_seconds), (Some(at(1)), None));
    let kept: serde_json::Value = serde_json::from_str(&completion.evidence).unwrap();
    assert_eq!((&kept["actions"][0]["state"], kept["actions"][0]["updated_at"].is_string()), (&"failed".into(), true));
}

#[test]
fn it_is_the_first_reprovision_since_the_call_less_the_margin() {
    assert_eq!(taken(&watch(3600), &[action("done", -MARGIN)]), Some(-MARGIN));
    assert_eq!(taken(&watch(3600), &[action("done", -MARGIN - 1)]), None);
    assert_eq!(taken(&watch(3600), &[action("done", 9), action("failed", 5)]), Some(5));
    let reboot = RemoteAction { name: "Reboot".to_owned(), ..action("done", 5) };
    let undated = RemoteAction { started_at: None, ..action("done", 5) };
    assert_eq!(taken(&watch(3600), &[reboot, undated]), None);
}

#[test]
fn a_later_requests_reprovision_is_not_taken_for_this_one() {
    let again = Watch { others: vec![other(7200)], ..watch(10_000) };
    assert_eq!(taken(&again, &[action("done", 5), action("done", 7205)]), Some(5));
    assert_eq!(taken(&again, &[action("done", 5)]), Some(5), "the later one need not show yet");
    assert_eq!(taken(&again, &[action("done", 7205)]), None, "this one may not be listed any more");
    assert_eq!(taken(&again, &[action("active", 5), action("done", 7205)]), None);
    let soon = Watch { others: vec![other(60)], ..watch(3600) };
    assert_eq!(taken(&soon, &[action("done", 5)]), None, "which of the two it is, nobody can say");
    assert_eq!(taken(&soon, &[action("done", 5), action("done", 65)]), Some(5));
}

#[test]
fn an_earlier_requests_reprovision_is_not_taken_for_this_one() {
    let again = Watch { others: vec![other(-60)], ..watch(3600) };
    assert_eq!(taken(&again, &[action("done", -55), action("done", 5)]), Some(5));
    assert_eq!(taken(&again, &[action("done", -55)]), None);
    assert_eq!(taken(&again, &[action("done", 5)]), None);
    let long_ago = Watch { others: vec![other(-7200)], ..watch(3600) };
    assert_eq!(taken(&long_ago, &[action("done", -7195), action("done", 5)]), Some(5));
    assert_eq!(taken(&long_ago, &[action("done", 5)]), Some(5));
    // Long under way: it ended just before this one was sent, and began its action at any time until then.
    let slow = Watch { others: vec![OtherCall { sent_at: at(-7200), finished_at: at(-1) }], ..watch(3600) };
    assert_eq!(taken(&slow, &[action("done", -100)]), None);
    assert_eq!(taken(&slow, &[action("done", -100), action("done", 5)]), Some(5));
}

#[test]
fn looks_get_rarer_with_age_up_to_a_cap_and_no_sooner_than_graph_wishes() {
    let after = |now: i64, read: &ReadBack| match judge(&watch(now), read, &POLICY) {
        Judgement::LookAgain { after, .. } => after.as_secs(),
        Judgement::Ended(ended) => panic!("{ended:?}"),
    };
    assert_eq!([301, 1201, 2401, 36_000].map(|now| after(now, &seen(&[]))), [300, 300, 600, 3600]);
    let failed = ReadBack::Failed { reason: "HTTP 429".to_owned(), retry_after: Some(Duration::from_hours(2)) };
    assert_eq!(after(301, &failed), 7200);
    assert_eq!(after(-86_400, &seen(&[])), 300, "a clock that was set back");
}

#[test]
fn what_has_not_ended_in_time_is_untracked_and_says_why_but_only_after_a_look() {
    let ended = |read: &ReadBack| match judge(&watch(86_401), read, &POLICY) {
        Judgement::Ended(completion) => completion,
        Judgement::LookAgain { .. } => panic!("{read:?}"),
    };
    let active = ended(&seen(&[action("active", 5)]));
    assert_eq!((active.state, active.started_at, active.ended_at), (CompletionState::Untracked, Some(at(5)), None));
    let why = "given up 86400 s after it was accepted: read-back shows Reprovision active started 2027-01-15T08:00:05+00:00 by Graph's clock";
    assert_eq!(active.detail.as_deref(), Some(why));
    let failed = ended(&ReadBack::Failed { reason: "HTTP 403 Forbidden".to_owned(), retry_after: None });
    assert!(failed.detail.unwrap().ends_with("nothing could be read back: HTTP 403 Forbidden"));
    assert_eq!(failed.evidence, r#"{"failed":"HTTP 403 Forbidden"}"#);
    assert_eq!(ended(&seen(&[action("done", 5)])).state, CompletionState::Done, "late, and yet seen");
}

#[test]
fn clocks_further_apart_than_the_margin_end_nothing() {
    let read = |read_at| {
        ReadBack::Seen(Seen { read_at: Some(at(read_at)), actions: vec![action("done", 5)], ..Seen::default() })
    };
    let watch = Watch { read_took: Duration::from_secs(10), ..watch(3600) };
    for (read_at, ends) in
        [(3600, true), (3600 - 121, true), (3600 + 131, true), (3600 - 122, false), (3600 + 132, false)]
    {
        assert_eq!(matches!(judge(&watch, &read(read_at), &POLICY), Judgement::Ended(_)), ends, "{read_at}");
    }
}

proptest! {
    #[test]
    fn of_calls_in_a_row_each_finds_its_own_action_or_none_whatever_the_clocks_and_whatever_is_still_listed(
        // Time to the next call, and how much of a call's time passes before its action begins, in thousandths.
        gaps in proptest::collection::vec((2..600_i64, 0..1000_i64), 1..8),
        offset in -MARGIN..=MARGIN,
        dropped in 0..8_usize,
        hidden in 0..8_usize,
        which in 0..8_usize,
    ) {
        let (mut calls, mut starts, mut now) = (Vec::new(), Vec::new(), 0);
        for (gap, part) in &gaps {
            let finished = now + gap - 1;
            calls.push(OtherCall { sent_at: at(now), finished_at: at(finished) });
            starts.push(now + (gap - 1) * part / 1000 + offset);
            now += gap;
        }
        let which = which % calls.len();
        let watch = Watch {
            sent_at: calls[which].sent_at,
            accepted_at: calls[which].finished_at,
            others: calls.iter().enumerate().filter(|(n, _)| *n != which).map(|(_, call)| *call).collect(),
            ..watch(now + 3600)
        };
        // Graph may have forgotten the oldest, and not show the newest yet.
        let listed: Vec<RemoteAction> = starts
            .iter()
            .enumerate()
            .filter(|(n, _)| *n >= dropped && *n + hidden < starts.len())
            .map(|(_, start)| action("done", *start))
            .collect();
        let found = taken(&watch, &listed);
        if dropped == 0 {
            prop_assert!(found.is_none() || found == Some(starts[which]), "{found:?} of {starts:?}, not {which}");
        }
        if dropped == 0 && hidden == 0 {
            prop_assert_eq!(found, Some(starts[which]));
        }
    }

    #[test]
    fn only_a_final_state_of_a_reprovision_since_the_call_is_an_end(
        now in 0..200_000_i64,
        listed in proptest::collection::vec((-1000..100_000_i64, 0..6_usize), 0..6),
    ) {
        let states = ["pending", "active", "none", "done", "failed", "odd"];
        let actions: Vec<RemoteAction> = listed.iter().map(|(start, state)| action(states[*state], *start)).collect();
        match judge(&watch(now), &seen(&actions), &POLICY) {
            Judgement::Ended(Completion { state: CompletionState::Untracked, ended_at, detail, .. }) => {
                prop_assert!(now > 86_400 && ended_at.is_none() && detail.is_some());
            }
            Judgement::Ended(completion) => {
                let started = (completion.started_at.unwrap() - at(0)).num_seconds();
                prop_assert!(started >= -MARGIN);
                prop_assert!(listed.iter().any(|(start, state)| *start == started && matches!(states[*state], "done" | "failed")));
            }
            Judgement::LookAgain { after, .. } => {
                prop_assert!(after >= POLICY.shortest_delay && after <= POLICY.longest_delay);
            }
        }
    }
}

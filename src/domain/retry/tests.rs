use std::collections::BTreeMap;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::domain::action::Action;
use crate::domain::id::ManagedDeviceId;
use crate::domain::lifecycle::BlockCode;
use crate::domain::plan::{self, Bounds, Entry, Snapshot, TenantState, plan};
use crate::domain::rate::Rate;

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn call_id() -> CallId {
    CallId(uuid::Uuid::from_u128(7))
}

fn policy() -> RetryPolicy {
    RetryPolicy { max_attempts: 3, retry_failed: true, blocked_probe_interval: Duration::from_mins(15) }
}

fn fresh(n: usize) -> Vec<Sent> {
    (0..n).map(|id| Sent { request_id: RequestId(i64::try_from(id).unwrap()), attempts: 0, expires_at: None }).collect()
}

/// The schedule of these tests: the n-th repetition waits n minutes.
fn minutes(n: u32) -> Duration {
    Duration::from_mins(n.into())
}

fn decide_with(meaning: Meaning, sent: &[Sent], waits_in_a_row: u32, policy: &RetryPolicy) -> Recording {
    let ended = Ended { call_id: call_id(), sent, waits_in_a_row, asks_to_wait: None, now: noon() };
    verdict(meaning, &ended, policy, &mut minutes)
}

fn decide(meaning: Meaning, sent: &[Sent]) -> Recording {
    decide_with(meaning, sent, 0, &policy())
}

fn why() -> String {
    "what was seen".to_owned()
}

fn refused() -> Meaning {
    Meaning::Refused { reason: why() }
}

fn throttled(retry_after: Option<Duration>) -> Meaning {
    Meaning::Throttled { retry_after, reason: why() }
}

fn answered(devices: Vec<DeviceAnswer>) -> Meaning {
    Meaning::Answered { devices, surplus: vec![], beside: Beside::Nothing }
}

fn final_by_answer(bucket: Bucket) -> EntryEffect {
    EntryEffect::Final { bucket, source: Source::Answer, detail: None }
}

fn is_failure(effect: &EntryEffect) -> bool {
    matches!(effect, EntryEffect::Final { bucket: Bucket::Failed, source: Source::Answer, .. })
}

/// What becomes of the only entry of a call that Graph answers with `failedDeviceIds`.
fn after_failed(attempts: u32, expires_at: Option<DateTime<Utc>>, policy: &RetryPolicy) -> EntryEffect {
    let sent = [Sent { request_id: RequestId(1), attempts, expires_at }];
    let recording = decide_with(answered(vec![DeviceAnswer::Bucket(Bucket::Failed, None)]), &sent, 0, policy);
    recording.entries[0].1.clone()
}

// --- call by call ------------------------------------------------------------

#[test]
fn each_meaning_has_its_call_state_its_effect_and_its_word_for_the_tenant() {
    let requeue = |reason| EntryEffect::Requeue { reason, max_batch: None };
    let wait = |delay, code| TenantEffect::Wait { delay, code, reason: why() };
    let doubt = EntryEffect::Unknown { detail: why() };
    let blocked = Meaning::Blocked { code: BlockCode::Forbidden, reason: why() };
    let block = TenantEffect::Block { code: BlockCode::Forbidden, reason: why(), probe_after: Duration::from_mins(15) };
    let rows = [
        (Meaning::Unknown { reason: why() }, CallState::Unknown, doubt, TenantEffect::Caution),
        (
            Meaning::NotSent { reason: why() },
            CallState::NotSent,
            requeue("not_sent"),
            wait(minutes(1), WaitCode::Unreachable),
        ),
        (throttled(None), CallState::NotCarriedOut, requeue("throttled"), wait(minutes(1), WaitCode::Throttled)),
        (
            Meaning::TokenRefused { reason: why() },
            CallState::NotCarriedOut,
            requeue("token_refused"),
            wait(Duration::ZERO, WaitCode::TokenRefused),
        ),
        (blocked, CallState::NotCarriedOut, requeue("blocked"), block),
        (
            refused(),
            CallState::NotCarriedOut,
            EntryEffect::Requeue { reason: "isolating", max_batch: Some(2) },
            TenantEffect::Clear,
        ),
    ];
    for (meaning, state, effect, tenant) in rows {
        let recording = decide(meaning.clone(), &fresh(3));
        let entries = (0..3).map(|id| (RequestId(id), effect.clone())).collect();
        let expected = Recording { call_id: call_id(), state, entries, tenant, leave_alone: None, surplus: vec![] };
        assert_eq!(recording, expected, "{meaning:?}");
    }
}

#[test]
fn an_answer_ends_each_device_in_its_bucket_leaves_the_unplaced_unknown_and_clears_the_tenant() {
    let buckets = [Bucket::Successful, Bucket::NotFound, Bucket::NotSupported];
    let mut devices: Vec<_> = buckets.map(|bucket| DeviceAnswer::Bucket(bucket, None)).to_vec();
    devices.push(DeviceAnswer::Unknown(why()));
    let meaning = Meaning::Answered { devices, surplus: vec!["stranger".to_owned()], beside: Beside::Nothing };
    let recording = decide(meaning, &fresh(4));
    let mut effects = buckets.map(final_by_answer).to_vec();
    effects.push(EntryEffect::Unknown { detail: why() });
    let entries = (0..).map(RequestId).zip(effects).collect();
    let (state, tenant) = (CallState::Answered, TenantEffect::Clear);
    let surplus = vec!["stranger".to_owned()];
    assert_eq!(recording, Recording { call_id: call_id(), state, entries, tenant, leave_alone: None, surplus });
}

#[test]
fn lists_that_place_no_device_leave_the_call_in_doubt_the_tenant_cautious_and_the_surplus_recorded() {
    let meaning = Meaning::Answered {
        devices: vec![DeviceAnswer::Unknown(why()); 2],
        surplus: vec!["stranger".to_owned()],
        beside: Beside::Nothing,
    };
    let recording = decide(meaning, &fresh(2));
    let entries = (0..2).map(|id| (RequestId(id), EntryEffect::Unknown { detail: why() })).collect();
    let (state, tenant) = (CallState::Unknown, TenantEffect::Caution);
    let surplus = vec!["stranger".to_owned()];
    assert_eq!(recording, Recording { call_id: call_id(), state, entries, tenant, leave_alone: None, surplus });
}

#[test]
fn a_refused_call_of_one_device_fails_it_with_graph_s_words_and_is_not_tried_again() {
    let recording = decide(refused(), &fresh(1));
    let failed = EntryEffect::Final { bucket: Bucket::Failed, source: Source::Answer, detail: Some(why()) };
    assert_eq!(recording.entries, [(RequestId(0), failed)]);
    assert_eq!((recording.state, recording.tenant), (CallState::Answered, TenantEffect::Clear));
}

#[test]
fn a_repetition_s_delay_is_drawn_for_the_number_of_waits_in_a_row_and_no_count_overflows() {
    for meaning in [throttled(None), Meaning::NotSent { reason: why() }] {
        for (waits, drawn) in [(0, 1), (6, 7), (u32::MAX - 1, u32::MAX), (u32::MAX, u32::MAX)] {
            let recording = decide_with(meaning.clone(), &fresh(2), waits, &policy());
            let TenantEffect::Wait { delay, .. } = recording.tenant else { panic!("{recording:?}") };
            assert_eq!(delay, minutes(drawn), "{waits}");
        }
    }
}

// --- a device in failedDeviceIds ----------------------------------------------

#[test]
fn a_failed_device_is_tried_again_until_its_attempts_are_used_up() {
    for (attempts, delay) in [(0, Some(minutes(1))), (1, Some(minutes(2))), (2, None), (3, None), (u32::MAX, None)] {
        match (after_failed(attempts, None, &policy()), delay) {
            (EntryEffect::TryAgain { delay: drawn, .. }, Some(delay)) => assert_eq!(drawn, delay, "{attempts}"),
            (effect, None) => assert!(is_failure(&effect), "{attempts}: {effect:?}"),
            (effect, _) => panic!("{attempts}: {effect:?}"),
        }
    }
}

#[test]
fn a_failed_device_ends_at_once_where_trying_again_is_switched_off() {
    let policy = RetryPolicy { retry_failed: false, ..policy() };
    assert_eq!(after_failed(0, None, &policy), final_by_answer(Bucket::Failed));
}

#[test]
fn a_failed_device_is_not_tried_again_where_that_could_only_expire() {
    let next = noon() + TimeDelta::minutes(1);
    let moment = TimeDelta::nanoseconds(1);
    for expiry in [noon() - moment, noon(), next - moment, next] {
        assert!(is_failure(&after_failed(0, Some(expiry), &policy())), "{expiry}");
    }
    assert!(matches!(after_failed(0, Some(next + moment), &policy()), EntryEffect::TryAgain { .. }));
}

#[test]
fn a_delay_beyond_every_calendar_fails_an_entry_that_expires_and_does_not_panic() {
    let sent = [Sent { expires_at: Some(DateTime::<Utc>::MAX_UTC), ..fresh(1)[0].clone() }];
    let ended = Ended { call_id: call_id(), sent: &sent, waits_in_a_row: 0, asks_to_wait: None, now: noon() };
    let meaning = answered(vec![DeviceAnswer::Bucket(Bucket::Failed, None)]);
    let recording = verdict(meaning, &ended, &policy(), &mut |_| Duration::MAX);
    assert!(is_failure(&recording.entries[0].1), "{recording:?}");
}

// --- properties ----------------------------------------------------------------

fn any_sent() -> impl Strategy<Value = Vec<Sent>> {
    let attempts = prop_oneof![0..6_u32, any::<u32>()];
    let expiry = prop::option::of(-600..6_000_i64);
    prop::collection::vec((attempts, expiry), 1..40).prop_map(|drawn| {
        let sent = drawn.into_iter().zip(fresh(40).into_iter().rev());
        sent.map(|((attempts, expiry), sent)| Sent {
            attempts,
            expires_at: expiry.map(|second| noon() + TimeDelta::seconds(second)),
            ..sent
        })
        .collect()
    })
}

fn any_delay() -> impl Strategy<Value = Duration> {
    prop_oneof![(0..100_000_u64).prop_map(Duration::from_secs), any::<Duration>()]
}

fn any_device_answer() -> impl Strategy<Value = DeviceAnswer> {
    let buckets = [Bucket::Successful, Bucket::Failed, Bucket::NotFound, Bucket::NotSupported];
    prop_oneof![
        4 => prop::sample::select(buckets.to_vec()).prop_map(|bucket| DeviceAnswer::Bucket(bucket, None)),
        1 => Just(DeviceAnswer::Unknown(why())),
    ]
}

/// What is proven not to have been carried out, or not to have been sent.
fn any_meaning_without_effect() -> impl Strategy<Value = Meaning> {
    prop_oneof![
        Just(Meaning::NotSent { reason: why() }),
        prop::option::of(any_delay()).prop_map(throttled),
        Just(Meaning::TokenRefused { reason: why() }),
        Just(Meaning::Blocked { code: BlockCode::Forbidden, reason: why() }),
        Just(refused()),
    ]
}

/// Any meaning that a call of `n` devices can have.
fn any_meaning(n: usize) -> impl Strategy<Value = Meaning> {
    let answered = (prop::collection::vec(any_device_answer(), n), prop::collection::vec(any::<String>(), 0..3))
        .prop_map(|(devices, surplus)| Meaning::Answered { devices, surplus, beside: Beside::Nothing });
    prop_oneof![answered, any_meaning_without_effect(), Just(Meaning::Unknown { reason: why() })]
}

fn any_call() -> impl Strategy<Value = (Vec<Sent>, Meaning)> {
    any_sent().prop_flat_map(|sent| (any_meaning(sent.len()), Just(sent))).prop_map(|(meaning, sent)| (sent, meaning))
}

fn any_policy() -> impl Strategy<Value = RetryPolicy> {
    (0..6_u32, any::<bool>()).prop_map(|(max_attempts, retry_failed)| RetryPolicy {
        max_attempts,
        retry_failed,
        ..policy()
    })
}

proptest! {
    #[test]
    fn every_entry_gets_one_effect_in_order(
        (sent, meaning) in any_call(), waits: u32, policy in any_policy(), delay in any_delay(),
    ) {
        let ended = Ended { call_id: call_id(), sent: &sent, waits_in_a_row: waits, asks_to_wait: None, now: noon() };
        let recording = verdict(meaning, &ended, &policy, &mut |_| delay);
        let given: Vec<_> = recording.entries.iter().map(|(id, _)| *id).collect();
        prop_assert_eq!(given, sent.iter().map(|sent| sent.request_id).collect::<Vec<_>>());
        prop_assert_eq!(recording.call_id, call_id());
        prop_assert_ne!(recording.state, CallState::Sending);
    }

    #[test]
    fn what_was_not_carried_out_charges_no_attempt_and_ends_nothing_but_the_one_device_refused(
        sent in any_sent(), meaning in any_meaning_without_effect(), waits: u32, policy in any_policy(),
    ) {
        let alone = sent.len() == 1 && matches!(meaning, Meaning::Refused { .. });
        let recording = decide_with(meaning, &sent, waits, &policy);
        for (_, effect) in &recording.entries {
            prop_assert!(if alone { is_failure(effect) } else { matches!(effect, EntryEffect::Requeue { .. }) }, "{:?}", effect);
        }
        let states: &[CallState] = if alone { &[CallState::Answered] } else { &[CallState::NotCarriedOut, CallState::NotSent] };
        prop_assert!(states.contains(&recording.state), "{:?}", recording.state);
    }

    #[test]
    fn what_is_in_doubt_is_never_sent_again_from_here((sent, meaning) in any_call(), policy in any_policy()) {
        let doubtful: Vec<bool> = match &meaning {
            Meaning::Unknown { .. } => vec![true; sent.len()],
            Meaning::Answered { devices, .. } => devices.iter().map(|d| matches!(d, DeviceAnswer::Unknown(_))).collect(),
            _ => vec![false; sent.len()],
        };
        let recording = decide_with(meaning, &sent, 0, &policy);
        for ((_, effect), doubtful) in recording.entries.iter().zip(&doubtful) {
            prop_assert_eq!(matches!(effect, EntryEffect::Unknown { .. }), *doubtful, "{:?}", effect);
        }
        let whole = doubtful.iter().all(|doubtful| *doubtful);
        prop_assert_eq!(recording.state == CallState::Unknown, whole);
        prop_assert_eq!(recording.tenant == TenantEffect::Caution, whole);
    }

    #[test]
    fn a_throttled_tenant_waits_neither_less_than_graph_asks_nor_less_than_its_own_schedule(
        own in any_delay(), asked in prop::option::of(any_delay()), waits: u32,
    ) {
        let sent = fresh(3);
        let ended = Ended { call_id: call_id(), sent: &sent, waits_in_a_row: waits, asks_to_wait: None, now: noon() };
        let recording = verdict(throttled(asked), &ended, &policy(), &mut |_| own);
        let TenantEffect::Wait { delay, .. } = recording.tenant else { panic!("{recording:?}") };
        prop_assert!(delay >= own && delay >= asked.unwrap_or_default(), "{:?}", delay);
        prop_assert!(delay == own || Some(delay) == asked, "{:?}", delay);
    }

    #[test]
    fn a_failed_device_is_tried_again_only_within_its_attempts_and_before_it_expires(
        attempts in prop_oneof![0..8_u32, any::<u32>()], max_attempts in 0..8_u32, retry_failed: bool,
        expiry in prop::option::of(-600..6_000_i64), own in 0..6_000_u64,
    ) {
        let expires_at = expiry.map(|second| noon() + TimeDelta::seconds(second));
        let sent = [Sent { request_id: RequestId(1), attempts, expires_at }];
        let policy = RetryPolicy { max_attempts, retry_failed, ..policy() };
        let ended = Ended { call_id: call_id(), sent: &sent, waits_in_a_row: 0, asks_to_wait: None, now: noon() };
        let meaning = answered(vec![DeviceAnswer::Bucket(Bucket::Failed, None)]);
        let recording = verdict(meaning, &ended, &policy, &mut |_| Duration::from_secs(own));
        let in_time = expiry.is_none_or(|expiry| i64::try_from(own).unwrap() < expiry);
        let attempts_left = u64::from(attempts) + 1 < u64::from(max_attempts);
        match &recording.entries[0].1 {
            EntryEffect::TryAgain { delay, .. } => {
                prop_assert!(retry_failed && attempts_left && in_time);
                prop_assert_eq!(*delay, Duration::from_secs(own));
            }
            effect => prop_assert!(is_failure(effect) && !(retry_failed && attempts_left && in_time), "{:?}", effect),
        }
    }
}

// --- isolating a poison device ---------------------------------------------------

fn rounds_to_one(n: usize) -> u32 {
    n.next_power_of_two().ilog2()
}

#[test]
fn halving_comes_to_single_devices_within_log2_of_the_call_s_size_for_every_size() {
    for n in 1..=1_000 {
        let (mut size, mut rounds) = (n, 0);
        while size > 1 {
            let recording = decide(refused(), &fresh(size));
            let EntryEffect::Requeue { max_batch: Some(cap), .. } = recording.entries[0].1 else {
                panic!("{size}: {recording:?}")
            };
            assert!(recording.entries.iter().all(|(_, effect)| *effect == recording.entries[0].1), "{size}");
            assert!((cap as usize) < size && cap as usize * 2 >= size, "{size} to {cap}");
            (size, rounds) = (cap as usize, rounds + 1);
        }
        assert!(rounds <= rounds_to_one(n), "{n}: {rounds} rounds");
    }
}

/// How a queue ended that held poison devices.
#[derive(Debug)]
struct Outcome {
    /// Passes until nothing was left.
    rounds: u32,
    /// The bucket of each entry, and with how many others it was in its last call.
    ended: BTreeMap<i64, (Bucket, usize)>,
}

fn queue(n: usize) -> BTreeMap<RequestId, Entry> {
    let device = |n: u128| ManagedDeviceId::try_from(uuid::Uuid::from_u128(n)).unwrap();
    let entry = |(request_id, n)| Entry {
        request_id,
        device: device(n),
        due_at: noon(),
        expires_at: None,
        attempts: 0,
        max_batch: None,
    };
    fresh(n).into_iter().map(|sent| sent.request_id).zip(1..).map(|numbered| (numbered.0, entry(numbered))).collect()
}

/// Plans, calls and records until the queue is empty. Graph refuses each call with a poison device in it.
fn drain(mut queue: BTreeMap<RequestId, Entry>, max_devices: usize, is_poison: impl Fn(i64) -> bool) -> Outcome {
    let rate = Rate { calls: u32::MAX, period: Duration::from_nanos(1) };
    let bounds = Bounds {
        free_slots: usize::MAX,
        max_devices,
        linger: Duration::from_hours(1),
        open_doubts: 1,
        rate,
        action: Action::BulkReprovisionCloudPc,
    };
    let mut outcome = Outcome { rounds: 0, ended: BTreeMap::new() };
    // As if what is due had lingered enough.
    let now = noon() + TimeDelta::hours(2);
    while !queue.is_empty() {
        outcome.rounds += 1;
        assert!(outcome.rounds <= 40, "no end: {queue:?}");
        let plan::Plan { calls, .. } = plan(
            Snapshot { now, tenant: TenantState::default(), entries: queue.values().cloned().collect() },
            &bounds,
            &|_| false,
        );
        for call in calls {
            let sent: Vec<Sent> = call
                .iter()
                .map(|e| Sent { request_id: e.request_id, attempts: e.attempts, expires_at: e.expires_at })
                .collect();
            let meaning = if sent.iter().any(|sent| is_poison(sent.request_id.0)) {
                refused()
            } else {
                answered(vec![DeviceAnswer::Bucket(Bucket::Successful, None); sent.len()])
            };
            for (id, effect) in decide(meaning, &sent).entries {
                match effect {
                    EntryEffect::Final { bucket, .. } => {
                        assert!(outcome.ended.insert(id.0, (bucket, sent.len())).is_none(), "{id} ended twice");
                        queue.remove(&id);
                    }
                    EntryEffect::Requeue { max_batch, .. } => {
                        let entry = queue.get_mut(&id).unwrap();
                        entry.max_batch = max_batch.or(entry.max_batch);
                    }
                    other => panic!("{id}: {other:?}"),
                }
            }
        }
    }
    outcome
}

fn check_isolated(outcome: &Outcome, n: usize, is_poison: impl Fn(i64) -> bool) {
    assert_eq!(outcome.ended.len(), n);
    for (id, (bucket, together)) in &outcome.ended {
        if is_poison(*id) {
            assert_eq!((*bucket, *together), (Bucket::Failed, 1), "{id} of {n}");
        } else {
            assert_eq!(*bucket, Bucket::Successful, "{id} of {n}");
        }
    }
}

#[test]
fn a_poison_device_ends_alone_as_failed_and_all_others_are_answered_within_log2_rounds() {
    for n in 1..=1_000_usize {
        let last = i64::try_from(n).unwrap() - 1;
        // Every place of a small call; of larger ones the first, the quarters and the last in turn.
        let places = if n <= 33 { (0..=last).collect() } else { vec![last * (last % 5) / 4] };
        for poison in places {
            let outcome = drain(queue(n), n, |id| id == poison);
            check_isolated(&outcome, n, |id| id == poison);
            assert!(outcome.rounds <= rounds_to_one(n) + 1, "{poison} of {n}: {} rounds", outcome.rounds);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn many_poison_devices_are_isolated_in_as_many_rounds_as_one(
        n in 1..400_usize, max_devices in 1..150_usize, poison in prop::collection::hash_set(0..400_i64, 0..40),
    ) {
        let outcome = drain(queue(n), max_devices, |id| poison.contains(&id));
        check_isolated(&outcome, n, |id| poison.contains(&id));
        prop_assert!(outcome.rounds <= rounds_to_one(max_devices.min(n)) + 1, "{} rounds", outcome.rounds);
    }
}

#[test]
fn an_isolation_under_way_survives_a_throttled_call() {
    let recording = decide(throttled(None), &fresh(4));
    for (_, effect) in recording.entries {
        // No new cap: the store keeps the one that is there.
        assert!(matches!(effect, EntryEffect::Requeue { max_batch: None, .. }), "{effect:?}");
    }
}

#[test]
fn a_batch_that_was_throttled_in_part_ends_what_it_placed_queues_the_rest_and_makes_the_tenant_wait() {
    let wait = Duration::from_secs(40);
    let trouble = Meaning::Throttled { retry_after: Some(wait), reason: "HTTP 429".to_owned() };
    let meaning =
        |devices| Meaning::Answered { devices, surplus: vec![], beside: Beside::Trouble(Box::new(trouble.clone())) };
    let (placed, throttled) =
        (DeviceAnswer::Bucket(Bucket::Successful, None), DeviceAnswer::NotCarriedOut("throttled"));
    let doubted = DeviceAnswer::Unknown("HTTP 500".to_owned());
    let rows = [
        (vec![placed.clone(), throttled.clone()], CallState::Answered),
        (vec![throttled.clone(), throttled.clone()], CallState::NotCarriedOut),
        (vec![throttled.clone(), doubted.clone()], CallState::Unknown),
        (vec![placed, doubted], CallState::Answered),
    ];
    for (devices, state) in rows {
        let shown = format!("{devices:?}");
        let recording = decide(meaning(devices), &fresh(2));
        assert_eq!(recording.state, state, "{shown}");
        let waits = match &recording.tenant {
            TenantEffect::Wait { delay, code: WaitCode::Throttled, .. } => *delay,
            TenantEffect::Caution if state == CallState::Unknown => recording.leave_alone.unwrap(),
            other => panic!("{shown}: {other:?}"),
        };
        assert!(waits >= wait, "{shown}: {waits:?}");
        for ((_, effect), shows) in recording.entries.iter().zip(shown.split("), ")) {
            let queued = matches!(effect, EntryEffect::Requeue { reason: "throttled", max_batch: None });
            assert_eq!(queued, shows.contains("NotCarriedOut"), "{shown}: {effect:?}");
        }
    }
}

#[test]
fn an_answer_that_did_not_ask_the_action_says_nothing_of_the_tenant() {
    let meaning = |device| Meaning::Answered { devices: vec![device], surplus: vec![], beside: Beside::NotAsked };
    let found = decide(meaning(DeviceAnswer::NotCarriedOut("looked_up")), &fresh(1));
    assert_eq!((found.state, &found.tenant), (CallState::NotCarriedOut, &TenantEffect::None));
    let missing = meaning(DeviceAnswer::Bucket(Bucket::NotFound, Some("none of 7".to_owned())));
    let missing = decide(missing, &fresh(1));
    assert_eq!((missing.state, &missing.tenant), (CallState::Answered, &TenantEffect::None));
    let accepted = Meaning::Answered {
        devices: vec![DeviceAnswer::Unknown("pending".to_owned())],
        surplus: vec![],
        beside: Beside::Accepted,
    };
    let accepted = decide(accepted, &fresh(1));
    assert_eq!((accepted.state, &accepted.tenant), (CallState::Answered, &TenantEffect::Clear));
}

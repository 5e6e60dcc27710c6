use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;

const GRAPH_BUCKETS: [Bucket; 4] = [Bucket::Successful, Bucket::Failed, Bucket::NotFound, Bucket::NotSupported];
const DAY: u64 = 24 * 60 * 60;

/// A meaning without its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Answered,
    Unknown,
    NotSent,
    Throttled,
    TokenRefused,
    Refused,
    Blocked(&'static str),
}

const FORBIDDEN: Kind = Kind::Blocked("forbidden");
const GONE: Kind = Kind::Blocked("action_unavailable");
const UNEXPECTED: Kind = Kind::Blocked("unexpected_answer");

fn kind(meaning: &Meaning) -> Kind {
    match meaning {
        Meaning::Answered { .. } => Kind::Answered,
        Meaning::Unknown { .. } => Kind::Unknown,
        Meaning::NotSent { .. } => Kind::NotSent,
        Meaning::Throttled { .. } => Kind::Throttled,
        Meaning::TokenRefused { .. } => Kind::TokenRefused,
        Meaning::Refused { .. } => Kind::Refused,
        Meaning::Blocked { code, .. } => Kind::Blocked(code.as_str()),
    }
}

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn device(n: usize) -> ManagedDeviceId {
    uuid::Uuid::from_u128(0xabcd_ef01_2345_6789_abcd_ef01_0000_0000 + n as u128).try_into().unwrap()
}

fn devices(n: usize) -> Vec<ManagedDeviceId> {
    (0..n).map(device).collect()
}

/// An answer without a body.
fn bare(status: u16) -> HttpAnswer {
    HttpAnswer { status, retry_after: None, date: None, error: None, body: Body::NoBuckets("empty".to_owned()) }
}

/// An answer with Graph's error body.
fn error(status: u16, message: &str) -> HttpAnswer {
    HttpAnswer { error: Some(GraphError { code: "SomeCode".to_owned(), message: message.to_owned() }), ..bare(status) }
}

fn with_lists(answer: HttpAnswer, lists: BucketLists) -> HttpAnswer {
    HttpAnswer { body: Body::Buckets(lists), ..answer }
}

fn list_of(lists: &mut BucketLists, bucket: Bucket) -> &mut Vec<String> {
    match bucket {
        Bucket::Successful => &mut lists.successful,
        Bucket::Failed => &mut lists.failed,
        Bucket::NotFound => &mut lists.not_found,
        Bucket::NotSupported => &mut lists.not_supported,
        other => panic!("Graph has no list {other}"),
    }
}

fn lists(items: &[(Bucket, &str)]) -> BucketLists {
    let mut lists = BucketLists::default();
    for (bucket, text) in items {
        list_of(&mut lists, *bucket).push((*text).to_owned());
    }
    lists
}

fn means(answer: HttpAnswer, asked: &[ManagedDeviceId], renewed_token: bool) -> Meaning {
    meaning(&Exchange::Answered(answer), Action::BulkReprovisionCloudPc, asked, renewed_token, noon())
}

fn reason(meaning: &Meaning) -> &str {
    match meaning {
        Meaning::Answered { .. } => "",
        Meaning::Unknown { reason }
        | Meaning::NotSent { reason }
        | Meaning::Throttled { reason, .. }
        | Meaning::TokenRefused { reason }
        | Meaning::Blocked { reason, .. }
        | Meaning::Refused { reason } => reason,
    }
}

fn answered(lists: BucketLists, asked: &[ManagedDeviceId]) -> (Vec<DeviceAnswer>, Vec<String>) {
    match means(with_lists(bare(200), lists), asked, false) {
        Meaning::Answered { devices, surplus, .. } => (devices, surplus),
        other => panic!("{other:?}"),
    }
}

fn wait_of(header: Option<&str>, date: Option<DateTime<Utc>>) -> Option<Duration> {
    let answer = HttpAnswer { retry_after: header.map(str::to_owned), date, ..error(429, "") };
    match means(answer, &devices(1), false) {
        Meaning::Throttled { retry_after, .. } => retry_after,
        other => panic!("{other:?}"),
    }
}

fn http_date(at: DateTime<Utc>) -> String {
    httpdate::fmt_http_date(at.into())
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

// --- the protocol's table ----------------------------------------------------

#[test]
fn every_row_of_the_protocol_s_table_has_its_meaning() {
    let named = lists(&[(Bucket::Successful, &device(0).to_string())]);
    let not_sent = |reason: &str| Exchange::NotSent { reason: reason.to_owned() };
    let lost = |reason: &str| Exchange::Lost { reason: reason.to_owned() };
    let came = Exchange::Answered;
    let segment = "Resource not found for the segment 'bulkReprovisionCloudPc'.";
    let (fresh, renewed) = (false, true);
    let rows = [
        ("200 with buckets", came(with_lists(bare(200), named.clone())), fresh, Kind::Answered),
        ("202 with buckets", came(with_lists(bare(202), named)), fresh, Kind::Answered),
        ("200, empty or unreadable", came(bare(200)), fresh, Kind::Unknown),
        ("204", came(bare(204)), fresh, Kind::Unknown),
        ("could not connect", not_sent("connection refused"), fresh, Kind::NotSent),
        ("no such host", not_sent("dns"), fresh, Kind::NotSent),
        ("TLS refused", not_sent("certificate"), fresh, Kind::NotSent),
        ("token not obtained", not_sent("no token"), renewed, Kind::NotSent),
        ("429", came(error(429, "slow down")), fresh, Kind::Throttled),
        ("429 of a gateway", came(bare(429)), fresh, Kind::Throttled),
        ("503 with a Graph error body", came(error(503, "")), fresh, Kind::Throttled),
        ("509 with a Graph error body", came(error(509, "")), fresh, Kind::Throttled),
        ("401", came(error(401, "expired")), fresh, Kind::TokenRefused),
        ("401 with a fresh token", came(error(401, "expired")), renewed, Kind::Blocked("unauthorized")),
        ("403", came(error(403, "")), fresh, FORBIDDEN),
        ("404", came(error(404, "")), fresh, GONE),
        ("405", came(error(405, "")), fresh, GONE),
        ("410", came(error(410, "")), fresh, GONE),
        ("501", came(error(501, "")), fresh, GONE),
        ("segment not found", came(error(400, segment)), fresh, GONE),
        ("400", came(error(400, "bad id")), fresh, Kind::Refused),
        ("413", came(error(413, "")), fresh, Kind::Refused),
        ("422", came(error(422, "")), fresh, Kind::Refused),
        ("500", came(error(500, "")), fresh, Kind::Unknown),
        ("502", came(error(502, "")), fresh, Kind::Unknown),
        ("504", came(error(504, "")), fresh, Kind::Unknown),
        ("503 without a Graph body", came(bare(503)), fresh, Kind::Unknown),
        ("time-out after the request was written", lost("timeout"), fresh, Kind::Unknown),
        ("reset", lost("reset"), fresh, Kind::Unknown),
        ("truncated body", lost("body ended early"), fresh, Kind::Unknown),
    ];
    for (row, exchange, renewed_token, expected) in rows {
        for asked in [1, 20] {
            let meaning = meaning(&exchange, Action::BulkReprovisionCloudPc, &devices(asked), renewed_token, noon());
            assert_eq!(kind(&meaning), expected, "{row}, {asked} devices: {meaning:?}");
        }
    }
}

/// Status, with Graph's error body, without. Nothing but these ranges says what is expected below.
const CLASSES: &[(RangeInclusive<u16>, Kind, Kind)] = &[
    (100..=299, Kind::Unknown, Kind::Unknown),
    (300..=302, UNEXPECTED, UNEXPECTED),
    // "See Other" is how the result of a POST that was carried out is shown.
    (303..=303, Kind::Unknown, Kind::Unknown),
    (304..=399, UNEXPECTED, UNEXPECTED),
    (400..=400, Kind::Refused, Kind::Refused),
    (401..=401, Kind::TokenRefused, Kind::TokenRefused),
    (402..=402, UNEXPECTED, UNEXPECTED),
    (403..=403, FORBIDDEN, FORBIDDEN),
    (404..=405, GONE, GONE),
    // The answer could not be put in the form asked for: there may have been one.
    (406..=406, Kind::Unknown, Kind::Unknown),
    (407..=407, UNEXPECTED, UNEXPECTED),
    (408..=408, Kind::Unknown, Kind::Unknown),
    (409..=409, Kind::Refused, Kind::Refused),
    (410..=410, GONE, GONE),
    (411..=411, UNEXPECTED, UNEXPECTED),
    (412..=413, Kind::Refused, Kind::Refused),
    (414..=421, UNEXPECTED, UNEXPECTED),
    (422..=424, Kind::Refused, Kind::Refused),
    (425..=427, UNEXPECTED, UNEXPECTED),
    (428..=428, Kind::Refused, Kind::Refused),
    (429..=429, Kind::Throttled, Kind::Throttled),
    (430..=498, UNEXPECTED, UNEXPECTED),
    // "Client closed request": abandoned at an unknown point.
    (499..=500, Kind::Unknown, Kind::Unknown),
    (501..=501, GONE, GONE),
    (502..=502, Kind::Unknown, Kind::Unknown),
    (503..=503, Kind::Throttled, Kind::Unknown),
    (504..=508, Kind::Unknown, Kind::Unknown),
    (509..=509, Kind::Throttled, Kind::Unknown),
    (510..=599, Kind::Unknown, Kind::Unknown),
];

fn expected(status: u16) -> (Kind, Kind) {
    let rows: Vec<_> = CLASSES.iter().filter(|(range, ..)| range.contains(&status)).collect();
    match rows[..] {
        [(_, with_error, without)] => (*with_error, *without),
        _ => panic!("{} rows for {status}", rows.len()),
    }
}

#[test]
fn every_status_has_one_class_with_and_one_without_graph_s_error_body() {
    for status in 100..=599 {
        let (with_error, without) = expected(status);
        assert_eq!(kind(&means(error(status, "m"), &devices(3), false)), with_error, "{status} with an error");
        assert_eq!(kind(&means(bare(status), &devices(3), false)), without, "{status} without an error");
    }
}

#[test]
fn a_renewed_token_changes_the_meaning_of_401_only() {
    for status in 100..=599 {
        let (before, after) =
            (means(error(status, "m"), &devices(3), false), means(error(status, "m"), &devices(3), true));
        if status == 401 {
            assert_eq!((kind(&before), kind(&after)), (Kind::TokenRefused, Kind::Blocked("unauthorized")));
        } else {
            assert_eq!(before, after, "{status}");
        }
    }
}

#[test]
fn lists_in_an_answer_that_is_no_success_decide_nothing() {
    let named = lists(&[(Bucket::Successful, &device(0).to_string())]);
    for status in (100..=199).chain(300..=599) {
        for answer in [error(status, "m"), bare(status)] {
            let expected = means(answer.clone(), &devices(1), false);
            assert_eq!(means(with_lists(answer, named.clone()), &devices(1), false), expected, "{status}");
        }
    }
}

#[test]
fn only_a_bad_request_s_message_decides_and_only_when_it_speaks_of_a_segment() {
    for message in ["Resource not found for the segment 'x'.", "BadRequest: no such path for the segment"] {
        for status in 100..=599 {
            let found = kind(&means(error(status, message), &devices(3), false));
            assert_eq!(found, if status == 400 { GONE } else { expected(status).0 }, "{status} {message}");
        }
    }
    for message in ["", "segment", "Resource not found"] {
        assert_eq!(kind(&means(error(400, message), &devices(3), false)), Kind::Refused, "{message}");
    }
}

#[test]
fn a_block_says_what_a_person_is_to_do() {
    let gone = ["bulk-reprovision-cloud-pc", "setting graph.action"];
    let rows: [(HttpAnswer, &[&str]); 8] = [
        (error(401, "m"), &["also with a fresh token", "tenant_id", "client_id", "cloud"]),
        (error(403, "m"), &["CloudPC.ReadWrite.All", "admin consent"]),
        (error(404, "m"), &gone),
        (error(405, "m"), &gone),
        (error(410, "m"), &gone),
        (error(501, "m"), &gone),
        (error(400, "Resource not found for the segment 'x'"), &gone),
        (error(302, "m"), &["graph_url", "proxy"]),
    ];
    for (answer, words) in rows {
        let status = answer.status;
        let meaning = means(answer, &devices(1), true);
        assert!(matches!(meaning, Meaning::Blocked { .. }), "{status}: {meaning:?}");
        for word in words {
            assert!(reason(&meaning).contains(word), "{status} does not say {word}: {}", reason(&meaning));
        }
    }
}

#[test]
fn every_reason_repeats_the_status_and_graph_s_code_and_message() {
    for status in (100..=599).filter(|status| !(200..=299).contains(status)) {
        let meaning = means(error(status, "some message"), &devices(2), false);
        let seen = format!("HTTP {status} SomeCode: some message");
        assert!(reason(&meaning).starts_with(&seen), "{status}: {meaning:?}");
    }
}

// --- buckets -----------------------------------------------------------------

#[test]
fn a_device_twice_in_one_bucket_is_in_that_bucket_and_in_two_buckets_unknown() {
    let (twice, torn) = (device(0).to_string(), device(1).to_string());
    let items = [
        (Bucket::Failed, &*twice),
        (Bucket::Failed, &*twice),
        (Bucket::Successful, &*torn),
        (Bucket::NotFound, &*torn),
    ];
    let (devices, surplus) = answered(lists(&items), &devices(2));
    assert_eq!(devices[0], DeviceAnswer::Bucket(Bucket::Failed, None));
    let said = "the answer has this device in several buckets: successful, not_found";
    assert_eq!((&devices[1], surplus), (&DeviceAnswer::Unknown(said.to_owned()), vec![]));
}

#[test]
fn an_answer_that_places_no_device_still_says_of_each_what_it_saw_and_keeps_the_surplus() {
    let torn = device(0).to_string();
    let items = [(Bucket::Successful, &*torn), (Bucket::Failed, &*torn), (Bucket::NotFound, "other")];
    let (devices, surplus) = answered(lists(&items), &devices(2));
    let said = ["in several buckets: successful, failed", "in no bucket"];
    for (device, said) in devices.iter().zip(said) {
        assert!(matches!(device, DeviceAnswer::Unknown(detail) if detail.contains(said)), "{device:?}");
    }
    assert_eq!((devices.len(), surplus), (2, vec!["other".to_owned()]));
}

#[test]
fn what_is_not_a_device_id_is_surplus_and_never_guessed_to_be_one() {
    let asked = device(0).to_string();
    let near = [
        asked.replace('-', ""),
        format!(" {asked}"),
        format!("{{{asked}"),
        format!("urn:uuid:{asked}"),
        asked[..35].to_owned(),
        uuid::Uuid::nil().to_string(),
        String::new(),
    ];
    for text in near {
        let (devices, surplus) = answered(lists(&[(Bucket::Successful, &text)]), &devices(1));
        assert!(matches!(devices[..], [DeviceAnswer::Unknown(_)]), "{text:?}: {devices:?}");
        assert_eq!(surplus, [text]);
    }
}

/// One item of a list.
#[derive(Debug, Clone)]
enum Item {
    Asked { index: prop::sample::Index, upper: bool, braces: bool },
    Stranger(String),
}

fn any_item() -> impl Strategy<Value = (Bucket, Item)> {
    let spelled = (any::<prop::sample::Index>(), any::<bool>(), any::<bool>());
    let item = prop_oneof![
        4 => spelled.prop_map(|(index, upper, braces)| Item::Asked { index, upper, braces }),
        1 => ".{0,40}".prop_map(Item::Stranger),
        1 => (1_000..1_010_usize).prop_map(|n| Item::Stranger(device(n).to_string())),
    ];
    (prop::sample::select(&GRAPH_BUCKETS[..]), item)
}

fn spelled(device: ManagedDeviceId, upper: bool, braces: bool) -> String {
    let text = device.to_string();
    let text = if upper { text.to_uppercase() } else { text };
    if braces { format!("{{{text}}}") } else { text }
}

fn any_instant() -> impl Strategy<Value = DateTime<Utc>> {
    let (first, last) = (DateTime::<Utc>::MIN_UTC.timestamp(), DateTime::<Utc>::MAX_UTC.timestamp());
    prop_oneof![first..=last, Just(first), Just(last), 1_700_000_000..1_900_000_000_i64]
        .prop_map(|second| DateTime::from_timestamp(second, 0).unwrap())
}

fn any_header() -> impl Strategy<Value = String> {
    let date = (0..253_402_300_799_i64).prop_map(|second| http_date(DateTime::from_timestamp(second, 0).unwrap()));
    let cut =
        (date.clone(), any::<prop::sample::Index>()).prop_map(|(text, at)| text[..at.index(text.len())].to_owned());
    prop_oneof![any::<String>(), "[-+ ]?[0-9]{0,30}(\\.[0-9])? ?", date, cut]
}

prop_compose! {
    fn any_answer()(
        status: u16, retry_after in prop::option::of(any_header()), date in prop::option::of(any_instant()),
        error in prop::option::of(any::<(String, String)>()), named: bool, why: String,
        items in prop::collection::vec((prop::sample::select(&GRAPH_BUCKETS[..]), any::<String>()), 0..20),
    ) -> HttpAnswer {
        let mut lists = BucketLists::default();
        for (bucket, text) in items {
            list_of(&mut lists, bucket).push(text);
        }
        let error = error.map(|(code, message)| GraphError { code, message });
        let body = if named { Body::Buckets(lists) } else { Body::NoBuckets(why) };
        HttpAnswer { status, retry_after, date, error, body }
    }
}

proptest! {
    #[test]
    fn every_device_asked_for_gets_one_answer_in_order_and_every_stranger_is_recorded_as_it_came(
        asked in 1..30_usize, items in prop::collection::vec(any_item(), 0..80), order in any::<u64>(),
    ) {
        // Asked in another order than that of the ids.
        let mut asked = devices(asked);
        let turn = usize::try_from(order % asked.len() as u64).unwrap();
        asked.rotate_left(turn);
        let mut lists = BucketLists::default();
        let mut named: Vec<BTreeSet<Bucket>> = vec![BTreeSet::new(); asked.len()];
        let mut strangers: BTreeMap<Bucket, Vec<String>> = BTreeMap::new();
        for (bucket, item) in items {
            let text = match item {
                Item::Asked { index, upper, braces } => {
                    let index = index.index(asked.len());
                    named[index].insert(bucket);
                    spelled(asked[index], upper, braces)
                }
                Item::Stranger(text) => {
                    strangers.entry(bucket).or_default().push(text.clone());
                    text
                }
            };
            list_of(&mut lists, bucket).push(text);
        }
        let (devices, surplus) = answered(lists, &asked);
        prop_assert_eq!(devices.len(), asked.len());
        for (device, named) in devices.iter().zip(&named) {
            match named.first() {
                Some(bucket) if named.len() == 1 => prop_assert_eq!(device, &DeviceAnswer::Bucket(*bucket, None)),
                _ => prop_assert!(matches!(device, DeviceAnswer::Unknown(_)), "{:?} for {:?}", device, named),
            }
        }
        prop_assert_eq!(surplus, strangers.into_values().flatten().collect::<Vec<_>>());
    }

    #[test]
    fn no_answer_whatever_it_holds_makes_the_decision_panic(
        answer in any_answer(), asked in 0..4_usize, renewed: bool, received_at in any_instant(),
    ) {
        let asked = devices(asked);
        let status = answer.status;
        let meaning = meaning(&Exchange::Answered(answer), Action::BulkReprovisionCloudPc, &asked, renewed, received_at);
        if let Meaning::Answered { devices, .. } = &meaning {
            prop_assert_eq!(devices.len(), asked.len());
        }
        prop_assert!((100..=599).contains(&status) || kind(&meaning) == Kind::Unknown, "{}: {:?}", status, meaning);
    }
}

// --- Retry-After -------------------------------------------------------------

#[test]
fn retry_after_is_taken_in_seconds_up_to_a_day_and_is_none_where_absurd() {
    let day = DAY.to_string();
    let over = (DAY + 1).to_string();
    let rows = [
        ("0", Some(seconds(0))),
        ("1", Some(seconds(1))),
        (" 120\t", Some(seconds(120))),
        ("0000000000000000000000000000007", Some(seconds(7))),
        (&*day, Some(seconds(DAY))),
        (&*over, None),
        ("18446744073709551615", None),
        ("18446744073709551616", None),
        ("99999999999999999999999999", None),
        ("-1", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("5s", None),
        ("5, 10", None),
        ("\u{663}\u{664}", None),
        ("", None),
        (" ", None),
        ("soon", None),
        ("Fri, 99 Foo 2027 08:00:00 GMT", None),
    ];
    for (text, expected) in rows {
        assert_eq!(wait_of(Some(text), None), expected, "{text:?}");
    }
    assert_eq!(wait_of(None, Some(noon())), None);
}

#[test]
fn a_date_in_retry_after_is_reckoned_from_graph_s_own_date_and_else_from_when_it_came() {
    let graph = noon() + TimeDelta::days(3);
    let until = |clock: DateTime<Utc>, later: i64| http_date(clock + TimeDelta::seconds(later));
    let day = i64::try_from(DAY).unwrap();
    for (later, expected) in [
        (90, Some(seconds(90))),
        (0, Some(seconds(0))),
        (-1, None),
        (-day, None),
        (day, Some(seconds(DAY))),
        (day + 1, None),
    ] {
        assert_eq!(wait_of(Some(&until(graph, later)), Some(graph)), expected, "{later} from Graph's date");
        assert_eq!(wait_of(Some(&until(noon(), later)), None), expected, "{later} from when it came");
    }
    assert_eq!(wait_of(Some("Fri, 31 Dec 9999 23:59:59 GMT"), None), None);
    assert_eq!(wait_of(Some("Thu, 01 Jan 1970 00:00:00 GMT"), None), None);
}

#[test]
fn throttled_503_and_509_carry_their_retry_after_like_429() {
    for status in [429, 503, 509] {
        let answer = HttpAnswer { retry_after: Some("17".to_owned()), ..error(status, "m") };
        let expected =
            Meaning::Throttled { retry_after: Some(seconds(17)), reason: format!("HTTP {status} SomeCode: m") };
        assert_eq!(means(answer, &devices(1), false), expected);
    }
}

proptest! {
    #[test]
    fn seconds_asked_for_are_waited_for_exactly_or_taken_for_a_mistake(asked in prop_oneof![0..200_000_u64, any::<u64>()]) {
        let expected = if asked <= DAY { Some(seconds(asked)) } else { None };
        prop_assert_eq!(wait_of(Some(&asked.to_string()), None), expected);
    }

    #[test]
    fn a_wait_until_a_date_never_ends_before_it_whatever_fraction_of_a_second_the_clock_shows(
        later in -200_000..200_000_i64, millis in 0..1_000_i64,
    ) {
        let clock = noon() + TimeDelta::milliseconds(millis);
        let until = noon() + TimeDelta::seconds(later);
        match retry_after(&http_date(until), clock) {
            Some(wait) => prop_assert_eq!(clock + wait, until),
            None => prop_assert!(until < clock || until - clock > TimeDelta::hours(24), "{} was thrown away", until - clock),
        }
    }

    #[test]
    fn no_header_asks_for_more_than_a_day_or_makes_the_reading_panic(text in any_header(), clock in any_instant()) {
        let wait = retry_after(&text, clock);
        prop_assert!(wait.is_none_or(|wait| wait.as_secs() <= DAY), "{:?}", wait);
    }
}

// --- $batch ------------------------------------------------------------------

fn in_batch(answers: Vec<(String, HttpAnswer)>, asked: &[ManagedDeviceId]) -> (Vec<DeviceAnswer>, Vec<String>, Beside) {
    let answer = HttpAnswer { body: Body::Batch(answers), ..bare(200) };
    match meaning(&Exchange::Answered(answer), Action::CloudPcReprovision, asked, false, noon()) {
        Meaning::Answered { devices, surplus, beside } => (devices, surplus, beside),
        other => panic!("{other:?}"),
    }
}

fn one_of_batch(answer: HttpAnswer) -> (&'static str, Option<Kind>) {
    let (devices, _, beside) = in_batch(vec![(device(0).to_string(), answer)], &devices(1));
    let word = match &devices[0] {
        DeviceAnswer::Bucket(bucket, _) => bucket.as_str(),
        DeviceAnswer::Refused(_) => "refused",
        DeviceAnswer::NotCarriedOut(word) => word,
        DeviceAnswer::Unknown(_) => "unknown",
    };
    let trouble = match beside {
        Beside::Trouble(trouble) => Some(kind(&trouble)),
        _ => None,
    };
    (word, trouble)
}

#[test]
fn an_answer_in_a_batch_means_for_its_device_what_it_would_mean_as_the_answer_to_a_call_of_it() {
    let coded = |status, code: &str| HttpAnswer {
        error: Some(GraphError { code: code.to_owned(), message: String::new() }),
        ..bare(status)
    };
    let rows: [(HttpAnswer, &str, Option<Kind>); 17] = [
        (bare(204), "successful", None),
        (bare(200), "successful", None),
        (error(404, "no such Cloud PC"), "not_found", None),
        (error(404, "Resource not found for the segment 'reprovision'"), "blocked", Some(GONE)),
        (error(400, "Resource not found for the segment 'reprovision'"), "blocked", Some(GONE)),
        // A router before Graph knows no Cloud PC.
        (bare(404), "blocked", Some(GONE)),
        (coded(400, "NotSupported"), "not_supported", None),
        (coded(409, "operationNotSupported"), "not_supported", None),
        (error(400, "m"), "refused", None),
        (error(409, "m"), "refused", None),
        (bare(429), "throttled", Some(Kind::Throttled)),
        (error(503, "m"), "throttled", Some(Kind::Throttled)),
        (bare(503), "unknown", None),
        (error(401, "m"), "token_refused", Some(Kind::TokenRefused)),
        (error(403, "m"), "blocked", Some(FORBIDDEN)),
        (error(500, "m"), "unknown", None),
        (bare(0), "unknown", None),
    ];
    for (answer, word, trouble) in rows {
        let shown = format!("{answer:?}");
        assert_eq!(one_of_batch(answer), (word, trouble), "{shown}");
    }
}

#[test]
fn a_device_without_an_answer_in_the_batch_or_with_several_that_disagree_is_unknown_and_a_stranger_is_surplus() {
    let id = |n| device(n).to_string();
    let answers = vec![
        (id(0).to_uppercase(), bare(204)),
        (id(1), bare(204)),
        (id(1), error(409, "m")),
        (id(2), bare(204)),
        (id(2), bare(204)),
        ("stranger".to_owned(), bare(204)),
    ];
    let (said, surplus, beside) = in_batch(answers, &devices(4));
    let successful = DeviceAnswer::Bucket(Bucket::Successful, None);
    assert_eq!((&said[0], &said[2]), (&successful, &successful));
    assert!(matches!(&said[1], DeviceAnswer::Unknown(why) if why.contains("disagree")), "{said:?}");
    assert!(matches!(&said[3], DeviceAnswer::Unknown(why) if why.contains("no answer")), "{said:?}");
    assert_eq!((surplus, beside), (vec!["stranger".to_owned()], Beside::Nothing));
}

#[test]
fn of_several_troubles_in_a_batch_the_one_that_holds_longest_is_the_tenants() {
    let throttled = |seconds: u64| HttpAnswer { retry_after: Some(seconds.to_string()), ..error(429, "m") };
    let trouble = |answers: Vec<HttpAnswer>| {
        let count = answers.len();
        let named = answers.into_iter().enumerate().map(|(n, answer)| (device(n).to_string(), answer)).collect();
        match in_batch(named, &devices(count)).2 {
            Beside::Trouble(trouble) => *trouble,
            other => panic!("{other:?}"),
        }
    };
    let longest = trouble(vec![throttled(3), bare(204), throttled(40), throttled(7)]);
    assert!(
        matches!(longest, Meaning::Throttled { retry_after: Some(wait), .. } if wait == seconds(40)),
        "{longest:?}"
    );
    assert_eq!(kind(&trouble(vec![error(401, "m"), throttled(40), bare(204)])), Kind::TokenRefused);
    assert_eq!(kind(&trouble(vec![error(401, "m"), error(403, "m"), throttled(40)])), FORBIDDEN);
}

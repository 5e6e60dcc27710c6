//! Faults: what the client sees, and what really happened all the same.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn done(answered: bool) -> Vec<(String, bool)> {
    vec![(SUCCEEDS.to_owned(), answered)]
}

#[tokio::test]
async fn a_lost_request_did_nothing_and_a_lost_answer_did_it_all() {
    for tls in [false, true] {
        let bench = Bench::with(Options { tls, ..Options::default() }).await;
        bench.fault(Effect::ResetBefore);
        let error = bench.lose(&[SUCCEEDS]).await;
        assert!(error.is_request() && !error.is_connect() && error.status().is_none(), "{error:?}");
        assert_eq!(bench.happened(), []);
        bench.fault(Effect::ResetAfter);
        let error = bench.lose(&[SUCCEEDS]).await;
        assert!(error.is_request() && !error.is_connect() && error.status().is_none(), "{error:?}");
        assert_eq!(bench.happened(), done(false));
        assert_eq!(bench.reprovision(&[SUCCEEDS]).await.status, 200, "the next connection is good");
    }
}

#[tokio::test]
async fn a_reset_is_one_on_the_wire_and_not_a_polite_end() {
    let bench = Bench::healthy().await;
    bench.fault(Effect::ResetAfter);
    let address = bench.simulator.graph_url().trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = json!({"managedDeviceIds": [SUCCEEDS]}).to_string();
    let request = format!(
        "POST {ACTION} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        bench.token,
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let error = socket.read_to_end(&mut received).await.unwrap_err();
    assert_eq!((error.kind(), received.len()), (std::io::ErrorKind::ConnectionReset, 0));
    assert_eq!(bench.happened(), done(false));
}

#[tokio::test]
async fn a_truncated_answer_begins_and_never_ends() {
    for tls in [false, true] {
        let bench = Bench::with(Options { tls, ..Options::default() }).await;
        bench.fault(Effect::Truncated);
        let mut answer = bench.action(&[SUCCEEDS]).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let announced = usize::try_from(answer.content_length().unwrap()).unwrap();
        let mut received = 0;
        let error = loop {
            match answer.chunk().await {
                Ok(chunk) => received += chunk.expect("the body must not end well").len(),
                Err(error) => break error,
            }
        };
        assert!(error.is_body() || error.is_decode(), "{error:?}");
        assert_eq!(received, announced / 2);
        assert_eq!(bench.happened(), done(false));
    }
}

#[tokio::test]
async fn an_answer_without_a_body_cannot_be_truncated_and_is_reset_instead() {
    let bench = Bench::with(Options { answer_shape: AnswerShape::Empty, ..Options::default() }).await;
    bench.fault(Effect::Truncated);
    let error = bench.lose(&[SUCCEEDS]).await;
    assert!(error.is_request() && error.status().is_none(), "{error:?}");
    assert_eq!(bench.happened(), done(false));
}

#[tokio::test]
async fn a_hanging_call_is_done_or_not_as_its_name_says() {
    let bench = Bench::healthy().await;
    for (effect, happened) in [(Effect::Hang, vec![]), (Effect::HangAfter, done(false))] {
        bench.fault(effect);
        let error = bench.action(&[SUCCEEDS]).timeout(Duration::from_millis(300)).send().await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(bench.happened(), happened);
    }
}

#[tokio::test]
async fn a_late_answer_is_lost_to_a_client_that_gives_up_before_but_the_work_is_done() {
    let bench = Bench::healthy().await;
    bench.fault(Effect::Latency(Duration::from_mins(10)));
    let error = bench.action(&[SUCCEEDS]).timeout(Duration::from_millis(300)).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(bench.happened(), done(false));
}

#[tokio::test]
async fn latency_delays_the_true_answer() {
    let bench = Bench::with(Options { latency: Duration::from_millis(20), ..Options::default() }).await;
    bench.fault(Effect::Latency(Duration::from_millis(100)));
    let began = std::time::Instant::now();
    assert_eq!(bench.reprovision(&[SUCCEEDS]).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(120));
    assert_eq!(bench.happened(), done(true));
}

#[tokio::test]
async fn a_huge_body_is_the_true_answer_behind_a_hundred_megabytes_of_nothing() {
    let bench = Bench::healthy().await;
    bench.fault(Effect::Huge);
    let mut answer = bench.action(&[SUCCEEDS]).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.content_length()), (200, None));
    let (mut received, mut end) = (0, Vec::new());
    while let Some(chunk) = answer.chunk().await.unwrap() {
        received += chunk.len();
        end.extend(chunk.iter().filter(|byte| **byte != b' '));
    }
    assert!(received > 100 * 1024 * 1024);
    let told: Value = serde_json::from_slice(&end).unwrap();
    assert_eq!(told["value"]["successfulDeviceIds"], json!([SUCCEEDS]));
    assert_eq!(bench.happened(), done(false));
}

#[tokio::test]
async fn a_status_comes_with_the_retry_after_and_the_body_that_was_asked_for() {
    let bench = Bench::healthy().await;
    for (retry_after, expected) in [
        (RetryAfter::Seconds(5), Some("5")),
        (RetryAfter::Zero, Some("0")),
        (RetryAfter::Negative, Some("-5")),
        (RetryAfter::Huge, Some("99999999999999999999999999")),
        (RetryAfter::Garbage, Some("soon")),
        (RetryAfter::Missing, None),
    ] {
        bench.fault(Effect::Status(StatusFault { code: 429, retry_after, ..StatusFault::default() }));
        let answer = bench.reprovision(&[SUCCEEDS]).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, expected));
        assert_eq!(answer.error_code(), "TooManyRequests");
    }
    bench.fault(Effect::Status(StatusFault { code: 503, retry_after: RetryAfter::Date(90), ..StatusFault::default() }));
    let answer = bench.reprovision(&[SUCCEEDS]).await;
    let date = |name| httpdate::parse_http_date(answer.header(name).unwrap()).unwrap();
    let ahead = date("retry-after").duration_since(date("date")).unwrap();
    assert!(ahead.abs_diff(Duration::from_secs(90)) <= Duration::from_secs(1), "{ahead:?}");

    bench.fault(Effect::Status(StatusFault { code: 503, body: ErrorBody::None, ..StatusFault::default() }));
    assert_eq!(bench.reprovision(&[SUCCEEDS]).await.body, "");
    bench.fault(Effect::Status(StatusFault { code: 502, body: ErrorBody::Html, ..StatusFault::default() }));
    assert!(bench.reprovision(&[SUCCEEDS]).await.body.starts_with("<!DOCTYPE html>"));
    bench.fault(Effect::segment_not_found());
    let answer = bench.reprovision(&[SUCCEEDS]).await.json();
    let message = "Resource not found for the segment 'bulkReprovisionCloudPc'.";
    assert_eq!(answer["error"]["message"], json!(message));
    assert_eq!(bench.happened(), []);
}

#[tokio::test]
async fn a_status_after_the_work_hides_what_was_done() {
    let bench = Bench::healthy().await;
    bench.fault(Effect::DoneThenStatus(StatusFault { code: 504, body: ErrorBody::Html, ..StatusFault::default() }));
    assert_eq!(bench.reprovision(&[SUCCEEDS]).await.status, 504);
    assert_eq!(bench.happened(), done(false));
    assert_eq!(bench.states(SUCCEEDS).await, ["pending"]);
}

#[tokio::test]
async fn a_body_can_be_of_another_kind_while_the_work_is_done() {
    for (effect, body) in [
        (Effect::Empty, String::new()),
        (Effect::WrongType(WrongType::Number), r#""successfulDeviceIds":1"#.to_owned()),
        (Effect::WrongType(WrongType::String), format!(r#""successfulDeviceIds":"[\"{SUCCEEDS}\"]""#)),
        (Effect::WrongType(WrongType::Array), r#"[{"value":{"#.to_owned()),
        (Effect::NotJson, "<!DOCTYPE html>".to_owned()),
    ] {
        let bench = Bench::healthy().await;
        bench.fault(effect.clone());
        let answer = bench.reprovision(&[SUCCEEDS]).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(&body) && body.is_empty() == answer.body.is_empty(), "{effect:?}: {answer:?}");
        assert_eq!(bench.happened(), done(true), "{effect:?}");
    }
}

#[tokio::test]
async fn the_lists_can_lie_about_what_was_done() {
    let (none, both) = (json!([]), json!([SUCCEEDS]));
    let bench = Bench::healthy().await;
    let lists = async |effect: Effect| {
        bench.fault(effect);
        bench.reprovision(&[SUCCEEDS]).await.json()["value"].clone()
    };
    assert_eq!(lists(Effect::InNoBucket).await["successfulDeviceIds"], none);
    let two = lists(Effect::InTwoBuckets).await;
    assert_eq!((&two["successfulDeviceIds"], &two["failedDeviceIds"]), (&both, &both));
    let surplus = lists(Effect::SurplusId).await["successfulDeviceIds"].clone();
    assert_eq!((surplus.as_array().unwrap().len(), &surplus[0]), (2, &json!(SUCCEEDS)));
    assert_eq!(lists(Effect::UpperCase).await["successfulDeviceIds"], json!([SUCCEEDS.to_uppercase()]));
    let null = lists(Effect::NullLists).await;
    assert!(null["successfulDeviceIds"].is_null() && null.as_object().unwrap().len() == 5, "{null}");
    assert_eq!(lists(Effect::MissingLists).await.as_object().unwrap().len(), 1);
    let null = lists(Effect::NullEmptyLists).await;
    assert_eq!((&null["successfulDeviceIds"], &null["failedDeviceIds"]), (&both, &Value::Null));
    let missing = lists(Effect::MissingEmptyLists).await;
    assert_eq!((&missing["successfulDeviceIds"], missing.get("failedDeviceIds")), (&both, None));
    assert_eq!(bench.happened().len(), 8, "each of them did it");
}

#[tokio::test]
async fn a_poison_device_spoils_every_call_that_holds_it() {
    let bench = Bench::with(Options { others: Others::Success, ..Options::default() }).await;
    bench.fault(Effect::Poison(STRANGER.parse().unwrap()));
    assert_eq!(bench.reprovision(&[SUCCEEDS, STRANGER]).await.status, 400);
    assert_eq!(bench.reprovision(&[STRANGER]).await.error_code(), "BadRequest");
    assert_eq!(bench.happened(), []);
    assert_eq!(bench.reprovision(&[SUCCEEDS]).await.status, 200);
}

#[tokio::test]
async fn the_token_endpoint_and_the_read_back_can_fail_too() {
    let bench = Bench::healthy().await;
    bench.fault(Fault::from(Effect::status(503)).on(Endpoint::Token));
    let answer = bench.ask_token(&[]).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (503, &json!("temporarily_unavailable")));
    bench.fault(Fault::from(Effect::WrongType(WrongType::String)).on(Endpoint::ReadBack));
    assert_eq!(bench.read_back(SUCCEEDS).await.json()["value"], json!("[]"));
    bench.fault(Fault::from(Effect::status(404)).on(Endpoint::ReadBack).device(FAILS.parse().unwrap()));
    assert_eq!(bench.read_back(SUCCEEDS).await.status, 200);
    assert_eq!(bench.read_back(FAILS).await.status, 404);
}

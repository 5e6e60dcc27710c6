//! What a healthy Graph answers.

use super::*;

#[tokio::test]
async fn the_reference_pages_example_is_answered_as_on_the_page() {
    let bench = Bench::healthy().await;
    let answer = bench.reprovision(&[SUCCEEDS, FAILS]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(
        answer.json(),
        json!({"value": {
            "@odata.type": "microsoft.graph.cloudPcBulkRemoteActionResult",
            "successfulDeviceIds": ["30d0e128-de93-41dc-89ec-33d84bb662a0"],
            "failedDeviceIds": ["7c82a3e3-9459-44e4-94d9-b92f93bf78dd"],
            "notFoundDeviceIds": [],
            "notSupportedDeviceIds": [],
        }})
    );
}

#[tokio::test]
async fn only_what_was_accepted_is_in_the_ledger() {
    let bench = Bench::healthy().await;
    bench.reprovision(&[SUCCEEDS, FAILS, STRANGER, "00000000-0000-0000-0000-000000000000"]).await;
    assert_eq!(bench.happened(), [(SUCCEEDS.to_owned(), true)]);
    let ledger = bench.simulator.ledger();
    assert_eq!(ledger[0].client_request_id.as_deref(), Some(CALL_ID));
    let over_http = Answered::to(bench.anonymous(Method::GET, "/simulator/ledger")).await.unwrap().json();
    let at = ledger[0].at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    assert_eq!(
        over_http,
        json!([{"managed_device_id": SUCCEEDS, "client_request_id": CALL_ID, "at": at, "answered": true}])
    );
}

#[tokio::test]
async fn a_device_reprovisioned_twice_stands_in_the_ledger_twice_and_twice_in_one_call_once() {
    let bench = Bench::healthy().await;
    bench.reprovision(&[SUCCEEDS, &SUCCEEDS.to_uppercase()]).await;
    assert_eq!(bench.happened().len(), 1);
    bench.reprovision(&[SUCCEEDS]).await;
    assert_eq!(bench.happened().len(), 2);
}

#[tokio::test]
async fn each_behaviour_goes_to_its_list() {
    let behaviours =
        [Behaviour::Succeeds, Behaviour::FailsLater, Behaviour::Fails, Behaviour::NotFound, Behaviour::NotSupported];
    let fleet = behaviours
        .into_iter()
        .zip(1..)
        .map(|(behaviour, n)| Device::new(Uuid::from_u128(n).try_into().unwrap(), behaviour));
    let bench = Bench::with(Options { fleet: fleet.collect(), ..Options::default() }).await;
    let ids: Vec<String> = (1..=5).map(|n| Uuid::from_u128(n).to_string()).collect();
    let answer = bench.reprovision(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await.json();
    assert_eq!(answer["value"]["successfulDeviceIds"], json!(ids[..2]));
    assert_eq!(answer["value"]["failedDeviceIds"], json!([ids[2]]));
    assert_eq!(answer["value"]["notFoundDeviceIds"], json!([ids[3]]));
    assert_eq!(answer["value"]["notSupportedDeviceIds"], json!([ids[4]]));
    bench.simulator.advance(Duration::from_mins(1));
    assert_eq!(bench.states(&ids[0]).await, ["done"]);
    assert_eq!(bench.states(&ids[1]).await, ["failed"]);
    assert_eq!(bench.states(&ids[2]).await, [""; 0]);
    assert_eq!(bench.read_back(&ids[3]).await.status, 404);
}

#[tokio::test]
async fn the_three_shapes_of_success_are_those_that_microsoft_documents() {
    let bare = Bench::with(Options { answer_shape: AnswerShape::Bare, ..Options::default() }).await;
    let answer = bare.reprovision(&[SUCCEEDS]).await;
    assert_eq!((answer.status, &answer.json()["successfulDeviceIds"]), (StatusCode::OK, &json!([SUCCEEDS])));
    assert_eq!(answer.json().get("value"), None);

    let empty = Bench::with(Options { answer_shape: AnswerShape::Empty, ..Options::default() }).await;
    let answer = empty.reprovision(&[SUCCEEDS]).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::NO_CONTENT, ""));
    assert_eq!(empty.happened(), [(SUCCEEDS.to_owned(), true)]);
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_support_asks_for() {
    let bench = Bench::healthy().await;
    let refused =
        Answered::to(bench.anonymous(Method::GET, ACTION).header("client-request-id", CALL_ID)).await.unwrap();
    for answer in [bench.reprovision(&[SUCCEEDS]).await, refused] {
        assert!(Uuid::try_parse(answer.header("request-id").unwrap()).is_ok());
        assert_eq!(answer.header("client-request-id"), Some(CALL_ID));
        assert!(httpdate::parse_http_date(answer.header("date").unwrap()).is_ok());
    }
}

#[tokio::test]
async fn a_reprovision_goes_from_pending_through_active_to_done() {
    let pace = Pace { pending: Duration::from_secs(10), active: Duration::from_secs(100), ..Pace::default() };
    let bench = Bench::with(Options { pace, ..Options::default() }).await;
    assert_eq!(bench.states(SUCCEEDS).await, [""; 0]);
    bench.reprovision(&[SUCCEEDS]).await;
    assert_eq!(bench.states(SUCCEEDS).await, ["pending"]);
    bench.simulator.advance(Duration::from_secs(10));
    assert_eq!(bench.states(SUCCEEDS).await, ["active"]);
    bench.simulator.advance(Duration::from_secs(100));
    bench.reprovision(&[SUCCEEDS]).await;
    assert_eq!(bench.states(SUCCEEDS).await, ["done", "pending"]);
}

#[tokio::test]
async fn the_read_back_shows_an_action_only_after_its_lag() {
    let pace = Pace { read_back_lag: Duration::from_secs(30), ..Pace::default() };
    let bench = Bench::with(Options { pace, ..Options::default() }).await;
    bench.reprovision(&[SUCCEEDS]).await;
    assert_eq!(bench.states(SUCCEEDS).await, [""; 0]);
    bench.simulator.advance(Duration::from_secs(30));
    assert_eq!(bench.states(SUCCEEDS).await, ["done"]);
}

#[tokio::test]
async fn a_remote_action_is_dated_by_graphs_clock_with_seven_digits() {
    let bench = Bench::with(Options { clock_ahead: TimeDelta::minutes(-7), ..Options::default() }).await;
    let before = Utc::now() - TimeDelta::minutes(7);
    let answer = bench.reprovision(&[SUCCEEDS]).await;
    let date = httpdate::parse_http_date(answer.header("date").unwrap()).unwrap();
    assert!((DateTime::<Utc>::from(date) - before).abs() < TimeDelta::minutes(1), "{date:?}");
    let action = bench.read_back(SUCCEEDS).await.json()["value"][0].clone();
    let started = action["startDateTime"].as_str().unwrap();
    assert_eq!(started.split_once('.').unwrap().1.len(), "1234567Z".len(), "{started}");
    let off = DateTime::parse_from_rfc3339(started).unwrap().to_utc() - before;
    assert!(off.abs() < TimeDelta::minutes(1), "{off}");
    assert_eq!((&action["actionName"], &action["managedDeviceId"]), (&json!("Reprovision"), &json!(SUCCEEDS)));
    assert_eq!(action["cloudPcId"], json!(bench.simulator.devices()[0].cloud_pc_id.unwrap()));
}

#[tokio::test]
async fn the_read_back_is_found_however_a_client_writes_it() {
    let bench = Bench::healthy().await;
    for name in
        ["getCloudPcRemoteActionResults", "GETCLOUDPCREMOTEACTIONRESULTS()", "getCloudPCRemoteActionResults%28%29"]
    {
        let path = format!("/beta/devicemanagement/ManagedDevices/{}/{name}", SUCCEEDS.to_uppercase());
        let answer = Answered::to(bench.authorised(Method::GET, &path)).await.unwrap();
        assert_eq!((answer.status, &answer.json()["value"]), (StatusCode::OK, &json!([])), "{name}");
    }
}

#[tokio::test]
async fn https_is_trusted_through_the_throwaway_authority_and_not_without_it() {
    let bench = Bench::with(Options { tls: true, ..Options::default() }).await;
    assert!(bench.simulator.graph_url().starts_with("https://127.0.0.1:"));
    assert_eq!(bench.reprovision(&[SUCCEEDS]).await.status, 200);
    let stranger = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let error = stranger.get(format!("{}/simulator/ledger", bench.simulator.graph_url())).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

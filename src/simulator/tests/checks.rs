//! The requests that Graph refuses, and how.

use super::*;

async fn refusal(bench: &Bench, request: RequestBuilder) -> (u16, String) {
    let answer = Answered::to(request).await.unwrap();
    let error = &answer.json()["error"];
    let inner = &error["innerError"];
    assert_eq!(inner["request-id"].as_str(), answer.header("request-id"), "{error}");
    assert!(inner["date"].is_string() && inner["client-request-id"].is_string() && error["message"].is_string());
    assert_eq!(bench.happened(), [], "a refused call does nothing");
    (answer.status.as_u16(), answer.error_code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_missing_expired_or_garbled_token_is_401() {
    let bench = Bench::healthy().await;
    let unauthenticated = refused(401, "InvalidAuthenticationToken");
    let garbled = format!("{}x", bench.token);
    for authorization in ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer abc", &format!("Bearer {garbled}")] {
        let request = bench.anonymous(Method::POST, ACTION).header("authorization", authorization);
        assert_eq!(refusal(&bench, request).await, unauthenticated, "{authorization:?}");
    }
    bench.simulator.advance(Duration::from_secs(3598));
    let answer = Answered::to(bench.authorised(Method::GET, ACTION)).await.unwrap();
    assert_eq!(answer.status, 405, "good to the last second");
    bench.simulator.advance(Duration::from_secs(1));
    assert_eq!(refusal(&bench, bench.action(&[SUCCEEDS])).await, unauthenticated);
}

#[tokio::test]
async fn tokens_can_be_expired_and_a_fresh_one_is_good_again() {
    let mut bench = Bench::healthy().await;
    bench.simulator.expire_tokens();
    assert_eq!(refusal(&bench, bench.action(&[SUCCEEDS])).await, refused(401, "InvalidAuthenticationToken"));
    bench.token = bench.fresh_token().await;
    assert_eq!(bench.reprovision(&[SUCCEEDS]).await.status, 200);
}

#[tokio::test]
async fn a_token_without_the_role_is_403_and_one_to_read_can_read_only() {
    let mut bench = Bench::with(Options { roles: Vec::new(), ..Options::default() }).await;
    assert_eq!(refusal(&bench, bench.action(&[SUCCEEDS])).await, refused(403, "Forbidden"));
    assert_eq!(bench.read_back(SUCCEEDS).await.status, 403);
    bench.simulator.grant_roles([token::READ]);
    assert_eq!(bench.read_back(SUCCEEDS).await.status, 403, "an old token keeps its roles");
    bench.token = bench.fresh_token().await;
    assert_eq!(bench.read_back(SUCCEEDS).await.status, 200);
    assert_eq!(refusal(&bench, bench.action(&[SUCCEEDS])).await, refused(403, "Forbidden"));
}

#[tokio::test]
async fn a_body_that_the_action_does_not_take_is_400() {
    let bench = Bench::with(Options { others: Others::Success, ..Options::default() }).await;
    for body in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"managedDeviceIds": null}"#,
        r#"{"managedDeviceIds": []}"#,
        r#"{"managedDeviceIds": "11111111-2222-4333-8444-555555555555"}"#,
        r#"{"managedDeviceIds": [7]}"#,
        r#"{"managedDeviceIds": ["11111111-2222-4333-8444-555555555555", "7"]}"#,
        r#"{"managedDeviceIds": ["{11111111-2222-4333-8444-555555555555}"]}"#,
        r#"{"managedDeviceIds": ["11111111-2222-4333-8444-555555555555"], "force": true}"#,
        r#"{"manageddeviceids": ["11111111-2222-4333-8444-555555555555"]}"#,
    ] {
        let request = bench.authorised(Method::POST, ACTION).header("content-type", "application/json");
        assert_eq!(refusal(&bench, request.body(body)).await, refused(400, "BadRequest"), "{body}");
    }
    let good = json!({"managedDeviceIds": [STRANGER]}).to_string();
    for content_type in ["text/plain", "application/jsonx", ""] {
        let request = bench.authorised(Method::POST, ACTION).header("content-type", content_type);
        assert_eq!(refusal(&bench, request.body(good.clone())).await, refused(400, "BadRequest"), "{content_type}");
    }
    let request =
        bench.authorised(Method::POST, ACTION).header("content-type", "Application/JSON; odata.metadata=none");
    assert_eq!(Answered::to(request.body(good)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_body_of_more_than_four_megabytes_is_413() {
    let bench = Bench::healthy().await;
    let request = bench.authorised(Method::POST, ACTION).body(" ".repeat(4 * 1024 * 1024 + 1));
    assert_eq!(refusal(&bench, request).await, refused(413, "RequestEntityTooLarge"));
    assert_eq!(bench.simulator.requests()[0].status, Some(413));
}

#[tokio::test]
async fn a_wrong_method_is_405_and_says_the_right_one() {
    let bench = Bench::healthy().await;
    let answer = Answered::to(bench.authorised(Method::GET, ACTION)).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn an_unknown_path_names_the_segment_that_was_not_found() {
    let bench = Bench::healthy().await;
    for (path, name) in [
        ("/v1.0/deviceManagement/managedDevices/bulkReprovisionCloudPc", "bulkReprovisionCloudPc"),
        ("/beta/deviceManagement/managedDevices/bulkWipe", "bulkWipe"),
        ("/beta/deviceManagement/managedDevices/bulkReprovisionCloudPc/x", "bulkReprovisionCloudPc"),
        ("/beta/users", "users"),
    ] {
        let answer = Answered::to(bench.authorised(Method::POST, path)).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.error_code().as_str()), (400, "BadRequest"), "{path}");
        let message = format!("Resource not found for the segment '{name}'.");
        assert_eq!(answer.json()["error"]["message"], json!(message), "{path}");
        assert_eq!(Answered::to(bench.anonymous(Method::POST, path)).await.unwrap().status, 401, "{path}");
    }
}

#[tokio::test]
async fn the_hundred_and_first_call_in_twenty_seconds_is_throttled_and_does_nothing() {
    let bench = Bench::healthy().await;
    for _ in 0..100 {
        assert_eq!(bench.reprovision(&[FAILS]).await.status, 200);
    }
    let answer = bench.reprovision(&[SUCCEEDS]).await;
    assert_eq!((answer.status.as_u16(), answer.error_code().as_str()), (429, "TooManyRequests"));
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(bench.happened(), []);
    bench.simulator.advance(Duration::from_secs(seconds));
    assert_eq!(bench.reprovision(&[SUCCEEDS]).await.status, 200);
}

#[tokio::test]
async fn every_request_to_the_action_is_listed_with_what_became_of_it() {
    let bench = Bench::with(Options { throttle: "1/60".parse().unwrap(), ..Options::default() }).await;
    bench.reprovision(&[SUCCEEDS]).await;
    bench.reprovision(&[FAILS, STRANGER]).await;
    bench.fault(Effect::ResetBefore);
    bench.lose(&[FAILS]).await;
    let requests = bench.simulator.requests();
    let seen: Vec<_> = requests.iter().map(|r| (r.status, r.retry_after.as_deref())).collect();
    assert_eq!(seen, [(Some(200), None), (Some(429), Some("60")), (None, None)]);
    assert_eq!(requests[1].managed_device_ids, [FAILS, STRANGER]);
    assert_eq!(requests[1].client_request_id.as_deref(), Some(CALL_ID));
    assert!(requests.is_sorted_by_key(|request| request.at));
    let over_http = Answered::to(bench.anonymous(Method::GET, "/simulator/requests")).await.unwrap().json();
    assert_eq!(over_http, json!(requests));
}

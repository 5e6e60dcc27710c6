//! `$batch`: each request in it is authorised, throttled and answered by itself.

use super::*;

const BATCH: &str = "/v1.0/$batch";

fn reprovision(id: &str, cloud_pc: &str) -> Value {
    let url = format!("/deviceManagement/virtualEndpoint/cloudPCs/{cloud_pc}/reprovision");
    json!({"id": id, "method": "POST", "url": url})
}

async fn post(bench: &Bench, requests: &[Value]) -> Answered {
    bench.post(BATCH, &json!({"requests": requests})).await
}

/// Status by id, in the order of the ids.
fn statuses(answer: &Answered) -> Vec<(String, u64)> {
    let body = answer.json();
    let responses = body["responses"].as_array().unwrap().iter();
    let mut statuses: Vec<_> = responses
        .map(|response| (response["id"].as_str().unwrap().to_owned(), response["status"].as_u64().unwrap()))
        .collect();
    statuses.sort();
    statuses
}

fn of(id: &str, status: u64) -> (String, u64) {
    (id.to_owned(), status)
}

#[tokio::test]
async fn each_request_of_a_batch_is_answered_by_itself() {
    let bench = Bench::healthy().await;
    let (good, bad) = (bench.cloud_pc_of(SUCCEEDS), bench.cloud_pc_of(FAILS));
    let list = json!({"id": "4", "method": "GET", "url": "deviceManagement/virtualEndpoint/cloudPCs?$top=1"});
    let answer =
        post(&bench, &[reprovision("1", &good), reprovision("2", &bad), reprovision("3", STRANGER), list]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(statuses(&answer), [of("1", 204), of("2", 409), of("3", 404), of("4", 200)]);
    let body = answer.json();
    let response =
        |id| body["responses"].as_array().unwrap().iter().find(|response| response["id"] == json!(id)).unwrap();
    assert_eq!(response("1")["body"], Value::Null);
    assert_eq!(response("2")["body"]["error"]["code"], json!("Conflict"));
    assert_eq!(response("4")["headers"]["Content-Type"], json!("application/json"));
    assert_eq!(response("4")["body"]["value"][0]["id"], json!(good));
    assert_eq!(bench.happened(), [(SUCCEEDS.to_owned(), true)]);
    let requests = bench.simulator.requests();
    assert_eq!((requests.len(), requests[0].action), (1, Interface::CloudPcReprovision));
    assert_eq!(requests[0].managed_device_ids, [SUCCEEDS, FAILS]);
    assert_eq!(requests[0].cloud_pc_ids, [good, bad, STRANGER.to_owned()]);
}

#[tokio::test]
async fn the_ledger_names_a_requests_own_client_request_id_else_that_of_the_batch() {
    let bench = Bench::healthy().await;
    let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
    let mut own = reprovision("own", &cloud_pc);
    own["headers"] = json!({"Client-Request-ID": STRANGER, "Content-Type": "application/json"});
    own["body"] = json!({"osVersion": "windows11"});
    assert_eq!(
        statuses(&post(&bench, &[own, reprovision("none", &cloud_pc)]).await),
        [of("none", 204), of("own", 204)]
    );
    let ledger = bench.simulator.ledger();
    let ids: Vec<_> = ledger.iter().map(|entry| entry.client_request_id.as_deref()).collect();
    assert_eq!(ids, [Some(STRANGER), Some(CALL_ID)]);
}

#[tokio::test]
async fn the_order_of_the_answers_is_not_that_of_the_requests_and_the_same_for_the_same_seed() {
    let order = async |seed| {
        let bench = Bench::with(Options { seed, ..Options::default() }).await;
        let requests: Vec<Value> = (1..=20).map(|n| reprovision(&n.to_string(), STRANGER)).collect();
        let body = post(&bench, &requests).await.json();
        let responses = body["responses"].as_array().unwrap().iter();
        responses.map(|response| response["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = order(1).await;
    assert_eq!(first, order(1).await);
    assert_ne!(first, order(2).await);
    assert_ne!(first, (1..=20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_of_a_batch_is_throttled_by_itself_with_its_own_retry_after() {
    let bench = Bench::with(Options { throttle: "2/60".parse().unwrap(), ..Options::default() }).await;
    let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
    let requests: Vec<Value> = ["1", "2", "3"].iter().map(|id| reprovision(id, &cloud_pc)).collect();
    let answer = post(&bench, &requests).await;
    assert_eq!(statuses(&answer), [of("1", 204), of("2", 204), of("3", 429)]);
    assert_eq!(answer.header("retry-after"), None);
    let body = answer.json();
    let throttled = body["responses"].as_array().unwrap().iter().find(|response| response["id"] == "3").unwrap();
    assert_eq!(throttled["headers"]["Retry-After"], json!("60"));
    assert_eq!(throttled["body"]["error"]["code"], json!("TooManyRequests"));
    assert_eq!(bench.happened().len(), 2);
}

#[tokio::test]
async fn each_request_of_a_batch_needs_its_role_and_the_batch_a_token() {
    let bench = Bench::with(Options { roles: vec![token::READ.to_owned()], ..Options::default() }).await;
    let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
    let read =
        json!({"id": "r", "method": "GET", "url": format!("/deviceManagement/virtualEndpoint/cloudPCs/{cloud_pc}")});
    assert_eq!(statuses(&post(&bench, &[reprovision("w", &cloud_pc), read]).await), [of("r", 200), of("w", 403)]);
    let anonymous = bench.anonymous(Method::POST, BATCH).header("content-type", "application/json");
    let body = json!({"requests": [reprovision("w", &cloud_pc)]}).to_string();
    assert_eq!(Answered::to(anonymous.body(body)).await.unwrap().status, 401);
}

#[tokio::test]
async fn a_batch_that_is_none_is_400_and_nothing_of_it_is_done() {
    let bench = Bench::healthy().await;
    let one = reprovision("1", &bench.cloud_pc_of(SUCCEEDS));
    let with = |name: &str, value: Value| {
        let mut request = one.clone();
        request[name] = value;
        json!({"requests": [request]})
    };
    for body in [
        json!({}),
        json!({"requests": []}),
        json!({"requests": (0..21).map(|n| reprovision(&n.to_string(), STRANGER)).collect::<Vec<_>>()}),
        json!({"requests": [one, one]}),
        json!({"requests": [one, {"id": "2", "method": "POST"}]}),
        with("id", json!(1)),
        with("method", json!("")),
        with("dependsOn", json!(["2"])),
    ] {
        assert_eq!(bench.post(BATCH, &body).await.refusal(), (400, "BadRequest".to_owned()), "{body}");
    }
    assert_eq!(bench.happened(), []);
}

#[tokio::test]
async fn a_batch_of_beta_reads_back_and_one_of_v1_cannot() {
    let bench = Bench::healthy().await;
    let url = format!(
        "/deviceManagement/virtualEndpoint/cloudPCs/{}/retrieveCloudPcRemoteActionResults",
        bench.cloud_pc_of(SUCCEEDS)
    );
    let body = json!({"requests": [{"id": "1", "method": "GET", "url": url}]});
    assert_eq!(statuses(&bench.post("/beta/$batch", &body).await), [of("1", 200)]);
    assert_eq!(statuses(&bench.post("/v1.0/%24batch", &body).await), [of("1", 400)]);
    assert!(bench.simulator.requests().is_empty(), "reading is no action");
}

//! Faults of the interfaces that succeed the action: what the client sees, and what really happened all the same.

use super::*;

fn bulk(ids: &[&str]) -> Value {
    json!({"@odata.type": "#microsoft.graph.cloudPcBulkReprovision", "displayName": "x", "cloudPcIds": ids})
}

fn batch(cloud_pcs: &[&str]) -> Value {
    let request = |(cloud_pc, n): (&&str, u32)| {
        let url = format!("/deviceManagement/virtualEndpoint/cloudPCs/{cloud_pc}/reprovision");
        json!({"id": format!("r{n}"), "method": "POST", "url": url})
    };
    json!({"requests": cloud_pcs.iter().zip(1..).map(request).collect::<Vec<_>>()})
}

const BATCH: &str = "/v1.0/$batch";

/// Two devices that succeed, and their Cloud PCs.
async fn two() -> (Bench, [String; 2], [String; 2]) {
    let devices = [1, 2].map(Uuid::from_u128);
    let fleet = devices.map(|id| Device::new(id.try_into().unwrap(), Behaviour::Succeeds)).to_vec();
    let bench = Bench::with(Options { fleet, throttle: Throttle::Off, ..Options::default() }).await;
    let ids = devices.map(|id| id.to_string());
    let cloud_pcs = ids.clone().map(|id| bench.cloud_pc_of(&id));
    (bench, ids, cloud_pcs)
}

/// The responses as (id, status), in the order of the ids.
fn responses(answer: &Answered) -> Vec<(String, u64)> {
    let body = answer.json();
    let of = |response: &Value| (response["id"].as_str().unwrap().to_owned(), response["status"].as_u64().unwrap());
    let mut found: Vec<_> = body["responses"].as_array().unwrap().iter().map(of).collect();
    found.sort();
    found
}

fn of(id: &str, status: u64) -> (String, u64) {
    (id.to_owned(), status)
}

#[tokio::test]
async fn a_fault_of_the_action_strikes_whichever_action_is_called() {
    let (bench, _, cloud_pcs) = two().await;
    let ids = [cloud_pcs[0].as_str()];
    let single = format!("{CLOUD_PCS}/{}/reprovision", ids[0]);
    for (path, body, segment) in [
        (BULK_ACTIONS, bulk(&ids), "bulkActions"),
        (BATCH, batch(&ids), "reprovision"),
        (&single, json!({}), "reprovision"),
    ] {
        bench.fault(Effect::segment_not_found());
        let message = bench.post(path, &body).await.json()["error"]["message"].clone();
        assert_eq!(message, json!(format!("Resource not found for the segment '{segment}'.")));
        bench.fault(Effect::DoneThenStatus(StatusFault { code: 504, ..StatusFault::default() }));
        assert_eq!(bench.post(path, &body).await.status, 504, "{path}");
    }
    let happened = bench.happened();
    assert_eq!((happened.len(), happened.iter().filter(|(_, answered)| *answered).count()), (3, 0));
    let statuses: Vec<_> = bench.simulator.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(400), Some(504)].repeat(3));
}

#[tokio::test]
async fn a_lost_answer_of_a_batch_or_of_a_bulk_action_did_it_all() {
    let (bench, ids, cloud_pcs) = two().await;
    let cloud_pcs = [cloud_pcs[0].as_str(), cloud_pcs[1].as_str()];
    for (path, body) in [(BULK_ACTIONS, bulk(&cloud_pcs)), (BATCH, batch(&cloud_pcs))] {
        for effect in [Effect::ResetBefore, Effect::ResetAfter] {
            bench.fault(effect);
            let request = bench.authorised(Method::POST, path).header("content-type", "application/json");
            assert!(Answered::to(request.body(body.to_string())).await.is_err());
        }
    }
    let lost = ids.map(|id| (id, false));
    assert_eq!(bench.happened(), [lost.clone(), lost].concat());
}

#[tokio::test]
async fn one_request_of_a_batch_can_fail_or_be_lost_done_or_not() {
    let (bench, ids, cloud_pcs) = two().await;
    let body = batch(&[&cloud_pcs[0], &cloud_pcs[1]]);
    let status = |code| StatusFault { code, retry_after: RetryAfter::Seconds(9), ..StatusFault::default() };
    let (kept, done) = ((ids[1].clone(), true), (ids[0].clone(), false));
    for (effect, expected, happened) in [
        (Effect::Status(status(429)), vec![of("r1", 429), of("r2", 204)], vec![kept.clone()]),
        (Effect::DoneThenStatus(status(503)), vec![of("r1", 503), of("r2", 204)], vec![done.clone(), kept.clone()]),
        (Effect::ResetBefore, vec![of("r2", 204)], vec![kept.clone()]),
        (Effect::ResetAfter, vec![of("r2", 204)], vec![done.clone(), kept.clone()]),
        (Effect::InNoBucket, vec![of("r2", 204)], vec![done, kept]),
    ] {
        let before = bench.happened().len();
        bench.fault(Fault::from(effect.clone()).on(Endpoint::BatchItem).device(ids[0].parse().unwrap()));
        let answer = bench.post(BATCH, &body).await;
        assert_eq!(responses(&answer), expected, "{effect:?}");
        assert_eq!(bench.happened()[before..], happened, "{effect:?}");
        let body = answer.json();
        let struck = body["responses"].as_array().unwrap().iter().find(|response| response["id"] == "r1");
        if let Some(struck) = struck {
            assert_eq!(struck["headers"]["Retry-After"], json!("9"));
            assert!(struck["body"]["error"]["code"].is_string());
        }
    }
}

#[tokio::test]
async fn the_responses_of_a_batch_can_lie_about_what_was_done() {
    let (bench, _, cloud_pcs) = two().await;
    let body = batch(&[&cloud_pcs[0], &cloud_pcs[1]]);
    let answer = async |effect: Effect| {
        bench.fault(effect);
        bench.post(BATCH, &body).await
    };
    assert_eq!(responses(&answer(Effect::InNoBucket).await), [of("r2", 204)]);
    assert_eq!(responses(&answer(Effect::InTwoBuckets).await), [of("r1", 204), of("r1", 409), of("r2", 204)]);
    assert_eq!(responses(&answer(Effect::SurplusId).await)[0], of("never asked for", 204));
    assert_eq!(responses(&answer(Effect::UpperCase).await), [of("R1", 204), of("R2", 204)]);
    assert_eq!(answer(Effect::NullLists).await.json(), json!({"responses": null}));
    assert_eq!(answer(Effect::MissingLists).await.json(), json!({}));
    assert_eq!(answer(Effect::WrongType(WrongType::Number)).await.json(), json!({"responses": 2}));
    let bare = answer(Effect::MissingEmptyLists).await.json();
    assert_eq!(bare["responses"][0].as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "status"]);
    let empty = answer(Effect::Shape(AnswerShape::Empty)).await;
    assert_eq!((empty.status.as_u16(), empty.body.as_str()), (204, ""));
    assert_eq!(answer(Effect::Empty).await.body, "");
    assert_eq!(bench.happened().len(), 20, "each of them did it");
}

#[tokio::test]
async fn a_bulk_action_can_lie_about_what_was_done() {
    let (bench, ids, cloud_pcs) = two().await;
    let body = bulk(&[&cloud_pcs[0], &cloud_pcs[1]]);
    let told = async |effect: Effect| {
        bench.fault(effect);
        let answer = bench.post(BULK_ACTIONS, &body).await;
        assert_eq!(answer.status, 201);
        answer.json()
    };
    assert_eq!(told(Effect::NullLists).await["actionSummary"], Value::Null);
    assert_eq!(told(Effect::MissingLists).await.get("actionSummary"), None);
    assert_eq!(told(Effect::MissingEmptyLists).await["actionSummary"], json!({"pendingCount": 2}));
    assert_eq!(told(Effect::NullEmptyLists).await["actionSummary"]["failedCount"], Value::Null);
    assert!(told(Effect::WrongType(WrongType::String)).await["actionSummary"].is_string());
    assert!(told(Effect::WrongType(WrongType::Number)).await["actionSummary"].is_number());
    assert!(told(Effect::WrongType(WrongType::Array)).await[0]["actionSummary"].is_object());
    assert_eq!(told(Effect::SurplusId).await["cloudPcIds"].as_array().unwrap().len(), 3);
    assert_eq!(told(Effect::UpperCase).await["cloudPcIds"][0], json!(cloud_pcs[0].to_uppercase()));
    bench.fault(Effect::Shape(AnswerShape::Empty));
    assert_eq!(bench.post(BULK_ACTIONS, &body).await.status, 204);
    assert_eq!(bench.happened().len(), 20, "each of them did it");
    assert_eq!(bench.cloud_pc_states(&cloud_pcs[0]).await.len(), 10);

    bench.fault(Fault::from(Effect::InNoBucket).device(ids[1].parse().unwrap()));
    bench.post(BULK_ACTIONS, &body).await;
    bench.simulator.advance(Duration::from_mins(1));
    let shown = [&cloud_pcs[0], &cloud_pcs[1]].map(|id| bench.cloud_pc_states(id));
    let [first, second] = shown;
    assert_eq!((first.await.len(), second.await.len()), (11, 10), "done, and never read back");
    assert_eq!(bench.states(&ids[1]).await.len(), 10, "by neither interface");
    assert_eq!(bench.happened().len(), 22);
}

#[tokio::test]
async fn a_poison_device_spoils_its_request_of_a_batch_and_the_whole_of_a_bulk_action() {
    for by_cloud_pc in [false, true] {
        let (bench, ids, cloud_pcs) = two().await;
        let poison = if by_cloud_pc { &cloud_pcs[1] } else { &ids[1] };
        bench.fault(Effect::Poison(poison.parse().unwrap()));
        let both = [cloud_pcs[0].as_str(), cloud_pcs[1].as_str()];
        assert_eq!(bench.post(BULK_ACTIONS, &bulk(&both)).await.refusal(), (400, "BadRequest".to_owned()));
        assert_eq!(bench.happened(), []);
        assert_eq!(responses(&bench.post(BATCH, &batch(&both)).await), [of("r1", 204), of("r2", 400)]);
        let single = format!("{CLOUD_PCS}/{}/reprovision", cloud_pcs[1]);
        assert_eq!(bench.post(&single, &json!({})).await.status, 400);
        assert_eq!(bench.happened(), [(ids[0].clone(), true)]);
    }
}

#[tokio::test]
async fn the_list_the_look_up_and_the_read_back_of_a_cloud_pc_can_fail_too() {
    let (bench, ids, cloud_pcs) = two().await;
    let on = |effect: Effect, endpoint| bench.fault(Fault::from(effect).on(endpoint));
    on(Effect::status(503), Endpoint::List);
    assert_eq!(bench.get(CLOUD_PCS).await.status, 503);
    on(Effect::NullLists, Endpoint::List);
    assert_eq!(bench.get(CLOUD_PCS).await.json()["value"], Value::Null);
    on(Effect::MissingLists, Endpoint::List);
    assert_eq!(bench.get(CLOUD_PCS).await.json().get("value"), None);
    on(Effect::UpperCase, Endpoint::List);
    let path = format!("{CLOUD_PCS}?$filter=managedDeviceId%20eq%20'{}'", ids[0]);
    assert_eq!(bench.get(&path).await.json()["value"][0]["id"], json!(cloud_pcs[0].to_uppercase()));
    on(Effect::NullLists, Endpoint::LookUp);
    assert_eq!(bench.get(BULK_ACTIONS).await.json()["value"], Value::Null);
    on(Effect::status(429), Endpoint::LookUp);
    assert_eq!(bench.get(&format!("{BULK_ACTIONS}/{STRANGER}")).await.status, 429);
    bench.fault(Fault::from(Effect::status(500)).on(Endpoint::ReadBack).device(ids[1].parse().unwrap()));
    let read_back =
        |id| format!("/beta/deviceManagement/virtualEndpoint/cloudPCs/{id}/retrieveCloudPcRemoteActionResults");
    assert_eq!(bench.get(&read_back(&cloud_pcs[0])).await.status, 200);
    assert_eq!(bench.get(&read_back(&cloud_pcs[1])).await.status, 500);
}

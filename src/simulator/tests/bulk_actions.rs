//! Bulk actions: created at once, carried out over time, and looked up by name.

use super::*;

fn bulk(name: &str, ids: &[&str]) -> Value {
    json!({"@odata.type": "#microsoft.graph.cloudPcBulkReprovision", "displayName": name, "cloudPcIds": ids})
}

/// One device of each behaviour that has a Cloud PC, and the IDs of these.
async fn one_of_each(options: Options) -> (Bench, [String; 4]) {
    let behaviours = [Behaviour::Succeeds, Behaviour::FailsLater, Behaviour::Fails, Behaviour::NotSupported];
    let fleet = behaviours
        .into_iter()
        .zip(1..)
        .map(|(behaviour, n)| Device::new(Uuid::from_u128(n).try_into().unwrap(), behaviour));
    let bench = Bench::with(Options { fleet: fleet.collect(), ..options }).await;
    let ids = [1, 2, 3, 4].map(|n| bench.cloud_pc_of(&Uuid::from_u128(n).to_string()));
    (bench, ids)
}

/// Status, and the counts: successful, failed, in progress, pending, not supported.
fn summary(bulk: &Value) -> (String, [u64; 5]) {
    let names = ["successfulCount", "failedCount", "inProgressCount", "pendingCount", "notSupportedCount"];
    let counts = names.map(|name| bulk["actionSummary"][name].as_u64().unwrap());
    (bulk["status"].as_str().unwrap().to_owned(), counts)
}

#[tokio::test]
async fn a_bulk_action_is_created_and_its_work_is_in_the_ledger_at_once() {
    let (bench, ids) = one_of_each(Options::default()).await;
    let answer = bench.post(BULK_ACTIONS, &bulk("call 7", &[&ids[0], &ids[1], &ids[2], &ids[0]])).await;
    assert_eq!(answer.status, 201);
    let created = answer.json();
    assert_eq!(created["@odata.type"], json!("#microsoft.graph.cloudPcBulkReprovision"));
    assert_eq!((&created["displayName"], &created["cloudPcIds"]), (&json!("call 7"), &json!(ids[..3])));
    assert_eq!(created["initiatedByUserPrincipalName"], Value::Null);
    assert_eq!(created["scheduledDuringMaintenanceWindow"], json!(false));
    assert!(DateTime::parse_from_rfc3339(created["createdDateTime"].as_str().unwrap()).is_ok());
    assert_eq!(summary(&created), ("pending".to_owned(), [0, 0, 0, 3, 0]));
    let device = |n| (Uuid::from_u128(n).to_string(), true);
    assert_eq!(bench.happened(), [device(1), device(2)]);
    let request = &bench.simulator.requests()[0];
    assert_eq!((request.action, request.managed_device_ids.len()), (Interface::CloudPcBulkAction, 4));
}

#[tokio::test]
async fn its_summary_follows_each_cloud_pc_to_its_end() {
    let pace = Pace { pending: Duration::from_mins(10), active: Duration::from_mins(100), ..Pace::default() };
    let (bench, ids) = one_of_each(Options { pace, ..Options::default() }).await;
    let mut asked: Vec<&str> = ids.iter().map(String::as_str).collect();
    asked.push(STRANGER);
    let id = bench.post(BULK_ACTIONS, &bulk("x", &asked)).await.json()["id"].as_str().unwrap().to_owned();
    let path = format!("{BULK_ACTIONS}/{id}");
    let states = async || {
        let mut states = Vec::new();
        for id in &ids {
            states.push(bench.cloud_pc_states(id).await.concat());
        }
        states
    };
    assert_eq!(summary(&bench.get(&path).await.json()), ("pending".to_owned(), [0, 0, 0, 5, 0]));
    assert_eq!(states().await, ["pending"; 4]);
    bench.simulator.advance(Duration::from_mins(10));
    assert_eq!(summary(&bench.get(&path).await.json()), ("pending".to_owned(), [0, 2, 2, 0, 1]));
    assert_eq!(states().await, ["active", "active", "failed", "notSupported"]);
    // The token has expired by then.
    bench.simulator.advance(Duration::from_mins(100));
    let bench = Bench { token: bench.fresh_token().await, ..bench };
    assert_eq!(summary(&bench.get(&path).await.json()), ("failed".to_owned(), [1, 3, 0, 0, 1]));
    assert_eq!(bench.states(&Uuid::from_u128(3).to_string()).await, ["failed"], "by managed device too");
    assert_eq!(bench.happened().len(), 2, "an attempt is no wipe");
}

#[tokio::test]
async fn a_bulk_action_without_a_failure_succeeds() {
    let (bench, ids) = one_of_each(Options::default()).await;
    let id = bench.post(BULK_ACTIONS, &bulk("x", &[&ids[0], &ids[3]])).await.json()["id"].clone();
    bench.simulator.advance(Duration::from_mins(1));
    let bulk = bench.get(&format!("{BULK_ACTIONS}/{}", id.as_str().unwrap())).await.json();
    assert_eq!(summary(&bulk), ("succeeded".to_owned(), [1, 0, 0, 0, 1]));
}

#[tokio::test]
async fn a_lost_answer_is_looked_up_by_the_display_name() {
    let (bench, ids) = one_of_each(Options { page_size: 2, ..Options::default() }).await;
    for name in ["one", "it's two", "three"] {
        assert_eq!(bench.post(BULK_ACTIONS, &bulk(name, &[&ids[0]])).await.status, 201);
        bench.simulator.advance(Duration::from_secs(1));
    }
    let list = async |query: &str| bench.get(&format!("{BULK_ACTIONS}?{}", query.replace(' ', "%20"))).await;
    let found = list("$filter=displayName eq 'it''s two'").await.json();
    assert_eq!(found["value"].as_array().unwrap().len(), 1);
    assert_eq!(found["value"][0]["cloudPcIds"], json!([ids[0]]));
    assert_eq!(list("$filter=displayName eq 'four'").await.json()["value"], json!([]));
    let newest = list("$orderby=createdDateTime desc&$select=displayName&$top=1").await.json();
    assert_eq!(newest["value"][0]["displayName"], json!("three"));
    assert_eq!(newest["value"][0].get("status"), None);
    let next = newest["@odata.nextLink"].as_str().unwrap().strip_prefix(bench.simulator.graph_url()).unwrap();
    assert_eq!(bench.get(next).await.json()["value"][0]["displayName"], json!("it's two"));
    for query in [
        "$filter=status eq 'pending'",
        "$filter=colour eq 'red'",
        "$orderby=colour",
        "$filter=displayName eq 'it's two'",
    ] {
        assert_eq!(list(query).await.refusal(), (400, "BadRequest".to_owned()), "{query}");
    }
    assert_eq!(bench.get(&format!("{BULK_ACTIONS}/{STRANGER}")).await.refusal(), (404, "ResourceNotFound".to_owned()));
}

#[tokio::test]
async fn a_body_that_is_no_bulk_reprovision_is_400_and_does_nothing() {
    let (bench, ids) = one_of_each(Options::default()).await;
    let without = |name: &str| {
        let mut body = bulk("x", &[&ids[0]]);
        body.as_object_mut().unwrap().remove(name);
        body
    };
    let with = |name: &str, value: Value| {
        let mut body = bulk("x", &[&ids[0]]);
        body[name] = value;
        body
    };
    for body in [
        without("displayName"),
        without("cloudPcIds"),
        without("@odata.type"),
        with("displayName", json!(" ")),
        with("displayName", json!(7)),
        with("@odata.type", json!("#microsoft.graph.cloudPcBulkRestart")),
        with("cloudPcIds", json!([])),
        with("cloudPcIds", json!(["seven"])),
        with("cloudPcIds", json!(ids[0])),
        with("managedDeviceIds", json!([SUCCEEDS])),
        with("scheduledDuringMaintenanceWindow", json!("no")),
        json!([]),
    ] {
        assert_eq!(bench.post(BULK_ACTIONS, &body).await.refusal(), (400, "BadRequest".to_owned()), "{body}");
    }
    assert_eq!(bench.happened(), []);
    let answer = Answered::to(bench.authorised(Method::DELETE, BULK_ACTIONS)).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("GET, POST")));
}

#[tokio::test]
async fn a_bulk_action_counts_once_to_the_throttle() {
    let (bench, ids) = one_of_each(Options { throttle: "2/60".parse().unwrap(), ..Options::default() }).await;
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    for status in [201, 201, 429] {
        assert_eq!(bench.post(BULK_ACTIONS, &bulk("x", &all)).await.status, status);
    }
}

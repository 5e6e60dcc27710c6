//! The Cloud PC list, the reprovision of one Cloud PC, and its read-back.

use super::*;

fn device(n: u128, behaviour: Behaviour) -> Device {
    Device::new(Uuid::from_u128(n).try_into().unwrap(), behaviour)
}

async fn with_fleet(fleet: Vec<Device>, options: Options) -> Bench {
    Bench::with(Options { fleet, ..options }).await
}

fn reprovision_path(id: &str) -> String {
    format!("{CLOUD_PCS}/{id}/reprovision")
}

#[tokio::test]
async fn the_list_goes_on_at_its_next_link_until_every_cloud_pc_has_been_told_once() {
    let options = Options { devices: 8, shares: Shares::NONE, page_size: 4, ..Options::default() };
    let bench = Bench::with(options).await;
    let mut path = format!("{CLOUD_PCS}?$select=id,managedDeviceId&$count=true");
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = bench.get(&path).await.json();
        assert_eq!(page["@odata.count"], json!(10));
        let items = page["value"].as_array().unwrap();
        sizes.push(items.len());
        seen.extend(items.clone());
        let Some(next) = page["@odata.nextLink"].as_str() else { break };
        path = next.strip_prefix(bench.simulator.graph_url()).expect("the same host").to_owned();
    }
    assert_eq!(sizes, [4, 4, 2]);
    let fleet = bench.simulator.devices().iter();
    let expected: Vec<Value> =
        fleet.map(|device| json!({"id": device.cloud_pc_id, "managedDeviceId": device.managed_device_id})).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn top_makes_the_pages_smaller_and_never_larger() {
    let options = Options { devices: 8, shares: Shares::NONE, page_size: 4, ..Options::default() };
    let bench = Bench::with(options).await;
    for (top, size) in [(1, 1), (3, 3), (900, 4)] {
        let page = bench.get(&format!("{CLOUD_PCS}?$top={top}")).await.json();
        assert_eq!(page["value"].as_array().unwrap().len(), size, "{top}");
        assert!(page["@odata.nextLink"].is_string());
    }
}

#[tokio::test]
async fn a_filter_finds_by_managed_device_and_by_cloud_pc_and_a_device_without_one_is_not_found() {
    let bench = with_fleet(vec![device(1, Behaviour::NotFound)], Options::default()).await;
    let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
    let found = async |filter: String| {
        let list = bench.get(&format!("{CLOUD_PCS}?$filter={}", filter.replace(' ', "%20"))).await.json();
        let items = list["value"].as_array().unwrap().iter();
        items.map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(format!("managedDeviceId eq '{SUCCEEDS}'")).await, vec![cloud_pc.clone()]);
    assert_eq!(found(format!("id eq '{cloud_pc}'")).await, vec![cloud_pc.clone()]);
    assert_eq!(found(format!("managedDeviceId eq '{}'", Uuid::from_u128(1))).await, [""; 0]);
    assert_eq!(found(format!("managedDeviceId eq '{STRANGER}'")).await, [""; 0]);
    let one = bench.get(&format!("{CLOUD_PCS}/{cloud_pc}")).await.json();
    assert_eq!((&one["managedDeviceId"], &one["provisioningType"]), (&json!(SUCCEEDS), &json!("dedicated")));
    assert_eq!(bench.get(&format!("{CLOUD_PCS}/{STRANGER}")).await.refusal(), (404, "ResourceNotFound".to_owned()));
}

#[tokio::test]
async fn a_query_that_is_not_simulated_is_400_and_not_ignored() {
    let bench = Bench::healthy().await;
    for query in [
        "$filter=status eq 'provisioned'",
        "$filter=startswith(displayName,'x')",
        "$filter=id eq 'a' or id eq 'b'",
        "$filter=id eq a",
        "$select=id,colour",
        "$top=0",
        "$top=1000",
        "$skiptoken=1",
        "$orderby=id",
        "$search=x",
        "$count=1",
        // Only beta has it.
        "$select=status",
    ] {
        let answer = bench.get(&format!("{CLOUD_PCS}?{}", query.replace(' ', "%20"))).await;
        assert_eq!(answer.refusal(), (400, "BadRequest".to_owned()), "{query}");
    }
    let beta = bench.get(&format!("{}?$select=status", CLOUD_PCS.replace("v1.0", "beta"))).await.json();
    assert_eq!(beta["value"][0], json!({"status": "provisioned"}));
}

#[tokio::test]
async fn a_device_can_have_two_cloud_pcs_and_a_cloud_pc_no_device() {
    let (one, two) = (Uuid::from_u128(11), Uuid::from_u128(12));
    let twice = Device { cloud_pc_id: Some(one), more_cloud_pc_ids: vec![two], ..device(1, Behaviour::Succeeds) };
    let alone = Device { not_enrolled: true, ..device(2, Behaviour::Succeeds) };
    let bench = with_fleet(vec![twice, alone], Options::default()).await;
    let path = format!("{CLOUD_PCS}?$filter=managedDeviceId%20eq%20'{}'&$select=id", Uuid::from_u128(1));
    assert_eq!(bench.get(&path).await.json()["value"], json!([{"id": one}, {"id": two}]));
    let all = bench.get(&format!("{CLOUD_PCS}?$select=managedDeviceId")).await.json();
    let null = all["value"].as_array().unwrap().iter().filter(|item| item["managedDeviceId"].is_null()).count();
    assert_eq!(null, 1);
    assert_eq!(bench.post(&reprovision_path(&two.to_string()), &json!({})).await.status, 204);
    assert_eq!(bench.cloud_pc_states(&two.to_string()).await, ["pending"]);
    assert_eq!(bench.cloud_pc_states(&one.to_string()).await, [""; 0], "the other Cloud PC");
}

#[tokio::test]
async fn one_cloud_pc_is_reprovisioned_by_204_and_stands_in_the_ledger_as_its_managed_device() {
    let bench = Bench::healthy().await;
    let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
    let plain = Answered::to(bench.authorised(Method::POST, &reprovision_path(&cloud_pc))).await.unwrap();
    assert_eq!((plain.status.as_u16(), plain.body.as_str()), (204, ""));
    let body = json!({"osVersion": "windows11", "userAccountType": "standardUser"});
    assert_eq!(bench.post(&reprovision_path(&cloud_pc.to_uppercase()), &body).await.status, 204);
    let beta = reprovision_path(&cloud_pc).replace("v1.0", "beta");
    assert_eq!(bench.post(&beta, &json!({})).await.status, 204);
    assert_eq!(bench.happened(), vec![(SUCCEEDS.to_owned(), true); 3]);
    assert_eq!(bench.simulator.ledger()[1].client_request_id.as_deref(), Some(CALL_ID));
    assert_eq!(bench.cloud_pc_states(&cloud_pc).await, ["pending"; 3]);
    assert_eq!(bench.states(SUCCEEDS).await, ["pending"; 3]);
    let requests = bench.simulator.requests();
    assert_eq!(requests[0].action, Interface::CloudPcReprovision);
    assert_eq!(
        (&requests[0].managed_device_ids[..], &requests[0].cloud_pc_ids[..]),
        (&[SUCCEEDS.to_owned()][..], &[cloud_pc][..])
    );
}

#[tokio::test]
async fn a_cloud_pc_that_is_not_reprovisioned_is_refused_by_its_own_error() {
    let fleet = vec![device(1, Behaviour::NotSupported), device(2, Behaviour::FailsLater)];
    let bench = with_fleet(fleet, Options::default()).await;
    let of = |n| bench.cloud_pc_of(&Uuid::from_u128(n).to_string());
    for (cloud_pc, status, code) in [
        (STRANGER.to_owned(), 404, "ResourceNotFound"),
        (bench.cloud_pc_of(FAILS), 409, "Conflict"),
        (of(1), 400, "NotSupported"),
        ("seven".to_owned(), 400, "BadRequest"),
    ] {
        let answer = bench.post(&reprovision_path(&cloud_pc), &json!({})).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()));
        assert!(!answer.body.contains("segment"), "{answer:?}");
    }
    assert_eq!(bench.happened(), []);
    assert_eq!(bench.post(&reprovision_path(&of(2)), &json!({})).await.status, 204);
    bench.simulator.advance(Duration::from_mins(1));
    assert_eq!(bench.cloud_pc_states(&of(2)).await, ["failed"]);
    for body in [json!({"osVersion": "windows12"}), json!({"force": true}), json!([])] {
        let answer = bench.post(&reprovision_path(&of(2)), &body).await;
        assert_eq!(answer.refusal(), (400, "BadRequest".to_owned()), "{body}");
    }
}

#[tokio::test]
async fn each_reprovision_of_a_cloud_pc_counts_to_the_throttle() {
    let bench = Bench::with(Options { throttle: "2/60".parse().unwrap(), ..Options::default() }).await;
    let path = reprovision_path(&bench.cloud_pc_of(SUCCEEDS));
    for status in [204, 204, 429] {
        assert_eq!(bench.post(&path, &json!({})).await.status, status);
    }
    assert_eq!(bench.reprovision(&[SUCCEEDS]).await.status, 429, "one throttle for all actions");
    assert_eq!(bench.get(CLOUD_PCS).await.status, 200, "reading is none");
}

#[tokio::test]
async fn a_role_to_read_suffices_for_the_list_and_not_for_the_action() {
    let bench = Bench::with(Options { roles: vec![token::READ.to_owned()], ..Options::default() }).await;
    let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
    assert_eq!(bench.get(CLOUD_PCS).await.status, 200);
    assert_eq!(bench.cloud_pc_states(&cloud_pc).await, [""; 0]);
    assert_eq!(bench.post(&reprovision_path(&cloud_pc), &json!({})).await.status, 403);
    assert_eq!(Answered::to(bench.anonymous(Method::GET, CLOUD_PCS)).await.unwrap().status, 401);
}

#[tokio::test]
async fn with_new_ids_a_reprovisioned_cloud_pc_is_nobodys_and_then_anothers() {
    let bench = Bench::with(Options { new_ids: true, ..Options::default() }).await;
    let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
    let listed = async || bench.get(&format!("{CLOUD_PCS}/{cloud_pc}")).await.json()["managedDeviceId"].clone();
    let found = async |id: &str| {
        let path = format!("{CLOUD_PCS}?$filter=managedDeviceId%20eq%20'{id}'");
        bench.get(&path).await.json()["value"].as_array().unwrap().len()
    };
    assert_eq!((listed().await, found(SUCCEEDS).await), (json!(SUCCEEDS), 1));
    bench.post(&reprovision_path(&cloud_pc), &json!({})).await;
    assert_eq!((listed().await, found(SUCCEEDS).await), (Value::Null, 0));
    bench.simulator.advance(Duration::from_mins(1));
    let fresh = listed().await.as_str().unwrap().to_owned();
    assert_ne!(fresh, SUCCEEDS);
    assert_eq!((found(&fresh).await, found(SUCCEEDS).await), (1, 0));
    assert_eq!(bench.cloud_pc_states(&cloud_pc).await, ["done"]);
    bench.post(&reprovision_path(&cloud_pc), &json!({})).await;
    bench.simulator.advance(Duration::from_mins(1));
    assert_ne!(listed().await, json!(fresh));
    assert_eq!(bench.happened(), vec![(SUCCEEDS.to_owned(), true); 2]);
}

#[tokio::test]
async fn an_interface_that_is_gone_is_an_unknown_segment_and_the_others_stay() {
    let gone = async |without: Interface| {
        let bench = Bench::with(Options { without: vec![without], ..Options::default() }).await;
        let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
        let bulk = json!({"@odata.type": "#microsoft.graph.cloudPcBulkReprovision", "displayName": "x", "cloudPcIds": [cloud_pc]});
        let answers = [
            bench.reprovision(&[SUCCEEDS]).await,
            bench.post(BULK_ACTIONS, &bulk).await,
            bench.post(&reprovision_path(&cloud_pc), &json!({})).await,
        ];
        answers.map(|answer| match answer.status.as_u16() {
            400 => answer.json()["error"]["message"].as_str().unwrap().to_owned(),
            status => status.to_string(),
        })
    };
    let segment = |name| format!("Resource not found for the segment '{name}'.");
    let (first, bulk, one) = ("200".to_owned(), "201".to_owned(), "204".to_owned());
    assert_eq!(
        gone(Interface::BulkReprovisionCloudPc).await,
        [segment("bulkReprovisionCloudPc"), bulk.clone(), one.clone()]
    );
    assert_eq!(gone(Interface::CloudPcBulkAction).await, [first.clone(), segment("bulkActions"), one]);
    assert_eq!(gone(Interface::CloudPcReprovision).await, [first, bulk, segment("reprovision")]);
}

#[tokio::test]
async fn the_read_back_of_a_cloud_pc_is_found_however_a_client_writes_it_and_only_in_beta() {
    let bench = Bench::healthy().await;
    let cloud_pc = bench.cloud_pc_of(SUCCEEDS);
    for name in [
        "retrieveCloudPcRemoteActionResults",
        "retrieveCloudPCRemoteActionResults()",
        "RETRIEVECLOUDPCREMOTEACTIONRESULTS%28%29",
        "microsoft.graph.retrieveCloudPcRemoteActionResults()",
    ] {
        let path = format!("/beta/devicemanagement/virtualendpoint/cloudpcs/{}/{name}", cloud_pc.to_uppercase());
        assert_eq!(bench.get(&path).await.json()["value"], json!([]), "{name}");
    }
    let v1 = format!("{CLOUD_PCS}/{cloud_pc}/retrieveCloudPcRemoteActionResults");
    let message = bench.get(&v1).await.json()["error"]["message"].clone();
    assert_eq!(message, json!("Resource not found for the segment 'retrieveCloudPcRemoteActionResults'."));
    let bulk = bench.get(&BULK_ACTIONS.replace("beta", "v1.0")).await.json()["error"]["message"].clone();
    assert_eq!(bulk, json!("Resource not found for the segment 'bulkActions'."));
}

#[tokio::test]
async fn what_clients_wrote_to_graph_is_kept() {
    let bench = Bench::healthy().await;
    let path = reprovision_path(&bench.cloud_pc_of(SUCCEEDS));
    bench.get(&format!("{CLOUD_PCS}?$top=1")).await;
    bench.post(&path, &json!({})).await;
    let of = |method: &str, path: &str, body: &str| GraphRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        body: body.to_owned(),
    };
    assert_eq!(bench.simulator.traffic(), [of("GET", &format!("{CLOUD_PCS}?$top=1"), ""), of("POST", &path, "{}")]);
    let over_http = Answered::to(bench.anonymous(Method::GET, "/simulator/traffic")).await.unwrap().json();
    assert_eq!(over_http, json!(bench.simulator.traffic()));
}

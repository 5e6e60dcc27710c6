use super::*;

const POLICY: ReconcilePolicy = ReconcilePolicy {
    first_after: Duration::from_mins(1),
    settle_after: Duration::from_mins(15),
    give_up_after: Duration::from_hours(2),
    clock_margin: Duration::from_mins(2),
    max_attempts: 3,
};

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn doubt(now: i64) -> Doubt {
    Doubt {
        request_id: RequestId(1),
        device: uuid::Uuid::from_u128(1).try_into().unwrap(),
        call_id: CallId(uuid::Uuid::from_u128(2)),
        action: Action::BulkReprovisionCloudPc,
        cloud_pc: None,
        sent_at: at(0),
        given_up_at: at(60),
        attempts: 1,
        explained: 0,
        now: at(now),
        watched: Duration::from_secs(u64::try_from(now - 60).unwrap()),
        read_took: Duration::ZERO,
    }
}

fn action(name: &str, started: Option<i64>) -> RemoteAction {
    RemoteAction {
        name: name.to_owned(),
        state: "active".to_owned(),
        started_at: started.map(at),
        updated_at: None,
        status_detail: None,
    }
}

fn seen(actions: &[RemoteAction], doubt: &Doubt) -> &'static str {
    match settle(doubt, &ReadBack::Seen(Seen { actions: actions.to_vec(), ..Seen::default() }), &POLICY) {
        Settlement::Final { bucket, .. } => bucket.as_str(),
        Settlement::QueueAgain { .. } => "queued",
        Settlement::AskAgain { .. } => "ask again",
        Settlement::Hold { .. } => "hold",
    }
}

#[test]
fn a_reprovision_since_the_call_less_the_margin_means_that_it_happened() {
    for started in [-120, 0, 30, 5000] {
        assert_eq!(seen(&[action("Reprovision", Some(started))], &doubt(120)), "successful", "{started}");
    }
    assert_eq!(seen(&[action("Reprovision", Some(-121))], &doubt(120)), "ask again");
    assert_eq!(seen(&[action("Restore", Some(10)), action("Reboot", None)], &doubt(120)), "ask again");
}

#[test]
fn what_is_not_shown_did_not_happen_only_once_the_settling_time_is_over() {
    assert_eq!(seen(&[], &doubt(959)), "ask again");
    assert_eq!(seen(&[], &doubt(960)), "queued");
    assert_eq!(seen(&[], &Doubt { attempts: 3, ..doubt(960) }), "failed");
}

#[test]
fn a_reprovision_that_may_be_another_calls_is_never_taken_for_this_one_nor_for_none() {
    let twice = Doubt { explained: 1, ..doubt(960) };
    assert_eq!(seen(&[action("Reprovision", Some(-121))], &twice), "queued");
    assert_eq!(seen(&[action("Reprovision", Some(-60))], &twice), "ask again");
    assert_eq!(seen(&[action("Reprovision", Some(5))], &twice), "ask again");
    assert_eq!(seen(&[action("Reprovision", Some(5))], &Doubt { now: at(7200), ..twice.clone() }), "hold");
    assert_eq!(seen(&[action("Reprovision", Some(-60)), action("Reprovision", Some(5))], &twice), "successful");
    assert_eq!(seen(&[action("Reprovision", None)], &doubt(7200)), "hold");
}

#[test]
fn what_cannot_be_read_is_asked_again_no_sooner_than_graph_wishes_and_goes_to_a_person_in_the_end() {
    let failed = ReadBack::Failed { reason: "HTTP 429".to_owned(), retry_after: Some(Duration::from_mins(5)) };
    let Settlement::AskAgain { after, .. } = settle(&doubt(70), &failed, &POLICY) else { panic!() };
    assert_eq!(after, Duration::from_mins(5));
    assert!(matches!(settle(&doubt(7200), &failed, &POLICY), Settlement::Hold { .. }));
}

#[test]
fn every_settlement_carries_what_was_read_and_what_decided_is_kept_whatever_else_is_listed() {
    let mut actions = vec![action("Restart\n", None); 200];
    actions.push(action("Reprovision", Some(5)));
    let read = ReadBack::Seen(Seen {
        actions,
        read_at: Some(at(100)),
        graph_request_id: Some("graph-7".to_owned()),
        ..Seen::default()
    });
    let Settlement::Final { evidence, .. } = settle(&doubt(120), &read, &POLICY) else { panic!() };
    let kept: serde_json::Value = serde_json::from_str(&evidence).unwrap();
    assert_eq!(kept["read_at"], "2027-01-15T08:01:40Z");
    assert_eq!((&kept["graph_request_id"], &kept["actions_listed"]), (&"graph-7".into(), &201.into()));
    assert_eq!(kept["actions"].as_array().unwrap().len(), KEPT_ACTIONS);
    let first = serde_json::json!({"name": "Reprovision", "state": "active", "started_at": "2027-01-15T08:00:05Z"});
    assert_eq!(kept["actions"][0], first);
    assert_eq!(kept["actions"][1]["name"], "Restart\\n");

    let failed = ReadBack::Failed { reason: "HTTP 403".to_owned(), retry_after: None };
    let Settlement::Hold { evidence, .. } = settle(&doubt(7200), &failed, &POLICY) else { panic!() };
    assert_eq!(evidence, r#"{"failed":"HTTP 403"}"#);
    let nothing = ReadBack::Seen(Seen::default());
    let Settlement::QueueAgain { evidence, .. } = settle(&doubt(960), &nothing, &POLICY) else { panic!() };
    assert_eq!(evidence, r#"{"actions":[],"actions_listed":0,"graph_request_id":null,"read_at":null}"#);
}

#[test]
fn a_clock_that_was_set_forward_does_not_shorten_the_settling_time() {
    let day = Doubt { watched: Duration::from_secs(30), ..doubt(86_400) };
    let Settlement::AskAgain { after, .. } = settle(&day, &ReadBack::Seen(Seen::default()), &POLICY) else { panic!() };
    assert_eq!(after, Duration::from_mins(1), "and it is looked at as if it had just been given up");
    assert_eq!(seen(&[], &Doubt { watched: Duration::from_mins(15), ..day.clone() }), "queued");
    assert_eq!(seen(&[action("Reprovision", Some(5))], &day), "successful");
}

#[test]
fn a_call_in_the_future_goes_to_a_person_whatever_is_read() {
    for back in [-121, -86_400] {
        let doubt = Doubt { now: at(back), watched: Duration::from_hours(1), ..doubt(60) };
        assert_eq!(seen(&[], &doubt), "hold");
        assert_eq!(seen(&[action("Reprovision", Some(5))], &doubt), "hold");
    }
    assert_eq!(seen(&[], &Doubt { now: at(-60), ..doubt(60) }), "ask again", "what the margin covers is no step");
}

#[test]
fn clocks_further_apart_than_the_margin_settle_nothing() {
    let read = |read_at| {
        ReadBack::Seen(Seen {
            read_at: Some(at(read_at)),
            actions: vec![action("Reprovision", Some(5))],
            ..Seen::default()
        })
    };
    let doubt = Doubt { read_took: Duration::from_secs(10), ..doubt(960) };
    for read_at in [960 - 121, 960 + 131] {
        assert!(matches!(settle(&doubt, &read(read_at), &POLICY), Settlement::Final { .. }), "{read_at}");
    }
    for read_at in [960 - 122, 960 + 132, 86_400] {
        assert!(matches!(settle(&doubt, &read(read_at), &POLICY), Settlement::AskAgain { .. }), "{read_at}");
    }
}

fn found(device: DeviceAnswer) -> ReadBack {
    ReadBack::Found(Found {
        id: "b".to_owned(),
        status: "pending".to_owned(),
        created_at: Some(at(1)),
        device,
        read_at: None,
        graph_request_id: None,
    })
}

fn is(read: &ReadBack, doubt: &Doubt) -> &'static str {
    match settle(doubt, read, &POLICY) {
        Settlement::Final { bucket, .. } => bucket.as_str(),
        Settlement::QueueAgain { .. } => "queued",
        Settlement::AskAgain { .. } => "ask again",
        Settlement::Hold { .. } => "hold",
    }
}

#[test]
fn a_call_found_by_its_name_was_accepted_whatever_the_clocks_are() {
    let pending = found(DeviceAnswer::Unknown("pending".to_owned()));
    assert_eq!(is(&pending, &doubt(959)), "ask again");
    assert_eq!(is(&pending, &doubt(960)), "successful");
    let failed = found(DeviceAnswer::Bucket(Bucket::Failed, Some("why".to_owned())));
    assert_eq!(is(&failed, &doubt(70)), "failed");
    assert_eq!(is(&failed, &Doubt { now: at(-86_400), ..doubt(60) }), "failed");
}

#[test]
fn a_call_whose_intent_named_no_cloud_pc_sent_nothing_and_goes_again_at_once_whatever_it_was_charged() {
    let failed = ReadBack::Failed { reason: "HTTP 403".to_owned(), retry_after: None };
    for action in [Action::CloudPcBulkAction, Action::CloudPcReprovision] {
        let looked_up = Doubt { action, attempts: 9, ..doubt(61) };
        assert_eq!(is(&failed, &looked_up), "queued", "{action}");
        let named = Doubt { cloud_pc: Some(CloudPcId(uuid::Uuid::from_u128(3))), ..looked_up };
        assert_eq!(is(&failed, &named), "ask again", "{action}");
    }
    assert_eq!(is(&failed, &doubt(61)), "ask again", "the first action names none, and sends");
}

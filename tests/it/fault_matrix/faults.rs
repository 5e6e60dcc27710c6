//! Faults of the transport and of the body, with each action; and what stands inside a batch.

use super::*;

/// Fault; class of a call for three devices, and devices that were wiped, by the first action, the bulk action and a batch.
const FAULTS: [(&str, [(&str, usize); 3]); 36] = [
    ("", [(ANSWERED, 3); 3]),
    ("reset-before", [("unknown", 0); 3]),
    ("reset-after", [("unknown", 3); 3]),
    ("hang", [("unknown", 0); 3]),
    ("hang-after", [("unknown", 3); 3]),
    ("latency:10ms", [(ANSWERED, 3); 3]),
    // Longer than the client waits.
    ("latency:3s", [("unknown", 3); 3]),
    ("truncated", [("unknown", 3); 3]),
    ("huge", [("unknown", 3); 3]),
    ("empty", [("unknown", 3); 3]),
    ("not-json", [("unknown", 3); 3]),
    // What a bulk action's first answer does not say is asked for: it is accepted, and its summary comes with the next.
    ("wrong-type:string", [("unknown", 3), (ANSWERED, 3), ("unknown", 3)]),
    ("wrong-type:number", [("unknown", 3), (ANSWERED, 3), ("unknown", 3)]),
    ("wrong-type:array", [("unknown", 3); 3]),
    ("null-lists", [("unknown", 3), (ANSWERED, 3), ("unknown", 3)]),
    ("missing-lists", [("unknown", 3), (ANSWERED, 3), ("unknown", 3)]),
    ("null-empty-lists", [(ANSWERED, 3); 3]),
    ("missing-empty-lists", [(ANSWERED, 3); 3]),
    ("shape:wrapped", [(ANSWERED, 3); 3]),
    ("shape:bare", [(ANSWERED, 3); 3]),
    ("shape:empty", [("unknown", 3); 3]),
    ("upper-case", [(ANSWERED, 3); 3]),
    ("surplus-id", [(ANSWERED, 3); 3]),
    ("in-no-bucket", [(ONE_MISSING, 3), (ANSWERED, 3), (ONE_MISSING, 3)]),
    ("in-two-buckets", [(ONE_MISSING, 3), (ANSWERED, 3), (ONE_MISSING, 3)]),
    ("segment", [("blocked: action_unavailable", 0); 3]),
    // A batch needs no search for what it cannot hold: each of its requests is refused by itself.
    ("poison:DEVICE", [("halved", 0), ("halved", 0), ("answered: 2 successful, 1 failed, 0 unknown", 2)]),
    // Without a token nothing leaves, whatever keeps it away.
    ("token/503", [("not sent", 0); 3]),
    ("token/401", [("not sent", 0); 3]),
    ("token/reset-before", [("not sent", 0); 3]),
    ("token/hang", [("not sent", 0); 3]),
    ("token/not-json", [("not sent", 0); 3]),
    ("token/truncated", [("not sent", 0); 3]),
    // A bulk action whose summary cannot be had for as long as a call may take is accepted, and its devices are read back.
    ("null-lists,look-up/500@*", [("unknown", 3), ("answered: 0 successful, 0 failed, 3 unknown", 3), ("unknown", 3)]),
    ("null-lists,look-up/hang@*", [("unknown", 3), ("answered: 0 successful, 0 failed, 3 unknown", 3), ("unknown", 3)]),
    (
        "null-lists,look-up/not-json@*",
        [("unknown", 3), ("answered: 0 successful, 0 failed, 3 unknown", 3), ("unknown", 3)],
    ),
];

const ONE_MISSING: &str = "answered: 2 successful, 0 failed, 1 unknown";
pub(super) const ANSWERED: &str = "answered: 3 successful, 0 failed, 0 unknown";

mod a_fault_of_the_transport_or_of_the_body_leads_to_its_class_and_a_call_without_a_token_asks_nothing {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bulk_reprovision() {
        faults(0).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bulk_action() {
        faults(1).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn batch() {
        faults(2).await;
    }
}

/// Every fault on the nth action.
async fn faults(nth: usize) {
    let action = Action::ALL[nth];
    for (spec, by_action) in FAULTS {
        let (expected, wiped) = by_action[nth];
        let bench = Bench::calling(action);
        let spec = spec.replace("DEVICE", &bench.devices(1)[0].to_string());
        for fault in spec.parse::<FaultScript>().unwrap().script {
            bench.simulator.add_fault(fault).unwrap();
        }
        let (_, recording) = bench.call(3, true).await;
        assert_eq!(class(&recording, &spec), expected, "{spec}");
        assert_eq!(bench.counts(), (wiped, usize::from(expected != "not sent")), "{spec}: wipes and last checks");
        // A bulk action's Cloud PCs are ours to know: what Graph repeats of them is not read.
        let surplus = usize::from(spec == "surplus-id" && action != Action::CloudPcBulkAction);
        assert_eq!(recording.surplus.len(), surplus, "{spec}");
    }
}

/// A status of one answer in a batch, with Graph's error body and without, and what becomes of its device.
const IN_A_BATCH: [(&[u16], &str, &str); 9] = [
    (&[200, 201, 202, 204], "final: successful", "final: successful"),
    (&[404], "final: not_found", "queued: blocked"),
    (&[400, 409, 412, 413, 422, 423, 424, 428], "final: failed", "final: failed"),
    (&[429], "queued: throttled", "queued: throttled"),
    (&[503, 509], "queued: throttled", "unknown"),
    (&[401], "queued: token_refused", "queued: token_refused"),
    (
        &[403, 405, 410, 501, 301, 302, 307, 402, 407, 411, 414, 415, 421, 431, 451],
        "queued: blocked",
        "queued: blocked",
    ),
    (&[303, 406, 408, 499], "unknown", "unknown"),
    (&[500, 502, 504, 507, 520, 599], "unknown", "unknown"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_in_a_batch_is_its_own_devices_and_leaves_the_others_alone() {
    let bench = Bench::calling(Action::CloudPcReprovision);
    for (statuses, with_error, without) in IN_A_BATCH {
        for code in statuses {
            for (body, expected) in [(ErrorBody::Service, with_error), (ErrorBody::None, without)] {
                for done in [false, true] {
                    // A token that has been taken, as above.
                    bench.call(1, true).await;
                    let (wiped, _) = bench.counts();
                    let status = StatusFault {
                        code: *code,
                        body,
                        retry_after: RetryAfter::Seconds(30),
                        ..StatusFault::default()
                    };
                    let cell = format!("{status:?}, done: {done}");
                    let effect = if done { Effect::DoneThenStatus(status) } else { Effect::Status(status) };
                    let third = bench.devices(3)[2];
                    bench.simulator.add_fault(Fault::from(effect).on(Endpoint::BatchItem).device(third)).unwrap();
                    let (_, recording) = bench.call(3, true).await;
                    let fates: Vec<String> = recording.entries.iter().map(|(_, effect)| fate(effect)).collect();
                    assert_eq!(fates, ["final: successful", "final: successful", expected], "{cell}");
                    assert_eq!(bench.simulator.ledger().len() - wiped, 2 + usize::from(done), "{cell}");
                    let waits = match &recording.tenant {
                        TenantEffect::Wait { delay, code: WaitCode::Throttled, .. } => Some(*delay),
                        _ => None,
                    };
                    let throttled = expected == "queued: throttled";
                    assert_eq!(waits, throttled.then_some(Duration::from_secs(30)), "{cell}");
                    let blocked = matches!(recording.tenant, TenantEffect::Block { .. });
                    assert_eq!(blocked, expected == "queued: blocked", "{cell}: {:?}", recording.tenant);
                }
            }
        }
    }
}

fn fate(effect: &EntryEffect) -> String {
    match effect {
        EntryEffect::Final { bucket, .. } => format!("final: {bucket}"),
        EntryEffect::Requeue { reason, .. } => format!("queued: {reason}"),
        EntryEffect::Unknown { .. } => "unknown".to_owned(),
        EntryEffect::TryAgain { .. } => "tried again".to_owned(),
    }
}

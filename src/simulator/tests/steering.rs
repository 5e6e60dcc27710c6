//! Starting, steering from another process, and stopping.

use super::*;

#[tokio::test]
async fn it_listens_on_the_loopback_only() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let error = Simulator::start(Options { listen, ..Options::default() }).unwrap_err();
    assert!(matches!(error, StartError::NotLoopback(_)), "{error}");
    assert!(error.to_string().contains("loopback"), "{error}");
}

#[tokio::test]
async fn it_listens_on_the_loopback_of_ipv6_too() {
    let listen = "[::1]:0".parse().unwrap();
    match Simulator::start(Options { listen, ..Options::default() }) {
        Ok(simulator) => assert!(simulator.graph_url().starts_with("http://[::1]:")),
        // A host without IPv6 has no such address, and says so.
        Err(error) => assert!(matches!(error, StartError::Listen(..)), "{error}"),
    }
}

#[tokio::test]
async fn what_could_never_work_is_refused_at_the_start() {
    let shares = Shares { fails: 0.7, not_found: 0.7, ..Shares::NONE };
    let error = Simulator::start(Options { shares, ..Options::default() }).unwrap_err();
    assert!(matches!(error, StartError::Shares(_)), "{error}");
    let script = vec![Effect::Hang.into(), Effect::status(7).into()];
    let faults = FaultScript { script, random: None };
    let error = Simulator::start(Options { faults, ..Options::default() }).unwrap_err();
    assert!(matches!(error, StartError::Fault(2, _)), "{error}");
}

#[tokio::test]
async fn the_secret_is_its_owners_alone_and_goes_with_the_simulator() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::with(Options { tls: true, ..Options::default() }).await;
    let secret = bench.simulator.client_secret_file().to_owned();
    let directory = secret.parent().unwrap().to_owned();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&secret), mode(&directory)), (0o600, 0o700));
    assert_eq!(bench.simulator.ca_file().unwrap().parent(), Some(directory.as_path()));
    let url = format!("{}/simulator/ledger", bench.simulator.graph_url());
    bench.simulator.shutdown().await.unwrap();
    assert!(!directory.exists());
    assert!(bench.client.get(url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn shutting_down_does_not_wait_for_a_hanging_call() {
    let bench = Bench::healthy().await;
    bench.fault(Effect::Hang);
    let hanging = tokio::spawn(bench.action(&[SUCCEEDS]).send());
    while bench.simulator.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.simulator.shutdown().await.unwrap();
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn two_simulators_of_one_seed_have_the_same_fleet_and_different_secrets() {
    let options = Options { devices: 50, seed: 3, ..Options::default() };
    let (one, two) = (Bench::with(options.clone()).await, Bench::with(options).await);
    assert_eq!(one.simulator.devices(), two.simulator.devices());
    assert_eq!(one.simulator.devices().len(), 52);
    assert_eq!(one.simulator.tenant_id(), two.simulator.tenant_id());
    let secret = |bench: &Bench| std::fs::read_to_string(bench.simulator.client_secret_file()).unwrap();
    assert_ne!(secret(&one), secret(&two));
    let over_http = Answered::to(one.anonymous(Method::GET, "/simulator/fleet")).await.unwrap().json();
    assert_eq!(over_http, json!(one.simulator.devices()));
}

#[tokio::test]
async fn faults_and_tokens_can_be_steered_from_another_process() {
    let mut bench = Bench::healthy().await;
    let post = async |bench: &Bench, what: &str, body: Value| {
        let request = bench.anonymous(Method::POST, &format!("/simulator/{what}")).body(body.to_string());
        Answered::to(request).await.unwrap()
    };
    let two = json!([{"effect": {"status": {"code": 503}}}, {"effect": {"status": {"code": 502}}}]);
    assert_eq!(post(&bench, "faults", two).await.json(), json!({"added": 2}));
    assert_eq!(post(&bench, "faults", json!({"effect": {"status": {"code": 501}}})).await.json(), json!({"added": 1}));
    for status in [503, 502, 501, 200] {
        assert_eq!(bench.reprovision(&[FAILS]).await.status, status);
    }
    let wrong = post(&bench, "faults", json!([{"effect": "hang"}, {"effect": "explode"}])).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("entry 2") && wrong.body.contains("explode"), "{}", wrong.body);
    assert_eq!(bench.reprovision(&[FAILS]).await.status, 200, "a list with a mistake adds nothing");

    post(&bench, "tokens", json!({"roles": [], "expire": true})).await;
    assert_eq!(bench.reprovision(&[FAILS]).await.status, 401);
    bench.token = bench.fresh_token().await;
    assert_eq!(bench.reprovision(&[FAILS]).await.status, 403);
    assert_eq!(post(&bench, "nothing", json!({})).await.status, 404);
}

#[tokio::test]
async fn random_faults_strike_the_same_calls_in_two_runs() {
    let run = async || {
        let random = Some(RandomFaults { seed: 11, rate: 0.5 });
        let faults = FaultScript { script: Vec::new(), random };
        let options = Options { faults, throttle: Throttle::Off, ..Options::default() };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let simulator = Simulator::start(options).unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}{ACTION}", simulator.graph_url());
        for _ in 0..30 {
            let _ = client.post(&url).send().await;
        }
        simulator.requests().into_iter().map(|request| request.status).collect::<Vec<_>>()
    };
    let first = run().await;
    assert_eq!(first, run().await);
    assert!(first.contains(&None) && first.contains(&Some(401)) && first.contains(&Some(429)), "{first:?}");
}

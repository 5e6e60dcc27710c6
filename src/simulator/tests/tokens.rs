//! Entra ID's answers, right and wrong.

use super::*;

#[tokio::test]
async fn a_token_is_issued_for_the_secret_and_says_when_it_expires() {
    let bench = Bench::with(Options { token_lifetime: Duration::from_mins(5), ..Options::default() }).await;
    let answer = bench.ask_token(&[]).await;
    let body = answer.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(300)));
    assert_eq!(body["access_token"].as_str().unwrap().split('.').count(), 3);
    assert_eq!(answer.header("cache-control"), Some("no-store, no-cache"));
    assert_ne!(body["access_token"], json!(bench.fresh_token().await), "no two are the same");
}

#[tokio::test]
async fn each_mistake_in_a_request_for_a_token_has_its_own_aadsts_number() {
    let bench = Bench::healthy().await;
    let other_cloud = "https://graph.microsoft.us/.default";
    for (field, value, status, error, aadsts) in [
        ("grant_type", "", 400, "invalid_request", 900_144),
        ("grant_type", "password", 400, "unsupported_grant_type", 70_003),
        ("client_id", "", 400, "invalid_request", 900_144),
        ("client_id", STRANGER, 400, "unauthorized_client", 700_016),
        ("scope", "", 400, "invalid_request", 900_144),
        ("scope", "CloudPC.ReadWrite.All", 400, "invalid_scope", 1_002_012),
        ("scope", other_cloud, 400, "invalid_resource", 500_011),
        ("client_secret", "", 401, "invalid_client", 7_000_218),
        ("client_secret", "wrong", 401, "invalid_client", 7_000_215),
    ] {
        let answer = bench.ask_token(&[(field, value)]).await;
        let body = answer.json();
        assert_eq!(answer.status, status, "{field}={value}");
        assert_eq!((&body["error"], &body["error_codes"]), (&json!(error), &json!([aadsts])), "{field}={value}");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with(&format!("AADSTS{aadsts}: ")), "{description}");
        assert!(description.contains(body["trace_id"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn an_unknown_tenant_is_named() {
    let bench = Bench::healthy().await;
    let request = bench.anonymous(Method::POST, &format!("/{STRANGER}/oauth2/v2.0/token"));
    let answer = Answered::to(request.form(&[("grant_type", "client_credentials")])).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json()["error_codes"]), (400, &json!([90_002])));
    assert!(answer.body.contains(STRANGER));
}

#[tokio::test]
async fn a_request_for_a_token_must_be_a_posted_form() {
    let bench = Bench::healthy().await;
    let path = format!("/{}/oauth2/v2.0/token", bench.simulator.tenant_id());
    let json = bench.anonymous(Method::POST, &path).header("content-type", "application/json").body("{}");
    assert_eq!(Answered::to(json).await.unwrap().json()["error_codes"], json!([900_144]));
    let get = Answered::to(bench.anonymous(Method::GET, &path)).await.unwrap();
    assert_eq!((get.status.as_u16(), &get.json()["error_codes"]), (405, &json!([900_561])));
}

#[tokio::test]
async fn a_library_that_discovers_the_tenant_finds_the_token_endpoint() {
    let bench = Bench::healthy().await;
    let (base, tenant) = (bench.simulator.graph_url(), bench.simulator.tenant_id());
    let answer = bench.get(&format!("/{tenant}/v2.0/.well-known/openid-configuration")).await;
    assert_eq!(answer.json()["token_endpoint"], json!(format!("{base}/{tenant}/oauth2/v2.0/token")));
    let answer = bench.get(&format!("/{STRANGER}/v2.0/.well-known/openid-configuration")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]), (400, &json!("invalid_tenant")));
}

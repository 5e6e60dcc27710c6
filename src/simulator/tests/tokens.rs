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

/// The claims or header of a JWT, changed.
fn changed(jwt: &str, part: usize, change: impl FnOnce(&mut Value)) -> String {
    let mut parts: Vec<String> = jwt.split('.').map(str::to_owned).collect();
    let mut value = serde_json::from_slice(&token::from_base64url(&parts[part]).unwrap()).unwrap();
    change(&mut value);
    parts[part] = token::base64url(value.to_string().as_bytes());
    parts.join(".")
}

/// An assertion that the app would sign, but for this.
fn assertion(bench: &Bench, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    let pem = std::fs::read(bench.simulator.certificate_file()).unwrap();
    let certificate: rustls::pki_types::CertificateDer<'_> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    let key: rustls::pki_types::PrivatePkcs8KeyDer<'_> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    let thumbprint = token::base64url(&<sha2::Sha256 as sha2::Digest>::digest(&certificate));
    let (id, now) = (bench.simulator.client_id().to_string(), bench.simulator.now().timestamp());
    let mut head = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint});
    let aud = format!("{}/{}/oauth2/v2.0/token", bench.simulator.authority_url(), bench.simulator.tenant_id());
    let mut body = json!({"aud": aud, "iss": id, "sub": id, "jti": "1", "nbf": now, "exp": now + 300});
    change(&mut head, &mut body);
    let signed = [&head, &body].map(|part| token::base64url(part.to_string().as_bytes())).join(".");
    let key = ring::rsa::KeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let padding: &dyn ring::signature::RsaEncoding =
        if head["alg"] == "RS256" { &ring::signature::RSA_PKCS1_SHA256 } else { &ring::signature::RSA_PSS_SHA256 };
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, &ring::rand::SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", token::base64url(&signature))
}

async fn assert_by(bench: &Bench, assertion: &str) -> Answered {
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    bench.ask_token(&[("client_secret", ""), ("client_assertion_type", kind), ("client_assertion", assertion)]).await
}

#[tokio::test]
async fn a_token_is_issued_for_an_assertion_that_the_apps_certificate_signed() {
    let bench = Bench::healthy().await;
    for algorithm in ["PS256", "RS256"] {
        let signed = assertion(&bench, |head, _| head["alg"] = json!(algorithm));
        assert_eq!(assert_by(&bench, &signed).await.status, 200, "{algorithm}");
    }
}

#[tokio::test]
async fn each_mistake_in_an_assertion_has_its_own_aadsts_number() {
    let bench = Bench::healthy().await;
    let good = assertion(&bench, |_, _| {});
    let with = |name: &'static str, value: Value| assertion(&bench, move |_, body| body[name] = value);
    let now = bench.simulator.now().timestamp();
    let federated = std::fs::read_to_string(bench.simulator.federated_token_file()).unwrap();
    for (presented, aadsts) in [
        ("one.two".to_owned(), 50_027),
        (changed(&good, 1, |claims| claims["jti"] = json!("2")), 700_027),
        (assertion(&bench, |head, _| head["alg"] = json!("ES256")), 700_027),
        (assertion(&bench, |head, _| head["x5t#S256"] = json!("another")), 700_027),
        (with("aud", json!("https://login.example")), 700_023),
        (with("sub", json!(STRANGER)), 700_021),
        (assertion(&bench, |_, body| (body["iss"], body["sub"]) = (json!(STRANGER), json!(STRANGER))), 700_021),
        (with("exp", json!(now - 600)), 700_024),
        (with("nbf", json!(now + 600)), 700_024),
        (changed(&federated, 1, |claims| claims["iss"] = json!("https://oidc.example/")), 700_211),
        (changed(&federated, 1, |claims| claims["sub"] = json!("system:serviceaccount:x:y")), 700_213),
        (changed(&federated, 1, |claims| claims["aud"] = json!(["x"])), 700_212),
        (changed(&federated, 1, |claims| claims["jti"] = json!("x")), 50_013),
    ] {
        let answer = assert_by(&bench, &presented).await;
        let body = answer.json();
        assert_eq!((answer.status.as_u16(), &body["error"]), (401, &json!("invalid_client")), "{aadsts}");
        assert_eq!(body["error_codes"], json!([aadsts]), "{body}");
        assert!(body["error_description"].as_str().unwrap().contains("\r\nTrace ID: "), "{body}");
    }
    assert_eq!(assert_by(&bench, &federated).await.status, 200);
    let without_type = bench.ask_token(&[("client_secret", ""), ("client_assertion", &good)]).await;
    assert_eq!(without_type.json()["error_codes"], json!([900_144]));
}

#[tokio::test]
async fn rotated_credentials_are_new_files_and_the_old_ones_are_refused() {
    let bench = Bench::healthy().await;
    let old = (assertion(&bench, |_, _| {}), std::fs::read_to_string(bench.simulator.federated_token_file()).unwrap());
    bench.simulator.rotate_credentials().unwrap();
    assert_eq!(assert_by(&bench, &old.0).await.status, 401);
    assert_eq!(assert_by(&bench, &old.1).await.status, 401);
    assert_eq!(assert_by(&bench, &assertion(&bench, |_, _| {})).await.status, 200);
    assert_eq!(bench.ask_token(&[]).await.status, 200);
}

#[tokio::test]
async fn a_managed_identitys_token_is_given_to_who_has_the_header_for_this_graph() {
    let bench = Bench::healthy().await;
    let (endpoint, header) = bench.simulator.identity_endpoint();
    let (graph, id) = (bench.simulator.graph_url(), bench.simulator.client_id().to_string());
    let ask = async |header: &str, query: &[(&str, &str)]| {
        let url = reqwest::Url::parse_with_params(&endpoint, query).unwrap();
        let request = bench.client.get(url).header("x-identity-header", header);
        Answered::to(request).await.unwrap()
    };
    let version = ("api-version", "2019-08-01");
    for identity in [vec![], vec![("client_id", id.as_str())]] {
        let query = [vec![version, ("resource", graph)], identity].concat();
        let answer = ask(&header, &query).await;
        let body = answer.json();
        assert_eq!(answer.status, 200, "{body}");
        assert!(body["expires_on"].as_str().unwrap().parse::<i64>().unwrap() > bench.simulator.now().timestamp());
        let works = bench
            .client
            .get(format!("{graph}/beta/deviceManagement/managedDevices/{SUCCEEDS}/getCloudPcRemoteActionResults"));
        let works = Answered::to(works.bearer_auth(body["access_token"].as_str().unwrap())).await.unwrap();
        assert_eq!(works.status, 200);
    }
    assert_eq!(ask("wrong", &[version, ("resource", graph)]).await.status, 403);
    assert_eq!(ask(&header, &[("resource", graph)]).await.status, 400);
    assert_eq!(ask(&header, &[version, ("resource", "https://graph.microsoft.us")]).await.status, 400);
    assert_eq!(ask(&header, &[version, ("resource", graph), ("client_id", STRANGER)]).await.status, 400);
}

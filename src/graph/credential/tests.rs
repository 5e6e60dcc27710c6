//! A tenant's token, from a simulated Entra ID over HTTP, and from one that says whatever a test wants.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

use super::*;
use crate::config::Credential;
use crate::domain::action::Action;
use crate::graph::http::{self, Proxy};
use crate::simulator::token::{READ, READ_WRITE};
use crate::simulator::{Options, Simulator};

fn simulator() -> Simulator {
    Simulator::start(Options::default()).unwrap()
}

/// A keeper for the simulator's app with this credential.
fn keeper(simulator: &Simulator, credential: Credential) -> TokenKeeper {
    keeper_at(simulator.authority_url(), simulator, credential)
}

fn keeper_at(authority: &str, simulator: &Simulator, credential: Credential) -> TokenKeeper {
    let tenant = Tenant {
        graph_url: Url::parse(simulator.graph_url()).unwrap(),
        authority_url: Url::parse(authority).unwrap(),
        tenant_id: simulator.tenant_id().to_string(),
        credential,
        action: Action::BulkReprovisionCloudPc,
        limits: crate::config::Config::default().limits,
    };
    TokenKeeper::new(http::client(Duration::from_secs(10), Proxy::None).unwrap(), &tenant)
}

fn by_secret(simulator: &Simulator) -> Credential {
    Credential::ClientSecret { client_id: id(simulator), file: simulator.client_secret_file().to_owned() }
}

fn by_certificate(simulator: &Simulator) -> Credential {
    Credential::Certificate { client_id: id(simulator), file: simulator.certificate_file().to_owned() }
}

fn by_workload(simulator: &Simulator) -> Credential {
    Credential::WorkloadIdentity { client_id: id(simulator), file: simulator.federated_token_file().to_owned() }
}

fn id(simulator: &Simulator) -> String {
    simulator.client_id().to_string()
}

const KINDS: [fn(&Simulator) -> Credential; 3] = [by_secret, by_certificate, by_workload];

#[tokio::test]
async fn each_kind_of_credential_gets_a_token_with_the_apps_roles() {
    let simulator =
        Simulator::start(Options { roles: vec![READ.into(), READ_WRITE.into()], ..Options::default() }).unwrap();
    for kind in KINDS {
        let keeper = keeper(&simulator, kind(&simulator));
        assert!(keeper.at_hand().is_none());
        assert_eq!(
            keeper.roles().await,
            Ok(Some(vec![READ.to_owned(), READ_WRITE.to_owned()])),
            "{:?}",
            kind(&simulator)
        );
        assert!(keeper.at_hand().is_some());
    }
}

#[tokio::test]
async fn a_changed_file_is_taken_up_by_the_next_attempt_and_the_old_one_is_refused() {
    let simulator = simulator();
    for (kind, aadsts) in KINDS.into_iter().zip(["AADSTS7000215", "AADSTS700027", "AADSTS50013"]) {
        // A file that nobody has changed yet, and the same one after it has been.
        let directory = tempfile::tempdir().unwrap();
        let (mine, fresh) = (directory.path().join("mine"), file_of(&kind(&simulator)));
        std::fs::copy(&fresh, &mine).unwrap();
        simulator.rotate_credentials().unwrap();
        let keeper = keeper(&simulator, with_file(kind(&simulator), mine.clone()));
        let refused = keeper.token().await.map(|_| ()).unwrap_err();
        assert!(matches!(&refused, TokenError::Refused(why) if why.contains(aadsts)), "{refused}");
        std::fs::copy(&fresh, &mine).unwrap();
        assert!(keeper.token().await.is_ok());
    }
}

fn file_of(credential: &Credential) -> PathBuf {
    match credential {
        Credential::ClientSecret { file, .. }
        | Credential::Certificate { file, .. }
        | Credential::WorkloadIdentity { file, .. } => file.clone(),
        Credential::ManagedIdentity { .. } => panic!("a managed identity has no file"),
    }
}

fn with_file(credential: Credential, to: PathBuf) -> Credential {
    match credential {
        Credential::ClientSecret { client_id, .. } => Credential::ClientSecret { client_id, file: to },
        Credential::Certificate { client_id, .. } => Credential::Certificate { client_id, file: to },
        Credential::WorkloadIdentity { client_id, .. } => Credential::WorkloadIdentity { client_id, file: to },
        other @ Credential::ManagedIdentity { .. } => other,
    }
}

#[tokio::test]
async fn a_refusal_says_who_why_and_what_to_check_and_shows_no_secret() {
    let simulator = simulator();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let said = async |credential: Credential| {
        let error = keeper(&simulator, with_file(credential, path.clone())).token().await.map(|_| ()).unwrap_err();
        assert!(matches!(error, TokenError::Refused(_)), "{error}");
        error.to_string().replace(&*path.to_string_lossy(), "FILE").replace(&id(&simulator), "ID")
    };
    std::fs::write(&path, "hunter2\n").unwrap();
    insta::assert_snapshot!(said(by_secret(&simulator)).await, @"no token: 127.0.0.1 refuses client_id ID (invalid_client: AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app 'ID'.): check tenant_id, client_id and the secret in FILE");
    insta::assert_snapshot!(said(by_certificate(&simulator)).await, @"no token: certificate_file FILE: is not PEM: a PFX or PKCS#12 file is converted by `openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes`");
    insta::assert_snapshot!(said(by_workload(&simulator)).await, @"no token: 127.0.0.1 refuses client_id ID (invalid_client: AADSTS50027: JWT token is invalid or malformed.): check tenant_id and client_id, and that a federated credential of the app names issuer, subject and audience of the token in FILE");
    let stranger = |credential| match credential {
        Credential::ClientSecret { file, .. } => {
            Credential::ClientSecret { client_id: "11111111-2222-4333-8444-555555555555".into(), file }
        }
        other => other,
    };
    insta::assert_snapshot!(said(stranger(by_secret(&simulator))).await, @"no token: 127.0.0.1 refuses client_id 11111111-2222-4333-8444-555555555555 (unauthorized_client: AADSTS700016: Application with identifier '11111111-2222-4333-8444-555555555555' was not found in the directory.): check tenant_id, client_id and the secret in FILE");
    let old = std::fs::read(simulator.certificate_file()).unwrap();
    simulator.rotate_credentials().unwrap();
    std::fs::write(&path, old).unwrap();
    let told = said(by_certificate(&simulator)).await;
    assert!(told.contains("AADSTS700027") && told.contains("check tenant_id and client_id"), "{told}");
    std::fs::write(&path, "\n").unwrap();
    insta::assert_snapshot!(said(by_workload(&simulator)).await, @"no token: federated_token_file FILE: the file is empty");
    std::fs::remove_file(&path).unwrap();
    insta::assert_snapshot!(said(by_secret(&simulator)).await, @"no token: client_secret_file FILE: No such file or directory (os error 2)");
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_a_good_token_at_hand_and_an_expired_one_not() {
    let simulator = simulator();
    let keeper = keeper(&simulator, by_secret(&simulator));
    let first = keeper.token().await.unwrap();
    // Time for a renewal, as the passing of an hour would have it.
    let due = |keeper: &TokenKeeper| {
        keeper.state().token.as_mut().unwrap().renew_at = BootInstant::after_boot(Duration::ZERO);
    };
    due(&keeper);
    assert!(keeper.at_hand().is_none());
    simulator.rotate_credentials().unwrap();
    let fresh = std::fs::read(simulator.client_secret_file()).unwrap();
    std::fs::write(simulator.client_secret_file(), "wrong").unwrap();
    assert_eq!(keeper.token().await.unwrap().text, first.text);
    assert!(keeper.at_hand().is_some(), "calls go on with it, and Entra ID is left alone for a while");

    due(&keeper);
    std::fs::write(simulator.client_secret_file(), fresh).unwrap();
    let second = keeper.token().await.unwrap();
    assert_ne!(second.text, first.text);
    assert!(!second.renewed, "no token was refused");

    std::fs::write(simulator.client_secret_file(), "wrong").unwrap();
    due(&keeper);
    keeper.state().token.as_mut().unwrap().expires_at = BootInstant::after_boot(Duration::ZERO);
    assert!(keeper.token().await.is_err());
}

#[tokio::test]
async fn a_refused_token_is_not_used_again_and_the_next_one_knows_it() {
    let simulator = simulator();
    let keeper = keeper(&simulator, by_certificate(&simulator));
    let first = keeper.token().await.unwrap();
    keeper.refused(&first);
    assert!(keeper.at_hand().is_none());
    let second = keeper.token().await.unwrap();
    assert!(second.renewed && second.text != first.text);
    keeper.refused(&first);
    assert!(keeper.at_hand().is_some(), "an answer to the first token says nothing of the second");
    keeper.accepted(&second);
    assert!(!keeper.token().await.unwrap().renewed);
}

/// An Entra ID that gives each request the same answer; what it was asked, and how often.
async fn parrot(
    status: &'static str,
    body: &'static str,
) -> (String, Arc<AtomicUsize>, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, asked) = (format!("http://{}", listener.local_addr().unwrap()), Arc::new(AtomicUsize::new(0)));
    let (say, hears) = tokio::sync::mpsc::unbounded_channel();
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 16 * 1024];
            let read = connection.read(&mut request).await.unwrap();
            let _ = say.send(String::from_utf8_lossy(&request[..read]).into_owned());
            let start = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = connection.write_all(format!("{start}{body}").as_bytes()).await;
        }
    });
    (url, asked, hears)
}

#[tokio::test]
async fn each_answer_is_classed_and_nothing_is_asked_twice() {
    let simulator = simulator();
    let with_escapes = r#"{"error":"invalid_client","error_description":"AADSTS7000222: expired\r\nTrace ID: 1","error_codes":[7000222]}"#;
    for (status, body, refused, says) in [
        ("400 Bad Request", with_escapes, true, "(invalid_client: AADSTS7000222: expired): check"),
        ("401 Unauthorized", with_escapes, true, "check tenant_id"),
        ("429 Too Many Requests", with_escapes, false, "HTTP 429"),
        ("500 Internal Server Error", with_escapes, false, "HTTP 500"),
        ("503 Service Unavailable", "", false, "HTTP 503"),
        ("408 Request Timeout", "", false, "HTTP 408"),
        ("403 Forbidden", "<html>a proxy</html>", false, "HTTP 403"),
        ("302 Found", "", false, "HTTP 302"),
        ("200 OK", "", false, "HTTP 200 without a token"),
        ("200 OK", "{}", false, "HTTP 200 without a token"),
        ("200 OK", r#"{"access_token":"a","expires_in":"soon"}"#, false, "HTTP 200 without a token"),
        ("200 OK", r#"{"access_token":"a","expires_in":99999999999999}"#, false, "HTTP 200 without a token"),
        ("200 OK", r#"{"access_token":"a","expires_in":-7}"#, false, "HTTP 200 without a token"),
        ("200 OK", r#"{"access_token":"a","expires_in":0}"#, false, "set this host's clock"),
    ] {
        let (authority, asked, _) = parrot(status, body).await;
        let error = keeper_at(&authority, &simulator, by_secret(&simulator)).token().await.map(|_| ()).unwrap_err();
        assert_eq!(matches!(error, TokenError::Refused(_)), refused, "{status} {body}: {error}");
        assert!(error.to_string().contains(says), "{status} {body}: {error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{status} {body}");
    }
}

#[tokio::test]
async fn a_secret_that_is_echoed_is_not_repeated() {
    let simulator = simulator();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "hunter2").unwrap();
    let echo = r#"{"error":"invalid_client","error_description":"what is hunter2?"}"#;
    for kind in [by_secret, by_workload] {
        let (authority, ..) = parrot("401 Unauthorized", echo).await;
        let credential = with_file(kind(&simulator), file.clone());
        let error = keeper_at(&authority, &simulator, credential).token().await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("what is …?") && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn an_authority_may_have_a_path_and_speak_http_on_this_host() {
    let simulator = simulator();
    let (authority, _, mut hears) =
        parrot("200 OK", r#"{"token_type":"Bearer","access_token":"a.b.c","expires_in":60}"#).await;
    for kind in KINDS {
        keeper_at(&format!("{authority}/entra/"), &simulator, kind(&simulator)).token().await.unwrap();
        let request = hears.recv().await.unwrap();
        let expected = format!("POST /entra/{}/oauth2/v2.0/token HTTP/1.1\r\n", simulator.tenant_id());
        assert!(request.starts_with(&expected), "{request}");
        assert!(
            request.to_ascii_lowercase().contains(&format!("host: {}\r\n", authority.trim_start_matches("http://"))),
            "{request}"
        );
    }
}

#[tokio::test]
async fn an_authority_that_is_not_there_is_unavailable_and_named() {
    let simulator = simulator();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let error = keeper_at(&authority, &simulator, by_secret(&simulator)).token().await.map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, TokenError::Unavailable(why) if why.starts_with("127.0.0.1 cannot be reached: ")),
        "{error}"
    );
}

/// A keeper on a virtual machine whose metadata endpoint, at an address that no test may reach, is this parrot.
fn on_a_machine(parrot: &str, simulator: &Simulator, client_id: Option<String>) -> TokenKeeper {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tenant = Tenant {
        graph_url: Url::parse(simulator.graph_url()).unwrap(),
        authority_url: Url::parse(simulator.authority_url()).unwrap(),
        tenant_id: simulator.tenant_id().to_string(),
        credential: Credential::ManagedIdentity { client_id },
        action: Action::BulkReprovisionCloudPc,
        limits: crate::config::Config::default().limits,
    };
    let http = reqwest::Client::builder().proxy(reqwest::Proxy::http(parrot).unwrap()).build().unwrap();
    TokenKeeper::new(http, &tenant)
}

#[tokio::test]
async fn a_virtual_machines_metadata_endpoint_is_asked_for_graph_and_once() {
    let simulator = simulator();
    let good = r#"{"access_token":"a.b.c","expires_on":"4102444800","resource":"r","token_type":"Bearer"}"#;
    let (endpoint, _, mut hears) = parrot("200 OK", good).await;
    let keeper = on_a_machine(&endpoint, &simulator, Some(id(&simulator)));
    assert_eq!(keeper.token().await.unwrap().text, "a.b.c");
    let request = hears.recv().await.unwrap();
    let resource: String = url::form_urlencoded::byte_serialize(simulator.graph_url().as_bytes()).collect();
    assert!(request.starts_with("GET http://169.254.169.254/metadata/identity/oauth2/token?api-version="), "{request}");
    assert!(request.contains(&format!("&resource={resource}&client_id={}", id(&simulator))), "{request}");
    assert!(request.to_ascii_lowercase().contains("\r\nmetadata: true\r\n"), "{request}");

    let unknown = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
    for (status, body, refused, says) in [
        (
            "400 Bad Request",
            unknown,
            true,
            "the system-assigned identity (invalid_request: Identity not found): check that",
        ),
        ("403 Forbidden", r#"{"statusCode":403,"message":"no"}"#, true, "(403: no)"),
        ("404 Not Found", unknown, false, "HTTP 404"),
        ("410 Gone", "", false, "HTTP 410"),
        ("429 Too Many Requests", unknown, false, "HTTP 429"),
        ("500 Internal Server Error", "", false, "HTTP 500"),
        ("200 OK", r#"{"access_token":"a"}"#, false, "HTTP 200 without a token"),
        ("200 OK", &good.replace("4102444800", "946684800"), false, "expired at 2000-01-01"),
    ] {
        let (endpoint, asked, _) = parrot(status, body.to_owned().leak()).await;
        let error = on_a_machine(&endpoint, &simulator, None).token().await.map(|_| ()).unwrap_err();
        assert_eq!(matches!(error, TokenError::Refused(_)), refused, "{status} {body}: {error}");
        assert!(error.to_string().contains(says), "{status} {body}: {error}");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{status} {body}");
    }
}

#[tokio::test]
async fn a_refusal_of_an_expired_certificate_says_so() {
    let simulator = simulator();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.pem");
    let key = include_str!("../../simulator/app-key.pem");
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 2, 3);
    let certificate = params.self_signed(&rcgen::KeyPair::from_pem(key).unwrap()).unwrap();
    std::fs::write(&file, certificate.pem() + key).unwrap();
    let keeper = keeper(&simulator, with_file(by_certificate(&simulator), file));
    let error = keeper.token().await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("app.pem, which expired on 2020-02-03, is registered with the app"), "{error}");
}

#[test]
fn roles_are_read_from_what_looks_like_a_token() {
    // {"roles":["A.B"]}, {"aud":"x"}, and neither JSON nor Base64.
    for (token, read) in [
        ("e30.eyJyb2xlcyI6WyJBLkIiXX0.sig", Some(vec!["A.B".to_owned()])),
        ("e30.eyJhdWQiOiJ4In0.sig", Some(Vec::new())),
        ("e30.bm9uZQ.sig", None),
        ("e30.!.sig", None),
        ("opaque", None),
    ] {
        assert_eq!(roles(token), read, "{token}");
    }
}

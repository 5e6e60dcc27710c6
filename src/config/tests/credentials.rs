//! What a tenant signs in with.

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::config::certificate::NotACertificate;

const RSA_KEY: &str = include_str!("../../simulator/app-key.pem");

/// A self-signed certificate for the key, that ends on the first day of the year.
fn certificate(key: &KeyPair, end: i32) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.not_after = rcgen::date_time_ymd(end, 1, 1);
    params.self_signed(key).expect("a good key").pem()
}

fn rsa() -> KeyPair {
    KeyPair::from_pem(RSA_KEY).expect("a good key")
}

/// A good file for `certificate_file`.
pub(super) fn certificate_and_key() -> String {
    certificate(&rsa(), 2050) + RSA_KEY
}

/// One tenant with these lines, in a directory that holds a secret, a certificate and a token.
fn scene(toml: &str, env: &[(&str, &str)]) -> Scene {
    let scene = Scene::new(Some(format!("[tenants.a]\n{toml}").as_bytes()), env);
    write_private(&scene.directory.path().join("a.pem"), certificate_and_key().as_bytes());
    write_private(&scene.directory.path().join("a.token"), b"a.b.c");
    scene
}

fn credential(scene: &Scene) -> Credential {
    let loaded = load(&scene.sources).map_err(|mistakes| mistakes.to_string()).expect("a good configuration");
    loaded.config.tenants[&"a".parse().expect("a name")].credential.clone()
}

#[test]
fn each_kind_of_credential_takes_its_own_keys() {
    let id = "30d0e128-de93-41dc-89ec-33d84bb662a0".to_owned();
    let of = |toml: &str| {
        let scene = scene(&format!("tenant_id = \"contoso.example\"\n{toml}"), &[]);
        (credential(&scene), scene)
    };
    let client = format!("client_id = \"{id}\"\n");
    let (given, scene) = of(&format!("{client}client_secret_file = \"a.secret\""));
    let file = |scene: &Scene, name: &str| scene.directory.path().join(name);
    assert_eq!(given, Credential::ClientSecret { client_id: id.clone(), file: file(&scene, "a.secret") });
    let (given, scene) = of(&format!("{client}credential = \"certificate\"\ncertificate_file = \"a.pem\""));
    assert_eq!(given, Credential::Certificate { client_id: id.clone(), file: file(&scene, "a.pem") });
    let (given, scene) = of(&format!("{client}credential = \"workload-identity\"\nfederated_token_file = \"a.token\""));
    assert_eq!(given, Credential::WorkloadIdentity { client_id: id.clone(), file: file(&scene, "a.token") });
    let (given, _) = of(&format!("{client}credential = \"managed-identity\""));
    assert_eq!(given, Credential::ManagedIdentity { client_id: Some(id) });
    let (given, _) = of("credential = \"managed-identity\"");
    assert_eq!(given, Credential::ManagedIdentity { client_id: None });
}

#[test]
fn what_is_in_force_names_the_kind_and_its_file() {
    assert_snapshot!(scene(&format!("{IDS}credential = \"certificate\"\ncertificate_file = \"a.pem\""), &[]).outcome(), @"
    ok
    tenants.a.tenant_id = contoso.example  (DIR/reprovisiond.toml:2:13)
    tenants.a.client_id = 30d0e128-de93-41dc-89ec-33d84bb662a0  (DIR/reprovisiond.toml:3:13)
    tenants.a.credential = certificate  (DIR/reprovisiond.toml:4:14)
    tenants.a.certificate_file = DIR/a.pem  (DIR/reprovisiond.toml:5:20)
    ");
}

#[test]
fn a_key_of_another_kind_and_a_missing_one_are_mistakes() {
    assert_snapshot!(scene(&format!("{IDS}credential = \"certificate\"\n"), &[]).outcome(), @r#"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:1:10: tenants.a has no certificate_file
      add certificate_file = "PATH"
    "#);
    assert_snapshot!(scene(&format!("{IDS}certificate_file = \"a.pem\"\n"), &[]).outcome(), @r#"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:4:20: tenants.a.certificate_file: not used with credential = "client-secret"
      remove certificate_file, or write credential = "certificate"
    "#);
    let all = format!(
        "{IDS}credential = \"managed-identity\"\n{SECRET}certificate_file = \"a.pem\"\nfederated_token_file = \"a.token\"\n"
    );
    assert_snapshot!(scene(&all, &[]).outcome(), @r#"
    3 mistakes in the configuration:
    DIR/reprovisiond.toml:5:22: tenants.a.client_secret_file: not used with credential = "managed-identity"
      remove client_secret_file, or write credential = "client-secret"
    DIR/reprovisiond.toml:6:20: tenants.a.certificate_file: not used with credential = "managed-identity"
      remove certificate_file, or write credential = "certificate"
    DIR/reprovisiond.toml:7:24: tenants.a.federated_token_file: not used with credential = "managed-identity"
      remove federated_token_file, or write credential = "workload-identity"
    "#);
    assert_snapshot!(scene("credential = \"workload-identity\"\n", &[]).outcome(), @r#"
    3 mistakes in the configuration:
    DIR/reprovisiond.toml:1:10: tenants.a has no tenant_id
      add tenant_id = "DIRECTORY-ID-OR-DOMAIN"
    DIR/reprovisiond.toml:1:10: tenants.a has no client_id
      add client_id = "APPLICATION-ID"
    DIR/reprovisiond.toml:1:10: tenants.a has no federated_token_file
      add federated_token_file = "PATH"
    "#);
    assert_snapshot!(scene(&format!("{IDS}credential = \"certficate\"\ncertificate_file = \"a.pem\"\n"), &[]).outcome(), @r#"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:4:14: tenants.a.credential = "certficate": not one of the known words
      did you mean "certificate"?
    "#);
}

#[test]
fn what_azures_webhook_sets_is_taken_for_a_workload_identity_where_nothing_else_is_given() {
    let env = [
        ("AZURE_TENANT_ID", "fabrikam.example"),
        ("AZURE_CLIENT_ID", "30d0e128-de93-41dc-89ec-33d84bb662a1"),
        ("AZURE_FEDERATED_TOKEN_FILE", "a.token"),
        ("AZURE_AUTHORITY_HOST", "https://login.example"),
    ];
    assert_snapshot!(scene("credential = \"workload-identity\"\ntenant_id = \"contoso.example\"\n", &env).outcome(), @"
    ok
    tenants.a.tenant_id = contoso.example  (DIR/reprovisiond.toml:3:13)
    tenants.a.client_id = 30d0e128-de93-41dc-89ec-33d84bb662a1  (AZURE_CLIENT_ID)
    tenants.a.credential = workload-identity  (DIR/reprovisiond.toml:2:14)
    tenants.a.federated_token_file = DIR/a.token  (AZURE_FEDERATED_TOKEN_FILE)
    ");
    assert_snapshot!(scene("credential = \"workload-identity\"\n", &[("AZURE_TENANT_ID", "common")]).outcome(), @r#"
    3 mistakes in the configuration:
    DIR/reprovisiond.toml:1:10: tenants.a has no client_id
      add client_id = "APPLICATION-ID"
    DIR/reprovisiond.toml:1:10: tenants.a has no federated_token_file
      add federated_token_file = "PATH"
    AZURE_TENANT_ID: stands for many directories; a daemon signs in to one
      write the directory (tenant) ID that Entra ID shows, or a domain verified in it
    "#);
    let other = scene(&format!("{IDS}{SECRET}"), &env).outcome();
    assert!(!other.contains("AZURE"), "{other}");
}

#[test]
fn a_certificates_file_is_looked_into() {
    let scene = scene(&format!("{IDS}credential = \"certificate\"\ncertificate_file = \"a.pem\""), &[]);
    let path = scene.directory.path().join("a.pem");
    write_private(&path, RSA_KEY.as_bytes());
    assert_snapshot!(scene.outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:5:20: tenants.a.certificate_file: DIR/a.pem: holds no certificate: add the section BEGIN CERTIFICATE
      write certificate and private key to that file, in PEM, readable by the daemon's user alone
    ");
    write_private(&path, b"0\x82\x09\x0b\x02");
    assert_snapshot!(scene.outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:5:20: tenants.a.certificate_file: DIR/a.pem: is not PEM: a PFX or PKCS#12 file is converted by `openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes`
      write certificate and private key to that file, in PEM, readable by the daemon's user alone
    ");
    write_private(&path, &b"x".repeat(70_000));
    assert_snapshot!(scene.outcome(), @"
    1 mistake in the configuration:
    DIR/reprovisiond.toml:5:20: tenants.a.certificate_file: DIR/a.pem: is longer than 65536 bytes, which no certificate with its key is
      write certificate and private key to that file, in PEM, readable by the daemon's user alone
    ");
}

#[test]
fn why_a_file_holds_no_client_certificate_is_said() {
    let cert = certificate(&rsa(), 2050);
    let ec = KeyPair::generate().expect("a key");
    let traditional = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old_ec = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
    for (pem, why) in [
        (String::new(), NotACertificate::NotPem),
        ("hunter2".to_owned(), NotACertificate::NotPem),
        (cert.clone(), NotACertificate::NoKey),
        (RSA_KEY.to_owned(), NotACertificate::NoCertificate),
        (format!("{cert}{encrypted}"), NotACertificate::EncryptedKey),
        (format!("{cert}{traditional}"), NotACertificate::EncryptedKey),
        (format!("{cert}{}", ec.serialize_pem()), NotACertificate::NotRsa),
        (format!("{cert}{old_ec}"), NotACertificate::NotRsa),
        (certificate(&ec, 2050) + RSA_KEY, NotACertificate::Strangers),
        (cert.replace("-----END CERTIFICATE-----", "") + RSA_KEY, NotACertificate::BrokenPem),
    ] {
        assert_eq!(ClientCertificate::from_pem(pem.as_bytes()).err(), Some(why), "{pem}");
    }
}

#[test]
fn of_a_chain_the_certificate_of_the_key_is_taken_and_its_end_read() {
    let ec = KeyPair::generate().expect("a key");
    for end in [1999, 2031, 2051, 9999] {
        let pem = certificate(&ec, 2040) + RSA_KEY + &certificate(&rsa(), end);
        let read = ClientCertificate::from_pem(pem.as_bytes()).map_err(|why| why.to_string()).expect("good");
        assert_eq!(read.expires.map(|end| end.to_string()), Some(format!("{end}-01-01 00:00:00 UTC")));
    }
}

#[test]
fn an_action_that_a_cloud_does_not_have_by_microsofts_page_is_a_warning() {
    let warned = |cloud: &str| check(&format!("[tenants.a]\ncloud = \"{cloud}\"\n{IDS}{SECRET}"), &[]);
    assert_snapshot!(warned("china").lines().take(3).collect::<Vec<_>>().join("\n"), @r#"
    ok
    warning: DIR/reprovisiond.toml:2:9: tenants.a.cloud = "china" and the action is bulk-reprovision-cloud-pc: Microsoft's reference page marks the action as not available in this cloud
      requests stay queued if Graph refuses it there; see whether another is available there (graph.action or tenants.NAME.action)
    "#);
    for cloud in ["global", "us-gov-l4", "us-gov-l5"] {
        assert!(!warned(cloud).contains("warning"), "{cloud}");
    }
    for (action, clouds) in [
        ("bulk-reprovision-cloud-pc", ["china", "china"]),
        ("cloud-pc-bulk-action", ["us-gov-l5", "china"]),
        ("cloud-pc-reprovision", ["us-gov-l5", "china"]),
    ] {
        for (cloud, _) in tenant::CLOUDS {
            assert_eq!(tenant::unavailable(cloud, action).is_some(), clouds.contains(&cloud), "{action} in {cloud}");
        }
    }
}

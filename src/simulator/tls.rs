//! HTTPS with a certificate authority that lives as long as the simulator. Its key never leaves memory.

use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

#[derive(Debug)]
pub(super) struct Tls {
    pub(super) config: RustlsConfig,
    /// The authority's certificate, in PEM: what a client must trust.
    pub(super) ca_pem: String,
}

/// A server certificate for this host's loopback names.
pub(super) fn throwaway(address: std::net::IpAddr) -> Result<Tls, Box<dyn std::error::Error + Send + Sync>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "reprovisiond simulator, throwaway authority");
    let authority_key = KeyPair::generate()?;
    let ca_pem = authority.self_signed(&authority_key)?.pem();

    let mut server = CertificateParams::new(vec!["localhost".to_owned(), address.to_string()])?;
    server.distinguished_name.push(DnType::CommonName, "reprovisiond simulator");
    server.use_authority_key_identifier_extension = true;
    server.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &Issuer::from_params(&authority, &authority_key))?;

    // Named, and not the process's default: a test may start the simulator before anything has installed one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    // One request at a time on a connection, so that resetting it loses that one and no other.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { config: RustlsConfig::from_config(Arc::new(config)), ca_pem })
}

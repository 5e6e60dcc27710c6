//! A client certificate with its private key, from one PEM file.

use chrono::{DateTime, NaiveDateTime, Utc};
use ring::rsa::KeyPair;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use sha2::{Digest, Sha256};

/// What signs a client assertion. Has no `Debug`: it holds a private key.
pub struct ClientCertificate {
    /// SHA-256 of the certificate's DER, by which Entra ID knows it.
    pub thumbprint: [u8; 32],
    /// The private key that belongs to it.
    pub key: KeyPair,
    /// When it expires, if that could be read.
    pub expires: Option<DateTime<Utc>>,
}

/// Why a file holds no client certificate. Says nothing of the key itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotACertificate {
    /// No PEM in it.
    #[error("is not PEM: a PFX or PKCS#12 file is converted by `openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes`")]
    NotPem,
    /// PEM that is broken.
    #[error("is not whole PEM: a section has no end, or is not Base64")]
    BrokenPem,
    /// A key without its certificate.
    #[error("holds no certificate: add the section BEGIN CERTIFICATE")]
    NoCertificate,
    /// A certificate without its key.
    #[error("holds no private key: add the section BEGIN PRIVATE KEY")]
    NoKey,
    /// The daemon could not ask for the password.
    #[error("holds an encrypted private key: decrypt it by `openssl pkey -in FILE -out NEW`")]
    EncryptedKey,
    /// Elliptic curves, and whatever else there is.
    #[error("holds a private key that is not RSA: Entra ID takes assertions that are signed with RSA")]
    NotRsa,
    /// RSA, but odd.
    #[error("holds an RSA key that cannot be used ({0}): it must have 2048 to 4096 bits")]
    UnusableKey(String),
    /// Two files that were put together.
    #[error("holds a certificate and a private key that do not belong together")]
    Strangers,
}

impl ClientCertificate {
    /// Reads a certificate and its key, in PKCS#8 or PKCS#1. Of several certificates it is the one that the key is for.
    pub fn from_pem(text: &[u8]) -> Result<Self, NotACertificate> {
        let mut certificates: Vec<Vec<u8>> = Vec::new();
        let mut keys: Vec<(SectionKind, Vec<u8>)> = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let (kind, der) = section.map_err(|error: pem::Error| match error {
                // A key that is encrypted the old way has headers where Base64 should be.
                _ if is_encrypted(text) => NotACertificate::EncryptedKey,
                _ => NotACertificate::BrokenPem,
            })?;
            match kind {
                SectionKind::Certificate => certificates.push(der),
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                    keys.push((kind, der));
                }
                _ => {}
            }
        }
        let Some((kind, der)) = keys.first() else {
            return Err(match () {
                () if is_encrypted(text) => NotACertificate::EncryptedKey,
                () if certificates.is_empty() => NotACertificate::NotPem,
                () => NotACertificate::NoKey,
            });
        };
        let key = match kind {
            SectionKind::EcPrivateKey => return Err(NotACertificate::NotRsa),
            SectionKind::PrivateKey if !contains(der, RSA_ENCRYPTION) => return Err(NotACertificate::NotRsa),
            SectionKind::PrivateKey => KeyPair::from_pkcs8(der),
            _ => KeyPair::from_der(der),
        };
        let key = key.map_err(|why| NotACertificate::UnusableKey(why.to_string()))?;
        if certificates.is_empty() {
            return Err(NotACertificate::NoCertificate);
        }
        // A certificate holds its public key in the very form in which ring gives it out.
        let own = certificates.iter().find(|der| contains(der, key.public().as_ref()));
        let der = own.ok_or(NotACertificate::Strangers)?;
        Ok(Self { thumbprint: Sha256::digest(der).into(), expires: not_after(der), key })
    }
}

/// The object identifier 1.2.840.113549.1.1.1 in DER.
const RSA_ENCRYPTION: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

fn is_encrypted(text: &[u8]) -> bool {
    contains(text, b"BEGIN ENCRYPTED PRIVATE KEY") || contains(text, b"Proc-Type: 4,ENCRYPTED")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// `notAfter` of a certificate (RFC 5280, section 4.1): the second time in the fourth or fifth field of its body.
fn not_after(der: &[u8]) -> Option<DateTime<Utc>> {
    let (_, certificate, _) = element(der)?;
    let (_, body, _) = element(certificate)?;
    let (tag, _, rest) = element(body)?;
    // The version is tagged and may be missing; then come serial number, algorithm, issuer, validity.
    let mut rest = if tag == 0xa0 { rest } else { body };
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (tag, time, _) = element(element(validity)?.2)?;
    let text = std::str::from_utf8(time).ok()?;
    // UTCTime has two digits for a year from 1950 to 2049; GeneralizedTime has four.
    let century = match (tag, text.get(..2)) {
        (0x17, Some(year)) if year < "50" => "20",
        (0x17, _) => "19",
        _ => "",
    };
    NaiveDateTime::parse_from_str(&format!("{century}{text}"), "%Y%m%d%H%M%SZ").ok().map(|time| time.and_utc())
}

/// The first element of some DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(bytes, _)| bytes.len() <= 4)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

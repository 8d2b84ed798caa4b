//! An authority of a stack's own and one certificate for its servers, which know each other by name on the stack's network.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// All as PEM. The authority's own key is thrown away: nobody can issue another certificate under it.
pub struct Certificates {
    /// The authority.
    pub ca: String,
    /// The servers' certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// A certificate for servers of these names. It does not run out: a new one comes with a new stack.
///
/// # Errors
/// When a name is none, or no key can be drawn.
pub fn make(names: &[String]) -> Result<Certificates> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, "ha-stack");
    let key = KeyPair::generate()?;
    let ca = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);

    let mut servers = CertificateParams::new(names)?;
    servers.distinguished_name.push(DnType::CommonName, "ha-stack servers");
    // A replica, and a Sentinel, is a client of the other servers.
    servers.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    Ok(Certificates { ca, cert: servers.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

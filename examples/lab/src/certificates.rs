//! The certificates of a lab whose engines speak TLS alone: an authority, one for each engine, one for whoever may ask them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::plan::Host;

/// Makes them all. The authority's own key is thrown away: nobody can issue another one under it.
pub(crate) fn make(hosts: &[Host], folder: &Folder) -> Result<()> {
    folder.create_certificates(hosts)?;
    let authority = || {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "lab");
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok((pem, Issuer::new(params, key)))
    };
    let (ca, issuer) = authority().map_err(Error::certificate("the authority"))?;
    write(&folder.certificates().join("ca.pem"), &ca)?;
    for host in hosts {
        // What runs on the host asks its engine on loopback.
        let names = [host.addr.to_string(), "127.0.0.1".to_owned(), host.name.clone()];
        let dir = folder.certificates().join(&host.name);
        sign(&host.name, &names, ExtendedKeyUsagePurpose::ServerAuth, &issuer, &dir)?;
    }
    sign("client", &[], ExtendedKeyUsagePurpose::ClientAuth, &issuer, &folder.certificates())
}

fn sign(
    whose: &str,
    names: &[String],
    to: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'_, KeyPair>,
    dir: &Path,
) -> Result<()> {
    let made = || {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, whose);
        params.extended_key_usages = vec![to];
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
    };
    let (cert, key) = made().map_err(Error::certificate(whose))?;
    write(&dir.join("cert.pem"), &cert)?;
    write(&dir.join("key.pem"), &key)
}

fn write(path: &Path, text: &str) -> Result<()> {
    // One of an earlier lab may be there.
    let _ = fs::remove_file(path);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::file("write", path))
}

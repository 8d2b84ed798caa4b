//! Roles that reach the engine of their host by TLS, with certificates on both sides, instead of by its socket.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use swarm_client::Tls;
use swarm_client::model::{FileTarget, SecretReference};
use swarm_client::stack::Stack;

/// What such a role shows the engine, and by which it knows the engine: files as docker's own command line names them.
pub struct RoleCertificates {
    files: [(&'static str, Vec<u8>); 3],
}

impl RoleCertificates {
    /// From a folder with `ca.pem`, `cert.pem` and `key.pem`.
    ///
    /// # Errors
    /// When one of them is missing or is not what its name says.
    pub fn read(folder: &Path) -> Result<Self> {
        let whose = || format!("--role-certs is {}", folder.display());
        Tls::from_dir(folder).with_context(whose)?;
        let read = |name: &str| {
            std::fs::read(folder.join(name)).with_context(|| format!("{}, and {name} in it", whose()))
        };
        let [ca, cert, key] = FILES;
        Ok(Self { files: [(ca, read(ca)?), (cert, read(cert)?), (key, read(key)?)] })
    }
}

/// Gives them to each service that opens the engine's socket, and the socket no more.
///
/// # Errors
/// When there is no such service.
pub fn instead_of_the_socket(mut stack: Stack, certificates: RoleCertificates) -> Result<Stack> {
    let mut changed = 0;
    for (_, spec) in stack.services_mut() {
        let Some(container) = &mut spec.task_template.container_spec else { continue };
        let mounts = container.mounts.len();
        container.mounts.retain(|mount| mount.target.as_deref() != Some(SOCKET));
        if container.mounts.len() == mounts {
            continue;
        }
        changed += 1;
        let user =
            container.user.as_deref().and_then(|user| user.split(':').next()).unwrap_or("0").to_owned();
        for file in FILES {
            let target = FileTarget {
                name: format!("{FOLDER}/{file}"),
                uid: user.clone(),
                gid: "0".to_owned(),
                mode: 0o400,
                ..FileTarget::default()
            };
            container.secrets.push(SecretReference {
                file: Some(target),
                name: key_of(file),
                ..SecretReference::default()
            });
        }
        container.env.extend([
            format!("DOCKER_HOST={ENGINE}"),
            "DOCKER_TLS_VERIFY=1".to_owned(),
            format!("DOCKER_CERT_PATH={FOLDER}"),
        ]);
    }
    ensure!(
        changed > 0,
        "--role-certs: no service of the stack file mounts the engine's socket ({SOCKET}), so none needs certificates \
         instead; leave the flag out"
    );
    let stack =
        certificates.files.into_iter().fold(stack, |stack, (file, pem)| stack.secret(key_of(file), pem));
    Ok(stack)
}

/// Who the roles are when they open no socket: nobody.
pub const USER: &str = "65534:65534";

fn key_of(file: &str) -> String {
    format!("docker-{}", file.trim_end_matches(".pem"))
}

const FILES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];
const SOCKET: &str = "/var/run/docker.sock";
/// In the containers, which are in their host's network.
const ENGINE: &str = "tcp://127.0.0.1:2376";
const FOLDER: &str = "/run/secrets/docker";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::{OWN_FILE, certificates, tests};

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let made = certificates::make(&["127.0.0.1".to_owned()]).unwrap();
        for (name, pem) in [("ca.pem", made.ca), ("cert.pem", made.cert), ("key.pem", made.key)] {
            std::fs::write(folder.path().join(name), pem).unwrap();
        }
        folder
    }

    #[test]
    fn who_opened_the_socket_has_certificates_instead_and_nobody_else_has() {
        let folder = folder();
        let read = tests::own_stack(&[("DOCKER_USER", USER)]);
        let stack =
            instead_of_the_socket(read.stack, RoleCertificates::read(folder.path()).unwrap()).unwrap();
        for (key, spec) in stack.services() {
            let container = spec.task_template.container_spec.as_ref().unwrap();
            assert!(container.mounts.iter().all(|mount| mount.target.as_deref() != Some(SOCKET)), "{key}");
            let asks = matches!(key, "registrar" | "scaler");
            assert_eq!(container.env.iter().any(|env| env == "DOCKER_TLS_VERIFY=1"), asks, "{key}");
            let seen = container.secrets.iter().filter_map(|secret| secret.file.as_ref());
            let keys = seen.filter(|file| file.name.starts_with(FOLDER));
            assert!(keys.clone().all(|file| (file.uid.as_str(), file.mode) == ("65534", 0o400)), "{key}");
            assert_eq!(keys.count(), if asks { 3 } else { 0 }, "{key}");
            assert_eq!(container.user.as_deref(), Some(USER), "{key}: nobody is in docker's group");
        }
    }

    #[test]
    fn a_folder_without_a_key_and_a_file_without_a_socket_are_refused() {
        let folder = folder();
        let certificates = RoleCertificates::read(folder.path()).unwrap();
        let error = instead_of_the_socket(Stack::new("ha"), certificates).unwrap_err().to_string();
        assert!(error.contains("--role-certs") && error.contains("docker.sock"), "{error}");
        assert!(OWN_FILE.contains(SOCKET));
        std::fs::remove_file(folder.path().join("key.pem")).unwrap();
        let error = format!("{:#}", RoleCertificates::read(folder.path()).map(drop).unwrap_err());
        assert!(error.contains("--role-certs") && error.contains("key.pem"), "{error}");
        for name in ["cert.pem", "ca.pem"] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
            assert!(RoleCertificates::read(folder.path()).is_err(), "{name}");
        }
    }
}

//! One text with a compare-and-set in the Swarm itself: a label of a config that nothing mounts.
//!
//! A config, because a service's label would do harm: each update of a service, even of a label, makes Swarm forget the
//! spec before the last one, and with it what a rollback goes back to. The managers keep a config by their own
//! consensus, refuse an update whose version is not the present one, and start no task for it.

use async_trait::async_trait;
use autoscaler::controller::{BoxError, Register};
use sha2::{Digest, Sha256};
use swarm_client::ModifyError;
use swarm_client::model::ConfigSpec;

/// The text of one config.
#[derive(Clone)]
pub struct SwarmRegister {
    swarm: swarm_client::Client,
    name: String,
}

impl SwarmRegister {
    /// The register of a service for this use; it is made when it is first written.
    pub fn new(swarm: swarm_client::Client, service: &str, used_for: &str) -> Self {
        Self { swarm, name: name(service, used_for) }
    }

    /// The config's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Removes it, if it is there.
    ///
    /// # Errors
    /// When the Swarm does not say that it is gone.
    pub async fn remove(&self) -> swarm_client::Result<()> {
        match self.swarm.configs().remove(&self.name).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Register for SwarmRegister {
    async fn get(&self) -> Result<Option<(String, u64)>, BoxError> {
        let found = self.swarm.configs().get_opt(&self.name).await?;
        // Without the label it is somebody else's: an empty text is none that we write, and is told as such.
        let text = |config: &swarm_client::model::Config| config.label(LABEL).unwrap_or_default().to_owned();
        Ok(found.map(|config| (text(&config), config.version.index)))
    }

    async fn put(&self, text: String, expected: Option<u64>) -> Result<bool, BoxError> {
        let Some(expected) = expected else {
            let spec = ConfigSpec::new(&self.name, WHAT_IT_IS).label(LABEL, text);
            return match self.swarm.configs().create(&spec).await {
                Ok(_) => Ok(true),
                Err(error) if error.is_already_exists() => Ok(false),
                Err(error) => Err(error.into()),
            };
        };
        let configs = self.swarm.configs();
        let put = configs.try_modify(&self.name, |config, spec| {
            // Also after a conflict, when it is read again: somebody else has written.
            if config.version.index != expected {
                return Err(Moved);
            }
            spec.labels.insert(LABEL.to_owned(), text.clone());
            Ok(())
        });
        match put.await {
            // A text that is there already would not be written, and so have no new version.
            Ok(modified) => Ok(modified.written),
            Err(ModifyError::Refused(Moved)) => Ok(false),
            Err(ModifyError::Swarm(error)) if error.is_not_found() => Ok(false),
            Err(ModifyError::Swarm(error)) => Err(error.into()),
            Err(error) => Err(error.to_string().into()),
        }
    }
}

/// The version is another one by now.
#[derive(Debug)]
struct Moved;

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("somebody else has written meanwhile")
    }
}

impl std::error::Error for Moved {}

/// A config's name has 64 characters at most, as has a service's: what is too long is told apart by its hash.
fn name(service: &str, used_for: &str) -> String {
    let name = format!("ha-scaler.{service}.{used_for}");
    if name.len() <= LONGEST {
        return name;
    }
    let digest = Sha256::digest(service.as_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let begin: String = service.chars().take(LONGEST - "ha-scaler..~".len() - 16 - used_for.len()).collect();
    format!("ha-scaler.{}-{hash}.{used_for}", begin.trim_end_matches(['.', '-', '_']))
}

const LABEL: &str = "ha-stack.register";
/// The managers refuse an empty config.
const WHAT_IT_IS: &str =
    "What the scalers of a service agree on stands in this config's label ha-stack.register.\n";
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_and_is_its_services_own() {
        assert_eq!(name("shop_web", "leader"), "ha-scaler.shop_web.leader");
        let long =
            |end: &str| name(&format!("{}{end}", "a-service-with-a-very-long-name".repeat(2)), "journal");
        assert!(long("1").len() <= LONGEST && long("1").starts_with("ha-scaler.a-service-"), "{}", long("1"));
        assert_ne!(long("1"), long("2"));
    }
}

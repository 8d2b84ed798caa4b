//! Giving a secret or config new content: a new one by content, references swapped, old ones collected.
//!
//! The name holds a part of the content's hash. Whoever can list the names can also mount what they name, so the hash tells
//! nobody anything that he could not read.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::info;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::{ContainerSpec, Service, ServiceSpec};
use crate::modify::Object;

/// The label by which earlier contents of one secret or config are found.
pub const ROTATION_LABEL: &str = "swarm-client.rotation";

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Rotation {
    /// The name that has the content now.
    pub name: String,
    /// False if it was there before.
    pub created: bool,
    /// The services that got it.
    pub services: Vec<String>,
    /// Earlier ones that were removed.
    pub removed: Vec<String>,
    /// Earlier ones that something still names.
    pub kept: Vec<String>,
}

/// What is the same for secrets and configs.
pub(crate) trait Blob: Object + Send + Sync {
    type Reference: Clone + PartialEq + Send;

    fn id(&self) -> &str;
    fn name(&self) -> &str;
    fn label(&self, key: &str) -> Option<&str>;
    fn list(client: &Client) -> impl Future<Output = Result<Vec<Self>>> + Send;
    fn create(
        client: &Client,
        name: &str,
        content: &[u8],
        label: (&str, &str),
    ) -> impl Future<Output = Result<()>> + Send;
    fn remove(&self, client: &Client) -> impl Future<Output = Result<()>> + Send;
    fn references(container: &ContainerSpec) -> &[Self::Reference];
    fn references_mut(container: &mut ContainerSpec) -> &mut Vec<Self::Reference>;
    fn referred(reference: &Self::Reference) -> &str;
    fn refer(&self, reference: &mut Self::Reference);
}

/// `base-0123456789ab`, by the content.
pub(crate) fn name_by_content(base: &str, content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{base}-{hex}")
}

pub(crate) async fn rotate<B: Blob>(
    client: &Client,
    base: &str,
    content: &[u8],
    deadline: Duration,
) -> Result<Rotation> {
    let start = Instant::now();
    let name = name_by_content(base, content);
    let mut rotation = Rotation { name: name.clone(), ..Rotation::default() };
    let mut all = B::list(client).await?;
    if !all.iter().any(|blob| blob.name() == name) {
        match B::create(client, &name, content, (ROTATION_LABEL, base)).await {
            Ok(()) => rotation.created = true,
            // Somebody else rotates to the same content.
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        all = B::list(client).await?;
    }
    let is_new = |blob: &B| blob.name() == name;
    let new = all
        .iter()
        .find(|blob| is_new(blob))
        .ok_or_else(|| Error::NotFound { kind: B::KIND, name: name.clone() })?;
    let old: Vec<&B> = all
        .iter()
        .filter(|blob| !is_new(blob) && (blob.name() == base || blob.label(ROTATION_LABEL) == Some(base)))
        .collect();
    let is_old = |id: &str| old.iter().any(|blob| blob.id() == id);

    for service in client.services().list().await?.iter().filter(|service| uses::<B>(&service.spec, &is_old))
    {
        let services = client.services();
        services.modify(service.id.as_str(), |spec| swap(spec, new, &is_old)).await?;
        let left = deadline.saturating_sub(start.elapsed());
        let outcome = services.rollout(service.id.as_str()).wait(left).await?;
        if !outcome.is_success() {
            let what = format!("rotate {} {base:?} in service {:?}", B::KIND, service.name());
            return Err(Error::Step { what, outcome: Box::new(outcome) });
        }
        info!(service = service.name(), name, "rotated");
        rotation.services.push(service.name().to_owned());
    }
    let services: Vec<Service> = client.services().list().await?;
    for blob in &old {
        let named = services.iter().any(|service| uses::<B>(&service.spec, &|id: &str| id == blob.id()));
        let result = if named { None } else { Some(blob.remove(client).await) };
        match result {
            Some(Ok(())) => rotation.removed.push(blob.name().to_owned()),
            Some(Err(error)) if error.is_not_found() => {}
            Some(Err(error)) if !error.is_in_use() => return Err(error),
            _ => rotation.kept.push(blob.name().to_owned()),
        }
    }
    Ok(rotation)
}

fn uses<B: Blob>(spec: &ServiceSpec, is_old: &dyn Fn(&str) -> bool) -> bool {
    let container = spec.task_template.container_spec.as_ref();
    container.is_some_and(|c| B::references(c).iter().any(|reference| is_old(B::referred(reference))))
}

fn swap<B: Blob>(spec: &mut ServiceSpec, new: &B, is_old: &dyn Fn(&str) -> bool) {
    let Some(container) = spec.task_template.container_spec.as_mut() else { return };
    let references = B::references_mut(container);
    for reference in references.iter_mut().filter(|reference| is_old(B::referred(reference))) {
        new.refer(reference);
    }
    // Two earlier contents of the same file are one now.
    let mut seen: Vec<B::Reference> = Vec::new();
    references.retain(|reference| {
        let first = !seen.contains(reference);
        seen.push(reference.clone());
        first
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_content() {
        // The SHA-256 of "abc" begins so (FIPS 180-2, appendix B.1).
        assert_eq!(name_by_content("pw", b"abc"), "pw-ba7816bf8f01");
    }
}

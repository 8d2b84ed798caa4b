//! Pinning an image: the tag as the registry has it now, as a digest.
//!
//! The engine takes a service's image as it is given, and each node pulls it when it first needs it, so that with a bare tag two
//! nodes can run different builds. Resolving is the client's part (docker/cli does the same before it creates a service).

use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::{Placement, ServiceSpec};
use crate::registry::RegistryAuth;
use crate::request::Request;

/// An image's name with the digest that its tag has now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PinnedImage {
    /// The name as it was given.
    pub name: String,
    /// The name with its digest: `web:1@sha256:…`.
    pub reference: String,
    /// What it can run on: operating system and architecture.
    pub platforms: Vec<(String, String)>,
}

impl PinnedImage {
    /// Sets this image in a spec, and that its tasks go to nodes that can run it only.
    pub fn apply(&self, spec: &mut ServiceSpec) {
        let container = spec.task_template.container_spec.get_or_insert_default();
        container.image.clone_from(&self.reference);
        let platforms: Vec<Value> = self
            .platforms
            .iter()
            .map(|(os, architecture)| json!({"OS": os, "Architecture": architecture}))
            .collect();
        if platforms.is_empty() {
            if let Some(placement) = spec.task_template.placement.as_mut() {
                placement.rest.remove("Platforms");
            }
        } else {
            let placement = spec.task_template.placement.get_or_insert_with(Placement::default);
            placement.rest.insert("Platforms".to_owned(), platforms.into());
        }
    }
}

impl Client {
    /// Asks the image's registry, through the engine, which digest its tag has now.
    ///
    /// # Errors
    /// If the registry does not answer the engine, does not know the image or wants other credentials; if the name has a
    /// digest that another image has.
    pub async fn pin_image(&self, image: &str, auth: Option<&RegistryAuth>) -> Result<PinnedImage> {
        let what = format!("resolve image {image:?}");
        let mut request = Request::get(what.clone(), &[]).raw_path("/distribution/", image, "/json");
        if let Some(auth) = auth {
            request = request.header(RegistryAuth::HEADER, auth.header());
        }
        let answer: Distribution = self.call(request).await?;
        pinned(image, answer).map_err(|problem| Error::Invalid { what, problem })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Distribution {
    descriptor: Descriptor,
    #[serde(default)]
    platforms: Option<Vec<Platform>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

fn pinned(image: &str, answer: Distribution) -> std::result::Result<PinnedImage, String> {
    let digest = answer.descriptor.digest;
    if !digest.starts_with("sha256:") {
        return Err("the registry named no digest; push the image again or use it without pinning".to_owned());
    }
    let (name, given) = match image.split_once('@') {
        Some((name, given)) => (name, Some(given)),
        None => (image, None),
    };
    if given.is_some_and(|given| given != digest) {
        return Err(format!("it names a digest, and the registry has {digest} for it; correct the name"));
    }
    // A name without a tag means this one, and the engine shows it so.
    let tagged = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let tag = if tagged || given.is_some() { "" } else { ":latest" };
    let mut platforms: Vec<(String, String)> = Vec::new();
    for platform in answer.platforms.unwrap_or_default() {
        // Attestations are listed like this, and run nowhere.
        if platform.os == "unknown" || platform.architecture == "unknown" {
            continue;
        }
        // Nodes report arm in ways that do not match an image's.
        let architecture = if platform.architecture == "arm" { String::new() } else { platform.architecture };
        let platform = (platform.os, architecture);
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(PinnedImage { name: image.to_owned(), reference: format!("{name}{tag}@{digest}"), platforms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(digest: &str, platforms: Value) -> Distribution {
        serde_json::from_value(json!({"Descriptor": {"digest": digest}, "Platforms": platforms})).unwrap()
    }

    #[test]
    fn a_tag_becomes_a_digest_and_platforms_are_tidied() {
        let platforms = json!([
            {"architecture": "amd64", "os": "linux"}, {"architecture": "arm", "os": "linux", "variant": "v7"},
            {"architecture": "arm", "os": "linux", "variant": "v6"}, {"architecture": "unknown", "os": "unknown"},
        ]);
        let web = pinned("r.example:5000/web:1", answer("sha256:ab", platforms)).unwrap();
        assert_eq!(web.reference, "r.example:5000/web:1@sha256:ab");
        assert_eq!(web.platforms, [("linux".into(), "amd64".into()), ("linux".into(), String::new())]);
        let mut spec = ServiceSpec::builder("web", "web").constraint("a==b").build();
        web.apply(&mut spec);
        assert_eq!(spec.task_template.container_spec.as_ref().unwrap().image, web.reference);
        let placement = spec.task_template.placement.clone().unwrap();
        assert_eq!(placement.constraints, ["a==b"]);
        assert_eq!(placement.rest["Platforms"][0], json!({"OS": "linux", "Architecture": "amd64"}));
        pinned("web", answer("sha256:cd", Value::Null)).unwrap().apply(&mut spec);
        assert!(spec.task_template.placement.unwrap().rest.is_empty());
    }

    #[test]
    fn names_of_all_forms() {
        let reference = |image| pinned(image, answer("sha256:ab", Value::Null)).map(|p| p.reference);
        assert_eq!(reference("r.example:5000/web").unwrap(), "r.example:5000/web:latest@sha256:ab");
        assert_eq!(reference("web:2@sha256:ab").unwrap(), "web:2@sha256:ab");
        assert_eq!(reference("web@sha256:ab").unwrap(), "web@sha256:ab");
        assert!(reference("web:2@sha256:other").unwrap_err().contains("the registry has sha256:ab"));
        assert!(pinned("web", answer("", Value::Null)).is_err());
    }
}

//! Secrets and configs: reading and writing them.

use std::convert::Infallible;
use std::time::Duration;

use serde::Deserialize;

use crate::client::Client;
use crate::error::{ModifyError, Result};
use crate::model::{
    Config, ConfigId, ConfigReference, ConfigSpec, ContainerSpec, Secret, SecretId, SecretReference,
    SecretSpec,
};
use crate::modify::{self, How, Modified, Object};
use crate::request::Request;
use crate::rotate::{self, Blob, Rotation};

macro_rules! api {
    ($what:literal, $path:literal, $api:ident, $object:ident, $spec:ident, $id:ident, $reference:ident, $refs:ident) => {
        #[doc = concat!("The ", $what, "s of the swarm. A `name` is an exact name or a full id, never a part of one.")]
        #[derive(Debug, Clone)]
        pub struct $api {
            client: Client,
        }

        impl $api {
            pub(crate) fn new(client: Client) -> Self {
                Self { client }
            }

            /// Creates one.
            ///
            /// # Errors
            /// [`Error::is_already_exists`](crate::Error::is_already_exists) if the name is taken.
            pub async fn create(&self, spec: &$spec) -> Result<$id> {
                #[derive(Deserialize)]
                struct Created {
                    #[serde(rename = "ID")]
                    id: $id,
                }
                let what = format!(concat!("create ", $what, " {:?}"), spec.name);
                let request = Request::post(what, &[$path, "create"]).json(spec)?;
                Ok(self.client.call::<Created>(request).await?.id)
            }

            /// Reads one.
            ///
            /// # Errors
            /// [`Error::is_not_found`](crate::Error::is_not_found) if it does not exist.
            pub async fn get(&self, name: impl AsRef<str>) -> Result<$object> {
                modify::get(&self.client, name.as_ref()).await
            }

            /// Reads one, or `None` if it does not exist.
            ///
            /// # Errors
            /// If it cannot be told whether it exists.
            pub async fn get_opt(&self, name: impl AsRef<str>) -> Result<Option<$object>> {
                modify::get_opt(&self.client, name.as_ref()).await
            }

            /// All of them.
            ///
            /// # Errors
            /// If they cannot be read.
            pub async fn list(&self) -> Result<Vec<$object>> {
                self.client.call(Request::get(concat!("list ", $what, "s"), &[$path])).await
            }

            /// Those with this label: `"key"` for any value of it, `"key=value"` for this one.
            ///
            /// # Errors
            /// If they cannot be read.
            pub async fn list_labelled(&self, label: impl AsRef<str>) -> Result<Vec<$object>> {
                let label = label.as_ref();
                let request = Request::get(concat!("list ", $what, "s"), &[$path]).filters(&[("label", label)]);
                let mut all: Vec<$object> = self.client.call(request).await?;
                all.retain(|object| match label.split_once('=') {
                    Some((key, value)) => object.label(key) == Some(value),
                    None => object.label(label).is_some(),
                });
                Ok(all)
            }

            /// Changes its labels; the managers refuse any other change.
            ///
            /// # Errors
            /// As for [`Services::modify`](crate::Services::modify).
            pub async fn modify(
                &self,
                name: impl AsRef<str>,
                mut change: impl FnMut(&mut $spec),
            ) -> Result<Modified<$spec>> {
                let how = How::repeatable(false);
                let result = modify::modify(&self.client, name.as_ref(), how, |_: &$object, spec| {
                    change(spec);
                    Ok::<(), Infallible>(())
                });
                modify::never_refused(result.await)
            }

            /// Like [`modify`](Self::modify), but the closure sees the whole object as it was read and may refuse. What it
            /// accepts is written only if nobody wrote since that read.
            ///
            /// # Errors
            /// The closure's refusal, or as for [`Services::modify`](crate::Services::modify).
            pub async fn try_modify<E>(
                &self,
                name: impl AsRef<str>,
                change: impl FnMut(&$object, &mut $spec) -> Result<(), E>,
            ) -> Result<Modified<$spec>, ModifyError<E>> {
                modify::modify(&self.client, name.as_ref(), How::repeatable(false), change).await
            }

            /// Removes one.
            ///
            /// # Errors
            /// [`Error::is_not_found`](crate::Error::is_not_found) if it does not exist;
            /// [`Error::is_in_use`](crate::Error::is_in_use) while a service's spec names it.
            pub async fn remove(&self, name: impl AsRef<str>) -> Result<()> {
                let object = self.get(name.as_ref()).await?;
                let what = format!(concat!("remove ", $what, " {:?}"), name.as_ref());
                self.client.call_unit(Request::delete(what, &[$path, object.id.as_str()])).await
            }

            /// Gives each service that uses `base` this content instead. Since the content of one cannot be changed, it
            /// creates one whose name tells the content (`base-` and the first 12 digits of its SHA-256), swaps the
            /// references in each service that uses an earlier one (or one named `base`), waits for its rollout, and
            /// removes the earlier ones that nothing names any more. Repeating it after a failure goes on where it
            /// stopped; the same content again changes nothing.
            ///
            /// # Errors
            /// [`Error::Step`](crate::Error::Step) if a service does not come up with it: what it had before stays.
            pub async fn rotate(
                &self,
                base: &str,
                content: impl AsRef<[u8]>,
                deadline: Duration,
            ) -> Result<Rotation> {
                rotate::rotate::<$object>(&self.client, base, content.as_ref(), deadline).await
            }
        }

        impl Object for $object {
            type Spec = $spec;
            const KIND: &'static str = $what;

            fn is_called(&self, name: &str) -> bool {
                self.id.as_str() == name || self.spec.name == name
            }

            fn spec(&self) -> &$spec {
                &self.spec
            }

            fn read(name: &str) -> Request {
                Request::get(format!(concat!("read ", $what, " {:?}"), name), &[$path, name])
            }

            fn replace(&self, what: String, spec: &$spec) -> Result<Request> {
                Request::post(what, &[$path, self.id.as_str(), "update"])
                    .query("version", &self.version.index.to_string())
                    .json(spec)
            }
        }

        impl Blob for $object {
            type Reference = $reference;

            fn id(&self) -> &str {
                self.id.as_str()
            }

            fn name(&self) -> &str {
                &self.spec.name
            }

            fn label(&self, key: &str) -> Option<&str> {
                self.label(key)
            }

            async fn list(client: &Client) -> Result<Vec<Self>> {
                $api::new(client.clone()).list().await
            }

            async fn create(client: &Client, name: &str, content: &[u8], label: (&str, &str)) -> Result<()> {
                let spec = $spec::new(name, content).label(label.0, label.1);
                $api::new(client.clone()).create(&spec).await.map(|_| ())
            }

            async fn remove(&self, client: &Client) -> Result<()> {
                $api::new(client.clone()).remove(self.id.as_str()).await
            }

            fn references(container: &ContainerSpec) -> &[$reference] {
                &container.$refs
            }

            fn references_mut(container: &mut ContainerSpec) -> &mut Vec<$reference> {
                &mut container.$refs
            }

            fn referred(reference: &$reference) -> &str {
                reference.id.as_str()
            }

            fn refer(&self, reference: &mut $reference) {
                reference.id = self.id.clone();
                reference.name.clone_from(&self.spec.name);
            }
        }
    };
}

api!("secret", "secrets", Secrets, Secret, SecretSpec, SecretId, SecretReference, secrets);
api!("config", "configs", Configs, Config, ConfigSpec, ConfigId, ConfigReference, configs);

//! Secrets and configs: small files that the managers hand to tasks. They cannot be changed, only replaced.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::scalar::{ConfigId, Rest, SecretId, Version, null_default};

macro_rules! blob {
    ($what:literal, $object:ident, $spec:ident, $id:ident, $reference:ident, $id_field:literal, $name_field:literal) => {
        #[doc = concat!("A ", $what, " as the managers keep it.")]
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase")]
        #[non_exhaustive]
        pub struct $object {
            /// Its id.
            #[serde(rename = "ID")]
            pub id: $id,
            /// The version that an update must carry.
            #[serde(default)]
            pub version: Version,
            /// What was asked for.
            #[serde(default)]
            pub spec: $spec,
            /// Everything else.
            #[serde(flatten)]
            pub rest: Rest,
        }

        impl $object {
            /// Its name.
            #[must_use]
            pub fn name(&self) -> &str {
                &self.spec.name
            }

            /// The value of one of its labels.
            #[must_use]
            pub fn label(&self, key: &str) -> Option<&str> {
                self.spec.labels.get(key).map(String::as_str)
            }
        }

        #[doc = concat!("What a ", $what, " is wanted to be. Only its labels can be changed later. Debug does not show the content.")]
        #[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase")]
        pub struct $spec {
            /// The name, which cannot be changed later.
            #[serde(default)]
            pub name: String,
            /// Labels.
            #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
            pub labels: BTreeMap<String, String>,
            /// The content in base64.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub data: Option<String>,
            /// Everything else.
            #[serde(flatten)]
            pub rest: Rest,
        }

        impl $spec {
            /// One of this name and content.
            #[must_use]
            pub fn new(name: impl Into<String>, content: impl AsRef<[u8]>) -> Self {
                Self { name: name.into(), data: Some(STANDARD.encode(content)), ..Self::default() }
            }

            /// Adds a label.
            #[must_use]
            pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
                self.labels.insert(key.into(), value.into());
                self
            }

            /// The content, if it is there and readable.
            #[must_use]
            pub fn content(&self) -> Option<Vec<u8>> {
                STANDARD.decode(self.data.as_ref()?).ok()
            }
        }

        impl fmt::Debug for $spec {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($spec))
                    .field("name", &self.name)
                    .field("labels", &self.labels)
                    .field("rest", &self.rest)
                    .finish_non_exhaustive()
            }
        }

        #[doc = concat!("A ", $what, " that a service's tasks see as a file.")]
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase")]
        pub struct $reference {
            /// The file; absent for what is no file.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub file: Option<FileTarget>,
            /// Which one, by id: this is what counts.
            #[serde(rename = $id_field, default)]
            pub id: $id,
            /// Its name, which must be that of the id.
            #[serde(rename = $name_field, default)]
            pub name: String,
            /// Everything else.
            #[serde(flatten)]
            pub rest: Rest,
        }

        impl $reference {
            /// The file `target`, owned by root.
            #[must_use]
            pub fn new(id: $id, name: impl Into<String>, target: impl Into<String>) -> Self {
                Self { file: Some(FileTarget::new(target)), id, name: name.into(), rest: Rest::default() }
            }
        }
    };
}

blob!("secret", Secret, SecretSpec, SecretId, SecretReference, "SecretID", "SecretName");
blob!("config", Config, ConfigSpec, ConfigId, ConfigReference, "ConfigID", "ConfigName");

/// Where a secret or config appears in a container.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileTarget {
    /// The file: a bare name is below `/run/secrets` for a secret, and below `/` for a config.
    #[serde(default)]
    pub name: String,
    /// The owner's number, as text.
    #[serde(rename = "UID", default)]
    pub uid: String,
    /// The group's number, as text.
    #[serde(rename = "GID", default)]
    pub gid: String,
    /// Its permission bits.
    #[serde(default)]
    pub mode: u32,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl FileTarget {
    /// This file, owned by root and readable by all in the container.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), uid: "0".into(), gid: "0".into(), mode: 0o444, rest: Rest::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_content_travels_in_base64_and_is_not_shown() {
        let spec = SecretSpec::new("pw", b"hunter2").label("a", "b");
        assert_eq!(
            serde_json::to_value(&spec).unwrap(),
            json!({"Name": "pw", "Labels": {"a": "b"}, "Data": "aHVudGVyMg=="})
        );
        assert_eq!(spec.content().unwrap(), b"hunter2");
        let shown = format!("{spec:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("aHVu"), "{shown}");
    }

    #[test]
    fn what_is_not_known_comes_back() {
        let config = json!({"ID": "c", "Version": {"Index": 3}, "CreatedAt": "x",
            "Spec": {"Name": "n", "Labels": {"a": "b"}, "Data": "aGk=", "Templating": {"Name": "golang"}}});
        let read: Config = serde_json::from_value(config.clone()).unwrap();
        assert_eq!(read.spec.content().unwrap(), b"hi");
        assert_eq!(serde_json::to_value(read).unwrap(), config);
        let reference = json!({"File": {"Name": "f", "UID": "1", "GID": "2", "Mode": 256, "X": 1}, "SecretID": "s",
            "SecretName": "n", "Y": [2]});
        let read: SecretReference = serde_json::from_value(reference.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), reference);
    }
}

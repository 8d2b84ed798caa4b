//! Credentials for a registry.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::json;

/// Credentials for a registry. Swarm keeps them with the service and hands them to the nodes that pull its image. Debug shows no
/// password.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    username: String,
    password: String,
    server: String,
}

impl RegistryAuth {
    /// User and password at a registry, such as `registry.example:5000`.
    pub fn new(server: impl Into<String>, username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into(), server: server.into() }
    }

    pub(crate) fn header(&self) -> String {
        let body =
            json!({"username": self.username, "password": self.password, "serveraddress": self.server});
        URL_SAFE.encode(body.to_string())
    }

    pub(crate) const HEADER: &'static str = "X-Registry-Auth";
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("username", &self.username)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_carries_the_password_and_debug_does_not() {
        let auth = RegistryAuth::new("r.example", "me", "hunter2");
        let header = URL_SAFE.decode(auth.header()).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header, json!({"username": "me", "password": "hunter2", "serveraddress": "r.example"}));
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}

//! Tokens.

use std::{collections::BTreeMap, fmt, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Link;
use crate::{request::millis, types::null_is_default};

/// A token. Fields that this crate does not know are kept when it is written back.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Token {
    /// What names it.
    #[serde(rename = "AccessorID")]
    pub accessor_id: String,
    #[serde(rename = "SecretID", default, skip_serializing_if = "String::is_empty")]
    secret_id: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// What it may do.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub policies: Vec<Link>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub roles: Vec<Link>,
    /// Whether it is of this data centre alone.
    #[serde(default)]
    pub local: bool,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Token {
    /// What is sent along with calls, if the answer had it.
    pub fn secret(&self) -> Option<SecretString> {
        (!self.secret_id.is_empty()).then(|| SecretString::from(self.secret_id.clone()))
    }

    /// When it ends (RFC 3339), if it does.
    pub fn expiration_time(&self) -> Option<&str> {
        self.rest.get("ExpirationTime").and_then(Value::as_str)
    }
}

/// By their content, secret included.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.accessor_id == other.accessor_id
            && self.secret_id == other.secret_id
            && self.description == other.description
            && self.policies == other.policies
            && self.roles == other.roles
            && self.local == other.local
            && self.rest == other.rest
    }
}

/// Without the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("accessor_id", &self.accessor_id)
            .field("description", &self.description)
            .field("policies", &self.policies)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

/// A token to be created. What is not set is not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[must_use]
pub struct NewToken {
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<Link>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<Link>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    service_identities: Vec<ServiceIdentity>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    local: bool,
    #[serde(rename = "ExpirationTTL", skip_serializing_if = "Option::is_none")]
    expiration_ttl: Option<String>,
    #[serde(rename = "SecretID", skip_serializing_if = "Option::is_none")]
    secret: Option<Hidden>,
}

/// Sent, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceIdentity {
    service_name: String,
}

impl NewToken {
    /// A note for people.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Has this secret, a UUID that nobody else can guess, rather than one that Consul draws: where whoever is to use the
    /// token was given it before. Refused when there is a token with it.
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secret = Some(Hidden(secret.into()));
        self
    }

    /// May do what the policy with this name says.
    pub fn policy(mut self, name: impl Into<String>) -> Self {
        self.policies.push(Link::by_name(name));
        self
    }

    /// Is what the role with this name says.
    pub fn role(mut self, name: impl Into<String>) -> Self {
        self.roles.push(Link::by_name(name));
        self
    }

    /// May register this service and find others.
    pub fn service_identity(mut self, service: impl Into<String>) -> Self {
        self.service_identities.push(ServiceIdentity { service_name: service.into() });
        self
    }

    /// Of this data centre alone.
    pub fn local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Ends after this time (1 minute to 24 hours unless the servers are set otherwise).
    pub fn expires_after(mut self, ttl: Duration) -> Self {
        self.expiration_ttl = Some(millis(ttl));
        self
    }
}

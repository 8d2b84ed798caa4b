//! Access control: tokens, policies, roles, auth methods, binding rules, login.

mod method;
mod policy;
mod token;

use http::Method;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    method::{AuthMethod, BindingRule},
    policy::{Link, Policy, Role},
    token::{NewToken, Token},
};
use crate::{Client, Query, Result, escape, request::Request};

/// See [`Client::acl`].
///
/// What is absent is denied: Consul 1.8 answers 403 "ACL not found" where others answer 404, so ask [`Error::is_denied`](crate::Error::is_denied).
/// With access control off, every call is denied too (401).
#[derive(Debug, Clone)]
pub struct Acl {
    client: Client,
}

impl Acl {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// The first token with all rights, once in the life of a cluster.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied) when it was done before.
    pub async fn bootstrap(&self) -> Result<Token> {
        self.send(Request::put("/v1/acl/bootstrap")).await
    }

    /// How the replication from the primary data centre goes.
    ///
    /// # Errors
    /// As any read.
    pub async fn replication(&self) -> Result<Replication> {
        self.send(Request::get("/v1/acl/replication")).await
    }

    /// All tokens, without their secrets.
    pub fn tokens(&self) -> Query<Token> {
        self.list("/v1/acl/tokens")
    }

    /// The token with this accessor id, with its secret if the caller may see it.
    ///
    /// # Errors
    /// As any read.
    pub async fn token(&self, accessor_id: &str) -> Result<Token> {
        self.send(Request::get(path("token", accessor_id)?).shown_as("/v1/acl/token/..")).await
    }

    /// The token that this client uses.
    ///
    /// # Errors
    /// As any read.
    pub async fn token_self(&self) -> Result<Token> {
        self.send(Request::get("/v1/acl/token/self")).await
    }

    /// Creates a token. Not repeated after a lost answer.
    ///
    /// # Errors
    /// As any write.
    pub async fn create_token(&self, token: &NewToken) -> Result<Token> {
        self.send(Request::put("/v1/acl/token").json(token)?).await
    }

    /// Writes a token back: the one with its accessor id becomes this.
    ///
    /// # Errors
    /// As any write.
    pub async fn update_token(&self, token: &Token) -> Result<Token> {
        let request = Request::put(path("token", &token.accessor_id)?).shown_as("/v1/acl/token/..");
        self.send(request.repeatable().json(token)?).await
    }

    /// A new token with the rights of this one. Not repeated after a lost answer.
    ///
    /// # Errors
    /// As any write.
    pub async fn clone_token(&self, accessor_id: &str, description: &str) -> Result<Token> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire<'a> {
            description: &'a str,
        }
        let path = format!("{}/clone", path("token", accessor_id)?);
        self.send(Request::put(path).shown_as("/v1/acl/token/../clone").json(&Wire { description })?).await
    }

    /// Deletes a token. Agents may go on to take it for their cache's lifetime (30 s).
    ///
    /// # Errors
    /// As any write.
    pub async fn delete_token(&self, accessor_id: &str) -> Result<()> {
        let request = Request::delete(path("token", accessor_id)?).shown_as("/v1/acl/token/..");
        self.client.call(&request.repeatable()).await.map(drop)
    }

    /// All policies, without their rules.
    pub fn policies(&self) -> Query<Policy> {
        self.list("/v1/acl/policies")
    }

    /// The policy with this id.
    ///
    /// # Errors
    /// As any read.
    pub async fn policy(&self, id: &str) -> Result<Policy> {
        self.send(Request::get(path("policy", id)?)).await
    }

    /// Creates a policy. Not repeated after a lost answer: its name is taken then.
    ///
    /// # Errors
    /// As any write; [`Error::Rejected`](crate::Error::Rejected) for wrong rules or a taken name.
    pub async fn create_policy(&self, policy: &Policy) -> Result<Policy> {
        self.send(Request::put("/v1/acl/policy").json(policy)?).await
    }

    /// Writes a policy back: the one with its id becomes this.
    ///
    /// # Errors
    /// As any write.
    pub async fn update_policy(&self, policy: &Policy) -> Result<Policy> {
        self.send(Request::put(path("policy", &policy.id)?).repeatable().json(policy)?).await
    }

    /// Deletes a policy.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete_policy(&self, id: &str) -> Result<()> {
        self.delete(path("policy", id)?).await
    }

    /// All roles.
    pub fn roles(&self) -> Query<Role> {
        self.list("/v1/acl/roles")
    }

    /// The role with this id.
    ///
    /// # Errors
    /// As any read.
    pub async fn role(&self, id: &str) -> Result<Role> {
        self.send(Request::get(path("role", id)?)).await
    }

    /// The role with this name.
    ///
    /// # Errors
    /// As any read.
    pub async fn role_by_name(&self, name: &str) -> Result<Role> {
        self.send(Request::get(path("role/name", name)?)).await
    }

    /// Creates a role. Not repeated after a lost answer: its name is taken then.
    ///
    /// # Errors
    /// As any write.
    pub async fn create_role(&self, role: &Role) -> Result<Role> {
        self.send(Request::put("/v1/acl/role").json(role)?).await
    }

    /// Writes a role back: the one with its id becomes this.
    ///
    /// # Errors
    /// As any write.
    pub async fn update_role(&self, role: &Role) -> Result<Role> {
        self.send(Request::put(path("role", &role.id)?).repeatable().json(role)?).await
    }

    /// Deletes a role.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete_role(&self, id: &str) -> Result<()> {
        self.delete(path("role", id)?).await
    }

    /// All auth methods.
    pub fn auth_methods(&self) -> Query<AuthMethod> {
        self.list("/v1/acl/auth-methods")
    }

    /// The auth method with this name.
    ///
    /// # Errors
    /// As any read.
    pub async fn auth_method(&self, name: &str) -> Result<AuthMethod> {
        self.send(Request::get(path("auth-method", name)?)).await
    }

    /// Creates an auth method. Not repeated after a lost answer: its name is taken then.
    ///
    /// # Errors
    /// As any write.
    pub async fn create_auth_method(&self, method: &AuthMethod) -> Result<AuthMethod> {
        self.send(Request::put("/v1/acl/auth-method").json(method)?).await
    }

    /// Writes an auth method back: the one with its name becomes this.
    ///
    /// # Errors
    /// As any write.
    pub async fn update_auth_method(&self, method: &AuthMethod) -> Result<AuthMethod> {
        self.send(Request::put(path("auth-method", &method.name)?).repeatable().json(method)?).await
    }

    /// Deletes an auth method, and with it the tokens that it gave.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete_auth_method(&self, name: &str) -> Result<()> {
        self.delete(path("auth-method", name)?).await
    }

    /// All binding rules.
    pub fn binding_rules(&self) -> Query<BindingRule> {
        self.list("/v1/acl/binding-rules")
    }

    /// Creates a binding rule. Not repeated after a lost answer.
    ///
    /// # Errors
    /// As any write.
    pub async fn create_binding_rule(&self, rule: &BindingRule) -> Result<BindingRule> {
        self.send(Request::put("/v1/acl/binding-rule").json(rule)?).await
    }

    /// Writes a binding rule back: the one with its id becomes this.
    ///
    /// # Errors
    /// As any write.
    pub async fn update_binding_rule(&self, rule: &BindingRule) -> Result<BindingRule> {
        self.send(Request::put(path("binding-rule", &rule.id)?).repeatable().json(rule)?).await
    }

    /// Deletes a binding rule.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete_binding_rule(&self, id: &str) -> Result<()> {
        self.delete(path("binding-rule", id)?).await
    }

    /// Trades what an auth method trusts (a JWT, a service account's token) for a token. Not repeated after a lost answer.
    ///
    /// # Errors
    /// [`Error::Denied`](crate::Error::Denied) when the method does not trust it, or no rule binds it.
    pub async fn login(&self, auth_method: &str, bearer: &secrecy::SecretString) -> Result<Token> {
        use secrecy::ExposeSecret as _;
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire<'a> {
            auth_method: &'a str,
            bearer_token: &'a str,
        }
        let wire = Wire { auth_method, bearer_token: bearer.expose_secret() };
        self.send(Request::new(Method::POST, "/v1/acl/login").json(&wire)?).await
    }

    /// Destroys the token that this client uses, which must come from [`login`](Self::login).
    ///
    /// # Errors
    /// As any write.
    pub async fn logout(&self) -> Result<()> {
        self.client.call(&Request::new(Method::POST, "/v1/acl/logout")).await.map(drop)
    }

    /// Rules in the language before Consul 1.4, in today's.
    ///
    /// # Errors
    /// As any read.
    pub async fn translate_rules(&self, rules: &str) -> Result<String> {
        let request = Request::new(Method::POST, "/v1/acl/rules/translate").repeatable();
        let raw = self.client.call(&request.bytes(rules.to_owned().into())).await?;
        Ok(String::from_utf8_lossy(&raw.body).into_owned())
    }

    fn list<T: DeserializeOwned>(&self, path: &str) -> Query<T> {
        Query::new(self.client.clone(), Ok(Request::get(path)))
    }

    async fn send<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        Ok(self.client.read(request).await?.value)
    }

    async fn delete(&self, path: String) -> Result<()> {
        self.client.call(&Request::delete(path).repeatable()).await.map(drop)
    }
}

/// How the replication of access control goes, in a data centre that is not the primary.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Replication {
    /// Whether it is on.
    pub enabled: bool,
    /// Whether it runs.
    pub running: bool,
    /// Where from.
    #[serde(default)]
    pub source_datacenter: String,
    /// How far the policies are.
    #[serde(default)]
    pub replicated_index: u64,
    /// When it last succeeded (RFC 3339); the year 1 for never.
    #[serde(default)]
    pub last_success: String,
    /// When it last failed; the year 1 for never.
    #[serde(default)]
    pub last_error: String,
}

fn path(what: &'static str, id: &str) -> Result<String> {
    Ok(format!("/v1/acl/{what}/{}", escape::path(what, id)?))
}

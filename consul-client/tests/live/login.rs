//! Trading a signed token of somebody else's for one of Consul's.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use consul_client::{AuthMethod, BindingRule, Client, Policy, Role};
use rustls::{
    SignatureScheme,
    crypto::aws_lc_rs::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    sign::SigningKey,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::agent::{Consul, eventually};

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_signed_token_is_traded_for_one_of_consuls() {
    let root = "c0ffee00-0000-0000-0000-000000000000";
    let rules = format!(
        r#"acl {{ enabled = true default_policy = "deny" token_ttl = "0s" policy_ttl = "0s" role_ttl = "0s" tokens {{ master = "{root}" }} }}"#
    );
    let consul = Consul::start_with(&["-hcl", &rules]).await;
    let operator = Client::builder().address(consul.address()).token(root).build().unwrap();
    let acl = operator.acl();
    eventually("the token is known", async || acl.token_self().await.is_ok()).await;
    acl.create_policy(&Policy::new("reader", r#"key_prefix "" { policy = "read" }"#)).await.unwrap();
    acl.create_role(&Role::new("readers", ["reader"])).await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let (trusted, stranger) = (Issuer::new(&dir.path().join("one")), Issuer::new(&dir.path().join("two")));
    let config = [
        ("JWTValidationPubKeys".to_owned(), json!([trusted.certificate])),
        ("JWTSupportedAlgs".to_owned(), json!(["ES256"])),
        ("BoundIssuer".to_owned(), json!("issuer")),
        ("ClaimMappings".to_owned(), json!({"name": "name"})),
    ];
    let mut method = acl.create_auth_method(&AuthMethod::new("sso", "jwt", config)).await.unwrap();
    method.description = "who signs".into();
    acl.update_auth_method(&method).await.unwrap();
    assert_eq!(acl.auth_method("sso").await.unwrap().description, "who signs");
    assert_eq!(acl.auth_methods().await.unwrap().value.len(), 1);
    let mut rule = acl.create_binding_rule(&BindingRule::new("sso", "role", "readers")).await.unwrap();
    rule.selector = "value.name==web".into();
    acl.update_binding_rule(&rule).await.unwrap();
    assert_eq!(acl.binding_rules().await.unwrap().value[0].selector, rule.selector);

    let anonymous = consul.client();
    let signed = [trusted.sign("other"), stranger.sign("web"), SecretString::from("no.token.at.all")];
    for refused in signed {
        let error = anonymous.acl().login("sso", &refused).await.unwrap_err();
        assert!(error.is_denied() && !error.maybe_applied(), "{error}");
        assert!(!format!("{error:?}").contains(refused.expose_secret()));
    }
    let token = anonymous.acl().login("sso", &trusted.sign("web")).await.unwrap();
    let web = anonymous.with_token(token.secret().unwrap().expose_secret()).unwrap();
    assert_eq!(web.kv().get("a").await.unwrap().value, None);
    assert!(web.kv().put("a", "x").await.unwrap_err().is_denied());
    web.acl().logout().await.unwrap();
    assert!(web.kv().get("a").await.unwrap_err().is_denied());
    acl.delete_binding_rule(&rule.id).await.unwrap();
    acl.delete_auth_method("sso").await.unwrap();
    assert!(acl.auth_methods().await.unwrap().value.is_empty());
}

/// One who signs; its key is made by Consul's own tool.
struct Issuer {
    certificate: String,
    key: Arc<dyn SigningKey>,
}

impl Issuer {
    fn new(dir: &Path) -> Self {
        std::fs::create_dir(dir).unwrap();
        let binary = std::env::var("CONSUL_BIN").unwrap_or_else(|_| "consul".to_owned());
        let made = Command::new(binary).args(["tls", "ca", "create"]).current_dir(dir).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let key = PrivateKeyDer::from_pem_file(dir.join("consul-agent-ca-key.pem")).unwrap();
        let certificate = std::fs::read_to_string(dir.join("consul-agent-ca.pem")).unwrap();
        Self { certificate, key: any_ecdsa_type(&key).unwrap() }
    }

    /// A JSON web token (RFC 7519), signed by ES256 (RFC 7518, 3.4).
    fn sign(&self, name: &str) -> SecretString {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({"iss": "issuer", "name": name, "iat": now, "nbf": now - 60, "exp": now + 600});
        let [head, claims] = [json!({"alg": "ES256", "typ": "JWT"}), claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let text = format!("{head}.{claims}");
        let signer = self.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        let signature = plain(&signer.sign(text.as_bytes()).unwrap());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)).into()
    }
}

/// The two numbers of a signature, of 32 bytes each, out of their ASN.1.
fn plain(der: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (&der[2..], Vec::new());
    for _ in 0..2 {
        let (number, more) = rest[2..].split_at(usize::from(rest[1]));
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        out.extend(std::iter::repeat_n(0, 32 - number.len()));
        out.extend_from_slice(number);
        rest = more;
    }
    out
}

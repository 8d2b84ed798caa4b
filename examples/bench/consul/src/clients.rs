//! The clients, behind the two calls that are measured. Each is set up as its own documentation does.

use base64::Engine as _;
use consulrs::client::{ConsulClient, ConsulClientSettingsBuilder};
use serde::{Deserialize, Deserializer};

/// A hundred bytes.
pub const VALUE: &[u8; 100] = &[b'x'; 100];

pub trait Client: Clone + Send + Sync + 'static {
    const NAME: &'static str;
    /// Reads a key; how long its value is.
    fn get(&self, key: &str) -> impl Future<Output = usize> + Send;
    fn put(&self, key: &str) -> impl Future<Output = ()> + Send;
}

#[derive(Clone)]
pub struct Ours(consul_client::Kv);

impl Ours {
    pub fn new(address: &str) -> Self {
        Self(consul_client::Client::builder().address(address).build().expect("a good address").kv())
    }
}

impl Client for Ours {
    const NAME: &'static str = "consul-client";

    async fn get(&self, key: &str) -> usize {
        self.0.get(key).await.expect("a read").value.expect("the key is there").value.len()
    }

    async fn put(&self, key: &str) {
        self.0.put(key, &VALUE[..]).await.expect("a write");
    }
}

/// reqwest with a pool and the same decoding; what one would write by hand.
#[derive(Clone)]
pub struct Reqwest {
    http: reqwest::Client,
    base: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(dead_code, reason = "decoded as the others do, and not looked at")]
pub struct Pair {
    key: String,
    #[serde(deserialize_with = "bytes")]
    pub value: Vec<u8>,
    flags: u64,
    create_index: u64,
    pub modify_index: u64,
    lock_index: u64,
    session: Option<String>,
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    base64::engine::general_purpose::STANDARD.decode(text).map_err(serde::de::Error::custom)
}

impl Reqwest {
    pub fn new(address: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().expect("a client");
        Self { http, base: format!("http://{address}/v1/kv/") }
    }

    pub async fn read(&self, key: &str, query: &str) -> Vec<Pair> {
        let answer = self.http.get(format!("{}{key}{query}", self.base)).send().await.expect("an answer");
        assert!(answer.status().is_success());
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("pairs")
    }
}

impl Client for Reqwest {
    const NAME: &'static str = "reqwest";

    async fn get(&self, key: &str) -> usize {
        self.read(key, "").await.first().expect("the key is there").value.len()
    }

    async fn put(&self, key: &str) {
        let sent = self.http.put(format!("{}{key}", self.base)).body(&VALUE[..]).send().await;
        let body = sent.expect("an answer").bytes().await.expect("a body");
        assert!(serde_json::from_slice::<bool>(&body).expect("a word"));
    }
}

#[derive(Clone)]
pub struct RsConsul(std::sync::Arc<rs_consul::Consul>);

impl RsConsul {
    pub fn new(address: &str) -> Self {
        let config = rs_consul::Config { address: format!("http://{address}"), ..Default::default() };
        Self(std::sync::Arc::new(rs_consul::Consul::new(config)))
    }
}

impl Client for RsConsul {
    const NAME: &'static str = "rs-consul";

    async fn get(&self, key: &str) -> usize {
        let request = rs_consul::types::ReadKeyRequest { key, ..Default::default() };
        let found = self.0.read_key(request).await.expect("a read");
        found.response.first().and_then(|pair| pair.value.as_ref()).expect("the key is there").len()
    }

    async fn put(&self, key: &str) {
        let request = rs_consul::types::CreateOrUpdateKeyRequest { key, ..Default::default() };
        assert!(self.0.create_or_update_key(request, VALUE.to_vec()).await.expect("a write").0);
    }
}

#[derive(Clone)]
pub struct Consulrs(std::sync::Arc<ConsulClient>);

impl Consulrs {
    pub fn new(address: &str) -> Self {
        let settings = ConsulClientSettingsBuilder::default().address(format!("http://{address}")).build();
        Self(std::sync::Arc::new(ConsulClient::new(settings.expect("settings")).expect("a client")))
    }
}

impl Client for Consulrs {
    const NAME: &'static str = "consulrs";

    async fn get(&self, key: &str) -> usize {
        let mut found = consulrs::kv::read(&*self.0, key, None).await.expect("a read");
        let pair = found.response.pop().expect("the key is there");
        let value: Vec<u8> = pair.value.expect("a value").try_into().expect("base64");
        value.len()
    }

    async fn put(&self, key: &str) {
        assert!(consulrs::kv::set(&*self.0, key, VALUE, None).await.expect("a write").response);
    }
}

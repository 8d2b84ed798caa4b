//! TLS and passwords, to Redis and to its Sentinels, under a CA of our own.

use crate::{add, create, find, servers::*};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use session_store::{StoreError, StoreOptions, TlsOptions, conformance};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A certificate authority, and where its certificates lie.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Ca {
    fn new(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        fs::write(folder.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    /// Issues a certificate for these names.
    fn issue(&self, file: &str, names: &[&str]) {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).to_str().unwrap().to_owned()
    }

    /// Settings of a server, in the form of its configuration file.
    fn settings(&self, port: u16, file: &str, asks_clients: bool) -> String {
        let asks = if asks_clients { "yes" } else { "no" };
        format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-replication yes\ntls-auth-clients {asks}\n\
             tls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}\n",
            self.path("ca.pem"),
            self.path(&format!("{file}.pem")),
            self.path(&format!("{file}.key")),
        )
    }
}

fn start(binary: &str, folder: &Path, port: u16, settings: &str) -> Server {
    let file = folder.join(format!("{port}.conf"));
    fs::write(&file, settings).unwrap();
    Server::start(binary, port, folder, &[file.to_str().unwrap().to_owned()])
}

async fn refused(url: &str, options: StoreOptions) -> StoreError {
    let begin = Instant::now();
    let store = match options.deadline(Duration::from_secs(3)).connect(url).await {
        Ok(store) => store,
        Err(error) => return error,
    };
    let error = store.load(&crate::key_of_nobody()).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server: ./test.sh runs it"]
async fn certificates_are_checked_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Ca::new(folder.path(), "ours"), Ca::new(folder.path(), "theirs"));
    ours.issue("redis", &["127.0.0.1", "redis.internal"]);
    ours.issue("named", &["redis.internal"]);
    ours.issue("client", &["web"]);
    theirs.issue("client", &["web"]);
    let port = free_port();
    let _server = start("redis-server", folder.path(), port, &ours.settings(port, "redis", false));
    let (url, ca) = (format!("rediss://127.0.0.1:{port}"), ours.path("ca.pem"));
    let store = session_store::connect(&format!("{url}?ca={ca}")).await.unwrap();
    store.health().await.unwrap();
    conformance::deletes_win_races(store.clone()).await;
    conformance::adds_add_up(&[store], 16, 20).await;
    let options = StoreOptions::new().tls(TlsOptions::new().ca_pem(fs::read(&ca).unwrap()));
    add(&*options.clone().connect(&url).await.unwrap(), &create_at(&url, options).await).await;

    for bad in [format!("{url}?ca={}", theirs.path("ca.pem")), url.clone()] {
        let error = refused(&bad, StoreOptions::new()).await;
        let text = error.to_string();
        assert!(!error.is_timeout() && (text.contains("certificate") || error.is_config()), "{text}");
    }
    let error = refused(&format!("{url}?ca={ca}&server-name=other.internal"), StoreOptions::new()).await;
    assert!(error.to_string().contains("NotValidForName"), "{error}");
    let plain = refused(&format!("redis://127.0.0.1:{port}"), StoreOptions::new()).await;
    assert!(plain.is_retryable(), "{plain}");

    // A server that asks for certificates, under a name that is not its address.
    let port = free_port();
    let _strict = start("redis-server", folder.path(), port, &ours.settings(port, "named", true));
    let url = format!("rediss://127.0.0.1:{port}?ca={ca}&server-name=redis.internal");
    let shown = |ca: &Ca| format!("{url}&cert={}&key={}", ca.path("client.pem"), ca.path("client.key"));
    session_store::connect(&shown(&ours)).await.unwrap().health().await.unwrap();
    for bad in [url.clone(), shown(&theirs)] {
        let error = refused(&bad, StoreOptions::new()).await;
        assert!(!error.to_string().contains("client.key"), "{error}");
    }
    let key = fs::read(ours.path("client.key")).unwrap();
    let options = StoreOptions::new().tls(TlsOptions::new().ca_pem(*b"nothing").client_pem(*b"x", key));
    let error = options.connect("rediss://127.0.0.1:1").await.unwrap_err();
    assert!(error.is_config(), "{error}");
}

async fn create_at(url: &str, options: StoreOptions) -> session_store::StoreKey {
    create(&*options.connect(url).await.unwrap()).await
}

/// Redis and Sentinels ask for TLS and for different logins; the master is lost all the same, and people log out.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs redis-server, redis-sentinel: ./test.sh runs it"]
async fn sentinels_are_asked_in_secret_too() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::new(folder.path(), "ca");
    ca.issue("host", &["127.0.0.1"]);
    let redis = |master: Option<u16>| {
        let port = free_port();
        let mut settings = ca.settings(port, "host", false);
        settings += "save \"\"\nrepl-diskless-sync-delay 0\nrequirepass one\nmasterauth one\n";
        settings += &format!("dbfilename {port}.rdb\n");
        if let Some(master) = master {
            settings += &format!("replicaof 127.0.0.1 {master}\n");
        }
        start("redis-server", folder.path(), port, &settings)
    };
    let master = redis(None);
    let _replica = redis(Some(master.port));
    let sentinels = (0..3).map(|_| {
        let port = free_port();
        let settings = ca.settings(port, "host", false)
            + &format!(
                "requirepass two\nuser web on >three ~* &* +@all\nsentinel monitor main 127.0.0.1 {} 2\n\
                 sentinel auth-pass main one\nsentinel down-after-milliseconds main 1000\n\
                 sentinel failover-timeout main 3000\n",
                master.port
            );
        start("redis-sentinel", folder.path(), port, &settings)
    });
    let sentinels = sentinels.collect::<Vec<_>>();
    let hosts = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
    let hosts = hosts.collect::<Vec<_>>().join(",");
    let base = format!("rediss+sentinel://:one@{hosts}/main?ca={}", ca.path("ca.pem"));
    let store =
        session_store::connect(&format!("{base}&sentinel-user=web&sentinel-password=three")).await.unwrap();
    poll("a replica confirms", async || store.delete(&crate::key_of_nobody()).await.is_ok()).await;
    let given = StoreOptions::new().sentinel_login(None, "two").connect(&base).await.unwrap();
    let (kept, gone) = (create(&*given).await, create(&*store).await);

    for (url, password) in [(base.clone(), None), (base.clone(), Some("wrong"))] {
        let options = password
            .into_iter()
            .fold(StoreOptions::new(), |options, password| options.sentinel_login(None, password));
        let error = refused(&url, options).await;
        let text = format!("{error} {error:?}");
        assert!(text.contains("Sentinel") && !text.contains("wrong") && !text.contains("three"), "{text}");
    }
    // The Sentinels have to know each other and the replica before they can elect it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(master);
    store.delete(&gone).await.map_or_else(
        |error| assert!(error.is_not_durable(), "{error}"), // the only replica is the master now: nobody is left to confirm
        |_| (),
    );
    assert_eq!(find(&*store, &gone).await, "over");
    add(&*given, &kept).await;
    drop(sentinels);
}

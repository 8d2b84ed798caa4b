//! TLS with client certificates, unix sockets, tokens from files and functions, DNS.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use consul_client::{
    Client, Error, NewToken, Policy, Tls,
    dns::{Dns, Name},
};
use secrecy::ExposeSecret as _;

use crate::{
    agent::{Consul, eventually, free_ports},
    web,
};

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn tls_with_client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let binary = std::env::var("CONSUL_BIN").unwrap_or_else(|_| "consul".to_owned());
    let tls = |args: &[&str]| {
        let made = Command::new(&binary).arg("tls").args(args).current_dir(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    tls(&["ca", "create"]);
    tls(&["cert", "create", "-server"]);
    tls(&["cert", "create", "-client"]);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let [https] = free_ports();
    let config = format!(
        r#"ports {{ https = {https} }} verify_incoming = true ca_file = "{}" cert_file = "{}" key_file = "{}""#,
        file("consul-agent-ca.pem"),
        file("dc1-server-consul-0.pem"),
        file("dc1-server-consul-0-key.pem")
    );
    let _consul = Consul::start_with(&["-hcl", &config]).await;
    let client = |tls: Tls| {
        let builder = Client::builder().address(format!("https://127.0.0.1:{https}")).tls(tls);
        builder.deadline(Duration::from_secs(2)).build().unwrap()
    };
    let trusted = || Tls::default().ca_file(file("consul-agent-ca.pem")).server_name("server.dc1.consul");
    let identity =
        |tls: Tls| tls.identity(file("dc1-client-consul-0.pem"), file("dc1-client-consul-0-key.pem"));
    let known = client(identity(trusted()));
    known.kv().put("a", "x").await.unwrap();
    assert_eq!(&known.kv().get("a").await.unwrap().value.unwrap().value[..], b"x");
    let mut watch = known.kv().watch("a");
    assert_eq!(watch.next().await.unwrap().items.len(), 1);
    let by_dir = Tls::default().ca_dir(dir.path()).server_name("server.dc1.consul");
    client(identity(by_dir)).kv().get("a").await.unwrap();
    // The certificate is also made out for this name and for the address.
    let by_address = Tls::default().ca_file(file("consul-agent-ca.pem"));
    client(identity(by_address)).kv().get("a").await.unwrap();
    client(identity(Tls::default().danger_accept_any_certificate())).kv().get("a").await.unwrap();
    for refused in [
        trusted(),
        identity(Tls::default()),
        identity(Tls::default().ca_file(file("consul-agent-ca.pem")).server_name("other.example")),
    ] {
        let error = client(refused.clone()).kv().get("a").await.unwrap_err();
        assert!(matches!(error, Error::NotSent { .. } | Error::NoAnswer { .. }), "{refused:?}: {error}");
    }
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock").display().to_string();
    let consul = Consul::start_at(&socket).await;
    let client = Client::builder().address(format!("unix://{socket}")).build().unwrap();
    client.kv().put("a", "x").await.unwrap();
    let calls = (0..100).map(|_| client.kv());
    let calls: Vec<_> = calls.map(|kv| tokio::spawn(async move { kv.get("a").await })).collect();
    for call in calls {
        assert!(call.await.unwrap().unwrap().value.is_some());
    }
    let mut watch = client.kv().watch("a");
    watch.next().await.unwrap();
    consul.client().kv().put("a", "y").await.unwrap();
    assert_eq!(&watch.next().await.unwrap().items[0].value[..], b"y");
    let gone = Client::builder()
        .address("unix:///nowhere.sock")
        .deadline(Duration::from_millis(300))
        .build()
        .unwrap();
    let error = gone.kv().get("a").await.unwrap_err();
    assert!(matches!(error, Error::NotSent { .. }) && error.to_string().contains("/nowhere.sock"), "{error}");
    // Both kinds side by side.
    let both = Client::builder().address("unix:///nowhere.sock").address(consul.address()).build().unwrap();
    both.kv().get("a").await.unwrap();
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn a_token_is_read_again_when_it_is_denied() {
    let root = "c0ffee00-0000-0000-0000-000000000000";
    let rules = format!(
        r#"acl {{ enabled = true default_policy = "deny" token_ttl = "0s" policy_ttl = "0s" tokens {{ master = "{root}" }} }}"#
    );
    let consul = Consul::start_with(&["-hcl", &rules]).await;
    let operator = Client::builder().address(consul.address()).token(root).build().unwrap();
    let acl = operator.acl();
    eventually("the token is known", async || acl.token_self().await.is_ok()).await;
    acl.create_policy(&Policy::new("writer", r#"key_prefix "" { policy = "write" }"#)).await.unwrap();
    let make = async || acl.create_token(&NewToken::default().policy("writer")).await.unwrap();
    let (first, second) = (make().await, make().await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, first.secret().unwrap().expose_secret()).unwrap();
    let by_file = Client::builder().address(consul.address()).token_file(&file).build().unwrap();
    by_file.kv().put("a", "1").await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, tokens) = (Arc::clone(&asked), [first.secret().unwrap(), second.secret().unwrap()]);
    let fetch = move || {
        let token = tokens[count.fetch_add(1, Ordering::SeqCst).min(1)].expose_secret().to_owned();
        async move { Ok::<_, std::io::Error>(token) }
    };
    let by_function = Client::builder().address(consul.address()).token_with(fetch).build().unwrap();
    by_function.kv().put("a", "2").await.unwrap();

    std::fs::write(&file, second.secret().unwrap().expose_secret()).unwrap();
    acl.delete_token(&first.accessor_id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    by_file.kv().put("a", "3").await.unwrap();
    by_function.kv().put("a", "4").await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // A handle's own token is its owner's business.
    let own = by_file.with_token(first.secret().unwrap().expose_secret()).unwrap();
    assert!(own.kv().put("a", "5").await.unwrap_err().is_denied());
    std::fs::remove_file(&file).unwrap();
    acl.delete_token(&second.accessor_id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(by_file.kv().put("a", "6").await.unwrap_err().is_denied());
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn names_in_dns() {
    let [port] = free_ports();
    let consul = Consul::start_with(&[
        "-hcl",
        &format!("ports {{ dns = {port} }} dns_config {{ enable_truncate = true }}"),
    ])
    .await;
    let client = consul.client();
    let dns = Dns::new(format!("127.0.0.1:{port}").parse().unwrap()).unwrap();
    assert!(dns.targets(&Name::service("web")).await.unwrap().is_empty());
    client.agent().register(&web("web-1", 81).weights(7, 1)).await.unwrap();
    client.agent().register(&web("web-2", 82).tag("b")).await.unwrap();
    let ports = async |name: Name| {
        let mut ports: Vec<_> = dns.targets(&name).await.unwrap().iter().map(|target| target.port).collect();
        ports.sort_unstable();
        ports
    };
    eventually("both are there", async || ports(Name::service("web")).await == [81, 82]).await;
    assert_eq!(ports(Name::service("web").tag("b")).await, [82]);
    assert_eq!(ports(Name::rfc2782("web", "tcp")).await, [81, 82]);
    assert_eq!(ports(Name::rfc2782("web", "b")).await, [82]);
    assert_eq!(ports(Name::service("web").datacenter("dc1")).await, [81, 82]);
    let target = dns.targets(&Name::service("web").tag("a")).await.unwrap();
    assert!(target.iter().any(|one| one.weight == 7 && one.addresses == ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]), "{target:?}");
    assert_eq!(dns.addresses(&Name::node("n1")).await.unwrap().len(), 1);
    assert!(dns.addresses(&Name::node("none")).await.unwrap().is_empty());
    client.prepared_queries().create(&consul_client::PreparedQuery::new("find-web", "web")).await.unwrap();
    assert_eq!(ports(Name::query("find-web")).await, [81, 82]);
    // Too many for a packet: the answer is asked for again over TCP.
    for i in 3..=80 {
        client.agent().register(&web(&format!("web-{i}"), 80 + i)).await.unwrap();
    }
    eventually("all are there", async || ports(Name::service("web")).await.len() == 80).await;
    let [nobody] = free_ports();
    let gone = Dns::new(format!("127.0.0.1:{nobody}").parse().unwrap()).unwrap();
    assert!(gone.targets(&Name::service("web")).await.is_err(), "silence is no empty answer");
}

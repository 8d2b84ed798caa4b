//! HashiCorp's variables and the forms of an address, each in a process of its own that knows nothing else.

use std::{
    error::Error as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use consul_client::{Client, Tls};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::agent::{Consul, eventually, free_ports};

/// Writes and reads a key with a client from the environment, and says how it went. Does nothing by itself.
#[tokio::test]
#[ignore = "the other tests of this file run it"]
async fn a_process_that_knows_the_environment_alone() {
    let Ok(key) = std::env::var("WRITE_KEY") else { return };
    let kv = match Client::builder_from_env() {
        Ok(builder) => builder.deadline(Duration::from_secs(3)).build().unwrap().kv(),
        Err(error) => return println!("said: {error}"),
    };
    match kv.put(&key, "x").await {
        Ok(()) => {
            println!("said: read {:?}", kv.get(&key).await.map(|found| found.value.map(|pair| pair.key)));
        }
        Err(error) => {
            let (mut causes, mut cause) = (Vec::new(), error.source());
            while let Some(deeper) = cause {
                causes.push(deeper.to_string());
                cause = deeper.source();
            }
            println!("said: {error}: {}", causes.join(": "));
        }
    }
}

/// What that process says with these variables and no others of Consul's.
async fn with(key: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "environment::a_process_that_knows_the_environment_alone",
        ])
        .stdin(Stdio::null());
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("CONSUL_") || name.contains("proxy"))
    {
        command.env_remove(name);
    }
    command.env("WRITE_KEY", key).envs(variables.iter().copied());
    let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let said = text.split("said: ").nth(1).and_then(|rest| rest.lines().next());
    said.unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// That it could write and read.
async fn works(key: &str, variables: &[(&str, &str)]) {
    assert_eq!(with(key, variables).await, format!("read Ok(Some({key:?}))"), "{variables:?}");
}

/// A proxy that takes calls below `/tools/consul` with a password, and passes them on without either.
async fn proxy(agent: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(pass_on(stream, agent.clone(), Arc::clone(&log)));
        }
    });
    (address, heads)
}

async fn pass_on(mut stream: TcpStream, agent: String, log: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    log.lock().unwrap().push(head.clone());
    // `user:secret`.
    let known = head.to_lowercase().contains("authorization: basic dxnlcjpzzwnyzxq=");
    let Some((method, rest)) = head.split_once(" /tools/consul/").filter(|_| known) else {
        return stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
            .await;
    };
    let mut upstream = TcpStream::connect(agent).await?;
    upstream.write_all(format!("{method} /{rest}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    upstream.write_all(&read[end + 4..]).await?;
    tokio::io::copy_bidirectional(&mut stream, &mut upstream).await.map(drop)
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn the_forms_of_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock").display().to_string();
    let consul = Consul::start_at(&socket).await;
    let (address, heads) = proxy(consul.address()).await;
    let port = consul.address().rsplit_once(':').unwrap().1.to_owned();
    for form in [
        consul.address(),
        format!("http://{}", consul.address()),
        format!("http://{}/", consul.address()),
        format!("localhost:{port}"),
        format!("unix://{socket}"),
    ] {
        works("forms/of", &[("CONSUL_HTTP_ADDR", &form)]).await;
        let client = Client::builder().address(&form).build().unwrap();
        assert!(client.kv().get("forms/of").await.unwrap().value.is_some(), "{form}");
        client.kv().delete("forms/of").await.unwrap();
    }

    // Behind a prefix: calls, a key that has to be escaped, a watch, a lock.
    let form = format!("http://{address}/tools/consul/");
    let auth = ("CONSUL_HTTP_AUTH", "user:secret");
    works("a b/ü?#", &[("CONSUL_HTTP_ADDR", &form), auth]).await;
    assert!(consul.client().kv().get("a b/ü?#").await.unwrap().value.is_some());
    assert!(heads.lock().unwrap().iter().all(|head| head.contains(" /tools/consul/v1/kv/a%20b/")));
    let said = with("other", &[("CONSUL_HTTP_ADDR", form.as_str())]).await;
    assert!(said.contains("403"), "without the password: {said}");
    let said = with("other", &[("CONSUL_HTTP_ADDR", &format!("http://{address}")), auth]).await;
    assert!(said.contains("403"), "without the prefix: {said}");
    // Both arrive at the server, which is one without them.
    for (name, sign) in [("CONSUL_NAMESPACE", "ns=team"), ("CONSUL_PARTITION", "partition=team")] {
        let _ = with("other", &[("CONSUL_HTTP_ADDR", form.as_str()), auth, (name, "team")]).await;
        assert!(heads.lock().unwrap().iter().any(|head| head.contains(sign)), "{name}");
    }
    let said = with("other", &[("CONSUL_HTTP_ADDR", &form), auth, ("CONSUL_NAMESPACE", "team")]).await;
    assert!(said.contains("400"), "{said}");
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn every_variable_of_hashicorps_is_heeded() {
    let dir = tempfile::tempdir().unwrap();
    let binary = std::env::var("CONSUL_BIN").unwrap_or_else(|_| "consul".to_owned());
    for args in [["ca", "create", ""], ["cert", "create", "-server"], ["cert", "create", "-client"]] {
        let args = args.iter().filter(|arg| !arg.is_empty());
        let made = Command::new(&binary).arg("tls").args(args).current_dir(dir.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, cert, key) =
        (file("consul-agent-ca.pem"), file("dc1-client-consul-0.pem"), file("dc1-client-consul-0-key.pem"));
    let ca_dir = dir.path().join("authorities");
    std::fs::create_dir(&ca_dir).unwrap();
    std::fs::copy(&ca, ca_dir.join("ca.pem")).unwrap();
    let ca_dir = ca_dir.display().to_string();
    let (root, [https]) = ("c0ffee00-0000-0000-0000-000000000000", free_ports());
    let config = format!(
        r#"ports {{ https = {https} }} verify_incoming = true ca_file = "{ca}" cert_file = "{}" key_file = "{}"
        acl {{ enabled = true default_policy = "deny" tokens {{ master = "{root}" }} }}"#,
        file("dc1-server-consul-0.pem"),
        file("dc1-server-consul-0-key.pem")
    );
    let consul = Consul::start_with(&["-hcl", &config]).await;
    let tls = Tls::default().ca_file(&ca).identity(&cert, &key);
    let operator =
        Client::builder().address(format!("https://127.0.0.1:{https}")).tls(tls).token(root).build().unwrap();
    eventually("the token is known", async || operator.acl().token_self().await.is_ok()).await;
    let address = consul.address();
    let plain = |more: [(&'static str, String); 1]| [("CONSUL_HTTP_ADDR", address.clone()), more[0].clone()];

    // Tokens.
    let said = with("a", &[("CONSUL_HTTP_ADDR", address.as_str())]).await;
    assert!(said.contains("403"), "{said}");
    let token_file = file("token");
    std::fs::write(&token_file, format!("{root}\n")).unwrap();
    for [(a, b), (c, d)] in [
        plain([("CONSUL_HTTP_TOKEN", root.to_owned())]),
        plain([("CONSUL_HTTP_TOKEN_FILE", token_file.clone())]),
    ] {
        works("a", &[(a, &b), (c, &d)]).await;
    }
    let file_wins = [
        ("CONSUL_HTTP_ADDR", address.as_str()),
        ("CONSUL_HTTP_TOKEN", "wrong"),
        ("CONSUL_HTTP_TOKEN_FILE", token_file.as_str()),
    ];
    works("a", &file_wins).await;

    // TLS.
    let secure = format!("127.0.0.1:{https}");
    let host = format!("localhost:{https}");
    let base = [
        ("CONSUL_HTTP_TOKEN", root),
        ("CONSUL_CLIENT_CERT", cert.as_str()),
        ("CONSUL_CLIENT_KEY", key.as_str()),
    ];
    let run = |more: &[(&'static str, String)]| {
        let all: Vec<(&'static str, String)> = base
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .chain(more.iter().cloned())
            .collect();
        async move {
            let all: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
            with("b", &all).await
        }
    };
    let on = ("CONSUL_HTTP_SSL", "true".to_owned());
    let trusted = ("CONSUL_CACERT", ca.clone());
    let good = format!("read Ok(Some({:?}))", "b");
    let named = |name: &str| ("CONSUL_TLS_SERVER_NAME", name.to_owned());
    let at = |address: &str| ("CONSUL_HTTP_ADDR", address.to_owned());
    for variables in [
        vec![at(&secure), on.clone(), trusted.clone()],
        vec![at(&format!("https://{secure}")), trusted.clone()],
        // What was switched on is not taken back by a scheme.
        vec![at(&format!("http://{secure}")), on.clone(), trusted.clone()],
        vec![at(&host), on.clone(), trusted.clone(), named("server.dc1.consul")],
        vec![at(&secure), on.clone(), ("CONSUL_CAPATH", ca_dir)],
        vec![at(&secure), on.clone(), ("CONSUL_HTTP_SSL_VERIFY", "false".to_owned())],
    ] {
        assert_eq!(run(&variables).await, good, "{variables:?}");
    }
    for (variables, sign) in [
        (vec![at(&secure), on.clone()], "certificate"),
        (vec![at(&secure), on.clone(), trusted.clone(), named("other.example")], "certificate"),
        (vec![at(&secure), on.clone(), trusted, ("CONSUL_CLIENT_KEY", String::new())], "CONSUL_CLIENT_KEY"),
        (vec![at(&secure), ("CONSUL_HTTP_SSL", "perhaps".to_owned())], "CONSUL_HTTP_SSL"),
    ] {
        let said = run(&variables).await;
        assert!(said.contains(sign), "{variables:?}: {said}");
    }
}

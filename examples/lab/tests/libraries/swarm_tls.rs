//! Engines that speak TLS alone, and ask everybody for a certificate: a lab of its own, since an engine has one setting for all
//! its ports.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bollard::body_full;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use lab::{Host, Lab, Options};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use swarm_client::engines::{EnginePool, Scheduler, StaticNodes, Strategy};
use swarm_client::{Client, Outcome, Result, Tls, bollard};

use super::support::{DownAtLast, image_tar, left_overs};
use super::swarm::{converge, redis, running};
use super::told;

pub(crate) async fn engines_answer_those_who_have_a_certificate_alone() {
    assert!(Lab::attach().unwrap().is_none(), "a lab is up, and this test needs one of its own: lab down");
    let _down = DownAtLast::new(env!("CARGO_BIN_EXE_lab"));
    let start = Instant::now();
    let lab = Lab::up_with(&Options::default().tls(true)).await.unwrap();
    told("lab with TLS up", start);
    let dir = lab.hosts()[0].certificates().unwrap().to_owned();

    strangers_are_refused(&lab.hosts()[0], &dir).await;
    told("strangers are refused", start);
    docker_itself_is_let_in(&lab);
    let swarm = client(lab.hosts(), &dir).await.unwrap();
    images_and_commands_go_through_bollard(lab.hosts(), &dir).await;
    told("bollard's calls and an exec", start);

    let spec = redis("behind").publish_host(7000, None).dnsrr().replicas(3).build();
    swarm.services().create(&spec).await.unwrap();
    assert!(matches!(converge(&swarm, "behind").await, Outcome::Converged { .. }));
    a_pool_of_engines_is_reached_too(lab.hosts(), &dir).await;
    told("a service converged, and a pool lists it", start);

    // The loss of a manager: the next one asks for the same certificate.
    let leader = lab.leaders().await.unwrap().swarm.unwrap();
    lab.power_off(&leader).await.unwrap();
    let lost = Instant::now();
    while swarm.services().scale("behind", 2).await.is_err() {
        assert!(lost.elapsed() < Duration::from_secs(60), "no manager took a write within a minute");
    }
    told("the leader's host is off, and another manager took a write", lost);
    assert!(running(&swarm, "behind").await.len() >= 2);
    lab.power_on(&leader).await.unwrap();
    told("and it is back", lost);

    lab.down().await.unwrap();
    assert_eq!(left_overs(), Vec::<String>::new());
}

async fn client(hosts: &[Host], dir: &Path) -> Result<Client> {
    let builder = Client::builder().tls(Tls::from_dir(dir)?).connect_timeout(Duration::from_secs(1));
    let builder = hosts.iter().fold(builder, |builder, host| builder.endpoint(url(host)));
    builder.request_timeout(Duration::from_secs(5)).connect().await
}

fn url(host: &Host) -> String {
    host.docker_endpoint().replacen("tcp://", "https://", 1)
}

/// Each many times over: an engine's refusal and the end of its connection are two packets.
async fn strangers_are_refused(host: &Host, dir: &Path) {
    let ca = std::fs::read(dir.join("ca.pem")).unwrap();
    let (other_ca, cert, key) = of_another_authority();
    let ours = (std::fs::read(dir.join("cert.pem")).unwrap(), std::fs::read(dir.join("key.pem")).unwrap());
    let stranger = Some((cert.as_bytes(), key.as_bytes()));
    let cases = [
        (Tls::from_pem(&ca, None), "asks for a client certificate, and there is none"),
        (Tls::from_pem(&ca, stranger), "refuses this client's certificate (cert.pem)"),
        (
            Tls::from_pem(other_ca.as_bytes(), Some((&ours.0, &ours.1))),
            "the engine's certificate is not of the authority in ca.pem",
        ),
    ];
    for (tls, why) in cases {
        let tls = tls.unwrap();
        for _ in 0..20 {
            let error = Client::builder().endpoint(url(host)).tls(tls.clone()).connect().await.unwrap_err();
            let text = error.to_string();
            assert!(error.is_unreachable() && !error.is_retryable() && text.contains(why), "{why}: {text}");
        }
    }
    let plain = Client::builder().endpoint(host.docker_endpoint()).connect().await.unwrap_err().to_string();
    assert!(plain.contains("set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH"), "{plain}");
    assert!(std::net::TcpStream::connect((host.addr, 2375)).is_err(), "it listens in the clear too");
}

/// An authority, and a client's certificate of it.
fn of_another_authority() -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap().pem();
    let (issuer, key) = (Issuer::new(params, key), KeyPair::generate().unwrap());
    let cert = CertificateParams::new(["stranger".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (ca, cert.pem(), key.serialize_pem())
}

/// The same variables do for docker's own command line.
fn docker_itself_is_let_in(lab: &Lab) {
    let said = Command::new("docker").args(["node", "ls", "-q"]).envs(lab.env()).output().unwrap();
    let (nodes, errors) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(nodes.lines().count(), lab.hosts().len(), "{nodes}{errors}");
}

async fn images_and_commands_go_through_bollard(hosts: &[Host], dir: &Path) {
    let tar = bytes::Bytes::from(image_tar());
    for host in hosts {
        let engine = client(std::slice::from_ref(host), dir).await.unwrap().bollard().unwrap();
        let options = CreateImageOptionsBuilder::new().from_src("-").repo("lab-test").tag("1").build();
        let mut made = engine.create_image(Some(options), Some(body_full(tar.clone())), None);
        while let Some(step) = made.next().await {
            step.unwrap();
        }
        engine.inspect_image("lab-test:1").await.unwrap();
    }
    // An exec turns the connection into one of its own.
    let engine = client(&hosts[..1], dir).await.unwrap().bollard().unwrap();
    let body = serde_json::from_value(serde_json::json!({
        "Image": "lab-test:1", "Cmd": ["/usr/bin/redis-server", "--port", "7100", "--save", ""],
    }));
    let made = engine.create_container(None, body.unwrap()).await.unwrap();
    engine.start_container(&made.id, None).await.unwrap();
    let command = ["/usr/bin/redis-server", "--version"].map(str::to_owned).to_vec();
    let config = ExecConfig { cmd: Some(command), attach_stdout: Some(true), ..ExecConfig::default() };
    let exec = engine.create_exec(&made.id, config).await.unwrap();
    let StartExecResults::Attached { mut output, .. } = engine.start_exec(&exec.id, None).await.unwrap()
    else {
        panic!("it is not attached");
    };
    let mut said = String::new();
    while let Some(piece) = output.next().await {
        said.push_str(&piece.unwrap().to_string());
    }
    assert!(said.starts_with("Redis server v="), "{said:?}");
    let force = bollard::query_parameters::RemoveContainerOptionsBuilder::new().force(true).build();
    engine.remove_container(&made.id, Some(force)).await.unwrap();
}

async fn a_pool_of_engines_is_reached_too(hosts: &[Host], dir: &Path) {
    let list: Vec<String> =
        hosts.iter().map(|host| host.docker_endpoint().trim_start_matches("tcp://").to_owned()).collect();
    let nodes = std::sync::Arc::new(StaticNodes::new(&list.join(",")).unwrap());
    let plain = EnginePool::new(nodes, Scheduler::new(Strategy::Spread));
    assert!(plain.refresh().await.unwrap().iter().all(|engine| !engine.reached));
    let pool = plain.with_tls(Tls::from_dir(dir).unwrap());
    let engines = pool.refresh().await.unwrap();
    assert!(engines.iter().all(|engine| engine.reached), "{engines:?}");
    assert_eq!(pool.list().await.unwrap().len(), 3);
}

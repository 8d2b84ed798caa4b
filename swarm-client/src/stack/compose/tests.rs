use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(text: &str) -> Result<Stack, ComposeError> {
    let variable = |name: &str| match name {
        "TAG" => Some("1.2".to_owned()),
        "PASSED" => Some("through".to_owned()),
        _ => None,
    };
    let file = |path: &str| match path {
        "pw.txt" => Ok(b"hunter2".to_vec()),
        "web.env" => Ok(b"# comment\nFROM_FILE=1\nA=file\n".to_vec()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    Stack::from_compose("shop", text, &Context { variable: &variable, file: &file })
}

#[test]
fn a_full_file_is_what_the_engine_reads() {
    let text = r#"
version: "3.9"
x-common: &common
  logging: {driver: local, options: {max-size: 1m}}
services:
  web:
    <<: *common
    image: "web:${TAG}"
    command: serve --name "a b"
    entrypoint: ["/web"]
    environment: {A: own, PASSED:, NUMBER: 5}
    env_file: web.env
    hostname: "{{.Task.Slot}}"
    labels: [tier=front]
    stop_grace_period: 20s
    healthcheck: {test: curl -f localhost, interval: 1m30s, retries: 3}
    cap_add: [net_admin]
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    extra_hosts: ["db:10.0.0.1"]
    dns: 1.1.1.1
    ports: ["8080:80", {target: 81, published: 8081, mode: host, protocol: udp}]
    volumes: ["data:/data", "/etc/x:/x:ro", {type: tmpfs, target: /t, tmpfs: {size: 1M}}]
    networks: {back: {aliases: [shopfront]}}
    secrets: [{source: pw, target: password, mode: 0400}]
    configs: [page]
    deploy:
      replicas: 3
      labels: {team: a}
      endpoint_mode: dnsrr
      placement: {constraints: ["node.role==worker"], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}
      resources: {limits: {cpus: "0.5", memory: 64M, pids: 9}, reservations: {memory: 32M}}
      restart_policy: {condition: on-failure, delay: 2s, max_attempts: 3}
      update_config: {delay: 1s, order: start-first, failure_action: rollback, max_failure_ratio: 0.25}
  agent:
    image: agent
    deploy: {mode: global}
networks:
  back: {driver: overlay, attachable: true}
volumes: {data: {driver: local}}
secrets: {pw: {file: pw.txt}}
configs: {page: {content: hello}}
"#;
    let stack = read(text).unwrap();
    let web = serde_json::to_value(&stack.services["web"]).unwrap();
    assert_eq!(
        web,
        json!({
            "Name": "web",
            "Labels": {"team": "a"},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "web:1.2",
                    "Labels": {"tier": "front"},
                    "Command": ["/web"],
                    "Args": ["serve", "--name", "a b"],
                    "Hostname": "{{.Task.Slot}}",
                    "Env": ["A=own", "FROM_FILE=1", "NUMBER=5", "PASSED=through"],
                    "StopGracePeriod": 20_000_000_000_i64,
                    "Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 90_000_000_000_i64, "Retries": 3},
                    "Mounts": [
                        {"Type": "volume", "Source": "shop_data", "Target": "/data", "VolumeOptions": {
                            "Labels": {"com.docker.stack.namespace": "shop"}, "DriverConfig": {"Name": "local", "Options": {}}}},
                        {"Type": "bind", "Source": "/etc/x", "Target": "/x", "ReadOnly": true},
                        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1_048_576}},
                    ],
                    "Secrets": [{"File": {"Name": "password", "UID": "0", "GID": "0", "Mode": 256}, "SecretID": "", "SecretName": "pw"}],
                    "Configs": [{"File": {"Name": "/page", "UID": "0", "GID": "0", "Mode": 292}, "ConfigID": "", "ConfigName": "page"}],
                    "CapabilityAdd": ["CAP_NET_ADMIN"],
                    "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}, {"Name": "nproc", "Soft": 5, "Hard": 5}],
                    "Hosts": ["10.0.0.1 db"],
                    "DNSConfig": {"Nameservers": ["1.1.1.1"]},
                },
                "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 9}, "Reservations": {"MemoryBytes": 33_554_432}},
                "RestartPolicy": {"Condition": "on-failure", "Delay": 2_000_000_000, "MaxAttempts": 3},
                "Placement": {"Constraints": ["node.role==worker"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 2},
                "Networks": [{"Target": "back", "Aliases": ["shopfront"]}],
                "LogDriver": {"Name": "local", "Options": {"max-size": "1m"}},
            },
            "Mode": {"Replicated": {"Replicas": 3}},
            "UpdateConfig": {"Parallelism": 1, "Delay": 1_000_000_000, "FailureAction": "rollback", "MaxFailureRatio": 0.25, "Order": "start-first"},
            "EndpointSpec": {"Mode": "dnsrr", "Ports": [
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
                {"Protocol": "udp", "TargetPort": 81, "PublishedPort": 8081, "PublishMode": "host"},
            ]},
        })
    );
    assert!(stack.services["agent"].mode.global.is_some());
    assert!(!format!("{stack:?}").contains("hunter2"));
}

#[test]
fn all_problems_are_told_at_once_with_their_keys() {
    let text = r#"
services:
  web:
    build: .
    image: web
    restart: always
    depends_on: [db]
    nonsense: 1
    ports: ["127.0.0.1:80:80"]
    volumes: ["./here:/there", "missing:/x"]
    networks: [nowhere]
    secrets: [unknown]
    environment: {A: "$UNSET"}
    deploy: {mode: global, replicas: 2, update_config: {order: sideways}, resources: {limits: {memory: lots}}}
  empty: {}
networks: {n: {driver: overlay, mtu: 5}}
secrets: {s: {file: gone.txt}, t: {}}
stray: 1
"#;
    let error = read(text).unwrap_err();
    let told = error.to_string();
    for expected in [
        "services.web.build: Swarm cannot honour this; build the image, push it, and name it in `image`",
        "services.web.restart: Swarm cannot honour this; use `deploy.restart_policy`",
        "services.web.depends_on: Swarm cannot honour this",
        "services.web.nonsense: this key is not known",
        "services.web.ports[0]: Swarm publishes on all of a node's addresses",
        "services.web.volumes[0]: the path \"./here\" would be another on each node",
        "services.web.volumes[1]: the file has no volume \"missing\"",
        "services.web uses network \"nowhere\"",
        "services.web uses secret \"unknown\"",
        "services.web.environment.A: the variable UNSET is not set",
        "services.web.deploy.mode: a global service has no number of replicas",
        "services.web.deploy.update_config.order: \"sideways\" is not stop-first or start-first",
        "services.web.deploy.resources.limits.memory: \"lots\" is not a size such as 64M",
        "services.empty: it has no image",
        "networks.n.mtu: Swarm's networks have no such setting",
        "secrets.s.file: the file \"gone.txt\" cannot be read",
        "secrets.t: it needs exactly one of",
        "stray: this key is not known",
    ] {
        assert!(told.contains(expected), "{expected} is not in {told}");
    }
}

#[test]
fn what_is_no_compose_file_is_refused() {
    for text in [
        "",
        "[]",
        "5",
        "services: [",
        "services: {web: {image: a}}\nservices: {web: {image: b}}",
        "version: 2\nservices: {a: {image: b}}",
        "a: &a [*a]",
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    // Many small anchors that would unfold into gigabytes.
    let mut bomb = "x-a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        bomb.push_str(&format!("x-a{level}: &a{level} [{}]\n", vec![format!("*a{before}"); 9].join(",")));
    }
    assert!(read(&bomb).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_text_makes_it_panic(text in "([a-z]{0,9}|services:|  web:|    image: a|    ports: |    deploy:|- |[\\[\\]{}:&*!|>'\"$#,\n -]){0,40}") {
        let _ = read(&text);
    }

    #[test]
    fn no_value_of_any_key_makes_it_panic(
        key in proptest::sample::select(vec!["image", "command", "environment", "ports", "volumes", "networks", "secrets", "configs",
            "deploy", "healthcheck", "ulimits", "logging", "dns", "extra_hosts", "labels", "tmpfs", "env_file", "cap_add", "build"]),
        value in proptest::sample::select(vec!["null", "5", "text", "[]", "[5]", "[[x]]", "{}", "{a: b}", "{mode: [x]}", "[{a: 1}]", "{test: {}}",
            "[{target: 99999}]", "{replicas: -1}", "{resources: 5}", "true", "-.inf", "[null]", "{a: null}", "[{source: 5}]"]),
    ) {
        let _ = read(&format!("services: {{web: {{image: a, {key}: {value}}}}}"));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&String::from_utf8_lossy(&bytes));
    }
}

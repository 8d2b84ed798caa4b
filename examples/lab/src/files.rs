//! What stands in a host's files: its start script and the configuration of its daemons. Pure text.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::json;

use crate::folder::Folder;
use crate::plan::{
    CONSUL_PORT, DOCKER_PORT, DOCKER_TLS_PORT, GATEWAY_PORT, Host, REDIS_MASTER, REDIS_PORT, SENTINEL_PORT,
    VIRTUAL_ADDR,
};

/// The script that is PID 1 of the host: it furnishes the namespace, keeps the daemons running, reaps orphans. A daemon
/// whose name stands in the folder `hold` stays down until it is gone from there.
pub(crate) fn init(host: &Host, others: &[&Host], folder: &Folder, consul: &Path, bootstrap: bool) -> String {
    let Host { name, addr, .. } = host;
    let (data, logs) = (folder.host(name), folder.logs(name));
    let (data, logs, consul) = (data.display(), logs.display(), consul.display());
    let join: String = others.iter().map(|other| format!(" -retry-join {}", other.addr)).collect();
    let bootstrap = if bootstrap { " -bootstrap" } else { "" };
    let api = engine_api(host, folder);
    let down = if host.is_bare() { "touch hold/consul hold/redis hold/sentinel" } else { ":" };
    let neighbours: String = others.iter().map(|other| format!("{} {}\\n", other.addr, other.name)).collect();
    format!(
        r#"#!/bin/sh
set -eu
hostname {name}
# The copies of the other hosts' namespaces would keep those alive after their power-off.
umount -R -l /run/netns 2>/dev/null || :
mount -t overlay overlay -o lowerdir=/etc,upperdir={data}/etc/upper,workdir={data}/etc/work /etc
# containerd makes itself a folder here.
[ ! -d /opt ] || mount -t overlay overlay -o lowerdir=/opt,upperdir={data}/opt/upper,workdir={data}/opt/work /opt
# As on any host: not root alone goes through it.
chmod 755 /etc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/tmp
rm -f /etc/resolv.conf
# Nothing listens there: a look-up is refused at once, in containers too, where a silent server would cost 10 s and more.
echo 'nameserver {addr}' > /etc/resolv.conf
echo {name} > /etc/hostname
printf '127.0.0.1 localhost\n{addr} {name}\n{neighbours}' > /etc/hosts
export TMPDIR=/run/tmp HOME=/root
ulimit -n "$(ulimit -H -n)"
mkdir -p /etc/keepalived
cp {data}/keepalived.conf {data}/gateway-check.sh /etc/keepalived/
chmod 755 /etc/keepalived/gateway-check.sh
sh {data}/silent.sh {VIRTUAL_ADDR} {GATEWAY_PORT}
rm -rf {data}/hold
mkdir {data}/hold
(cd {data}; {down})
keep() {{
    log={logs}/$1.log
    hold={data}/hold/$1
    shift
    (
        set +e
        while :; do
            while [ -e "$hold" ]; do sleep 0.1; done
            "$@" < /dev/null >> "$log" 2>&1
            echo "lab: it ended with code $?; starting it again in 1 s" >> "$log"
            sleep 1
        done
    ) &
}}
keep dockerd dockerd --config-file {data}/daemon.json -H unix:///run/docker.sock {api}
keep consul {consul} agent -server -ui -node {name} -data-dir {data}/consul -config-file {data}/consul.json \
    -bind {addr} -client 0.0.0.0 -http-port {CONSUL_PORT} -serf-wan-port -1 -retry-interval 1s{join}{bootstrap}
keep redis redis-server {data}/redis.conf
keep sentinel redis-sentinel {data}/sentinel.conf
keep keepalived keepalived -n -l -p /run/keepalived.pid -r /run/keepalived.vrrp.pid
while :; do
    wait
    sleep 1
done
"#
    )
}

/// Where the engine listens for others, by flags: in the clear, or for whoever has a certificate of the lab.
fn engine_api(host: &Host, folder: &Folder) -> String {
    let addr = host.addr;
    if host.certificates().is_none() {
        return format!("--tls=false -H tcp://{addr}:{DOCKER_PORT}");
    }
    let all = folder.certificates();
    let (own, all) = (all.join(&host.name), all.display());
    let own = own.display();
    format!(
        "--tlsverify --tlscacert {all}/ca.pem --tlscert {own}/cert.pem --tlskey {own}/key.pem -H tcp://{addr}:{DOCKER_TLS_PORT} \
         -H tcp://127.0.0.1:{DOCKER_TLS_PORT}"
    )
}

/// The engine's settings, in a file of its own so that the machine's /etc/docker/daemon.json is not read.
pub(crate) fn daemon_json(host: &Host, folder: &Folder) -> String {
    json!({
        "data-root": folder.host(&host.name).join("docker"),
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "bip": host.container_bridge(),
        "cgroup-parent": format!("/{}", host.unit()),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        // No program in a container gains rights by starting another one. Swarm's specs can say it since Docker 25 only.
        "no-new-privileges": true,
        // The log of a container that talks a lot must not fill the disk.
        "log-opts": { "max-size": "10m", "max-file": "2" },
    })
    .to_string()
}

/// Consul's settings that have no flag. The multiplier scales Raft's timeouts; 1 is the one for production.
pub(crate) fn consul_json(raft_multiplier: u8) -> String {
    json!({
        "disable_update_check": true,
        "performance": { "raft_multiplier": raft_multiplier },
        "autopilot": {
            // A host that is off stays a member: three servers of which one is away, not two.
            "cleanup_dead_servers": false,
            "server_stabilization_time": "1s",
        },
    })
    .to_string()
}

/// Redis' first settings: `master` none makes it the master.
pub(crate) fn redis_conf(host: &Host, folder: &Folder, master: Option<Ipv4Addr>) -> String {
    let mut text = format!(
        "port {REDIS_PORT}\nbind 0.0.0.0\nprotected-mode no\ndir {}\nappendonly yes\nappendfsync everysec\nsave \"\"\n\
         repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\nreplica-announce-ip {}\n",
        folder.host(&host.name).join("redis").display(),
        host.addr
    );
    if let Some(master) = master {
        text.push_str(&format!("replicaof {master} {REDIS_PORT}\n"));
    }
    text
}

/// The Sentinel's first settings.
pub(crate) fn sentinel_conf(host: &Host, folder: &Folder, master: Ipv4Addr, quorum: usize) -> String {
    format!(
        "port {SENTINEL_PORT}\nbind 0.0.0.0\nprotected-mode no\ndir {}\nsentinel announce-ip {}\n\
         sentinel monitor {REDIS_MASTER} {master} {REDIS_PORT} {quorum}\n\
         sentinel down-after-milliseconds {REDIS_MASTER} 1000\nsentinel failover-timeout {REDIS_MASTER} 3000\n\
         sentinel parallel-syncs {REDIS_MASTER} 1\n",
        folder.host(&host.name).join("sentinel").display(),
        host.addr
    )
}

/// Who holds the address that users know: a host whose gateway is ready, the first one of those at first. The file of the
/// reference deployment, with the values that it leaves to its users.
pub(crate) fn keepalived_conf(host: &Host) -> String {
    let [name, interface, priority, address] = OWN_VALUES;
    include_str!("../../ha-stack/deploy/keepalived/keepalived.conf")
        .replace(name, &format!("router_id {}", host.name))
        .replace(interface, "interface eth0")
        .replace(priority, &format!("priority {}", 110 - host.addr.octets()[3] % 10))
        .replace(address, &format!("    {VIRTUAL_ADDR}/24"))
}

/// What that file has in their place.
const OWN_VALUES: [&str; 4] = ["router_id h1", "interface eth0", "priority 109", "    10.0.0.100/24"];

/// What keepalived asks of the host's gateway.
pub(crate) const GATEWAY_CHECK: &str = include_str!("../../ha-stack/deploy/keepalived/gateway-check.sh");

/// Silence where no gateway listens at the users' address.
pub(crate) const SILENT: &str = include_str!("../../ha-stack/deploy/keepalived/silent.sh");

/// The Redis settings of a host that comes back: it follows the master that the Sentinels name, whatever it was before.
/// Left as it was, an old master would call itself the master until a Sentinel corrects it, and take writes that are then lost.
pub(crate) fn redis_conf_again(old: &str, host: &Host, master: Ipv4Addr) -> String {
    let mut text = String::new();
    for line in old.lines().filter(|line| !line.starts_with("replicaof ") && !line.starts_with("slaveof ")) {
        text.push_str(line);
        text.push('\n');
    }
    if master != host.addr {
        text.push_str(&format!("replicaof {master} {REDIS_PORT}\n"));
    }
    text
}

/// The same for its Sentinel. Its identity and its epochs stay, so that it is not counted twice and votes once in each epoch.
/// The master of before is a replica now, which the Sentinel has to know to watch over it.
pub(crate) fn sentinel_conf_again(old: &str, master: Ipv4Addr) -> String {
    let monitor = format!("sentinel monitor {REDIS_MASTER} ");
    let replica = |addr: &str| format!("sentinel known-replica {REDIS_MASTER} {addr} {REDIS_PORT}");
    let master = master.to_string();
    let mut text = String::new();
    for line in old.lines().filter(|line| *line != replica(&master)) {
        let Some(rest) = line.strip_prefix(&monitor) else {
            text.push_str(&format!("{line}\n"));
            continue;
        };
        let mut words = rest.split_whitespace();
        let (before, quorum) = (words.next().unwrap_or(&master), words.nth(1).unwrap_or("1"));
        text.push_str(&format!("{monitor}{master} {REDIS_PORT} {quorum}\n"));
        if before != master {
            text.push_str(&format!("{}\n", replica(before)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Vec<Host> {
        Host::all(3).unwrap()
    }

    #[test]
    fn the_reference_deployment_s_keepalived_gets_the_values_of_a_host() {
        let shipped = include_str!("../../ha-stack/deploy/keepalived/keepalived.conf");
        for value in OWN_VALUES {
            assert_eq!(shipped.matches(&format!("{value}\n")).count(), 1, "{value}");
        }
        let [first, second, _] = &hosts()[..] else { panic!("three hosts") };
        let (first, second) = (keepalived_conf(first), keepalived_conf(second));
        assert!(first.contains("router_id h1\n") && second.contains("router_id h2\n"), "{second}");
        assert!(first.contains("priority 109\n") && second.contains("priority 108\n"), "{second}");
        assert!(
            second.contains(&format!("    {VIRTUAL_ADDR}/24\n")) && !second.contains("10.0.0.100"),
            "{second}"
        );
    }

    fn folder() -> Folder {
        serde_json::from_str("\"/var/lib/x\"").unwrap()
    }

    #[test]
    fn only_the_first_start_bootstraps() {
        let hosts = hosts();
        let script = |bootstrap| {
            init(&hosts[0], &[&hosts[1], &hosts[2]], &folder(), "/bin/consul".as_ref(), bootstrap)
        };
        assert!(script(true).contains("-retry-join 198.18.0.12 -retry-join 198.18.0.13 -bootstrap\n"));
        assert!(!script(false).contains("-bootstrap"));
        assert!(script(true).contains("-H tcp://198.18.0.11:2375\n"));
    }

    #[test]
    fn an_engine_with_tls_listens_to_nobody_without_a_certificate() {
        let folder = folder();
        let hosts = Host::all_with(1, Some(&folder.certificates())).unwrap();
        let script = init(&hosts[0], &[], &folder, "/bin/consul".as_ref(), true);
        assert!(script.contains(" --tlsverify --tlscacert /var/lib/x/certificates/ca.pem "), "{script}");
        assert!(script.contains(
            " --tlskey /var/lib/x/certificates/h1/key.pem -H tcp://198.18.0.11:2376 -H tcp://127.0.0.1:2376\n"
        ));
        assert!(!script.contains("2375"));
    }

    #[test]
    fn an_old_master_comes_back_as_a_replica() {
        let hosts = hosts();
        let first = redis_conf(&hosts[0], &folder(), None);
        assert!(!first.contains("replicaof"));
        let again = redis_conf_again(&first, &hosts[0], hosts[1].addr);
        assert!(again.ends_with("replicaof 198.18.0.12 6379\n"), "{again}");
        // And a replica that was made master meanwhile drops its old line.
        let back = redis_conf_again(&again, &hosts[0], hosts[0].addr);
        assert!(!back.contains("replicaof"), "{back}");
        assert_eq!(back, first);
    }

    #[test]
    fn a_sentinel_comes_back_with_the_new_master_and_its_own_identity() {
        let old = "sentinel myid abc\nsentinel monitor main 198.18.0.11 6379 2\nsentinel config-epoch main 0\n\
                   sentinel known-replica main 198.18.0.12 6379\nsentinel known-sentinel main 198.18.0.13 26379 def\n\
                   sentinel current-epoch 4\n";
        let again = sentinel_conf_again(old, Ipv4Addr::new(198, 18, 0, 12));
        assert_eq!(
            again,
            "sentinel myid abc\nsentinel monitor main 198.18.0.12 6379 2\n\
             sentinel known-replica main 198.18.0.11 6379\nsentinel config-epoch main 0\n\
             sentinel known-sentinel main 198.18.0.13 26379 def\nsentinel current-epoch 4\n"
        );
        assert_eq!(sentinel_conf_again(old, Ipv4Addr::new(198, 18, 0, 11)), old, "nothing new");
    }
}

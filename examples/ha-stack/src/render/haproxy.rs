//! HAProxy, by its runtime socket and without a reload: a backend with spare servers (`server-template web 1-20 127.0.0.1:9 disabled`)
//! whose addresses and states are set as the members come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Sink;
use super::membership::Server;

/// A server of the backend as HAProxy has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name: `web1`.
    pub name: String,
    /// Its address.
    pub addr: Option<SocketAddr>,
    /// In maintenance: it gets nothing.
    pub maintenance: bool,
    /// It finishes what it has.
    pub draining: bool,
}

/// Reads `show servers state BACKEND`. A server that is not `disabled` in the configuration is somebody else's: one that stands by
/// when all others are gone, say. It is left out, and so left alone.
///
/// # Errors
/// When it is not of the version whose columns are known.
pub fn parse_state(text: &str) -> Result<Vec<Slot>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let version = lines.next().unwrap_or_default();
    ensure!(version == "1", "HAProxy answers {:?} to `show servers state`", start_of(text));
    let mut slots = Vec::new();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, name, ip, _, admin, ..] = words[..] else {
            bail!("a line of HAProxy's state is too short: {line:?}")
        };
        let port = words.get(18).and_then(|port| port.parse().ok()).unwrap_or(0);
        let admin: u32 =
            admin.parse().with_context(|| format!("a line of HAProxy's state is odd: {line:?}"))?;
        if admin & DISABLED == 0 {
            continue;
        }
        slots.push(Slot {
            name: name.to_owned(),
            addr: ip.parse().ok().map(|ip| SocketAddr::new(ip, port)),
            maintenance: admin & MAINTENANCE != 0,
            draining: admin & DRAIN != 0,
        });
    }
    Ok(slots)
}

/// The commands that lead from these slots to these servers. A server keeps the slot that has its address; slots are given out anew only
/// when they are in maintenance.
///
/// # Errors
/// When there are fewer slots than servers.
pub fn plan(backend: &str, slots: &[Slot], servers: &[Server]) -> Result<Vec<String>> {
    let wanted: BTreeMap<SocketAddr, &Server> = servers.iter().map(|server| (server.addr, server)).collect();
    let mut commands = Vec::new();
    let mut placed = BTreeSet::new();
    let mut free = Vec::new();
    for slot in slots {
        let target = format!("{backend}/{}", slot.name);
        let server = slot.addr.filter(|addr| !placed.contains(addr)).and_then(|addr| wanted.get(&addr));
        match server {
            Some(server) => {
                placed.insert(server.addr);
                if server.draining && !slot.draining {
                    commands.push(format!("set server {target} state drain"));
                } else if !server.draining && (slot.maintenance || slot.draining) {
                    commands.push(format!("set server {target} state ready"));
                }
            }
            None if slot.maintenance => free.push(target),
            None => {
                commands.push(format!("set server {target} state maint"));
                free.push(target);
            }
        }
    }
    // A server that leaves needs no slot.
    let missing = wanted.values().filter(|server| !placed.contains(&server.addr) && !server.draining);
    let mut free = free.into_iter();
    for server in missing {
        let target = free.next().with_context(|| {
            format!(
                "the backend {backend} has {} disabled servers and {} are needed: \
                 raise the number in its server-template",
                slots.len(),
                wanted.len()
            )
        })?;
        commands.push(format!("set server {target} addr {} port {}", server.addr.ip(), server.addr.port()));
        commands.push(format!("set server {target} state ready"));
    }
    Ok(commands)
}

/// One HAProxy.
#[derive(Clone, Debug)]
pub struct HaproxySocket {
    /// Its stats socket, of level admin.
    pub socket: PathBuf,
    /// The backend.
    pub backend: String,
}

impl Sink for HaproxySocket {
    async fn apply(&mut self, servers: &[Server]) -> Result<()> {
        ensure!(
            self.backend.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)),
            "--backend is {:?}, which is no name",
            self.backend
        );
        let state = self.ask(&format!("show servers state {}", self.backend)).await?;
        let slots = parse_state(&state)?;
        for command in plan(&self.backend, &slots, servers)? {
            let said = self.ask(&command).await?;
            let said = said.trim();
            // A change of address is answered in words; a refusal, too.
            let refused = ["No such", "Invalid", "not found", "denied", "error", "Unknown"];
            if refused.iter().any(|word| said.contains(word)) {
                bail!("{command}: HAProxy answers {said:?}");
            }
        }
        Ok(())
    }
}

impl HaproxySocket {
    /// One command and its answer.
    ///
    /// # Errors
    /// When the socket can't be reached or does not answer in time.
    pub async fn ask(&self, command: &str) -> Result<String> {
        let asked = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(format!("{command}\n").as_bytes()).await?;
            let mut answer = Vec::new();
            stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
            std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        let answer = tokio::time::timeout(TIME_LIMIT, asked).await;
        answer.map_err(anyhow::Error::from).and_then(|answer| Ok(answer?)).with_context(|| {
            format!(
                "HAProxy's socket {} does not answer: `stats socket PATH level admin` opens it",
                self.socket.display()
            )
        })
    }
}

/// The requests in flight at a backend, from `show stat`: under way and queued.
pub fn in_flight(stat: &str, backend: &str) -> u64 {
    let mut lines = stat.lines();
    let header = lines.next().unwrap_or_default().trim_start_matches("# ");
    let column = |name: &str| header.split(',').position(|column| column == name);
    let (Some(current), Some(queued)) = (column("scur"), column("qcur")) else { return 0 };
    let row = lines
        .map(|line| line.split(',').collect::<Vec<_>>())
        .find(|row| row.first() == Some(&backend) && row.get(1) == Some(&"BACKEND"));
    let number = |at: usize| row.as_ref().and_then(|row| row.get(at)?.parse::<u64>().ok()).unwrap_or(0);
    number(current) + number(queued)
}

fn start_of(text: &str) -> String {
    text.trim().chars().take(60).collect()
}

/// Bits of `srv_admin_state`: forced or inherited maintenance, forced or inherited drain (HAProxy's management guide, "show
/// servers state").
const MAINTENANCE: u32 = 0x01 | 0x02 | 0x20;
const DRAIN: u32 = 0x08 | 0x10;
/// In the configuration; it stays set when the server has long been made ready.
const DISABLED: u32 = 0x04;
const ANSWER_LIMIT: u64 = 1 << 20;
const TIME_LIMIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([198, 18, 0, 12], port).into()
    }

    fn server(port: u16, draining: bool) -> Server {
        Server { id: format!("web.{port}"), addr: addr(port), host: "h2".into(), draining }
    }

    fn slot(name: &str, port: u16, maintenance: bool, draining: bool) -> Slot {
        Slot { name: name.into(), addr: Some(addr(port)), maintenance, draining }
    }

    #[test]
    fn servers_get_slots_and_leave_them_after_a_drain() {
        let slots = [slot("web1", 9, true, false), slot("web2", 9, true, false)];
        let commands = plan("web", &slots, &[server(1, false)]).unwrap();
        assert_eq!(
            commands,
            ["set server web/web1 addr 198.18.0.12 port 1", "set server web/web1 state ready"]
        );
        let slots = [slot("web1", 1, false, false), slot("web2", 9, true, false)];
        assert!(plan("web", &slots, &[server(1, false)]).unwrap().is_empty(), "nothing changes");
        let commands = plan("web", &slots, &[server(1, true), server(2, false)]).unwrap();
        assert_eq!(commands[0], "set server web/web1 state drain");
        assert_eq!(commands[1], "set server web/web2 addr 198.18.0.12 port 2");
        let slots = [slot("web1", 1, false, true), slot("web2", 2, false, false)];
        assert_eq!(plan("web", &slots, &[server(2, false)]).unwrap(), ["set server web/web1 state maint"]);
        assert_eq!(
            plan("web", &slots, &[server(1, false), server(2, false)]).unwrap(),
            ["set server web/web1 state ready"]
        );
        let error = plan("web", &slots[..1], &[server(1, false), server(2, false)]).unwrap_err().to_string();
        assert!(error.contains("server-template"), "{error}");
    }

    #[test]
    fn the_state_is_read_by_its_columns() {
        let text = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
                    srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
                    bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr \
                    srv_agent_addr srv_agent_port\n\
                    3 web 1 web1 198.18.0.12 2 4 1 1 5 1 0 0 0 0 0 0 - 32768 - 0 0 - - 0\n\
                    3 web 2 web2 127.0.0.1 0 5 1 1 5 1 0 0 0 0 0 0 - 9 - 0 0 - - 0\n\
                    3 web 21 sorry 127.0.0.1 2 0 1 1 5 1 0 0 0 0 0 0 - 8 - 0 0 - - 0\n";
        let slots = parse_state(text).unwrap();
        assert_eq!(slots.len(), 2, "one that is not disabled in the configuration is not ours");
        assert_eq!(
            slots[0],
            Slot { name: "web1".into(), addr: Some(addr(32768)), maintenance: false, draining: false }
        );
        assert!(slots[1].maintenance && !slots[1].draining);
        for bad in ["", "Can't find backend.\n", "1\n3 web\n", "2\n"] {
            assert!(parse_state(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn requests_in_flight_are_read_by_the_headers_names() {
        let stat = "# pxname,svname,qcur,qmax,scur,smax\nweb,FRONTEND,,,7,9\nweb,web1,0,0,4,5\nweb,BACKEND,2,2,5,9\n";
        assert_eq!(in_flight(stat, "web"), 7);
        assert_eq!(in_flight("", "web"), 0);
    }
}

//! The wiring: one bridge in the root namespace, one network namespace and one cable for each host.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tracing::warn;

use crate::command::{run, succeeds};
use crate::error::Result;
use crate::plan::{BRIDGE, BRIDGE_CIDR, Host, RANGE};
use crate::state::is_mount;

/// Lays the bridge, and keeps the range from ever leaving the machine.
pub(crate) async fn lay_bridge() -> Result<()> {
    ip(&["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"]).await?;
    ip(&["addr", "add", BRIDGE_CIDR, "dev", BRIDGE]).await?;
    ip(&["link", "set", BRIDGE, "up"]).await?;
    ip(&["route", "add", "unreachable", RANGE]).await?;
    // Bridged packets pass FORWARD too where br_netfilter is loaded, and an engine in the root namespace drops them there.
    run("iptables", &[&["-w", "5", "-I"], FORWARD].concat()).await?;
    Ok(())
}

/// Takes away whatever of the bridge is there.
pub(crate) async fn remove_bridge() -> Result<()> {
    while succeeds("iptables", &[&["-w", "5", "-C"], FORWARD].concat()).await? {
        run("iptables", &[&["-w", "5", "-D"], FORWARD].concat()).await?;
    }
    if succeeds("ip", &["link", "show", "dev", BRIDGE]).await? {
        ip(&["link", "del", BRIDGE]).await?;
    }
    if !ip(&["route", "show", "type", "unreachable", RANGE]).await?.trim().is_empty() {
        ip(&["route", "del", "unreachable", RANGE]).await?;
    }
    Ok(())
}

/// Makes the host's namespace, and a cable from its `eth0` to the bridge.
pub(crate) async fn plug_in(host: &Host) -> Result<()> {
    let (unit, mac) = (host.unit(), host.mac());
    ip(&["netns", "add", &unit]).await?;
    ip(&["-n", &unit, "link", "set", "lo", "up"]).await?;
    let far = ["peer", "name", "eth0", "address", &mac, "netns", &unit];
    ip(&[&["link", "add", &unit, "type", "veth"], far.as_slice()].concat()).await?;
    ip(&["link", "set", &unit, "master", BRIDGE, "up"]).await?;
    ip(&["-n", &unit, "addr", "add", &format!("{}/24", host.addr), "dev", "eth0"]).await?;
    ip(&["-n", &unit, "link", "set", "eth0", "up"]).await.map(drop)
}

/// Pulls the cable out of the bridge, or puts it back. The host sees its card without a carrier; addresses and routes stay.
pub(crate) async fn set_link(host: &Host, up: bool) -> Result<()> {
    ip(&["link", "set", &host.unit(), if up { "up" } else { "down" }]).await.map(drop)
}

/// As [`set_link`] down, where the cable may be gone already.
pub(crate) async fn cut_if_there(host: &Host) -> Result<()> {
    succeeds("ip", &["link", "set", &host.unit(), "down"]).await.map(drop)
}

/// Whether the host's card has this address.
pub(crate) async fn holds(host: &Host, addr: Ipv4Addr) -> Result<bool> {
    let shown = ip(&["-n", &host.unit(), "-br", "addr", "show", "dev", "eth0"]).await?;
    Ok(shown.split_whitespace().any(|word| word.split('/').next() == Some(&addr.to_string())))
}

/// Takes away the host's cable and namespace, as far as they are there. No process may be left in it.
pub(crate) async fn unplug(host: &Host) -> Result<()> {
    let unit = host.unit();
    // The cable first: a namespace that somebody still holds open would keep it otherwise.
    if succeeds("ip", &["link", "show", "dev", &unit]).await? {
        ip(&["link", "del", &unit]).await?;
    }
    if Path::new(&host.netns_path()).exists() {
        ip(&["netns", "del", &unit]).await?;
    }
    Ok(())
}

/// `ip netns` turns /run/netns into a mount: back to what it was, if nobody else uses it.
pub(crate) async fn remove_netns_mount() -> Result<()> {
    let empty = std::fs::read_dir(NETNS).is_ok_and(|mut entries| entries.next().is_none());
    if empty && is_mount(NETNS) {
        run("umount", &[NETNS]).await?;
    }
    if empty {
        let _ = std::fs::remove_dir(NETNS);
    }
    Ok(())
}

/// Whether /run/netns is a mount already: then somebody else made it.
pub(crate) fn has_netns_mount() -> bool {
    is_mount(NETNS)
}

/// Takes away the host's control groups, in whichever hierarchies there are (v1 has one for each controller).
pub(crate) async fn remove_cgroups(host: &Host) {
    for _ in 0..20 {
        let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
        let groups = roots.chain(["/sys/fs/cgroup".into()]).map(|root| root.join(host.unit()));
        if groups.map(|group| remove_group(&group)).filter(|gone| !gone).count() == 0 {
            return;
        }
        // A group is busy for a moment after its last process has gone.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    warn!("some control groups of {} are still busy; the next lab down removes them", host.name);
}

/// Depth first, since a group with groups in it can't be removed. True if it is gone.
fn remove_group(group: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(group) else { return true };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_group(&entry.path());
    }
    std::fs::remove_dir(group).is_ok()
}

async fn ip(args: &[&str]) -> Result<String> {
    run("ip", args).await
}

const FORWARD: &[&str] = &["FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"];
const NETNS: &str = "/run/netns";

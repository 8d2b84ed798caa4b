//! The whole stack from one stack file: what `ha-stack deploy` fills in, and the images and secrets that it makes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use swarm_client::Node;
use swarm_client::model::SwarmSpec;
use swarm_client::stack::compose::Context;
use swarm_client::stack::{PlanOptions, Stack};

pub mod certificates;
pub mod engine_tls;
pub mod rights;
pub mod secrets;

use crate::images::others::OTHERS;
use crate::images::{Build, Bundle, IMAGES};
use crate::roles::labels;

/// The stack file that is used where no other is named.
pub const OWN_FILE: &str = include_str!("../deploy/ha-stack.yml");

/// Docker's own (swarmkit's `dispatcher.DefaultHeartBeatPeriod`).
const HEARTBEAT: Duration = Duration::from_secs(5);
/// With more than this the reference deployment keeps its promises of time no more.
const WISHED_HEARTBEAT: Duration = Duration::from_secs(1);

/// A host of the Swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its address in the Swarm.
    pub address: String,
}

/// The hosts that the stack is spread over, in the order of their names.
///
/// # Errors
/// When a node is a worker or says no address, or names repeat.
pub fn members(nodes: &[Node]) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for node in nodes {
        let name = node.hostname().to_owned();
        ensure!(
            node.is_manager(),
            "the node {name} is a worker: a registrar asks the engine of its own host for tasks, which only a manager \
             answers; promote it with `docker node promote {name}`"
        );
        let address = node.addr().with_context(|| format!("the node {name} does not say its address"))?;
        members.push(Member { name, address: address.to_string() });
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    ensure!(names.len() == members.len(), "two nodes have the same name: give each host a name of its own");
    ensure!(!members.is_empty(), "the Swarm lists no node");
    Ok(members)
}

/// What to say of a Swarm that takes long to give a lost host up, if it does.
pub fn slow_to_notice(swarm: &SwarmSpec) -> Option<String> {
    let heartbeat = swarm.heartbeat_period().unwrap_or(HEARTBEAT);
    (heartbeat > WISHED_HEARTBEAT).then(|| {
        format!(
            "this Swarm starts the tasks of a lost host elsewhere after three heartbeats of {} s; `docker swarm update \
             --dispatcher-heartbeat 1s` makes that 3 s",
            heartbeat.as_secs_f64()
        )
    })
}

/// A stack file that was read, and the images that have to be built for it.
pub struct Deployment {
    /// What is wanted.
    pub stack: Stack,
    /// The images that the file asked for by variables that nobody set.
    pub builds: Vec<Build>,
    /// The secrets that the file asked for by variables that nobody set, without the stack's name.
    pub secrets: BTreeSet<&'static str>,
}

/// Reads a stack file. Variables come from `environment` first, then from here; files that it names lie in `folder`.
///
/// # Errors
/// All problems of the file at once; those of an image that has to be made.
pub fn read(
    name: &str,
    text: &str,
    folder: &Path,
    members: &[Member],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Deployment> {
    let hosts = host_variables(name, members);
    let asked: RefCell<BTreeMap<String, Build>> = RefCell::default();
    let problem: RefCell<Option<anyhow::Error>> = RefCell::default();
    let bundle: RefCell<Option<Bundle>> = RefCell::default();
    let secrets: RefCell<BTreeSet<&'static str>> = RefCell::default();
    let variable = |variable: &str| -> Option<String> {
        if let Some(value) = environment(variable).or_else(|| hosts.get(variable).cloned()) {
            return Some(value);
        }
        if let Some(secret) = secrets::asked_by(variable) {
            secrets.borrow_mut().insert(secret);
            return Some(secrets::full_name(name, secret));
        }
        let image = variable.strip_suffix("_IMAGE")?.to_ascii_lowercase();
        if let Some(build) = asked.borrow().get(&image) {
            return Some(build.reference.clone());
        }
        match build(&image, &mut bundle.borrow_mut())? {
            Ok(build) => {
                let reference = build.reference.clone();
                asked.borrow_mut().insert(image, build);
                Some(reference)
            }
            Err(error) => {
                // One is enough to act on.
                problem.borrow_mut().get_or_insert(error);
                Some("unknown".to_owned())
            }
        }
    };
    let file = |path: &str| std::fs::read(folder.join(path));
    let stack = Stack::from_compose(name, text, &Context { variable: &variable, file: &file })?;
    if let Some(problem) = problem.take() {
        return Err(problem);
    }
    Ok(Deployment { stack, builds: asked.take().into_values().collect(), secrets: secrets.take() })
}

/// What others write on the stack's services.
pub fn plan_options() -> PlanOptions {
    PlanOptions::default().keep_label(labels::TERM).keep_label(labels::HOLD_UNTIL)
}

/// An image by its name; `None` where there is no such image.
fn build(image: &str, bundle: &mut Option<Bundle>) -> Option<Result<Build>> {
    if let Some(other) = OTHERS.iter().find(|other| other.name == image) {
        return Some(other.build());
    }
    let own = *IMAGES.iter().find(|own| own.name == image)?;
    let made = || -> Result<Build> {
        let bundle = match bundle {
            Some(bundle) => bundle,
            none => none.insert(Bundle::of_this_program()?),
        };
        Ok(Build { reference: bundle.reference(own.name), context: bundle.context(own)?.into() })
    };
    Some(made())
}

fn host_variables(name: &str, members: &[Member]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("STACK".to_owned(), name.to_owned()),
        ("SERVERS".to_owned(), members.len().to_string()),
        ("SCALERS_PER_HOST".to_owned(), if members.len() > 1 { "1" } else { "2" }.to_owned()),
        ("DOCKER_USER".to_owned(), docker_user(std::fs::read_to_string("/etc/group").ok().as_deref())),
    ]);
    let addresses: Vec<&str> = members.iter().map(|member| member.address.as_str()).collect();
    all.insert("ADDRESSES".into(), addresses.join("|"));
    // Three places for what must outlive one of them, whatever the number of hosts.
    for (place, member) in (1..=PLACES).zip(members.iter().cycle()) {
        all.insert(format!("HOST_{place}"), member.name.clone());
        all.insert(format!("ADDRESS_{place}"), member.address.clone());
    }
    all
}

/// Who may open the engine's socket: nobody's user in the group that Docker gives it, as this machine has it; root where
/// there is no such group.
fn docker_user(groups: Option<&str>) -> String {
    let docker = groups.and_then(|groups| groups.lines().find(|line| line.starts_with("docker:")));
    match docker.and_then(|line| line.split(':').nth(2)?.parse::<u32>().ok()) {
        Some(group) => format!("65534:{group}"),
        None => "0:0".to_owned(),
    }
}

const PLACES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<Member> {
        let address = |at: usize| format!("198.18.0.1{at}");
        names
            .iter()
            .enumerate()
            .map(|(at, name)| Member { name: (*name).into(), address: address(at) })
            .collect()
    }

    fn images(variable: &str) -> Option<String> {
        variable.ends_with("_IMAGE").then(|| format!("{}:1", variable.to_ascii_lowercase()))
    }

    /// The reference deployment on three hosts, with these variables set.
    pub(super) fn own_stack(set: &[(&str, &str)]) -> Deployment {
        let value = |name: &str| {
            set.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
                .or_else(|| images(name))
        };
        read("ha", OWN_FILE, Path::new("."), &hosts(&["a", "b", "c"]), &value).unwrap()
    }

    #[test]
    fn a_swarm_that_takes_long_is_told_what_makes_it_fast() {
        let mut swarm: SwarmSpec = serde_json::from_value(serde_json::json!({})).unwrap();
        let said = slow_to_notice(&swarm).unwrap();
        assert!(
            said.contains("three heartbeats of 5 s") && said.contains("--dispatcher-heartbeat 1s"),
            "{said}"
        );
        swarm.set_heartbeat_period(Duration::from_secs(1));
        assert_eq!(slow_to_notice(&swarm), None);
    }

    #[test]
    fn the_stack_file_is_one_and_spreads_what_must_outlive_a_host() {
        let read = own_stack(&[]);
        assert!(read.builds.is_empty(), "every image was named");
        let services: BTreeMap<&str, _> = read.stack.services().collect();
        for (key, host) in [("redis-1", "a"), ("redis-2", "b"), ("redis-3", "c"), ("sentinel-3", "c")] {
            let placement = services[key].task_template.placement.clone().unwrap();
            assert_eq!(placement.constraints, [format!("node.hostname == {host}")], "{key}");
        }
        let container = services["consul"].task_template.container_spec.clone().unwrap();
        assert!(container.args.iter().any(|arg| arg.contains("^(198.18.0.10|198.18.0.11|198.18.0.12)(/|$)")));
        assert!(container.args.contains(&"-bootstrap-expect=3".to_owned()));
        assert_eq!(services["web"].replicas(), Some(2));
        let all: BTreeSet<&str> = secrets::REDIS.into_iter().chain(secrets::CONSUL).collect();
        assert_eq!(read.secrets, all, "each secret that is made is used");
    }

    /// What every service of the file keeps to; `test.sh` looks at the processes themselves.
    #[test]
    fn no_service_may_write_its_image_or_has_a_capability_or_is_root() {
        let read = own_stack(&[]);
        for (key, spec) in read.stack.services() {
            let container = spec.task_template.container_spec.clone().unwrap();
            assert_eq!(container.read_only, Some(true), "{key}");
            assert_eq!(container.rest["CapabilityDrop"], serde_json::json!(["ALL"]), "{key}");
            let user = container.user.unwrap_or_default();
            assert!(!user.is_empty(), "{key} runs as whatever its image says");
            let socket = container.mounts.iter().any(|m| m.target.as_deref() == Some("/var/run/docker.sock"));
            assert!(socket || user == "65534:65534", "{key} runs as {user}");
            for secret in &container.secrets {
                let file = secret.file.clone().unwrap();
                assert!(user.starts_with(&format!("{}:", file.uid)) || socket, "{key}: {}", secret.name);
                assert_eq!(file.mode & 0o007, 0, "{key}: everybody may read {}", secret.name);
            }
        }
    }

    #[test]
    fn the_sockets_group_is_this_machines() {
        assert_eq!(docker_user(Some("root:x:0:\ndocker:x:998:ada,grace\n")), "65534:998");
        assert_eq!(docker_user(Some("dockerroot:x:7:\n")), "0:0");
        assert_eq!(docker_user(None), "0:0");
    }

    #[test]
    fn the_second_sites_file_is_one_and_says_what_it_gets() {
        let text = include_str!("../deploy/second-site.yml");
        let read = read("shop", text, Path::new("."), &hosts(&["only"]), &images).unwrap();
        let services: BTreeMap<&str, _> = read.stack.services().collect();
        assert_eq!(services["web"].labels["balancer.host"], "shop.example");
    }

    #[test]
    fn one_host_is_enough_to_begin_with() {
        let read = read("ha", OWN_FILE, Path::new("."), &hosts(&["only"]), &images).unwrap();
        let services: BTreeMap<&str, _> = read.stack.services().collect();
        let placement = services["redis-3"].task_template.placement.clone().unwrap();
        assert_eq!(placement.constraints, ["node.hostname == only"]);
    }

    #[test]
    fn an_image_that_nobody_makes_is_a_variable_that_is_not_set() {
        let text = "services: {a: {image: \"${ODD_IMAGE}\"}}";
        let error = read("ha", text, Path::new("."), &hosts(&["a"]), &|_| None).map(drop).unwrap_err();
        assert!(error.to_string().contains("ODD_IMAGE"), "{error}");
    }
}

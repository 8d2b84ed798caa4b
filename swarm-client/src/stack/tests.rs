use std::collections::BTreeMap;

use serde_json::json;

use super::gather::Present;
use super::resolve::Resolved;
use super::*;
use crate::error::Error;
use crate::model::{Network, Service};

fn stack(image: &str, replicas: u64) -> Stack {
    let web =
        ServiceSpec::builder("web", image).replicas(replicas).env("PW", "hunter2").network("back").build();
    let free = ServiceSpec::builder("free", "free:1").replicas(1).label(AUTOSCALED_LABEL, "true").build();
    Stack::new("shop")
        .network("back", NetworkSpec::overlay("x"))
        .secret("pw", "one")
        .service(web, ["pw"], [] as [&str; 0])
        .service(free, [] as [&str; 0], [] as [&str; 0])
}

fn plan(stack: &Stack, present: &Present) -> Result<Plan, Error> {
    let options = PlanOptions::default().keep_label("term");
    Plan::of(Resolved::of(stack).unwrap(), present, &options)
}

/// What the engine holds after it was told this: ids instead of names, and much that was not asked for.
fn told(stack: &Stack) -> Present {
    let wanted = Resolved::of(stack).unwrap();
    let mut present = Present::default();
    for (index, (name, spec)) in wanted.networks.iter().enumerate() {
        let network = json!({"Id": format!("net{index}"), "Name": name, "Scope": "swarm", "Driver": spec.driver, "Labels": spec.labels});
        present.all_networks.insert(name.clone(), serde_json::from_value::<Network>(network).unwrap());
    }
    for name in wanted.secrets.keys() {
        present.all_secrets.insert(name.clone(), format!("id-{name}"));
        present.own_secrets.insert(name.clone());
    }
    for (name, spec) in &wanted.services {
        let mut spec = serde_json::to_value(spec).unwrap();
        let template = &mut spec["TaskTemplate"];
        for (key, value) in [
            ("ForceUpdate", json!(3)),
            ("Runtime", json!("container")),
            ("Placement", json!({})),
            ("Resources", json!({"Limits": {}, "Reservations": {}})),
        ] {
            template[key] = value;
        }
        for (key, value) in
            [("Init", json!(false)), ("Isolation", json!("default")), ("DNSConfig", json!({}))]
        {
            template["ContainerSpec"][key] = value;
        }
        for network in template["Networks"].as_array_mut().unwrap() {
            let id = present.all_networks[network["Target"].as_str().unwrap()].id.to_string();
            network["Target"] = id.into();
        }
        if let Some(secrets) = template["ContainerSpec"]["Secrets"].as_array_mut() {
            secrets.iter_mut().for_each(|secret| secret["SecretID"] = "some id".into());
        }
        spec["EndpointSpec"] = json!({"Mode": "vip"});
        spec["Labels"]["term"] = "7".into();
        spec["Labels"]["swarm-client.rollback"] = "{}".into();
        let service = json!({"ID": format!("id-{name}"), "Spec": spec});
        present.services.insert(name.clone(), serde_json::from_value::<Service>(service).unwrap());
    }
    present
}

fn scaled(present: &mut Present, name: &str, replicas: u64) {
    assert!(present.services.get_mut(name).unwrap().spec.set_replicas(replicas));
}

#[test]
fn all_is_created_once_and_then_kept() {
    let first = plan(&stack("web:1", 2), &Present::default()).unwrap();
    let text = first.to_string();
    assert!(
        text.starts_with("create network shop_back\ncreate network shop_default\ncreate secret shop_pw-"),
        "{text}"
    );
    assert!(text.ends_with("create service shop_free\ncreate service shop_web"), "{text}");
    let mut present = told(&stack("web:1", 2));
    let again = plan(&stack("web:1", 2), &present).unwrap();
    assert!(again.is_empty(), "{again}");
    assert_eq!(again.to_string(), "nothing to do");
    // A scaler's replicas are its own, and everybody else's are the stack's.
    scaled(&mut present, "shop_free", 9);
    assert!(plan(&stack("web:1", 2), &present).unwrap().is_empty());
    scaled(&mut present, "shop_web", 9);
    assert_eq!(
        plan(&stack("web:1", 2), &present).unwrap().to_string(),
        "update service shop_web\n  Mode.Replicas: 9 -> 2"
    );
}

#[test]
fn what_is_written_keeps_what_is_not_the_stack_s() {
    let mut present = told(&stack("web:1", 2));
    let service = present.services.get_mut("shop_web").unwrap();
    let container = service.spec.task_template.container_spec.as_mut().unwrap();
    container.image = "web:1@sha256:ab".to_owned();
    let wanted = Resolved::of(&stack("web:1", 2)).unwrap();
    let next = normal::merged(&wanted.services["shop_web"], &service.spec, &["term".to_owned()]);
    assert_eq!(
        next.task_template.container_spec.unwrap().image,
        "web:1@sha256:ab",
        "the pinned image of the same name"
    );
    assert_eq!(next.task_template.force_update, Some(3));
    assert_eq!((next.labels["term"].as_str(), next.labels["swarm-client.rollback"].as_str()), ("7", "{}"));
    assert!(plan(&stack("web:1", 2), &present).unwrap().is_empty());
    let text = plan(&stack("web:2", 2), &present).unwrap().to_string();
    assert!(text.contains("TaskTemplate.ContainerSpec.Image: web:1@sha256:ab -> web:2"), "{text}");
}

#[test]
fn what_is_not_wanted_is_for_prune_and_new_content_is_a_new_name() {
    let present = told(&stack("web:1", 2));
    let other = Stack { secrets: BTreeMap::new(), ..stack("web:1", 2) }.secret("pw", "two");
    let text = plan(&other, &present).unwrap().to_string();
    assert!(text.contains("create secret shop_pw-") && text.contains("remove secret shop_pw-"), "{text}");
    assert!(
        text.contains("update service shop_web") && text.contains("SecretName") || text.contains("Secrets"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
    let gone = plan(&Stack::new("shop"), &present).unwrap();
    let removed: Vec<String> = gone.steps().iter().map(ToString::to_string).collect();
    assert_eq!(removed.len(), 5, "{removed:?}");
    assert!(removed.iter().all(|step| step.starts_with("remove ")), "{removed:?}");
}

#[test]
fn what_cannot_be_is_said_before_anything_is_done() {
    let mut present = told(&stack("web:1", 2));
    let refused = |stack: &Stack, present: &Present| plan(stack, present).unwrap_err().to_string();
    let external = stack("web:1", 2).external_network("theirs", "theirs");
    assert!(refused(&external, &present).contains("the external network \"theirs\" does not exist"));
    let internal = stack("web:1", 2).network("back", NetworkSpec::overlay("x").internal());
    assert!(refused(&internal, &present).contains("network \"shop_back\" would change"));
    present.all_networks.get_mut("shop_back").unwrap().labels.clear();
    assert!(refused(&stack("web:1", 2), &present).contains("is not the stack's"));
    let dangling = Stack::new("shop").service(
        ServiceSpec::builder("a", "a").network("b").build(),
        ["c"],
        [] as [&str; 0],
    );
    assert!(Resolved::of(&dangling).unwrap_err().to_string().contains("service \"a\" uses secret \"c\""));
    assert!(Resolved::of(&Stack::new("a b")).is_err());
}

/// `docker stack deploy` takes the host's own network for an external one too.
#[test]
fn the_host_s_network_needs_nobody_to_make_it() {
    let stack = Stack::new("shop").external_network("outside", "host").service(
        ServiceSpec::builder("front", "front:1").network("outside").build(),
        [] as [&str; 0],
        [] as [&str; 0],
    );
    let resolved = Resolved::of(&stack).unwrap();
    assert!(resolved.external_networks.is_empty());
    let attachment = &resolved.services["shop_front"].task_template.networks[0];
    assert_eq!((attachment.target.as_str(), attachment.aliases.len()), ("host", 0));
    assert!(plan(&stack, &Present::default()).is_ok());
}

//! swarm-client: members that come and go, and what is said where too few are left.

use std::slice;
use std::time::{Duration, Instant};

use lab::{Host, Lab};
use swarm_client::conditions::{Condition, is_manager, is_worker, node_down, node_ready};
use swarm_client::watch::await_condition;
use swarm_client::{Availability, Client, InitOptions, JoinOptions, Node, Reason, Role};

use crate::swarm::{client, redis};
use crate::{a_follower, pause, signal_engine, told};

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn a_member_leaves_and_joins_again(lab: &Lab) {
    let start = Instant::now();
    let (host, others) = one_and_the_others(lab).await;
    let swarm = client(&others).await;
    let alone = client(slice::from_ref(&host)).await;
    assert!(swarm.swarm().set_task_history_limit(3).await.unwrap().written);
    assert_eq!(swarm.swarm().get().await.unwrap().spec.task_history_limit(), Some(3));
    assert!(swarm.swarm().set_task_history_limit(1).await.unwrap().written);
    let before = swarm.nodes().get(&host.name).await.unwrap();

    // A manager may not simply go, nor may one that is there be removed.
    let refused = alone.swarm().leave(false).await.unwrap_err();
    assert!(refused.is_quorum_at_risk(), "{refused}");
    let refused = swarm.nodes().remove(&host.name, false).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::InvalidArgument), "{refused}");
    swarm.nodes().demote(&host.name).await.unwrap();
    await_condition::<Node>(&swarm, &host.name, is_worker(), LIMIT).await.unwrap();
    // The engine hears of it a moment later than the managers.
    while let Err(error) = alone.swarm().leave(false).await {
        assert!(error.is_quorum_at_risk() && start.elapsed() < LIMIT, "{error}");
        pause().await;
    }
    assert!(alone.swarm().get_opt().await.unwrap().is_none());
    assert!(alone.swarm().leave(false).await.unwrap_err().is_not_in_swarm());
    await_condition::<Node>(&swarm, &host.name, node_down(), LIMIT).await.unwrap();
    swarm.nodes().remove(&host.name, false).await.unwrap();
    assert!(swarm.nodes().get_opt(&host.name).await.unwrap().is_none());
    told(&format!("{} has left and is removed", host.name), start);

    // Alone it makes a swarm of its own, with a lock, and a pool for its networks.
    let start = Instant::now();
    let options = InitOptions {
        listen_addr: at(&host),
        advertise_addr: host.addr.to_string(),
        heartbeat_period: Some(Duration::from_secs(2)),
        autolock: true,
        availability: Some(Availability::Drain),
        default_addr_pool: vec!["10.77.0.0/16".to_owned()],
        ..InitOptions::default()
    };
    let id = alone.swarm().init(options).await.unwrap();
    let own = alone.swarm().get().await.unwrap();
    assert_eq!((own.spec.heartbeat_period(), own.spec.is_autolocked()), (Some(Duration::from_secs(2)), true));
    assert_eq!(own.rest["DefaultAddrPool"], serde_json::json!(["10.77.0.0/16"]));
    assert!(alone.swarm().unlock_key().await.unwrap().is_some());
    assert_eq!(alone.nodes().get(id).await.unwrap().availability(), Availability::Drain);
    assert!(alone.swarm().leave(false).await.unwrap_err().is_quorum_at_risk(), "it is the last manager");
    alone.swarm().leave(true).await.unwrap();
    told(&format!("{} had a swarm of its own", host.name), start);

    // It comes back, although nobody listens at the first address that it is given.
    let start = Instant::now();
    let token = swarm.swarm().join_token(Role::Manager).await.unwrap();
    let mut options = JoinOptions::new([format!("{}:1", others[0].addr), at(&others[1])], token);
    options.listen_addr = at(&host);
    options.advertise_addr = host.addr.to_string();
    alone.swarm().join(options.clone()).await.unwrap();
    assert!(alone.swarm().join(options).await.unwrap_err().is_already_in_swarm());
    await_condition::<Node>(&swarm, &host.name, is_manager().and(node_ready()), LIMIT).await.unwrap();
    assert_ne!(swarm.nodes().get(&host.name).await.unwrap().id, before.id, "it is another member");
    all_well(&swarm).await;
    told(&format!("{} has joined again, through the second address", host.name), start);
}

pub(crate) async fn a_swarm_without_a_leader_says_so(lab: &Lab) {
    let start = Instant::now();
    let (host, others) = one_and_the_others(lab).await;
    let alone = client(slice::from_ref(&host)).await;
    for other in &others {
        signal_engine(lab, other, "-STOP").await;
    }
    // Until the others are missed, answers may take their time or say that a manager was asked in vain.
    let mut on_the_way = Vec::new();
    let said = loop {
        match alone.services().list().await {
            Err(error) if error.is_no_leader() => break Some(error),
            Err(error) => on_the_way.push(error),
            Ok(_) => {}
        }
        if start.elapsed() > LIMIT {
            break None;
        }
        pause().await;
    };
    let write = alone.services().create(&redis("never").replicas(0).build()).await;
    for other in &others {
        signal_engine(lab, other, "-CONT").await;
    }
    let said = said.unwrap_or_else(|| panic!("nobody says that there is no leader: {on_the_way:?}"));
    assert!(said.is_retryable() && !said.is_conflict() && !said.is_not_found(), "{said}");
    assert!(on_the_way.iter().all(swarm_client::Error::is_retryable), "{on_the_way:?}");
    let write = write.unwrap_err();
    assert!(write.is_no_leader() && !write.is_outcome_unknown(), "{write}");
    let swarm = client(lab.hosts()).await;
    all_well(&swarm).await;
    assert!(swarm.services().get_opt("never").await.unwrap().is_none(), "what was refused was not done");
    told(&format!("two of three managers stopped and resumed: {said}"), start);
}

/// A follower, and the others.
async fn one_and_the_others(lab: &Lab) -> (Host, Vec<Host>) {
    let host = a_follower(lab, |leaders| &leaders.swarm).await.clone();
    let others = lab.hosts().iter().filter(|other| other.name != host.name).cloned().collect();
    (host, others)
}

/// Waits until all three are managers that are reached, and ready.
async fn all_well(swarm: &Client) {
    let start = Instant::now();
    loop {
        let nodes = swarm.nodes().list().await.unwrap_or_default();
        let quorum = swarm_client::Quorum::of(&nodes);
        if quorum.tolerance() == 1 && nodes.len() == 3 && nodes.iter().all(Node::is_ready) {
            return;
        }
        assert!(start.elapsed() < LIMIT, "{quorum:?} {nodes:?}");
        pause().await;
    }
}

/// Where a manager listens for the others.
fn at(host: &Host) -> String {
    format!("{}:2377", host.addr)
}

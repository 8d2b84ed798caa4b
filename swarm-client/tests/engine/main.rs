//! The client against an engine that misbehaves on purpose.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod connect;
mod examples;
mod failover;
mod moves;
#[cfg(feature = "engines")]
mod pool;
mod rollout;
mod services;
mod support;
mod surface;
mod swarm;
#[cfg(feature = "tls")]
mod tls;
mod watch;
#[cfg(feature = "engines")]
mod watchdog;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{CONFLICT, Engine, NO_LEADER, NO_SWARM, OneService, Reply, WORKER};
use swarm_client::{
    Availability, Client, Error, InitOptions, JoinOptions, JoinToken, ModifyError, Outcome, Role, ServiceSpec,
};

/// A spec with what other clients lose: the health check under the daemon's own spelling, and fields unknown to us.
fn rich_spec() -> Value {
    json!({
        "Name": "web",
        "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "web:1@sha256:00", "Init": false, "Env": ["A=b"], "CapabilityAdd": ["CAP_NET_ADMIN"],
                "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 2048}],
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000_000_i64, "Novel": {"x": [1, 2.5, null]}},
                "Privileges": {"Seccomp": {"Mode": "default"}}, "Isolation": "default",
                "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "rslave"}}],
            },
            "Resources": {"Limits": {"Pids": 7}, "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]}},
            "RestartPolicy": {"Condition": "never-heard-of", "MaxAttempts": 0},
            "Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                          "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "Networks": [{"Target": "n", "Aliases": ["w"], "DriverOpts": {"k": "v"}}],
            "ForceUpdate": 3, "Runtime": "container", "LogDriver": {"Name": "local"},
        },
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": {"Parallelism": 0, "FailureAction": "pause", "Monitor": 1, "MaxFailureRatio": 0.25, "Order": "start-first"},
        "EndpointSpec": {"Mode": "dnsrr", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "host", "Name": "x"}]},
        "FromTheFuture": {"deep": [{"x": 18_446_744_073_709_551_615_u64}]},
    })
}

/// An address where nothing listens.
async fn dead_url() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("tcp://{}", listener.local_addr().unwrap())
}

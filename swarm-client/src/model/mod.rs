//! The engine's objects, as its JSON has them, and nothing lost.
//!
//! What is read and written back must come back whole: a field that this crate does not know stays in the `rest` map beside
//! those that it knows, and an enum's unknown value stays as its text. Names are the daemon's own, which differ from the
//! published description in places (it says `HealthCheck`, the daemon says `Healthcheck`; a client that believes the
//! description deletes the health check of every service it scales).
//!
//! Debug output shows no environment variable's value, no argument and nothing of `rest` but its keys: they hold passwords.

mod builder;
mod info;
mod network;
mod node;
mod scalar;
mod service;
mod service_spec;
mod swarm;
mod task;

pub use builder::ServiceSpecBuilder;
pub use info::{EngineInfo, LocalNodeState, SwarmInfo};
pub use network::{EndpointMode, EndpointSpec, NetworkAttachment, PortConfig, Protocol, PublishMode};
pub use node::{Availability, ManagerStatus, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Role};
pub use scalar::{Nanos, NodeId, Rest, ServiceId, TaskId, Version};
pub use service::{Service, ServiceStatus, UpdateState, UpdateStatus};
pub use service_spec::{
    ContainerSpec, FailureAction, Healthcheck, Mode, Mount, Placement, Replicated, ResourceLimits, Resources,
    RestartCondition, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};
pub use swarm::{JoinToken, Swarm, SwarmSpec};
pub use task::{ContainerStatus, PortStatus, Task, TaskState, TaskStatus};

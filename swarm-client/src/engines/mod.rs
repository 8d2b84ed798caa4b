//! A pool of plain Docker engines, without Swarm mode: placed, watched and healed from the client's side.
//!
//! What the classic, standalone Swarm manager did as a server stands here as a library: a [`Discovery`] says where the engines
//! are, a [`Scheduler`] without I/O chooses one for each container, an [`EnginePool`] runs them, and a [`Watchdog`] starts elsewhere
//! what an engine took with it. There is no Docker API endpoint in front: programs use
//! these types, people the commands that are built on them.
//!
//! ```
//! use swarm_client::engines::{ContainerSpec, Requirements, Scheduler, Strategy};
//!
//! let spec = ContainerSpec::new("front", "nginx:1").publish(80, Some(80)).constraint("storage==~ssd");
//! let wants = Requirements::of(&spec)?;
//! // A pool of none is an error with a sentence, and never a guess.
//! let error = Scheduler::new(Strategy::Spread).select(&wants, &[], 0).unwrap_err();
//! assert!(error.to_string().contains("the pool has none"));
//! # Ok::<(), swarm_client::engines::PoolError>(())
//! ```
//!
//! # Where it differs from the classic manager, and why
//! | the classic manager | here | reason |
//! |---|---|---|
//! | stopped containers count for resources, ports and slots | they don't | they hold nothing, and the remains of a crash would keep the replacement away |
//! | ports collide whatever their protocol | 53/tcp and 53/udp don't | both can be bound |
//! | other regex characters stay alive in globs: `n.1` matches `nx1` | only `*` is special | what looks like a name is one; `/re/` is there for the rest |
//! | `key===x` and `key==!x` are taken as odd literals | refused | they are typing errors, which matched nothing without a word |
//! | processors are whole cores, sent as shares | billionths, sent as `NanoCpus` | engines have had that limit since |
//! | usage is rounded down before it is compared with 100 % | compared exactly | an engine was filled to nearly 106 % |
//! | ties that remain are broken by chance of the list's order | by name | the same input gives the same choice |
//! | `random` shuffles engines whatever room they have | it shuffles those with room | a reservation that the engine does not have is no reservation |
//! | a network of one engine is a wish for that engine | it is not looked at | say `node==NAME`; a container without its network does not start, and says so |
//! | `swarm.createretry` tries several engines | one more try, where the image is missing | an engine's refusal for another reason is an answer, and is told |
//!
//! The model of everything else is the classic manager's source, docker-archive/classicswarm.

pub mod discovery;
mod error;
mod expr;
mod filter;
pub mod labels;
mod pattern;
mod pool;
mod requirements;
mod scheduler;
mod spec;
mod strategy;
#[cfg(test)]
mod testing;
mod view;
mod watchdog;
mod wire;

pub use discovery::{Discovery, DiscoveryUrl, FileNodes, StaticNodes};
pub use error::{DiscoveryError, ExprError, LeftOut, PoolError, Unplaceable};
pub use expr::{Expr, Operator, Whitelist};
pub use filter::Filter;
pub use pool::{EnginePool, Located, LogChunk, LogOptions, Placed, PoolEvent, PoolEvents, Scaled};
pub use requirements::Requirements;
pub use scheduler::{Choice, Scheduler};
pub use spec::ContainerSpec;
pub use strategy::Strategy;
pub use view::{Container, ContainerState, Engine, EngineId, HostPort, Image};
pub use watchdog::{
    Action, Alone, Decision, Lease, MemoryRoster, Roster, RosterStore, Round, StoreError, Watchdog,
    WatchdogPolicy,
};

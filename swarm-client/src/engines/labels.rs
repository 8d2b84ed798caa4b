//! Labels of containers by which the pool knows them again. The first five are those of the classic manager, with its formats, so
//! that containers that it has started are understood.

/// The id of a container that is the same on whatever engine it runs.
pub const SWARM_ID: &str = "com.docker.swarm.id";
/// Constraints, as a JSON array of expressions.
pub const CONSTRAINTS: &str = "com.docker.swarm.constraints";
/// Affinities, as a JSON array of expressions.
pub const AFFINITIES: &str = "com.docker.swarm.affinities";
/// Whitelists, as a JSON array.
pub const WHITELISTS: &str = "com.docker.swarm.whitelists";
/// Policies for the loss of the engine, as a JSON array; the only one is `on-node-failure`.
pub const RESCHEDULE: &str = "com.docker.swarm.reschedule-policies";
/// The service that a container is a replica of: what `scale` counts.
pub const SERVICE: &str = "com.docker.swarm.pool.service";
/// The name of this very start of a container; another one each time that it is started elsewhere.
pub const INSTANCE: &str = "com.docker.swarm.pool.instance";
/// The environment entries before their placeholders were filled in, as a JSON array.
pub const TEMPLATES: &str = "com.docker.swarm.pool.templates";

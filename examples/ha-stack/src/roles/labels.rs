//! Labels on a Swarm service by which it takes part, and by which writers of its replicas respect each other.

/// The path of the readiness check; a service with this label is registered in Consul.
pub const CHECK: &str = "ha-stack.check";
/// The path that a running instance answers whatever its state; one that is silent there is ended and replaced.
pub const LIVE: &str = "ha-stack.live";
/// Until when the scaler keeps off, in seconds since 1970: set by a person's scale.
pub const HOLD_UNTIL: &str = "ha-stack.hold-until";
/// The term of the scaler that wrote the replicas last.
pub const TERM: &str = "ha-stack.term";
/// Marks everything that `up` created, so that it can be found and removed.
pub const STACK: &str = "ha-stack.stack";

/// Meta of a service in Consul: the registrar's node that owns the registration.
pub const META_OWNER: &str = "ha-stack-node";
/// Meta of a service in Consul: the name of the machine.
pub const META_HOST: &str = "ha-stack-host";
/// Meta of a service in Consul: the path of its readiness check, for those who ask it themselves.
pub const META_CHECK: &str = "ha-stack-check";
/// Meta of a gateway in Consul: the port where it says how busy it is.
pub const META_ADMIN_PORT: &str = "ha-stack-admin-port";
/// The service under which gateways are registered in Consul.
pub const GATEWAYS: &str = "ha-gateway";
/// The folder in Consul's KV where registrars note the routing labels of services, by name.
pub const ROUTES: &str = "ha-stack/routes/";

/// On the gateways' service, where they are found as its tasks: the port where users reach them, 8080 unless given.
pub const SITE_PORT: &str = "ha-stack.site-port";
/// The same for the port where they say how busy they are, 8081 unless given.
pub const ADMIN_PORT: &str = "ha-stack.admin-port";

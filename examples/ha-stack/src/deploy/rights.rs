//! What each role of the reference deployment may do, and nothing more: rules for Consul, users for Redis and its
//! Sentinels. Pure text.

use sha2::{Digest, Sha256};

/// What one role may do in Consul.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// `gateway`, `registrar`, `scaler`, or `agent` for Consul's own servers.
    pub role: &'static str,
    /// In Consul's language.
    pub rules: &'static str,
}

impl Right {
    /// The name of its policy.
    pub fn policy(&self) -> String {
        format!("ha-stack-{}", self.role)
    }
}

/// Every role that Consul knows.
pub const CONSUL: [Right; 4] = [
    Right {
        role: "agent",
        // An agent writes its own node, and keeps the catalog in step with what was registered at it. One token for all
        // hosts: their names are not known before they join.
        rules: r#"node_prefix "" { policy = "write" }
service_prefix "" { policy = "read" }
"#,
    },
    Right {
        role: "gateway",
        // It follows services and routes, and registers itself under the name of its node.
        rules: r#"agent_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
service "ha-gateway" { policy = "write" }
key_prefix "ha-stack/routes/" { policy = "read" }
"#,
    },
    Right {
        role: "registrar",
        // It registers what the Swarm runs, whatever that is called, but no gateway.
        rules: r#"node_prefix "" { policy = "read" }
service_prefix "" { policy = "write" }
service "ha-gateway" { policy = "read" }
key_prefix "ha-stack/routes/" { policy = "write" }
"#,
    },
    Right {
        role: "scaler",
        // It finds the gateways, and keeps its lock and its journal.
        rules: r#"agent_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
service_prefix "" { policy = "read" }
session_prefix "" { policy = "write" }
key_prefix "ha-stack/scaler/" { policy = "write" }
"#,
    },
];

/// The users of Redis: the site, a replica at its master, a Sentinel. Nobody else may do anything.
pub fn redis_users(web: &str, replica: &str, sentinel: &str) -> String {
    // What session-store sends, and the keys that it owns.
    let web_may = "+get +mget +set +exists +getrange +pexpire +pttl +zadd +zrange +zrangebyscore +zrem +zremrangebyscore \
                   +eval +evalsha +script|load +wait +role +info +ping +dbsize +scan";
    // The last one is the empty key, which its scripts get where a session has no user.
    let web_keys = "~session:* ~session-user:* ~session-mark ~";
    // Redis' own documentation names these for replicas and Sentinels.
    let sentinel_may = "+multi +slaveof +ping +exec +subscribe +publish +config|rewrite +role +info +client|setname \
                        +client|kill +script|kill";
    [
        NOBODY_BUT_REDIS.to_owned(),
        format!("user web on {} {web_keys} resetchannels -@all {web_may}", hashed(web)),
        format!("user replica on {} resetchannels -@all +psync +replconf +ping", hashed(replica)),
        format!(
            "user sentinel on {} resetchannels &__sentinel__:hello -@all {sentinel_may}",
            hashed(sentinel)
        ),
    ]
    .map(|line| line + "\n")
    .concat()
}

/// The users of a Sentinel: the site, which asks for the master, and the other Sentinels.
pub fn sentinel_users(web: &str, peer: &str) -> String {
    let web_may = "+ping +sentinel|get-master-addr-by-name +sentinel|master";
    let peer_may = "+ping +publish +info +client|setname +sentinel|is-master-down-by-addr";
    [
        NOBODY.to_owned(),
        format!("user web on {} resetchannels -@all {web_may}", hashed(web)),
        format!("user peer on {} resetchannels &__sentinel__:hello -@all {peer_may}", hashed(peer)),
    ]
    .map(|line| line + "\n")
    .concat()
}

/// Without a name nothing is allowed.
const NOBODY: &str = "user default off resetkeys resetchannels -@all";
/// The same in Redis: nobody can be the default user, which is off and has no password. But it has every right, since Redis reads
/// its own file as that user when it starts, and passes over each transaction there that this user may not do: all sessions
/// (seen in 7.0.15).
const NOBODY_BUT_REDIS: &str = "user default off resetpass ~* &* +@all";

/// A password as users' files have it: nobody who reads one learns it.
fn hashed(password: &str) -> String {
    format!("#{}", hex(&Sha256::digest(password.as_bytes())))
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_users_hold_no_password() {
        let all = redis_users("one", "two", "three") + &sentinel_users("one", "four");
        for word in ["one", "two", "three", "four"] {
            assert!(!all.contains(&format!(" >{word}")) && !all.contains(&format!(" {word}")), "{all}");
        }
        // sha256("one")
        assert!(all.contains("#7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"), "{all}");
        let bounded = |line: &str| line.contains(" -@all") || line.starts_with("user default off ");
        assert!(all.lines().all(|line| line.starts_with("user ") && bounded(line)), "{all}");
    }

    #[test]
    fn the_rules_are_about_the_keys_that_the_roles_use() {
        let of =
            |role: &str| CONSUL.iter().find(|right| right.role == role).map(|right| right.rules).unwrap();
        let lock = crate::roles::coordination::lock_key("web");
        assert!(lock.starts_with("ha-stack/scaler/") && of("scaler").contains("\"ha-stack/scaler/\""));
        let routes = format!("key_prefix \"{}\"", crate::roles::labels::ROUTES);
        assert!(of("gateway").contains(&routes) && of("registrar").contains(&routes));
        let gateways = format!("service \"{}\" {{ policy = \"write\" }}", crate::roles::labels::GATEWAYS);
        assert!(of("gateway").contains(&gateways) && !of("registrar").contains(&gateways));
    }
}

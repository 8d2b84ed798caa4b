//! What an engine's refusal means.
//!
//! The engine tells several situations apart by text alone: a version conflict is a 500 like any other failure, and 503 covers
//! "not a manager", "locked", "already in a swarm" and more. All matching on text happens in the one table of this file, which
//! its tests spell out with the engine's own sentences. Status codes decide only where no sentence is known.

use std::fmt;

/// Why the engine refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The object changed between our read and our write.
    Conflict,
    /// No such object.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Something still uses the object.
    InUse,
    /// The engine is a worker.
    NotManager,
    /// The engine is a manager that still starts, or that does not find the others.
    ManagerStarting,
    /// The engine is in no swarm.
    NotInSwarm,
    /// The engine is in a swarm already.
    AlreadyInSwarm,
    /// The manager is locked and waits for the unlock key.
    Locked,
    /// The engine's swarm certificate has expired.
    CertificateExpired,
    /// No leader is elected, or the manager cannot dial it: nothing was done.
    NoLeader,
    /// The leader lost its office, or stopped answering, while it worked: the request may have been done.
    LeaderLost,
    /// The change would cost the managers their majority.
    Quorum,
    /// The join goes on in the background.
    JoinPending,
    /// A name or id prefix matches more than one object.
    Ambiguous,
    /// The engine does not speak the API version that we sent.
    ApiVersion,
    /// The engine speaks TLS alone, and was asked in the clear.
    TlsRequired,
    /// The request itself is wrong.
    InvalidArgument,
    /// The engine cannot do this at all.
    Unsupported,
    /// Anything else.
    Other,
}

impl Reason {
    /// Reads the meaning off an answer's status and message.
    #[must_use]
    pub fn of(status: u16, message: &str) -> Self {
        let message = message.to_ascii_lowercase();
        TABLE.iter().find(|(text, _)| message.contains(text)).map_or_else(|| by_status(status), |row| row.1)
    }

    /// True when this answer proves that the engine did nothing, so that a write may be sent to another manager.
    #[must_use]
    pub fn proves_nothing_done(self) -> bool {
        matches!(
            self,
            Self::NotManager
                | Self::ManagerStarting
                | Self::NotInSwarm
                | Self::Locked
                | Self::CertificateExpired
                | Self::NoLeader
                | Self::ApiVersion
                | Self::TlsRequired
        )
    }

    /// True when another manager may well answer where this one could not.
    pub(crate) fn is_this_manager_only(self) -> bool {
        self.proves_nothing_done() || self == Self::LeaderLost
    }

    /// What to do about it, as the end of an error sentence.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Conflict => "read the object again and repeat the change",
            Self::NotFound => "check the name",
            Self::AlreadyExists => "choose another name or update what exists",
            Self::InUse => "remove what uses it first",
            Self::NotManager => "send it to a swarm manager",
            Self::ManagerStarting => "wait, or look at the other managers",
            Self::NotInSwarm => "run `docker swarm init` or join a swarm first",
            Self::AlreadyInSwarm => "leave the present swarm first",
            Self::Locked => "unlock the manager with `docker swarm unlock`",
            Self::CertificateExpired => "let the engine leave the swarm and join again",
            Self::NoLeader => {
                "check the addresses and bring more than half of the managers online, then try again"
            }
            Self::LeaderLost => "look whether it was done, then try again",
            Self::Quorum => "demote it first, add or repair managers, or force it",
            Self::JoinPending => "poll the engine's info until it is active",
            Self::Ambiguous => "use the full id",
            Self::ApiVersion => "use an engine and a client that share an API version",
            Self::TlsRequired => {
                "set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, or give certificates and use https:// (feature `tls`)"
            }
            Self::InvalidArgument => "correct the request",
            Self::Unsupported => "remove the object and create it anew",
            Self::Other => "look into the engine's log",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conflict => "conflict",
            Self::NotFound => "not found",
            Self::AlreadyExists => "name taken",
            Self::InUse => "in use",
            Self::NotManager => "not a manager",
            Self::ManagerStarting => "manager not ready",
            Self::NotInSwarm => "not in a swarm",
            Self::AlreadyInSwarm => "already in a swarm",
            Self::Locked => "locked",
            Self::CertificateExpired => "certificate expired",
            Self::NoLeader => "no leader",
            Self::LeaderLost => "leader lost",
            Self::Quorum => "quorum at risk",
            Self::JoinPending => "join pending",
            Self::Ambiguous => "ambiguous",
            Self::ApiVersion => "API version",
            Self::TlsRequired => "TLS required",
            Self::InvalidArgument => "invalid",
            Self::Unsupported => "unsupported",
            Self::Other => "failed",
        })
    }
}

fn by_status(status: u16) -> Reason {
    match status {
        400 => Reason::InvalidArgument,
        404 => Reason::NotFound,
        409 => Reason::AlreadyExists,
        501 => Reason::Unsupported,
        _ => Reason::Other,
    }
}

/// Lower-case parts of the engine's sentences. The first row that is contained decides, so the narrower stand first.
const TABLE: &[(&str, Reason)] = &[
    ("update out of sequence", Reason::Conflict),
    ("name conflicts with an existing object", Reason::AlreadyExists),
    ("is in use by", Reason::InUse),
    ("has active endpoints", Reason::InUse),
    ("timeout was reached before node joined", Reason::JoinPending),
    ("swarm is encrypted and needs to be unlocked", Reason::Locked),
    ("swarm is encrypted and locked", Reason::Locked),
    ("swarm certificates have expired", Reason::CertificateExpired),
    ("this node is already part of a swarm", Reason::AlreadyInSwarm),
    ("this node is not part of a swarm", Reason::NotInSwarm),
    // An engine without a swarm says "not a swarm manager" too: the advice it adds tells it from a worker.
    ("not a swarm manager. use \"docker swarm init\"", Reason::NotInSwarm),
    ("manager is being prepared or has trouble connecting", Reason::ManagerStarting),
    ("not a swarm manager", Reason::NotManager),
    ("the swarm does not have a leader", Reason::NoLeader),
    // The manager could not even dial the leader, so the request never left it.
    ("error while dialing", Reason::NoLeader),
    ("lost leader status", Reason::LeaderLost),
    ("context deadline exceeded", Reason::LeaderLost),
    ("code = unavailable", Reason::LeaderLost),
    // Said to each manager that is to leave without force; where the others would lack a majority there is more to it.
    ("leave the swarm on a node that is participating as a manager", Reason::Quorum),
    ("loss of quorum", Reason::Quorum),
    ("last manager of the swarm", Reason::Quorum),
    ("is ambiguous", Reason::Ambiguous),
    ("is too new. maximum supported api version", Reason::ApiVersion),
    ("is too old. minimum supported api version", Reason::ApiVersion),
    ("client sent an http request to an https server", Reason::TlsRequired),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The sentences as engines say them, with the status they come with.
    const SAID: &[(u16, &str, Reason)] = &[
        (500, "rpc error: code = Unknown desc = update out of sequence", Reason::Conflict),
        (404, "service web not found", Reason::NotFound),
        (404, "rpc error: code = NotFound desc = service web not found", Reason::NotFound),
        (
            409,
            "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
            Reason::AlreadyExists,
        ),
        (
            400,
            "rpc error: code = InvalidArgument desc = secret 'pw' is in use by the following service: web",
            Reason::InUse,
        ),
        (
            400,
            "rpc error: code = FailedPrecondition desc = network ab is in use by service cd",
            Reason::InUse,
        ),
        (403, "error while removing network: network back id ab has active endpoints", Reason::InUse),
        (409, "network with name back already exists", Reason::AlreadyExists),
        (
            503,
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this \
             command on a manager node or promote the current node to a manager.",
            Reason::NotManager,
        ),
        (
            503,
            "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.",
            Reason::ManagerStarting,
        ),
        (
            503,
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
             swarm and try again.",
            Reason::NotInSwarm,
        ),
        (503, "This node is not part of a swarm", Reason::NotInSwarm),
        (
            503,
            "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
            Reason::AlreadyInSwarm,
        ),
        (
            503,
            "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.",
            Reason::Locked,
        ),
        (
            503,
            "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
            Reason::Locked,
        ),
        (
            503,
            "Swarm certificates have expired. To replace them, leave the swarm and join again.",
            Reason::CertificateExpired,
        ),
        (
            500,
            "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are \
             online. Make sure more than half of the managers are online.",
            Reason::NoLeader,
        ),
        (
            503,
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp \
             198.18.0.12:2377: connect: no route to host\"",
            Reason::NoLeader,
        ),
        (500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", Reason::LeaderLost),
        (500, "raft: failed to process the request: node lost leader status", Reason::LeaderLost),
        (503, "rpc error: code = Unavailable desc = error reading from server: EOF", Reason::LeaderLost),
        (
            503,
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing this node leaves 1 \
             managers out of 2. Without a Raft quorum your swarm will be inaccessible.",
            Reason::Quorum,
        ),
        (
            503,
            "You are attempting to leave the swarm on a node that is participating as a manager. The only way to restore a \
             swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this \
             message.",
            Reason::Quorum,
        ),
        (
            503,
            "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager \
             erases all current state of the swarm. Use `--force` to ignore this message. ",
            Reason::Quorum,
        ),
        (
            400,
            "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm",
            Reason::Quorum,
        ),
        (
            400,
            "rpc error: code = FailedPrecondition desc = can't remove member from the raft: this would result in a loss of \
             quorum",
            Reason::Quorum,
        ),
        (
            503,
            "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \
             \"docker info\" command to see the current swarm status of your node.",
            Reason::JoinPending,
        ),
        (400, "service w is ambiguous (2 matches found)", Reason::Ambiguous),
        (400, "Client sent an HTTP request to an HTTPS server.\n", Reason::TlsRequired),
        (400, "client version 1.99 is too new. Maximum supported API version is 1.51", Reason::ApiVersion),
        (
            400,
            "client version 1.24 is too old. Minimum supported API version is 1.44, please upgrade",
            Reason::ApiVersion,
        ),
        (501, "renaming services is not supported", Reason::Unsupported),
        (
            400,
            "rpc error: code = FailedPrecondition desc = node x is not down and can't be removed",
            Reason::InvalidArgument,
        ),
        (500, "something new", Reason::Other),
    ];

    #[test]
    fn each_sentence_has_its_meaning() {
        for (status, message, reason) in SAID {
            assert_eq!(Reason::of(*status, message), *reason, "{status} {message}");
        }
    }

    #[test]
    fn each_row_of_the_table_is_spelled_out_above() {
        for (text, reason) in TABLE {
            let said = SAID.iter().any(|(_, m, r)| m.to_ascii_lowercase().contains(text) && r == reason);
            assert!(said, "no sentence for {text}");
        }
    }

    #[test]
    fn the_table_is_lower_case() {
        for (text, _) in TABLE {
            assert_eq!(*text, text.to_ascii_lowercase());
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_has_some_meaning(status in 0_u16..700, message in ".{0,200}") {
            let reason = Reason::of(status, &message);
            proptest::prop_assert!(!reason.to_string().is_empty() && !reason.advice().is_empty());
        }
    }
}

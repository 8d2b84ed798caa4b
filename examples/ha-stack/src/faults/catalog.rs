//! The faults: plain data.

use std::str::FromStr;
use std::time::Duration;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A host that leads nothing loses its power.
    WorkerOff,
    /// The host of the Swarm's leader loses its power.
    SwarmLeaderOff,
    /// The host that holds the users' address loses its power.
    GatewayHostOff,
    /// The host of the Redis master loses its power.
    RedisMasterOff,
    /// The host of Consul's leader loses its power.
    ConsulLeaderOff,
    /// A host's cable is pulled and put back.
    CablePulled,
    /// A replica's process is killed.
    ReplicaKilled,
    /// A replica hangs, and stays so.
    ReplicaHung,
    /// A replica takes ten times as long for each page.
    ReplicaSlow,
    /// A replica answers each page with 500 at once.
    ReplicaFailing,
    /// The gateway that users reach is restarted.
    GatewayRestarted,
    /// The gateway that users reach is killed.
    GatewayKilled,
    /// The Redis master is killed, and stays away for a while.
    RedisMasterKilled,
    /// The Redis master hangs until another was elected, then goes on.
    RedisMasterHung,
    /// Consul's leader is killed.
    ConsulLeaderKilled,
    /// All of Consul is down for a while.
    ConsulDown,
    /// A registrar is killed.
    RegistrarKilled,
    /// The leading scaler is killed.
    ScalerKilled,
    /// The leading scaler hangs until another leads, then goes on.
    ScalerHung,
    /// The site is updated to a new version.
    RollingUpdate,
    /// The site is scaled in.
    ScaleIn,
    /// The engine of the Swarm's leader hangs.
    EngineHung,
    /// The clocks of one host's replicas and roles are five minutes ahead.
    ClockAhead,
    /// The disk of a host is full.
    DiskFull,
}

/// What is promised of GETs under a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// None fails.
    None,
    /// At most one fails for each connection that was open to what died: nobody else can answer on it.
    OnePerConnection,
}

impl Fault {
    /// Every fault, in the order of a full run: what moves a leader comes late, so that the others find them all on one host
    /// and two that lead nothing.
    pub const ALL: [Self; 24] = [
        Self::ReplicaKilled,
        Self::ReplicaHung,
        Self::ReplicaSlow,
        Self::ReplicaFailing,
        Self::RegistrarKilled,
        Self::RollingUpdate,
        Self::ScaleIn,
        Self::ScalerKilled,
        Self::ScalerHung,
        Self::ClockAhead,
        Self::DiskFull,
        Self::WorkerOff,
        Self::CablePulled,
        Self::ConsulLeaderKilled,
        Self::ConsulDown,
        Self::RedisMasterKilled,
        Self::RedisMasterHung,
        Self::EngineHung,
        Self::GatewayRestarted,
        Self::GatewayKilled,
        Self::RedisMasterOff,
        Self::ConsulLeaderOff,
        Self::GatewayHostOff,
        Self::SwarmLeaderOff,
    ];

    /// Its name: `worker-off`, `replica-killed`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkerOff => "worker-off",
            Self::SwarmLeaderOff => "swarm-leader-off",
            Self::GatewayHostOff => "gateway-host-off",
            Self::RedisMasterOff => "redis-master-off",
            Self::ConsulLeaderOff => "consul-leader-off",
            Self::CablePulled => "cable-pulled",
            Self::ReplicaKilled => "replica-killed",
            Self::ReplicaHung => "replica-hung",
            Self::ReplicaSlow => "replica-slow",
            Self::ReplicaFailing => "replica-failing",
            Self::GatewayRestarted => "gateway-restarted",
            Self::GatewayKilled => "gateway-killed",
            Self::RedisMasterKilled => "redis-master-killed",
            Self::RedisMasterHung => "redis-master-hung",
            Self::ConsulLeaderKilled => "consul-leader-killed",
            Self::ConsulDown => "consul-down",
            Self::RegistrarKilled => "registrar-killed",
            Self::ScalerKilled => "scaler-killed",
            Self::ScalerHung => "scaler-hung",
            Self::RollingUpdate => "rolling-update",
            Self::ScaleIn => "scale-in",
            Self::EngineHung => "engine-hung",
            Self::ClockAhead => "clock-ahead",
            Self::DiskFull => "disk-full",
        }
    }

    /// How long it lasts at least before it is taken back.
    pub fn lasts(self, short: bool) -> Duration {
        let (long, brief) = match self {
            // Until the stack is whole, in any case.
            Self::SwarmLeaderOff | Self::GatewayHostOff | Self::RedisMasterOff | Self::ConsulLeaderOff => {
                (20, 4)
            }
            Self::CablePulled | Self::ConsulDown => (30, 6),
            // Ten seconds until it is ended, and then it is replaced.
            Self::ReplicaHung => (25, 12),
            Self::ScalerHung => (25, 6),
            // Until another master is elected, or a look-up of an engine that hangs has ended.
            Self::RedisMasterHung | Self::RedisMasterKilled => (15, 6),
            Self::EngineHung | Self::DiskFull => (20, 6),
            // One replica after the other, each with its drain.
            Self::RollingUpdate | Self::ScaleIn => (20, 10),
            _ => (15, 4),
        };
        Duration::from_secs(if short { brief } else { long })
    }

    /// How long it lasts at most: where the stack is not whole by [`Fault::lasts`], it has to come back by itself meanwhile.
    pub fn patience(self, short: bool) -> Duration {
        let promised = self.redundancy(short).map_or(Duration::ZERO, Duration::from_secs_f64);
        match self {
            // The managers elect a leader first, twice where their votes are split.
            Self::SwarmLeaderOff | Self::GatewayHostOff | Self::RedisMasterOff | Self::ConsulLeaderOff => {
                Duration::from_secs(60)
            }
            // Taken back when its promise is kept, rather than when it might have been broken.
            _ if short => promised.max(self.lasts(short)),
            _ => self.lasts(short),
        }
    }

    /// What is promised of GETs.
    pub fn promise(self) -> Promise {
        match self {
            Self::GatewayHostOff | Self::GatewayKilled => Promise::OnePerConnection,
            _ => Promise::None,
        }
    }

    /// Within how many seconds the stack must be whole again; `None` where nothing of it is lost, or it is whole only
    /// when the fault is taken back. A short run allows for a machine that does other things meanwhile.
    pub fn redundancy(self, short: bool) -> Option<f64> {
        let within = match self {
            Self::WorkerOff => 5.0,
            Self::SwarmLeaderOff => 30.0,
            // Each of these may lead the Swarm as well. Where the election itself took longer, `AFTER_ELECTION` is allowed.
            Self::GatewayHostOff | Self::RedisMasterOff | Self::ConsulLeaderOff => 30.0,
            Self::ReplicaKilled => 5.0,
            // Silent for 10 s before it is ended, as an instance that is merely slow must not be.
            Self::ReplicaHung => 20.0,
            _ => return None,
        };
        Some(if short { within * BUSY } else { within })
    }
}

/// Seconds from the election of a Swarm's leader until the stack is whole: the dispatcher of a new leader waits for six
/// heartbeats of 1 s and a bit before it calls a node down (7.8 s measured), then a replica starts.
pub const AFTER_ELECTION: f64 = 12.0;
/// How much longer a machine with other work may take.
const BUSY: f64 = 3.0;

/// Within how many seconds the users' address must be on another host after its own was lost.
pub fn address_moves(short: bool) -> f64 {
    if short { 2.0 * BUSY } else { 2.0 }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|fault| fault.name() == text).ok_or_else(|| {
            format!("there is no such fault; there are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own_that_is_read_back() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
            assert!(fault.lasts(true) <= fault.lasts(false) && fault.lasts(false) <= Duration::from_secs(35));
            for short in [true, false] {
                let (lasts, patience) = (fault.lasts(short), fault.patience(short));
                assert!(lasts <= patience && patience <= Duration::from_secs(60), "{}", fault.name());
            }
        }
        assert!("rain".parse::<Fault>().unwrap_err().contains("worker-off"));
    }

    #[test]
    fn a_short_run_is_shorter_and_more_patient() {
        for fault in Fault::ALL {
            let (short, long) = (fault.redundancy(true), fault.redundancy(false));
            assert!(short.is_none() == long.is_none() && short >= long, "{}", fault.name());
        }
        // Without the waits between them: what `./test.sh` spends on it.
        let lasts: Duration = Fault::ALL.iter().map(|fault| fault.lasts(true)).sum();
        assert!(lasts < Duration::from_secs(150), "{lasts:?}");
    }
}

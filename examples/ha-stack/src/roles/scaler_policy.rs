//! Which policy the scaler follows: a file's, else that of the service's labels, else that of the flags.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use autoscaler::controller::{Mode, PolicyHandle, ScaleError, ScaleTarget, TargetStatus, Term, Written};
use autoscaler::{Decision, Drain, Policy, SignalPolicy, Target, Zero};
use tokio_util::sync::CancellationToken;

use super::docker_stats::CPU;
use super::labels;
use super::scaler::P95;
use crate::platform::IN_FLIGHT;

/// `balanced`, `hpa` or `kpa`: scale this service by that policy; `off`: leave it alone.
pub const SCALE: &str = "ha-stack.scale";
/// Fewest replicas. 0 lets an idle service go to zero; the gateways' waiting rooms bring it back.
pub const MIN: &str = "ha-stack.scale.min";
/// With a least number of 0: for how many seconds nobody must have come before the last replicas go; 60 unless given.
pub const IDLE: &str = "ha-stack.scale.idle";
/// Most replicas.
pub const MAX: &str = "ha-stack.scale.max";
/// Percent of the CPU that each replica may use: its limit, else its reservation, else its host. Without a target of
/// requests in flight beside it, the only signal: for what no gateway serves.
pub const CPU_PERCENT: &str = "ha-stack.scale.cpu";
/// Milliseconds: nothing is removed while the 95th percentile of the answers' latency, at the slowest gateway, is above this.
pub const P95_LIMIT: &str = "ha-stack.scale.p95";
/// Requests in flight for each replica.
pub const TARGET: &str = "ha-stack.scale.target";

/// What a service's labels ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// To be left alone.
    Off,
    /// To be scaled by this policy.
    Scale(Box<Policy>),
}

/// What the labels ask for, on top of the policy of the flags.
///
/// # Errors
/// When a label makes no sense, with label, value and rule.
pub fn from_labels<'a>(label: impl Fn(&str) -> Option<&'a str>, flags: &Policy) -> Result<Wish> {
    let number = |name: &str, default: u32| match label(name) {
        Some(text) => text.parse().with_context(|| format!("{name} is {text:?}; it must be a whole number")),
        None => Ok(default),
    };
    let (min, max) = (number(MIN, flags.min)?, number(MAX, flags.max)?);
    let each = flags.signals.iter().find_map(|signal| match signal.target {
        Target::AveragePerInstance(each) if signal.name == IN_FLIGHT => Some(each),
        _ => None,
    });
    let target = match label(TARGET) {
        Some(text) => text.parse().with_context(|| format!("{TARGET} is {text:?}; it must be a number"))?,
        None => each.context("the flags name no target")?,
    };
    let cpu = match label(CPU_PERCENT) {
        Some(text) => match text.parse() {
            Ok(percent @ 1..=1000) => Some(SignalPolicy::new(CPU, Target::Utilization(percent))),
            _ => bail!("{CPU_PERCENT} is {text:?}; it must be a whole number of percent, 1 to 1000"),
        },
        None => None,
    };
    let by_cpu_alone = cpu.is_some() && label(TARGET).is_none();
    let signal = SignalPolicy::new(IN_FLIGHT, Target::AveragePerInstance(target));
    let mut policy = match label(SCALE) {
        None => {
            // The flags' policy, with other numbers.
            let mut policy = flags.clone();
            for signal in policy.signals.iter_mut().filter(|signal| signal.name == IN_FLIGHT) {
                signal.target = Target::AveragePerInstance(target);
            }
            policy
        }
        Some("off") => return Ok(Wish::Off),
        Some("balanced") => Policy::balanced(IN_FLIGHT, target),
        Some("hpa") => Policy::hpa(signal),
        Some("kpa") if by_cpu_alone => {
            bail!("{SCALE} is kpa, which counts requests in flight: set {TARGET} too, or use balanced or hpa")
        }
        Some("kpa") => Policy::kpa(IN_FLIGHT, target),
        Some(other) => bail!("{SCALE} is {other:?}; it must be balanced, hpa, kpa or off"),
    };
    if by_cpu_alone {
        // A load that can't rise above all of the CPU there is says nothing of how much is to come.
        policy.signals.clear();
        policy.forecast = None;
    }
    policy.signals.extend(cpu);
    if let Some(text) = label(P95_LIMIT) {
        let limit = text.parse().ok().filter(|limit| *limit > 0.0);
        let limit = limit.with_context(|| {
            format!("{P95_LIMIT} is {text:?}; it must be a number of milliseconds above 0")
        })?;
        policy.signals.retain(|signal| signal.name != P95);
        policy = policy.guard(P95, limit);
    }
    let policy = match min {
        // One at least while there is anything to do.
        0 => policy.bounds(1, max).zero(Some(zero(label(IDLE))?)),
        min => policy.bounds(min, max),
    };
    policy.validate().context("the labels make no policy")?;
    Ok(Wish::Scale(Box::new(policy)))
}

/// To zero after this time. The waiting rooms must have stood ready for half of it, and for no more than the default asks.
fn zero(idle: Option<&str>) -> Result<Zero> {
    let Some(text) = idle else { return Ok(Zero::default()) };
    let seconds: u32 =
        text.parse().with_context(|| format!("{IDLE} is {text:?}; it must be a whole number of seconds"))?;
    let (idle, default) = (Duration::from_secs(seconds.into()), Zero::default());
    Ok(Zero::after(idle).grace((idle / 2).min(default.grace)))
}

/// The policy of a TOML file.
///
/// # Errors
/// When it can't be read, or is refused: on one line, with line, field, value and rule.
pub fn from_file(path: &Path) -> Result<Policy> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("--policy is {}: it can't be read", path.display()))?;
    match Policy::from_toml(&text) {
        Ok(policy) => Ok(policy),
        Err(error) => bail!("--policy is {}: {}", path.display(), error.to_string().replace('\n', "; ")),
    }
}

/// Whether requests of the gateways decide, or go to what is scaled: then they are asked before anything is removed.
pub fn is_served(check: Option<&str>, policy: &Policy) -> bool {
    check.is_some() || policy.signals.iter().any(|signal| [IN_FLIGHT, P95].contains(&signal.name.as_str()))
}

/// Whether the policy looks at the CPU.
pub fn wants_cpu(policy: &Policy) -> bool {
    policy.signals.iter().any(|signal| signal.reading.as_ref().unwrap_or(&signal.name) == CPU)
}

/// What a service's labels ask for, with what this stack asks of every policy.
///
/// # Errors
/// Those of [`from_labels`].
pub fn of_service(service: &swarm_client::Service, flags: &Policy, unseen: &str) -> Result<Wish> {
    let wish = from_labels(|name| service.label(name), flags)?;
    Ok(match wish {
        Wish::Scale(policy) if is_served(service.label(labels::CHECK), &policy) => {
            Wish::Scale(Box::new(careful(*policy, unseen)))
        }
        wish => wish,
    })
}

/// With what this stack asks of every policy: nothing is removed while a gateway is silent (its share of the load is a
/// signal that is unknown then), nor before a drain at all gateways.
pub fn careful(mut policy: Policy, unseen: &str) -> Policy {
    policy.drain = policy.drain.or(Some(Drain { deadline: DRAIN_DEADLINE }));
    let guard = SignalPolicy::new(unseen, Target::Guard(f64::from(u32::MAX)));
    if policy.signals.iter().any(|signal| signal.name == unseen) { policy } else { policy.signal(guard) }
}

/// Follows the labels of the service until told to stop; `cpu` says whether its CPU has to be measured. Labels that make no sense are told once, and change nothing.
pub async fn follow_labels(
    swarm: swarm_client::Client,
    service: String,
    flags: Policy,
    unseen: &'static str,
    handle: PolicyHandle,
    cpu: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let mut told: Option<String> = None;
    loop {
        // What can't be read changes nothing; the controller itself says that Swarm is away.
        if let Ok(found) = swarm.services().get(&service).await {
            let wish = of_service(&found, &flags, unseen);
            let done = wish.and_then(|wish| match wish {
                Wish::Off => {
                    handle.set_mode(Mode::Paused);
                    Ok(())
                }
                Wish::Scale(policy) => {
                    cpu.store(wants_cpu(&policy), Ordering::Relaxed);
                    handle.set_mode(Mode::Active);
                    Ok(handle.set(*policy)?)
                }
            });
            let error = done.err().map(|error| format!("{error:#}"));
            if let Some(error) = error.as_ref().filter(|error| told.as_ref() != Some(*error)) {
                tracing::warn!(%service, %error, "labels are left aside; the policy before them stays");
            }
            told = error;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// A target whose requests find a waiting room while there is no replica, as far as the gateways say.
pub struct Buffered<T> {
    /// The target itself.
    pub target: T,
    /// Whether every gateway answered when the load was read last.
    pub gateways: Arc<AtomicBool>,
}

#[async_trait]
impl<T: ScaleTarget> ScaleTarget for Buffered<T> {
    async fn read(&self) -> Result<TargetStatus, ScaleError> {
        let status = self.target.read().await?;
        Ok(TargetStatus { buffer: Some(self.gateways.load(Ordering::Relaxed)), ..status })
    }

    async fn write(&self, replicas: u32, term: Term, because: &Decision) -> Result<Written, ScaleError> {
        self.target.write(replicas, term, because).await
    }
}

/// How long a replica that will go may finish what is in flight on it.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// Soon enough for a person who changes a label.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(labels: &[(&str, &str)]) -> Result<Wish> {
        let flags = Policy::balanced(IN_FLIGHT, 10.0).bounds(2, 6).down_window(Duration::from_secs(7));
        let find = |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
        from_labels(find, &flags)
    }

    fn policy(labels: &[(&str, &str)]) -> Policy {
        match wish(labels).unwrap() {
            Wish::Scale(policy) => *policy,
            Wish::Off => panic!("{labels:?} is off"),
        }
    }

    #[test]
    fn labels_change_what_they_name() {
        let plain = policy(&[]);
        assert_eq!((plain.min, plain.max, plain.behavior.down.stabilization), (2, 6, Duration::from_secs(7)));
        let more = policy(&[(MIN, "3"), (MAX, "30"), (TARGET, "25")]);
        assert_eq!((more.min, more.max), (3, 30));
        assert_eq!(more.signals[0].target, Target::AveragePerInstance(25.0));
        assert_eq!(more.behavior, plain.behavior, "the rest is the flags'");
        assert_eq!(policy(&[(SCALE, "kpa")]).signals[0].window, Duration::from_secs(60));
        assert_eq!(wish(&[(SCALE, "off")]).unwrap(), Wish::Off);
    }

    #[test]
    fn a_minimum_of_zero_is_the_way_to_zero() {
        let zero = policy(&[(MIN, "0")]);
        assert_eq!((zero.min, zero.zero), (1, Some(Zero::default())));
        let soon = policy(&[(MIN, "0"), (IDLE, "8")]).zero.unwrap();
        assert_eq!((soon.idle_for, soon.grace), (Duration::from_secs(8), Duration::from_secs(4)));
    }

    #[test]
    fn cpu_is_a_signal_of_its_own_or_beside_the_requests() {
        let alone = policy(&[(CPU_PERCENT, "70")]);
        assert_eq!(alone.signals, [SignalPolicy::new(CPU, Target::Utilization(70))]);
        assert_eq!(alone.behavior, policy(&[]).behavior, "the rest is the flags'");
        assert!(wants_cpu(&alone) && !is_served(None, &alone) && is_served(Some("/healthz"), &alone));
        let both = policy(&[(SCALE, "hpa"), (CPU_PERCENT, "70"), (TARGET, "25")]);
        let names: Vec<&str> = both.signals.iter().map(|signal| signal.name.as_str()).collect();
        assert_eq!(names, [IN_FLIGHT, CPU]);
        assert!(is_served(None, &both) && !wants_cpu(&policy(&[])));
        assert!(policy(&[(SCALE, "balanced"), (CPU_PERCENT, "70")]).validate().is_ok());
    }

    #[test]
    fn slow_answers_are_a_veto_on_removal() {
        let guarded = policy(&[(SCALE, "balanced"), (P95_LIMIT, "250")]);
        let guard = guarded.signals.iter().find(|signal| signal.name == P95).unwrap();
        assert_eq!(guard.target, Target::Guard(250.0));
        let cpu = policy(&[(CPU_PERCENT, "70"), (P95_LIMIT, "250")]);
        assert!(is_served(None, &cpu), "the gateways know how slow it is");
    }

    #[test]
    fn a_label_that_makes_no_sense_is_named() {
        let says = |labels: &[(&str, &str)]| format!("{:#}", wish(labels).unwrap_err());
        assert!(
            says(&[(MIN, "many")]).starts_with("ha-stack.scale.min is \"many\"; it must be a whole number")
        );
        assert_eq!(
            says(&[(SCALE, "magic")]),
            "ha-stack.scale is \"magic\"; it must be balanced, hpa, kpa or off"
        );
        assert!(says(&[(CPU_PERCENT, "0")]).starts_with("ha-stack.scale.cpu is \"0\"; it must be"));
        assert!(says(&[(SCALE, "kpa"), (CPU_PERCENT, "70")]).contains("set ha-stack.scale.target too"));
        assert!(
            says(&[(MIN, "0"), (IDLE, "soon")]).starts_with("ha-stack.scale.idle is \"soon\"; it must be")
        );
        for wrong in ["soon", "0", "-1", "NaN"] {
            assert!(says(&[(P95_LIMIT, wrong)]).starts_with("ha-stack.scale.p95 is"), "{wrong}");
        }
        assert!(says(&[(MIN, "9")]).contains("min is 9, but it must not exceed max"));
        assert!(says(&[(TARGET, "-1")]).contains("signals[0].target is -1"));
    }

    #[test]
    fn a_silent_gateway_forbids_removal_under_any_policy() {
        let policy = careful(policy(&[]), "in_flight_unseen");
        assert!(policy.validate().is_ok());
        assert!(policy.drain.is_some());
        assert_eq!(careful(policy.clone(), "in_flight_unseen"), policy);
    }
}

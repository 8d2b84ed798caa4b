//! Policies to start from: our own, and those of others for comparison and for moving over.

use std::time::Duration;

use super::{
    Behavior, Burst, BurstOf, Calm, Compat, Direction, FlapBudget, Forecast, Policy, RateLimit, Select,
    SignalPolicy, Step, Surge, Target, Threshold, Zero,
};

impl Policy {
    /// The policy to start with: fast up, calm down, from one signal that grows with the load (requests in flight
    /// at the load balancer, or offered requests a second), `target` of it per instance. Add the latency as a
    /// [`guard`](Self::guard).
    ///
    /// Up: at once, at most tenfold in 15 s, and not while nothing new becomes ready for three minutes. Down: to the
    /// highest proposal of the last 60 s (longer, up to 300 s, for a load that comes and goes: [`Calm`]), a quarter
    /// stays for 30 s at least, not in a [`Burst`] (a load that asks for twice
    /// the present count or more, in the last minute), and not when it would be the seventh turn
    /// in ten minutes. What recurs is
    /// expected ([`Forecast`]): instances are added before it comes, those needed again within two minutes stay, and
    /// each change goes as far as it will have to within them. Bounds are 1 to 10 until set.
    pub fn balanced(signal: impl Into<String>, target: f64) -> Self {
        Self {
            signals: vec![SignalPolicy::new(signal, Target::AveragePerInstance(target))],
            behavior: Behavior {
                up: Direction::new()
                    .limit(RateLimit::Percent { p: 900, period: UP_PERIOD })
                    .limit(RateLimit::Count { n: 4, period: UP_PERIOD }),
                down: Direction::new()
                    .stabilization(MINUTE)
                    .limit(RateLimit::Percent { p: 75, period: HALF_A_MINUTE }),
            },
            burst: Some(Burst::default()),
            calm: Some(Calm::default()),
            surge: Some(Surge { patience: PATIENCE }),
            flap_budget: Some(FlapBudget { turns: TURNS, period: TEN_MINUTES }),
            forecast: Some(Forecast::default()),
            ..Self::default()
        }
    }

    /// What the Horizontal Pod Autoscaler v2 does without a `behavior` block: tolerance 10 %, up by the larger of
    /// 4 and 100 % in 15 s, down to the highest proposal of the last 300 s. Decide every 15 s.
    ///
    /// Any target will do; for CPU set [`SignalPolicy::readiness`] too.
    pub fn hpa(signal: SignalPolicy) -> Self {
        Self {
            signals: vec![signal],
            behavior: Behavior {
                up: Direction::new()
                    .limit(RateLimit::Percent { p: 100, period: UP_PERIOD })
                    .limit(RateLimit::Count { n: 4, period: UP_PERIOD }),
                down: Direction::new()
                    .stabilization(Duration::from_secs(300))
                    .limit(RateLimit::Percent { p: 100, period: UP_PERIOD }),
            },
            compat: Compat::Hpa,
            ..Self::default()
        }
    }

    /// What the Knative pod autoscaler does by default: means over 60 s and, in a panic, 6 s; no dead band; at most half
    /// down and a thousandfold up in a decision; a panic at twice what is ready, for a minute, in which nothing is
    /// removed. Decide every 2 s. For its scale to zero add [`Zero::default`]; the target is what an instance should
    /// have (Knative's 100 in flight at 70 % are 70).
    pub fn kpa(signal: impl Into<String>, target: f64) -> Self {
        let signal = SignalPolicy::new(signal, Target::AveragePerInstance(target));
        Self {
            signals: vec![signal.tolerance(0, 0).window(MINUTE)],
            behavior: Behavior {
                up: Direction::new().limit(RateLimit::Percent { p: 99_900, period: KPA_TICK }),
                down: Direction::new().limit(RateLimit::Percent { p: 50, period: KPA_TICK }),
            },
            burst: Some(Burst::default().short_window(Duration::from_secs(6)).of(BurstOf::Ready)),
            burst_capacity: Some(211.0),
            ..Self::default()
        }
    }

    /// Nomad's target-value strategy: the count times value over target, tolerance 1 %, and a cool-down of five minutes
    /// after any change. Decide every 10 s.
    pub fn nomad_target_value(signal: impl Into<String>, target: f64) -> Self {
        let cool = Direction::new().cooldown(Duration::from_secs(300));
        Self {
            signals: vec![SignalPolicy::new(signal, Target::Total(target)).tolerance(1, 1)],
            behavior: Behavior { up: cool.clone(), down: cool },
            compat: Compat::Nomad,
            ..Self::default()
        }
    }

    /// What KEDA makes of a scaler: the Horizontal Pod Autoscaler between the bounds, and to zero when the signal was
    /// not above `activation` for 300 s.
    pub fn keda(signal: SignalPolicy) -> Self {
        let zero = Zero::after(Duration::from_secs(300)).grace(Duration::ZERO).needs_buffer(false);
        Self::hpa(signal).zero(Some(zero))
    }

    /// The rule of most Swarm autoscalers: one more while `signal` is at `high` or above, one less while it is below
    /// `low`, one step per decision.
    pub fn threshold(signal: impl Into<String>, low: f64, high: f64) -> Self {
        let signal = signal.into();
        let more = Threshold::new(high, None, Step::Delta(1)).after(1, MINUTE);
        let less = Threshold::new(0.0, Some(low), Step::Delta(-1)).after(1, MINUTE);
        Self {
            signals: vec![
                SignalPolicy::new(signal.clone(), Target::Threshold(more)),
                SignalPolicy::new(format!("{signal}_low"), Target::Threshold(less)).reading(signal),
            ],
            behavior: Behavior {
                up: Direction::new().select(Select::Max),
                down: Direction::new().select(Select::Max),
            },
            ..Self::default()
        }
    }
}

/// The period of the limits on the way up.
const UP_PERIOD: Duration = Duration::from_secs(15);
/// The window of the way down and the period of its limit; services of containers start in seconds, so a minute of calm
/// is enough to trust.
const MINUTE: Duration = Duration::from_secs(60);
/// After a large removal as long as a new instance would need, to see how the rest fares.
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
/// Longer than a slow image pull and start, shorter than anybody would look on.
const PATIENCE: Duration = Duration::from_secs(180);
/// Three times up and down in ten minutes may be a rhythm; more is noise.
const TURNS: u32 = 6;
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// The tick of the Knative pod autoscaler, whose limits count per tick.
const KPA_TICK: Duration = Duration::from_secs(2);

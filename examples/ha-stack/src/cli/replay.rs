//! `ha-stack replay`: what a policy would have made of a recorded load.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use autoscaler::replay::{PlantModel, Player, Report, Trace, compare, picture};
use autoscaler::{Policy, SignalPolicy, Target};
use clap::{Args, ValueEnum};

/// Flags of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// The recorded load: a header, then rows of a second and the load from there on
    trace: PathBuf,
    /// The policy to try, as TOML; without it, the default policy
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Policies to compare it with
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    against: Vec<Rival>,
    /// Seconds over which a row counts its requests
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    per: f64,
    /// Multiply the load so that its peak asks for so many instances
    #[arg(long, value_name = "N")]
    peak: Option<u32>,
    /// Requests a second that one instance can do
    #[arg(long, default_value_t = 100.0, value_name = "N")]
    capacity: f64,
    /// Requests a second that one instance is meant to do
    #[arg(long, default_value_t = 70.0, value_name = "N")]
    target: f64,
    /// Seconds from the decision until a new instance serves
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    start: usize,
    /// Seconds between two decisions of the policy
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    tick: usize,
    /// Fewest instances, for the default policy and those it is compared with
    #[arg(long, default_value_t = 2)]
    min: u32,
    /// Most instances, for the default policy and those it is compared with
    #[arg(long, default_value_t = 60)]
    max: u32,
    /// Where to write the picture
    #[arg(long, default_value = "replay.svg", value_name = "FILE")]
    svg: PathBuf,
    /// Print every decision that changed the count
    #[arg(long)]
    decisions: bool,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
}

/// Whom to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Rival {
    /// Our default policy
    Balanced,
    /// The Horizontal Pod Autoscaler on the rate
    Hpa,
    /// The Horizontal Pod Autoscaler on CPU
    HpaCpu,
    /// The Knative pod autoscaler on the rate
    Kpa,
    /// One more from 85 % CPU on, one less below 25 %, every half minute
    Threshold,
}

/// Replays.
///
/// # Errors
/// When a file can't be read, a policy is refused, or a number makes no sense.
pub fn run(args: &ReplayArgs) -> Result<ExitCode> {
    args.check()?;
    let trace = Trace::from_csv(&read(&args.trace, "the trace")?, args.per)
        .with_context(|| format!("{} can't be replayed", args.trace.display()))?;
    let trace = match args.peak {
        Some(peak) => trace.scaled_to_peak(f64::from(peak) * args.target),
        None => trace,
    };
    let mut model = PlantModel::default();
    (model.capacity, model.target, model.start_seconds) = (args.capacity, args.target, args.start);
    model.min = args.min;

    let mut players = vec![args.player()?];
    players.extend(args.against.iter().map(|rival| args.rival(*rival)));
    let reports = compare(&players, &trace, &model);
    let title = format!("{}, {} s", args.trace.display(), trace.seconds());
    std::fs::write(&args.svg, picture(&title, &reports, &model))
        .with_context(|| format!("--svg is {}: it can't be written", args.svg.display()))?;
    if args.json {
        let scores: Vec<Report> = reports.into_iter().map(Report::without_samples).collect();
        println!("{}", serde_json::to_string(&scores)?);
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", table(&reports));
    println!("cost: over the cheapest plan with this headroom that knows the whole load beforehand");
    println!("picture: {}", args.svg.display());
    if let Some(first) = reports.first().filter(|_| args.decisions) {
        for (second, decision) in &first.log {
            println!("{second:>8} s  {decision}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl ReplayArgs {
    fn check(&self) -> Result<()> {
        for (flag, value) in [("--per", self.per), ("--capacity", self.capacity), ("--target", self.target)] {
            ensure!(value.is_finite() && value > 0.0, "{flag} is {value}; it must be a number above 0");
        }
        ensure!((1..=3600).contains(&self.tick), "--tick is {}; it must be 1 to 3600", self.tick);
        ensure!(self.start <= 3600, "--start is {}; it must be at most 3600", self.start);
        ensure!(
            self.min <= self.max && self.max >= 1,
            "--min is {} and --max {}; there must be a number between them",
            self.min,
            self.max
        );
        Ok(())
    }

    fn player(&self) -> Result<Player> {
        let Some(path) = &self.policy else { return Ok(self.rival(Rival::Balanced)) };
        let text = read(path, "the policy")?;
        let policy = match Policy::from_toml(&text) {
            Ok(policy) => policy,
            Err(error) => {
                // One line, as every refusal of this program.
                bail!("{} is refused: {}", path.display(), error.to_string().replace('\n', "; "))
            }
        };
        let name =
            path.file_stem().map_or_else(|| "policy".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Player::new(name, policy, self.tick))
    }

    fn rival(&self, rival: Rival) -> Player {
        let rate = SignalPolicy::new("rate", Target::AveragePerInstance(self.target));
        let percent = (100.0 * self.target / self.capacity).round().clamp(1.0, 100.0) as u32;
        let cpu = SignalPolicy::new("cpu", Target::Utilization(percent)).readiness(Some(Default::default()));
        let (name, policy, tick) = match rival {
            Rival::Balanced => {
                ("balanced", Policy::balanced("rate", self.target).guard("p95", P95_OBJECTIVE), self.tick)
            }
            Rival::Hpa => ("hpa", Policy::hpa(rate), 15),
            Rival::HpaCpu => ("hpa-cpu", Policy::hpa(cpu), 15),
            Rival::Kpa => ("kpa", Policy::kpa("rate", self.target), 2),
            Rival::Threshold => ("threshold", Policy::threshold("cpu", 25.0, 85.0), 30),
        };
        Player::new(name, policy.bounds(self.min, self.max), tick)
    }
}

fn read(path: &Path, what: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{what} {} can't be read", path.display()))
}

fn table(reports: &[Report]) -> String {
    let mut table = format!(
        "{:<14} {:>10} {:>8} {:>8} {:>6} {:>8} {:>6} {:>6}\n",
        "policy", "overload s", "% beyond", "slo min", "cost", "actions", "turns", "wrong"
    );
    for report in reports {
        table += &format!(
            "{:<14} {:>10} {:>8.2} {:>8.1} {:>6.2} {:>8} {:>6} {:>6}\n",
            report.name,
            report.overload_seconds,
            report.beyond_percent,
            report.slo_minutes,
            report.cost_ratio,
            report.actions,
            report.direction_changes,
            report.wrong_way
        );
    }
    table
}

/// Seconds; what the model of the service is held against.
const P95_OBJECTIVE: f64 = 0.5;

//! The scoreboard: our default policy beside the policies of others, on the same loads and the same modelled service.
//!
//!   ./bench.sh autoscaler [--json] [--markdown] [--svg FILE] [--only SCENARIO] [--policy FILE.toml]
//!   ./bench.sh autoscaler --family SEED [--members 200] [--json]        loads drawn from seeds, every policy
//!   ./bench.sh autoscaler --sensitivity SEED [--members 200] [--json]   each constant of the default halved and doubled
//!   ./bench.sh autoscaler --bound [--json]      the sawtooth's cheapest plans by number of changes

mod bound;
mod family;
mod scenarios;
mod sensitivity;
mod speed;

use std::process::ExitCode;
use std::time::Duration;

use autoscaler::Policy;
use autoscaler::replay::{Player, Report, picture, replay};
use serde_json::{Map, Value, json};

#[derive(Default)]
struct Options {
    json: bool,
    markdown: bool,
    svg: Option<String>,
    only: Option<String>,
    policy: Option<String>,
    family: Option<u64>,
    sensitivity: Option<u64>,
    members: Option<u64>,
    bound: bool,
}

fn main() -> ExitCode {
    match options().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench-autoscaler: {why}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--json" => options.json = true,
            "--markdown" => options.markdown = true,
            "--svg" => options.svg = Some(value()?),
            "--only" => options.only = Some(value()?),
            "--policy" => options.policy = Some(value()?),
            "--bound" => options.bound = true,
            "--family" => options.family = Some(number(value()?)?),
            "--sensitivity" => options.sensitivity = Some(number(value()?)?),
            "--members" => options.members = Some(number(value()?)?.clamp(1, 10_000)),
            other => return Err(format!("there is no option {other}")),
        }
    }
    Ok(options)
}

fn number(text: String) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text:?} is no number: {error}"))
}

fn run(options: Options) -> Result<(), String> {
    let members = options.members.unwrap_or(MEMBERS);
    let told = match (options.family, options.sensitivity) {
        (Some(first), _) => Some(family::run(first, members)),
        (_, Some(first)) => Some(sensitivity::run(first, members)?),
        _ if options.bound => Some(bound::run()?),
        _ => None,
    };
    if let Some(told) = told {
        if options.json {
            println!("{told}");
        }
        return Ok(());
    }
    let mut players = scenarios::players();
    if let Some(path) = &options.policy {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let policy = Policy::from_toml(&text).map_err(|error| format!("{path}: {error}"))?;
        players.insert(0, Player::new(path, policy, 5));
    }
    let all = scenarios::all();
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| only == name);
    let mut board = Map::new();
    let mut pictures = Vec::new();
    for scenario in all.iter().filter(|scenario| wanted(scenario.name)) {
        println!("\n{}: {}", scenario.name, scenario.what);
        let mut row = Map::new();
        for player in &players {
            let reports: Vec<Report> = scenario
                .delays
                .iter()
                .map(|&delay| replay(player, &(scenario.trace)(delay), &scenario.plant))
                .collect();
            let cell = mean(&reports);
            print_cell(&player.name, &cell);
            row.insert(player.name.clone(), cell);
            pictures.extend(reports.into_iter().next().map(|report| (scenario.name, report)));
        }
        board.insert(scenario.name.to_owned(), Value::Object(row));
    }
    if let Some(path) = &options.svg {
        let named = |(scenario, report): (&str, Report)| {
            let mut report = report;
            report.name = format!("{scenario}, {}", report.name);
            report
        };
        let shown = |(scenario, report): &(&str, Report)| {
            SHOWN.contains(scenario) && SHOWN_POLICIES.contains(&report.name.as_str())
        };
        let shown = pictures.into_iter().filter(shown).map(named);
        let shown: Vec<Report> = shown.collect();
        let svg = picture("Load and capacity under each policy", &shown, &Default::default());
        std::fs::write(path, svg).map_err(|error| format!("{path}: {error}"))?;
    }
    if options.markdown {
        print_markdown(&board, &players, &all);
    }
    let speed = speed::measure();
    println!(
        "\nspeed: {} services decided in {:.1} ms (median of {} rounds, one core); the largest state is {} bytes",
        speed.services,
        Duration::as_secs_f64(&speed.median) * 1e3,
        speed.rounds,
        speed.state_bytes
    );
    board.insert(
        "speed".into(),
        json!({
            "services": speed.services,
            "decided_ms": round(speed.median.as_secs_f64() * 1e3),
            "slowest_ms": round(speed.slowest.as_secs_f64() * 1e3),
            "state_bytes": speed.state_bytes,
        }),
    );
    if options.json {
        println!("{}", Value::Object(board));
    }
    Ok(())
}

/// The mean of each figure.
fn mean(reports: &[Report]) -> Value {
    let of = |figure: fn(&Report) -> f64| {
        round(reports.iter().map(figure).sum::<f64>() / reports.len().max(1) as f64)
    };
    json!({
        "overload_seconds": of(|r| r.overload_seconds as f64),
        "beyond_percent": of(|r| r.beyond_percent),
        "slo_minutes": of(|r| r.slo_minutes),
        "recovery_seconds": of(|r| r.recovery_seconds as f64),
        "cost_ratio": of(|r| r.cost_ratio),
        "bare_cost_ratio": of(|r| r.bare_cost_ratio),
        "actions": of(|r| r.actions.into()),
        "ups": of(|r| r.ups.into()),
        "downs": of(|r| r.downs.into()),
        "direction_changes": of(|r| r.direction_changes.into()),
        "wrong_way": of(|r| r.wrong_way.into()),
        "busy_kills": of(|r| r.busy_kills),
    })
}

/// The table of the README.
fn print_markdown(board: &Map<String, Value>, players: &[Player], scenarios: &[scenarios::Scenario]) {
    let names: Vec<String> = players.iter().map(|player| player.name.replace('_', " ")).collect();
    println!("\n| overload s / cost / actions | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for scenario in scenarios.iter().filter(|scenario| board.contains_key(scenario.name)) {
        let cell = |player: &Player| {
            let cell = &board[scenario.name][&player.name];
            let of = |figure: &str| cell[figure].as_f64().unwrap_or(f64::NAN);
            format!("{:.0} / {:.2} / {:.0}", of("overload_seconds"), of("cost_ratio"), of("actions"))
        };
        let cells: Vec<String> = players.iter().map(cell).collect();
        println!("| {}: {} | {} |", scenario.name, scenario.what, cells.join(" | "));
    }
    println!();
}

fn print_cell(name: &str, cell: &Value) {
    let of = |figure: &str| cell[figure].as_f64().unwrap_or(f64::NAN);
    let (overload, beyond, slo) = (of("overload_seconds"), of("beyond_percent"), of("slo_minutes"));
    let (cost, actions) = (of("cost_ratio"), of("actions"));
    let (ups, downs, turns) = (of("ups"), of("downs"), of("direction_changes"));
    let wrong = of("wrong_way");
    println!(
        "  {name:<10} overload {overload:>7.1} s ({beyond:>5.2} %)  slo {slo:>6.1} min  cost {cost:>5.2}  \
         actions {actions:>6.1} ({ups:.1} up, {downs:.1} down)  turns {turns:>5.1}  wrong way {wrong:.1}  \
         busy kills {:.0}",
        of("busy_kills")
    );
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Of the family, unless said otherwise.
const MEMBERS: u64 = 200;
/// In the picture: the shapes on which the policies differ most, and those that are built for them.
const SHOWN: [&str; 3] = ["flash", "sawtooth", "square"];
const SHOWN_POLICIES: [&str; 3] = ["balanced", "hpa_rate", "kpa"];

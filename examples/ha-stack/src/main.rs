//! `ha-stack`: a thin binary over the library of the same name.

use std::process::ExitCode;

use clap::Parser;
use ha_stack::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            eprintln!("ha-stack: {}", cli::one_line(&error.to_string()));
            return ExitCode::from(2);
        }
    };
    // Results and progress are for people; the log is for when something is odd: RUST_LOG=info shows more.
    let _telemetry = match web::telemetry::start(cli.program(), "warn") {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("ha-stack: {error:#}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("ha-stack: no threads can be started: {error}");
            return ExitCode::from(2);
        }
    };
    let code = runtime.block_on(cli::run(cli));
    // A thread that waits for standard input is no reason to stay.
    runtime.shutdown_background();
    code
}

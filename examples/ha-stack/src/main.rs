//! `ha-stack`: a thin binary over the library of the same name.

use std::process::ExitCode;

use clap::Parser;
use ha_stack::cli::{self, Cli};
use tracing_subscriber::EnvFilter;

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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
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

//! `web`: one instance of the demo site. See the library for what it serves.

use clap::Parser;
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// The demo site: log in, count views, see which instance answers.
///
/// Example: web --session redis+sentinel://10.0.0.1,10.0.0.2,10.0.0.3/main --listen 0.0.0.0:8080
#[derive(Parser, Debug)]
#[command(name = "web", version)]
struct Cli {
    #[command(flatten)]
    settings: web::Settings,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let color = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).init();
    match web::run(cli.settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("web: {error:#}");
            ExitCode::from(2)
        }
    }
}

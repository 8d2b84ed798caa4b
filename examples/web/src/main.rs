//! `web`: one instance of the demo site. See the library for what it serves.

use clap::Parser;
use std::process::ExitCode;

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
    let served = async {
        let _telemetry = web::telemetry::start("web", "info")?;
        web::run(cli.settings).await
    };
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("web: {error:#}");
            ExitCode::from(2)
        }
    }
}

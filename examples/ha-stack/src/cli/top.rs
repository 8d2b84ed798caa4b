//! `ha-stack top`: the dashboard at a glance, in a terminal.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio_util::sync::CancellationToken;

use super::PlatformArgs;
use crate::control;
use crate::dashboard::sampler::{Sampler, Start};
use crate::dashboard::source::PlatformSource;
use crate::load;
use crate::platform::StackSpec;
use crate::settings::{Backends, PlatformName};

mod draw;

/// Flags of `top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    #[command(flatten)]
    platform: PlatformArgs,
    /// The service that users see [default: the one in the Swarm; web on plain engines]
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Look through a gateway instead: its --admin address, http://HOST:8081
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
}

/// Shows the stack until q or Ctrl-C.
///
/// # Errors
/// When there is no terminal, or the stack can't be reached at the start.
pub async fn run(args: TopArgs, backends: Backends, stop: CancellationToken) -> Result<ExitCode> {
    ensure!(
        std::io::stdout().is_terminal(),
        "top draws on a terminal, and standard output is none: `ha-stack status` prints the same once"
    );
    let looker = Looker::of(args, backends, &stop).await?;
    // A stack that does not answer is said before the screen is taken.
    let first = looker.look().await?;
    let mut terminal = ratatui::try_init().context("the terminal can't be drawn on")?;
    let shown = show(&mut terminal, &looker, first, &stop).await;
    ratatui::restore();
    stop.cancel();
    shown.map(|()| ExitCode::SUCCESS)
}

/// Where the frames come from.
enum Looker {
    Control(control::Client),
    Gateway(reqwest::Client, String),
    Here(Sampler),
}

impl Looker {
    async fn of(args: TopArgs, backends: Backends, stop: &CancellationToken) -> Result<Self> {
        if let Some(url) = args.gateway {
            return Ok(Self::Gateway(load::client(LOOK_DEADLINE)?, url));
        }
        let platform = match args.platform.platform {
            PlatformName::Local => {
                let token = args.platform.token.as_ref();
                return Ok(Self::Control(control::Client::new(args.platform.control, token)?));
            }
            _ => super::running(&args.platform, args.service, &backends).await?,
        };
        let target = StackSpec::default().target_in_flight;
        let sampler = Sampler::new(PlatformSource::new(platform, target), LOOK);
        tokio::spawn(sampler.clone().run(stop.clone()));
        Ok(Self::Here(sampler))
    }

    async fn look(&self) -> Result<Start> {
        match self {
            Self::Control(client) => client.dashboard().await,
            Self::Gateway(http, url) => {
                let answer = http.get(format!("{}/api/start", url.trim_end_matches('/'))).send().await;
                let answer = answer.with_context(|| format!("--gateway is {url}: nobody answers there"))?;
                answer.json().await.with_context(|| format!("--gateway is {url}: what answers is no gateway"))
            }
            Self::Here(sampler) => Ok(sampler.start()),
        }
    }
}

async fn show(
    terminal: &mut DefaultTerminal,
    looker: &Looker,
    first: Start,
    stop: &CancellationToken,
) -> Result<()> {
    let mut shown = draw::Shown { start: first, error: None };
    let mut beat = tokio::time::interval(LOOK);
    loop {
        terminal.draw(|frame| draw::draw(frame, &shown)).context("the terminal can't be drawn on")?;
        tokio::select! {
            _ = beat.tick() => match looker.look().await {
                Ok(start) => shown = draw::Shown { start, error: None },
                Err(error) => shown.error = Some(format!("{error:#}")),
            },
            quit = wants_to_quit() => if quit? { return Ok(()) },
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Whether the next key means the end; anything else asks for a new drawing.
async fn wants_to_quit() -> Result<bool> {
    loop {
        // Never waits, so that nothing of the terminal is read after the end.
        if event::poll(Duration::ZERO).context("the terminal can't be read")? {
            return Ok(match event::read().context("the terminal can't be read")? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    let interrupt =
                        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
                }
                _ => false,
            });
        }
        tokio::time::sleep(KEYS).await;
    }
}

const LOOK: Duration = Duration::from_secs(1);
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// Quick enough for a finger.
const KEYS: Duration = Duration::from_millis(50);

//! `ha-stack images`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::images::{Bundle, IMAGES, engines};
use crate::progress::Progress;
use crate::settings::Backends;

/// What to do with the images.
#[derive(Subcommand, Debug)]
pub enum ImagesCommand {
    /// Write each image's build context as a tar, for `docker build - <FILE`
    #[command(
        after_help = "Example:\n  ha-stack images build --out ./contexts && docker build -t web - <contexts/web.tar"
    )]
    Build {
        /// The folder for the tars
        #[arg(long, default_value = "contexts", value_name = "DIR")]
        out: PathBuf,
    },
    /// Build the images on every engine; an engine that has them is left alone
    #[command(
        after_help = "Example:\n  ha-stack images load --engines h1=tcp://198.18.0.11:2375,h2=tcp://198.18.0.12:2375"
    )]
    Load,
}

/// Builds or loads the images.
///
/// # Errors
/// When the program can't be packed, a file can't be written, or an engine refuses.
pub async fn run(command: ImagesCommand, backends: Backends) -> Result<ExitCode> {
    let progress = Progress::new();
    let bundle = Bundle::of_this_program()?;
    match command {
        ImagesCommand::Build { out } => {
            std::fs::create_dir_all(&out).with_context(|| format!("--out is {}", out.display()))?;
            for image in IMAGES {
                let file = out.join(format!("{}.tar", image.name));
                std::fs::write(&file, bundle.context(image)?)
                    .with_context(|| format!("{} can't be written", file.display()))?;
                progress.line(format!("{} for {}", file.display(), bundle.reference(image.name)));
            }
        }
        ImagesCommand::Load => engines::load(&bundle.builds()?, &backends.engines()?, &progress).await?,
    }
    Ok(ExitCode::SUCCESS)
}

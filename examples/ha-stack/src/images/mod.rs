//! The images of the stack, built from this very program without pulling anything.
//!
//! Each image is a minimal root file system (the program, the libraries that it is linked to, their loader) under a
//! Dockerfile of its own. The context of a build is a tar in memory; it goes to each engine over its API, so no
//! registry is needed.

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

pub mod engines;
pub mod others;
pub mod rootfs;

/// An image as it is built: its full name, and the context that `docker build -` reads from its standard input.
#[derive(Clone)]
pub struct Build {
    /// `ha-stack/web:0123456789ab`.
    pub reference: String,
    /// A tar.
    pub context: bytes::Bytes,
}

/// An image of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// `web`, `gateway`, `registrar`, `scaler` or `engines`.
    pub name: &'static str,
    /// Its Dockerfile.
    pub dockerfile: &'static str,
}

/// Every image of the stack.
pub const IMAGES: [Image; 5] = [
    Image { name: "web", dockerfile: include_str!("../../images/web/Dockerfile") },
    Image { name: "gateway", dockerfile: include_str!("../../images/gateway/Dockerfile") },
    Image { name: "registrar", dockerfile: include_str!("../../images/registrar/Dockerfile") },
    Image { name: "scaler", dockerfile: include_str!("../../images/scaler/Dockerfile") },
    Image { name: "engines", dockerfile: include_str!("../../images/engines/Dockerfile") },
];

/// The images' common root file system and the tag that stands for its content.
pub struct Bundle {
    files: Vec<rootfs::File>,
    /// The first 12 hexadecimal digits of the content's SHA-256: the same program gives the same tag.
    pub tag: String,
}

impl Bundle {
    /// Collects the program and what it needs to run.
    ///
    /// # Errors
    /// When the program or one of its libraries can't be read.
    pub fn of_program(program: &Path) -> Result<Self> {
        let mut files = rootfs::collect("ha-stack", program)?;
        files.extend(rootfs::clock()?);
        let dockerfiles: Vec<&str> = IMAGES.iter().map(|image| image.dockerfile).collect();
        let tag = tag(&files, &dockerfiles);
        Ok(Self { files, tag })
    }

    /// Of the program that runs now.
    ///
    /// # Errors
    /// As [`Bundle::of_program`].
    pub fn of_this_program() -> Result<Self> {
        let program = std::env::current_exe().context("the path of this program can't be read")?;
        Self::of_program(&program)
    }

    /// The full name of an image: `ha-stack/web:0123456789ab`.
    pub fn reference(&self, image: &str) -> String {
        format!("ha-stack/{image}:{}", self.tag)
    }

    /// The build context of an image: what `docker build -` reads from its standard input.
    ///
    /// # Errors
    /// When the tar can't be written.
    pub fn context(&self, image: Image) -> Result<Vec<u8>> {
        rootfs::context(image.dockerfile, &self.files, &[])
            .with_context(|| format!("the build context of {} can't be written", image.name))
    }

    /// Every image of the stack, ready to be built.
    ///
    /// # Errors
    /// When a tar can't be written.
    pub fn builds(&self) -> Result<Vec<Build>> {
        let build = |image: Image| -> Result<Build> {
            Ok(Build { reference: self.reference(image.name), context: self.context(image)?.into() })
        };
        IMAGES.into_iter().map(build).collect()
    }
}

/// The first 12 hexadecimal digits of what the content hashes to.
fn tag<'a>(files: impl IntoIterator<Item = &'a rootfs::File>, dockerfiles: &[&str]) -> String {
    let mut digest = Sha256::new();
    for file in files {
        digest.update(file.path.as_bytes());
        digest.update(&file.content);
    }
    dockerfiles.iter().for_each(|dockerfile| digest.update(dockerfile.as_bytes()));
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

//! A disk of its own, and of a limited size, for each host: a file system in a sparse file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::statvfs;

use crate::command::run;
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::lab::{Lab, change, refused};
use crate::plan::Host;
use crate::progress::step;
use crate::state::is_mount;

/// Makes the host's disk of `mib` MiB and mounts it where its data goes.
pub(crate) async fn make(host: &Host, folder: &Folder, mib: u32) -> Result<()> {
    let (image, data) = (folder.disk(&host.name), folder.host(&host.name));
    folder.create_mount_point(&host.name)?;
    let file = File::create(&image).map_err(Error::file("create", &image))?;
    // Sparse: it takes what is written to it.
    file.set_len(u64::from(mib) << 20).map_err(Error::file("grow", &image))?;
    let (image, data) = (image.display().to_string(), data.display().to_string());
    // Without blocks kept for root, who is everybody here; the tables at once, so that nothing writes in the background.
    run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", &image])
        .await?;
    run("mount", &["-o", "loop,noatime", &image, &data]).await.map(drop)
}

/// Takes the disk away if there is one. No process of the host may be left.
pub(crate) async fn remove(host: &Host, folder: &Folder) -> Result<()> {
    let data = folder.host(&host.name).display().to_string();
    if is_mount(&data) {
        run("umount", &[&data]).await?;
    }
    Ok(())
}

impl Lab {
    /// Fills the disk of a host to the last byte.
    ///
    /// # Errors
    /// A refusal when the lab's hosts have no disks of their own (`lab up --disk 0`) or the disk is full already.
    pub async fn fill_disk(&self, name: &str) -> Result<()> {
        self.index(name)?;
        let (_lock, state) = change("lab fill").await?;
        let data = state.folder.host(name);
        if !is_mount(&data.display().to_string()) {
            return Err(refused(name, "has no disk of its own", "bring the lab up with --disk 4096"));
        }
        let filler = data.join(FILLER);
        if filler.exists() {
            return Err(refused(name, "has a full disk already", "see lab free"));
        }
        let filled = tokio::task::spawn_blocking(move || fill(&filler));
        let filled = async { filled.await.map_err(|e| Error::file("fill", &data)(e.into()))? };
        step(format!("the disk of {name} is full"), filled).await
    }

    /// Takes back what [`Lab::fill_disk`] wrote.
    ///
    /// # Errors
    /// A refusal when the disk was not filled.
    pub async fn free_disk(&self, name: &str) -> Result<()> {
        self.index(name)?;
        let (_lock, state) = change("lab free").await?;
        let filler = state.folder.host(name).join(FILLER);
        if !filler.exists() {
            return Err(refused(name, "has no full disk", "see lab fill"));
        }
        let freed = async { fs::remove_file(&filler).map_err(Error::file("remove", &filler)) };
        step(format!("the disk of {name} has room again"), freed).await
    }
}

/// Reserves all that is free, then writes until nothing more goes in.
fn fill(path: &Path) -> Result<()> {
    let fail = || Error::file("fill", path);
    let mut file = File::create(path).map_err(fail())?;
    let free = statvfs(path).map_err(|e| fail()(e.into()))?;
    let mut chunk = free.f_bavail.saturating_mul(free.f_frsize);
    let mut end = 0_u64;
    // Each refusal halves the wish: metadata takes a part that nobody can foretell.
    while chunk >= free.f_frsize {
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), end, chunk) {
            Ok(()) => end += chunk,
            Err(_) => chunk /= 2,
        }
    }
    io::Seek::seek(&mut file, io::SeekFrom::Start(end)).map_err(fail())?;
    let block = [0_u8; 4096];
    for _ in 0..LAST_BLOCKS {
        if file.write_all(&block).and_then(|()| file.sync_all()).is_err() {
            return Ok(());
        }
    }
    Err(Error::file("fill", path)(io::Error::other("it always takes one more block")))
}

const FILLER: &str = "filler";
const LAST_BLOCKS: usize = 10_000;

//! A minimal root file system for one dynamically linked program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A file of the root file system.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path without the leading slash.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// The program as `bin/NAME`, its shared libraries and loader at their own paths, and the few files of `/etc` that a C
/// library looks for.
///
/// # Errors
/// When the program or a library can't be read, or `ldd` can't be run.
pub fn collect(name: &str, program: &Path) -> Result<Vec<File>> {
    let mut files = vec![
        text("etc/passwd", "root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        text("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
        text("etc/nsswitch.conf", "hosts: files dns\n"),
        read(&format!("bin/{name}"), program)?,
    ];
    for library in libraries(program)? {
        files.push(below_root(&library)?);
    }
    Ok(files)
}

/// What `ha-stack faults` needs to set the clocks of roles, where it is installed: some 90 kB that nothing else loads.
///
/// # Errors
/// When it is there and can't be read.
pub fn clock() -> Result<Option<File>> {
    faketime().map(|path| below_root(Path::new(&format!("/{path}")))).transpose()
}

/// A file at the path that it has on this machine.
fn below_root(file: &Path) -> Result<File> {
    read(file.to_string_lossy().trim_start_matches('/'), file)
}

/// The library that shows a program another time of day, without the leading slash; `None` where it is not installed
/// (Debian's package `libfaketime`).
pub fn faketime() -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let found = folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())?;
    Some(found.to_str()?.trim_start_matches('/').to_owned())
}

/// A tar with the Dockerfile, under `rootfs/` the files, and under `own/` those that the program may write.
///
/// # Errors
/// When the tar can't be written.
pub fn context(dockerfile: &str, files: &[File], own: &[File]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let dockerfile = text("Dockerfile", dockerfile);
    let below = files.iter().map(|f| (format!("rootfs/{}", f.path), f));
    let own = own.iter().map(|f| (format!("own/{}", f.path), f));
    for (path, file) in std::iter::once((dockerfile.path.clone(), &dockerfile)).chain(below).chain(own) {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(file.content.len())?);
        header.set_mode(file.mode);
        // A fixed time: the same content makes the same layer.
        header.set_mtime(0);
        tar.append_data(&mut header, path, file.content.as_slice())?;
    }
    Ok(tar.into_inner()?)
}

/// The shared libraries that the loader would map, the loader included; none for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let out = Command::new("ldd")
        .arg(program)
        .output()
        .context("ldd can't be run; it comes with the package libc-bin")?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        if said.contains("not a dynamic") || why.contains("not a dynamic") {
            return Ok(Vec::new());
        }
        bail!("ldd {} failed: {}", program.display(), why.trim());
    }
    parse_ldd(&said)
}

/// Reads lines such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f..)` and `/lib64/ld-linux-x86-64.so.2 (0x..)`.
fn parse_ldd(said: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if line.contains("statically linked")
            || line.starts_with("linux-vdso")
            || line.starts_with("linux-gate")
        {
            continue;
        }
        let target = line.split("=>").last().unwrap_or(line).trim();
        let path = target.split(" (").next().unwrap_or(target).trim();
        if !path.starts_with('/') {
            bail!("a library of the program is missing on this machine: {line}");
        }
        found.push(PathBuf::from(path));
    }
    Ok(found)
}

/// A file that everybody may read.
pub fn text(path: &str, content: &str) -> File {
    File { path: path.into(), mode: 0o644, content: content.into() }
}

fn read(path: &str, from: &Path) -> Result<File> {
    let content = std::fs::read(from).with_context(|| format!("{} can't be read", from.display()))?;
    Ok(File { path: path.into(), mode: 0o755, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_lines_become_paths() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x/libgcc_s.so.1 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = parse_ldd(said).unwrap();
        assert_eq!(
            paths,
            [PathBuf::from("/lib/x/libgcc_s.so.1"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        let missing = parse_ldd("\tlibodd.so => not found\n").unwrap_err();
        assert!(missing.to_string().contains("libodd.so"), "{missing}");
    }

    #[test]
    fn the_context_holds_the_dockerfile_and_the_files() {
        let bytes = context("FROM scratch\n", &[text("etc/passwd", "x")], &[text("data/a", "x")]).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = tar
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["Dockerfile", "rootfs/etc/passwd", "own/data/a"]);
    }
}

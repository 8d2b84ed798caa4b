//! Images of programs that are not ours, from this machine's own: for a stack that brings its Redis and its Consul along
//! where nothing can be pulled.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Build, rootfs, tag};

/// A program of others that the stack needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// `redis` or `consul`.
    pub name: &'static str,
    /// What it is called on this machine.
    pub program: &'static str,
    /// The variable that says where it is, where it is not on PATH.
    pub setting: &'static str,
    /// Its Dockerfile.
    dockerfile: &'static str,
    /// Files that it only reads.
    fixed: &'static [(&'static str, &'static str)],
    /// Files that the program may write, and whose folders are its own.
    own: &'static [(&'static str, &'static str)],
}

/// Redis with its Sentinel, and Consul.
pub const OTHERS: [Other; 2] = [
    Other {
        name: "redis",
        program: "redis-server",
        setting: "REDIS_BIN",
        dockerfile: include_str!("../../images/redis/Dockerfile"),
        fixed: &[
            ("etc/redis/secure.conf", include_str!("../../images/redis/secure.conf")),
            ("etc/redis/secure-sentinel.conf", include_str!("../../images/redis/secure-sentinel.conf")),
        ],
        own: &[
            ("data/redis.conf", include_str!("../../images/redis/redis.conf")),
            ("data/sentinel.conf", include_str!("../../images/redis/sentinel.conf")),
        ],
    },
    Other {
        name: "consul",
        program: "consul",
        setting: "CONSUL_BIN",
        dockerfile: include_str!("../../images/consul/Dockerfile"),
        fixed: &[],
        // An empty folder is not in a tar.
        own: &[("consul/data/.keep", "")],
    },
];

impl Other {
    /// The image, from the program on this machine.
    ///
    /// # Errors
    /// When the program is not there or can't be read, with what to do.
    pub fn build(&self) -> Result<Build> {
        let Self { name, program, setting, .. } = self;
        let found = find(program, std::env::var_os(setting), std::env::var_os("PATH"));
        let found = found.with_context(|| {
            let image = name.to_ascii_uppercase();
            format!(
                "the image of {name} is made of this machine's {program}, which is not on PATH: install it, say where it \
                 is in {setting}, or name an image that your engines can pull in {image}_IMAGE"
            )
        })?;
        let mut files = rootfs::collect(program, &found)?;
        files.extend(self.fixed.iter().map(|(path, content)| rootfs::text(path, content)));
        let own: Vec<_> = self.own.iter().map(|(path, content)| rootfs::text(path, content)).collect();
        let context = rootfs::context(self.dockerfile, &files, &own)
            .with_context(|| format!("the build context of {name} can't be written"))?;
        let reference = format!("ha-stack/{name}:{}", tag(files.iter().chain(&own), &[self.dockerfile]));
        Ok(Build { reference, context: context.into() })
    }
}

fn find(
    program: &str,
    named: Option<std::ffi::OsString>,
    path: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let folders: Vec<PathBuf> = path.iter().flat_map(std::env::split_paths).collect();
    folders.iter().map(|folder| folder.join(program)).find(|file: &PathBuf| Path::is_file(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_where_the_setting_says_or_on_the_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("consul"), "").unwrap();
        let path = Some(folder.path().as_os_str().to_owned());
        assert_eq!(find("consul", None, path.clone()), Some(folder.path().join("consul")));
        assert_eq!(find("consul", Some("/a/consul".into()), path.clone()), Some(PathBuf::from("/a/consul")));
        assert_eq!(find("redis-server", Some("".into()), path), None);
    }

    #[test]
    fn what_is_not_there_is_named_with_what_to_do() {
        let other = Other { program: "no-such-program", setting: "NO_SUCH_BIN", ..OTHERS[0] };
        let error = other.build().map(drop).unwrap_err().to_string();
        assert!(error.contains("no-such-program") && error.contains("NO_SUCH_BIN"), "{error}");
        assert!(error.contains("REDIS_IMAGE"), "{error}");
    }
}

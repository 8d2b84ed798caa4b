//! What an instance can be told, by flag or environment; flags win.

use session_store::Lifetime;
use std::{fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

/// Settings of one instance.
#[derive(clap::Args, Clone)]
pub struct Settings {
    /// Where sessions live: redis://HOST:PORT, redis+sentinel://HOST,HOST,HOST/MASTER, HOST:PORT, sqlite:PATH or memory:
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true, default_value = "memory:")]
    pub session: String,

    /// A file with that URL, such as a Swarm secret; wins over --session
    #[arg(long, value_name = "FILE", env = "REDIS_URL_FILE")]
    pub session_file: Option<PathBuf>,

    /// Seconds after which an unused session ends
    #[arg(long, value_name = "SECONDS", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub session_lifetime: u64,

    /// Address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// Address of `GET /metrics`, for Prometheus [default: none]
    #[arg(long, value_name = "IP:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Name of this instance, shown on its pages [default: the machine's name]
    #[arg(long, value_name = "NAME", env = "INSTANCE", default_value_t = machine_name(), hide_default_value = true)]
    pub instance: String,

    /// Name of the host that it runs on, shown on its pages [default: the machine's name]
    #[arg(long, value_name = "NAME", env = "HOST_NAME", default_value_t = machine_name(), hide_default_value = true)]
    pub host: String,

    /// Seconds to serve on after SIGTERM, not ready, so that gateways can turn away first
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub drain: u64,

    /// Answer POST /fault, by which a test makes this instance slow or failing; never where users are
    #[arg(long)]
    pub faults: bool,
}

impl Settings {
    /// The session store's URL, which may hold a password: from the file, if one is named.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn session_url(&self) -> io::Result<String> {
        match &self.session_file {
            Some(file) => Ok(std::fs::read_to_string(file)?.trim().to_owned()),
            None => Ok(self.session.clone()),
        }
    }

    /// The lifetime of sessions: idle as set, and a day in all, or longer where idle is.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        let idle = Duration::from_secs(self.session_lifetime);
        Lifetime { idle, absolute: Lifetime::default().absolute.max(idle) }
    }
}

impl Default for Settings {
    /// As without any flag or environment.
    fn default() -> Self {
        Self {
            session: "memory:".into(),
            session_file: None,
            session_lifetime: 3000,
            listen: "127.0.0.1:8080".into(),
            metrics: None,
            instance: machine_name(),
            host: machine_name(),
            drain: 5,
            faults: false,
        }
    }
}

impl fmt::Debug for Settings {
    /// Leaves out the session store's URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("session_lifetime", &self.session_lifetime)
            .field("listen", &self.listen)
            .field("metrics", &self.metrics)
            .field("instance", &self.instance)
            .field("host", &self.host)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// The machine's (or container's) name.
fn machine_name() -> String {
    let names = [std::fs::read_to_string("/proc/sys/kernel/hostname").ok(), std::env::var("HOSTNAME").ok()];
    let mut names = names.into_iter().flatten().map(|name| name.trim().to_owned());
    names.find(|name| !name.is_empty()).unwrap_or_else(|| "web".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_file_wins_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("redis-url");
        std::fs::write(&file, "redis://web:hunter2@h\n").unwrap();
        let settings = Settings { session_file: Some(file), ..Settings::default() };
        assert_eq!(settings.session_url().unwrap(), "redis://web:hunter2@h");
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(Settings::default().session_url().unwrap(), "memory:");
        let gone = Settings { session_file: Some(folder.path().join("gone")), ..Settings::default() };
        assert!(gone.session_url().is_err());
    }
}

//! nginx: its `upstream` and `server` blocks in a file, and a command by which it reads them again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Sink;
use super::membership::Server;

/// What the rendered blocks say beside the servers.
#[derive(Clone, Debug)]
pub struct Site {
    /// The service, which is the upstream's name; and the host name that routes to it, unless it listens for all.
    pub service: String,
    /// What nginx listens on: `80`, `127.0.0.1:8080`.
    pub listen: String,
    /// The `server_name`; `_` for every one.
    pub server_name: String,
    /// So long a server may be silent before another one is asked: also one whose host has lost its power while it had a request.
    pub read_timeout: Duration,
}

/// The blocks for nginx's `http` context. Draining servers are `down`: workers of before the reload finish what they have there.
pub fn render(site: &Site, servers: &[Server]) -> String {
    let mut out = String::from("# Written by `ha-stack render`; changes are lost.\n");
    let name = identifier(&site.service);
    // Writing to a string can't fail.
    let _ = writeln!(out, "upstream {name} {{\n    zone {name} 64k;");
    for server in servers {
        let down = if server.draining { " down" } else { "" };
        let _ = writeln!(
            out,
            "    server {} max_fails=1 fail_timeout=2s{down}; # {} on {}",
            server.addr,
            comment(&server.id),
            comment(&server.host)
        );
    }
    if servers.iter().all(|server| server.draining) {
        // An upstream without a server is an error, and would keep nginx from starting.
        out.push_str("    server 127.0.0.1:9 down; # nobody serves\n");
    }
    out.push_str("    keepalive 32;\n}\n");
    let _ = write!(
        out,
        "server {{\n    listen {};\n    server_name {};\n    location / {{\n        proxy_pass http://{name};\n{PROXY}        \
         proxy_read_timeout {}s;\n    }}\n}}\n",
        site.listen,
        identifier_list(&site.server_name),
        site.read_timeout.as_secs().max(1)
    );
    out
}

/// Writes the file and has nginx read it. If the command fails, the file is put back as it was.
#[derive(Clone, Debug)]
pub struct NginxFile {
    /// What is rendered.
    pub site: Site,
    /// The file, included from nginx's `http` block.
    pub file: PathBuf,
    /// The command, such as `nginx -s reload`.
    pub reload: String,
}

impl Sink for NginxFile {
    async fn apply(&mut self, servers: &[Server]) -> Result<()> {
        let next = render(&self.site, servers);
        let before = tokio::fs::read(&self.file).await.ok();
        if before.as_deref() == Some(next.as_bytes()) {
            return Ok(());
        }
        self.write(next.as_bytes()).await?;
        let Err(error) = self.run().await else { return Ok(()) };
        if let Some(before) = before {
            self.write(&before).await?;
        }
        Err(error)
    }
}

impl NginxFile {
    async fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut beside = self.file.clone().into_os_string();
        beside.push(".next");
        let beside = PathBuf::from(beside);
        let wrote = async {
            tokio::fs::write(&beside, bytes).await?;
            // Whole or not at all: nginx may be started at any moment.
            tokio::fs::rename(&beside, &self.file).await
        };
        wrote.await.with_context(|| format!("{} can't be written", self.file.display()))
    }

    async fn run(&self) -> Result<()> {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", &self.reload]).stdin(std::process::Stdio::null()).kill_on_drop(true);
        let ran = tokio::time::timeout(RELOAD_LIMIT, command.output()).await;
        let out = ran
            .with_context(|| format!("{:?} did not end within {} s", self.reload, RELOAD_LIMIT.as_secs()))?;
        let out = out.with_context(|| format!("{:?} can't be run", self.reload))?;
        if !out.status.success() {
            bail!("{:?} failed: {}", self.reload, String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(())
    }
}

/// What can't end a comment or a word.
fn comment(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect()
}

fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

fn identifier_list(text: &str) -> String {
    let names: Vec<String> = text
        .split_whitespace()
        .map(|name| name.chars().filter(|c| !";{}#\"'\\$".contains(*c)).collect())
        .collect();
    names.join(" ")
}

/// A dead host is given up after a second; what was sent under the same id twice changes nothing in the site.
const PROXY: &str = "        proxy_http_version 1.1;
        proxy_set_header Connection \"\";
        proxy_set_header Host $http_host;
        proxy_set_header X-Request-ID $request_id;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_connect_timeout 1s;
        proxy_next_upstream error timeout http_503;
";
const RELOAD_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site {
            service: "web".into(),
            listen: "127.0.0.1:8080".into(),
            server_name: "web.example.org".into(),
            read_timeout: Duration::from_secs(60),
        }
    }

    fn server(id: &str, port: u16, draining: bool) -> Server {
        Server { id: id.into(), addr: ([198, 18, 0, 12], port).into(), host: "h2".into(), draining }
    }

    #[test]
    fn the_blocks_are_as_nginx_reads_them() {
        let text = render(&site(), &[server("web.1.ab", 32768, false), server("web.2.cd", 32769, true)]);
        let upstream = "# Written by `ha-stack render`; changes are lost.
upstream web {
    zone web 64k;
    server 198.18.0.12:32768 max_fails=1 fail_timeout=2s; # web.1.ab on h2
    server 198.18.0.12:32769 max_fails=1 fail_timeout=2s down; # web.2.cd on h2
    keepalive 32;
}
server {
    listen 127.0.0.1:8080;
    server_name web.example.org;
    location / {
        proxy_pass http://web;
";
        assert_eq!(text, format!("{upstream}{PROXY}        proxy_read_timeout 60s;\n    }}\n}}\n"));
    }

    #[test]
    fn nobody_is_a_file_that_nginx_still_starts_with_and_odd_names_break_nothing() {
        assert!(render(&site(), &[]).contains("server 127.0.0.1:9 down;"));
        let odd = render(&Site { service: "a;b}".into(), ..site() }, &[server("x\n} evil", 1, false)]);
        assert!(odd.contains("upstream a_b_ {") && odd.contains("# xevil on h2\n"), "{odd}");
    }
}

//! wrk, and what it saw.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A run of wrk.
pub struct Load {
    child: Child,
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub requests: u64,
    /// Connections refused, broken, timed out; answers other than 2xx and 3xx.
    pub lost: u64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
}

impl Load {
    pub fn start(port: u16, seconds: u64) -> Result<Self> {
        let child = Command::new("taskset")
            .args([
                "-c",
                "1",
                "wrk",
                "-t1",
                "-c64",
                &format!("-d{seconds}s"),
                "--latency",
                "--timeout",
                "15s",
            ])
            .arg(format!("http://127.0.0.1:{port}/"))
            .stdout(Stdio::piped())
            .spawn()
            .context("wrk does not start; ./bench.sh installs it")?;
        Ok(Self { child })
    }

    pub fn finish(self) -> Result<Seen> {
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("wrk failed: {text}");
        }
        read(&text).with_context(|| format!("wrk said what can't be read:\n{text}"))
    }
}

fn read(text: &str) -> Option<Seen> {
    let mut seen = Seen::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", value] => seen.p50 = millis(value)?,
            ["99%", value] => seen.p99 = millis(value)?,
            [count, "requests", "in", ..] => seen.requests = count.parse().ok()?,
            ["Non-2xx", .., count] => seen.lost += count.parse::<u64>().ok()?,
            ["Socket", "errors:", rest @ ..] => {
                let counts = rest.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok());
                seen.lost += counts.sum::<u64>();
            }
            _ => {}
        }
    }
    (seen.requests > 0).then_some(seen)
}

fn millis(value: &str) -> Option<f64> {
    let split = value.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = value.split_at(split);
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

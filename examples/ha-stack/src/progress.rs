//! Lines of progress: what is being done, and how long it took.
//!
//! Progress goes to standard error, so that standard output holds results alone (`--json` prints its object there).

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Where lines of progress go; cheap to clone, each clone has the same start time.
#[derive(Clone, Debug)]
pub struct Progress {
    started: Instant,
}

impl Progress {
    /// A progress report that counts its seconds from now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// The headline of a part of the work.
    pub fn heading(&self, text: impl Display) {
        self.write(format_args!("\n== {text}"));
    }

    /// One thing that is now known or done.
    pub fn line(&self, text: impl Display) {
        self.write(format_args!("[{:7.1} s] {text}", self.started.elapsed().as_secs_f64()));
    }

    fn write(&self, line: std::fmt::Arguments<'_>) {
        // Nobody to read the progress is no reason to stop the work.
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    /// Says that something has begun which takes a while; the returned step says when it is done.
    pub fn step(&self, text: impl Into<String>) -> Step {
        let text = text.into();
        let bar = if !std::io::stderr().is_terminal() {
            self.line(format!("{text} ..."));
            None
        } else {
            let bar = ProgressBar::new_spinner().with_message(text.clone());
            let style = ProgressStyle::with_template("[{elapsed:>7}  ] {spinner} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            Some(bar)
        };
        Step { progress: self.clone(), text, bar, began: Instant::now() }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Something under way. Dropped without [`Step::done`], it just vanishes from a terminal.
#[must_use = "say when the step is done"]
pub struct Step {
    progress: Progress,
    text: String,
    bar: Option<ProgressBar>,
    began: Instant,
}

impl Step {
    /// How long the step has been going on.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Replaces what a terminal shows beside the spinner.
    pub fn detail(&self, detail: impl Display) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {detail}", self.text));
        }
    }

    /// The step is done; `result` says what came of it.
    pub fn done(mut self, result: impl Display) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.progress.line(format!("{}: {result} ({:.1} s)", self.text, self.began.elapsed().as_secs_f64()));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

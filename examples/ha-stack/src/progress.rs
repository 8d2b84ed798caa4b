//! Lines of progress: what is being done, and how long it took.
//!
//! Progress goes to standard error, so that standard output holds results alone (`--json` prints its object there).

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use swarm_client::Diagnosis;

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
        let bar = std::io::stderr().is_terminal().then(|| drawn(ProgressBar::new_spinner(), SPINNER));
        self.begin(text.into(), bar)
    }

    /// As [`Progress::step`], for what has `total` parts: a terminal shows a bar of them.
    pub fn counted(&self, text: impl Into<String>, total: u64) -> Step {
        let bar = std::io::stderr().is_terminal().then(|| drawn(ProgressBar::new(total), BAR));
        self.begin(text.into(), bar)
    }

    fn begin(&self, text: String, bar: Option<ProgressBar>) -> Step {
        match &bar {
            Some(bar) => bar.set_message(text.clone()),
            None => self.line(format!("{text} ...")),
        }
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

    /// So many of its parts are done, of `total`, which may have changed.
    pub fn at(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done.min(total));
        }
    }

    /// What a rollout lacks: tasks that run, of those that are wanted, and the rest in words.
    pub fn lacks(&self, lacks: &Diagnosis) {
        self.at(lacks.running, lacks.wanted.unwrap_or(lacks.running));
        self.detail(lacks);
    }

    /// One more of its parts is done.
    pub fn one_more(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
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

fn drawn(bar: ProgressBar, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

const SPINNER: &str = "[{elapsed:>7}  ] {spinner} {msg}";
const BAR: &str = "[{elapsed:>7}  ] [{bar:24}] {pos}/{len} {wide_msg}";

//! What a person at a terminal sees of a command that takes a while: a bar below the steps that are done.

use std::fmt::{Debug, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Draws the events of the lab's steps: what has begun, how many there are, what is done.
pub(crate) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// On standard error, once a step has begun.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style(SPINNER));
        Self { bar }
    }

    /// A handle with which the bar is wiped away at the end.
    pub(crate) fn handle(&self) -> ProgressBar {
        self.bar.clone()
    }
}

impl<S: Subscriber> Layer<S> for Bar {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Other crates' events are not progress.
        if !event.metadata().target().starts_with("lab") {
            return;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        match *event.metadata().level() {
            Level::INFO => {
                self.bar.println(&seen.message);
                self.bar.inc(1);
                // What the command says in the end must not stand behind it.
                if self.bar.length().is_none_or(|steps| self.bar.position() >= steps) {
                    self.bar.finish_and_clear();
                }
            }
            Level::DEBUG => match seen.steps {
                Some(steps) => {
                    self.bar.set_style(style(BAR));
                    self.bar.set_length(steps);
                    self.bar.set_position(0);
                }
                None => {
                    if self.bar.is_finished() {
                        self.bar.reset();
                    }
                    self.bar.set_message(seen.message);
                    self.bar.enable_steady_tick(TICK);
                }
            },
            Level::WARN | Level::ERROR => self.bar.println(&seen.message),
            _ => {}
        }
    }
}

#[derive(Default)]
struct Seen {
    message: String,
    steps: Option<u64>,
}

impl Visit for Seen {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "steps" {
            self.steps = Some(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string can't fail.
            let _ = write!(self.message, "{value:?}");
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

const SPINNER: &str = "{elapsed:>8}   {spinner} {wide_msg}";
const BAR: &str = "{elapsed:>8}   [{bar:24}] {pos}/{len} {wide_msg}";
const TICK: Duration = Duration::from_millis(120);

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn steps_fill_the_bar_and_their_end_takes_it_away() {
        let bar = Bar::new();
        let handle = bar.handle();
        handle.set_draw_target(ProgressDrawTarget::hidden());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(bar), || {
            tracing::debug!(target: "lab::progress", steps = 2_u64, "steps");
            tracing::debug!(target: "lab::progress", "bridge laid");
            assert_eq!((handle.message().as_str(), handle.position()), ("bridge laid", 0));
            tracing::info!(target: "lab::progress", "   0.9 s bridge laid");
            tracing::info!(target: "hyper", "not ours");
            tracing::debug!(target: "lab::progress", "engine of h1 answers");
            assert_eq!((handle.message().as_str(), handle.position()), ("engine of h1 answers", 1));
            assert!(handle.length() == Some(2) && !handle.is_finished());
            tracing::info!(target: "lab::progress", "   1.5 s engine of h1 answers");
            assert!(handle.is_finished());
            tracing::debug!(target: "lab::progress", "h2 is off");
            assert!(!handle.is_finished());
        });
    }
}

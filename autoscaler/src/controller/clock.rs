//! One clock for a process: comparable between processes, and never stepping back within one.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// What time it is, for a controller. Replace it to run one on a clock of your own; waiting goes by tokio's time.
pub trait Clock: Send + Sync {
    /// Now, since any moment that all who share a state agree on.
    fn now(&self) -> Duration;
}

impl<T: Clock + ?Sized> Clock for Arc<T> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// The default [`Clock`]: that of [`now`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        now()
    }
}

/// The controller's clock: Unix time as it was at the first call, and monotonic from there.
///
/// A [`SignalSource`](super::SignalSource) stamps its readings with it. State that another process saved stays
/// comparable, as well as the machines' clocks agree; where they don't, the windows begin anew.
pub fn now() -> Duration {
    let (unix, start) = BASE.get_or_init(|| {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (unix, Instant::now())
    });
    unix.saturating_add(Instant::now().saturating_duration_since(*start))
}

static BASE: OnceLock<(Duration, Instant)> = OnceLock::new();

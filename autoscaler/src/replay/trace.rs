//! A load over time: recorded, or made of a formula.

use serde::{Deserialize, Serialize};

/// The load of a service, second by second.
///
/// A value holds from its second until the next one. A `None` is a time in which the load is there, as it was before, and
/// nobody can read it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    loads: Vec<f64>,
    /// Stretches in which nothing can be read: first second, and the second after the last.
    blind: Vec<(usize, usize)>,
}

/// Why a text is no trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A line can't be read.
    #[error("line {line}: {found:?} is no row of a trace, which is a second, a comma and a load")]
    Row {
        /// The line, from 1.
        line: usize,
        /// What stands there.
        found: String,
    },
    /// A time does not follow the one before.
    #[error("line {line}: second {second} does not come after the row before")]
    Order {
        /// The line, from 1.
        line: usize,
        /// The time.
        second: u64,
    },
    /// There is nothing to play, or too much.
    #[error("the trace is {seconds} s long; it must be 1 s to {MAX_SECONDS} s")]
    Length {
        /// Its length.
        seconds: u64,
    },
}

impl Trace {
    /// `seconds` of a load that is a function of the second. What is not a number, or below zero, becomes zero.
    pub fn of(seconds: usize, load: impl Fn(usize) -> f64) -> Self {
        let seconds = seconds.min(MAX_SECONDS);
        let clean = |load: f64| if load.is_finite() { load.max(0.0) } else { 0.0 };
        Self { loads: (0..seconds).map(|second| clean(load(second))).collect(), blind: Vec::new() }
    }

    /// From the text of a CSV file: a header, then rows of a second and the load from there on. `per` is the number of
    /// seconds that a load counts requests of (60 for requests a minute); each load is divided by it. Times count from
    /// the first row; the last row holds as long as the one before it. An empty load is a time in which nothing can be
    /// read.
    ///
    /// # Errors
    /// When a row can't be read, or times don't rise.
    pub fn from_csv(text: &str, per: f64) -> Result<Self, TraceError> {
        let mut rows: Vec<(u64, Option<f64>)> = Vec::new();
        for (index, row) in text.lines().enumerate().skip(1) {
            let row = row.trim();
            if row.is_empty() {
                continue;
            }
            let line = index + 1;
            let refused = || TraceError::Row { line, found: row.chars().take(80).collect() };
            let (second, load) = row.split_once(',').ok_or_else(refused)?;
            let second: u64 = second.trim().parse().map_err(|_| refused())?;
            let load = match load.trim() {
                "" => None,
                load => {
                    let load: f64 = load.parse().map_err(|_| refused())?;
                    let load = load / per;
                    if !load.is_finite() || load < 0.0 {
                        return Err(refused());
                    }
                    Some(load)
                }
            };
            if rows.last().is_some_and(|&(before, _)| second <= before) {
                return Err(TraceError::Order { line, second });
            }
            let since = rows.first().map_or(0, |&(first, _)| second - first);
            if since > MAX_SECONDS as u64 {
                return Err(TraceError::Length { seconds: since });
            }
            rows.push((second, load));
        }
        let (Some(&(first, _)), Some(&(last, _))) = (rows.first(), rows.last()) else {
            return Err(TraceError::Length { seconds: 0 });
        };
        let step = rows.iter().rev().nth(1).map_or(1, |&(before, _)| last - before);
        // Counted from the first row: the clock of a recording may end with its numbers.
        let seconds = (last - first).saturating_add(step);
        if seconds > MAX_SECONDS as u64 {
            return Err(TraceError::Length { seconds });
        }
        let (mut loads, mut blind, mut load) = (Vec::new(), Vec::new(), 0.0);
        let ends = rows.iter().skip(1).map(|&(second, _)| second - first).chain([seconds]);
        for (&(_, value), end) in rows.iter().zip(ends) {
            let from = loads.len();
            let to = usize::try_from(end).unwrap_or(from);
            load = value.unwrap_or(load);
            loads.resize(to, load);
            if value.is_none() {
                blind.push((from, to));
            }
        }
        Ok(Self { loads, blind })
    }

    /// Makes a stretch of seconds unreadable.
    #[must_use]
    pub fn blind(mut self, from: usize, to: usize) -> Self {
        self.blind.push((from, to));
        self
    }

    /// The same, multiplied so that its peak is `peak`.
    #[must_use]
    pub fn scaled_to_peak(mut self, peak: f64) -> Self {
        let highest = self.peak();
        if highest > 0.0 && peak.is_finite() {
            self.loads.iter_mut().for_each(|load| *load *= peak / highest);
        }
        self
    }

    /// How long it is.
    pub fn seconds(&self) -> usize {
        self.loads.len()
    }

    /// The load in a second; past the end, zero.
    pub fn load(&self, second: usize) -> f64 {
        self.loads.get(second).copied().unwrap_or(0.0)
    }

    /// The highest load.
    pub fn peak(&self) -> f64 {
        self.loads.iter().copied().fold(0.0, f64::max)
    }

    /// Whether the load can be read in a second.
    pub fn is_readable(&self, second: usize) -> bool {
        !self.blind.iter().any(|&(from, to)| (from..to).contains(&second))
    }
}

/// A month.
const MAX_SECONDS: usize = 31 * 24 * 3600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_hold_until_the_next() {
        let trace = Trace::from_csv("start_seconds,requests\n60,120\n62,\n63,60\n", 60.0).unwrap();
        let loads: Vec<f64> = (0..trace.seconds()).map(|second| trace.load(second)).collect();
        assert_eq!(loads, [2.0, 2.0, 2.0, 1.0]);
        assert!(trace.is_readable(1) && !trace.is_readable(2) && trace.is_readable(3));
        assert_eq!(trace.scaled_to_peak(10.0).load(3), 5.0);
    }

    #[test]
    fn a_bad_row_is_named() {
        let says = |text: &str| Trace::from_csv(text, 1.0).unwrap_err().to_string();
        assert_eq!(
            says("t,load\n0,1\nx,2\n"),
            "line 3: \"x,2\" is no row of a trace, which is a second, a comma and a load"
        );
        assert_eq!(says("t,load\n5,1\n5,2\n"), "line 3: second 5 does not come after the row before");
        assert_eq!(says("t,load\n"), "the trace is 0 s long; it must be 1 s to 2678400 s");
        assert!(says("t,load\n0,1\n99999999999,2\n").contains("it must be 1 s to"));
        // Found by the fuzz target: the step after the last of all seconds.
        let end = Trace::from_csv("t,load\n18446744073709551614,1\n18446744073709551615,2\n", 1.0).unwrap();
        assert_eq!((end.seconds(), end.load(1)), (2, 2.0));
        assert!(
            says("t,load\n50,1\n9999999,2\n").contains("is 9999949 s long"),
            "counted from the first row"
        );
        assert!(says("t,load\n0,-1\n").starts_with("line 2"));
        assert!(says("t,load\n0,NaN\n").starts_with("line 2"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|\n|,|[0-9]){0,200}", per in any::<f64>()) {
            let _ = Trace::from_csv(&text, per);
        }
    }
}

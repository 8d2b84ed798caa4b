//! What the load of one signal is expected to be, from its own past: the memory behind a [`Forecast`].
//!
//! The past is the highest value of each step. A forecast is made of closed steps alone, so that the present value does
//! not change it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::{Forecast, Model};
use crate::series::millis;

/// The memory of a forecast.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Expectation {
    /// Milliseconds of a step.
    step: u64,
    /// The number of the open step, counted from the clock's beginning.
    open: u64,
    /// The highest value in it so far.
    highest: Option<f32>,
    /// The closed steps, oldest first, the last of them right before the open one.
    past: Vec<f32>,
    /// The time after which the load was found to recur, in steps.
    season: Option<u32>,
    /// Where the search for one stands.
    search: Search,
    smooth: Option<Smooth>,
}

/// A search through all possible seasons, a few at each step, so that no decision takes long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Search {
    next: u32,
    best: u32,
    score: f32,
}

/// Level, trend and seasonal deviations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Smooth {
    level: f32,
    trend: f32,
    season: Vec<f32>,
    /// Steps taken in.
    seen: u32,
}

impl Expectation {
    /// Closes the steps that are over at `now`.
    pub(crate) fn advance(&mut self, forecast: &Forecast, now: Duration) {
        let step = millis(forecast.step).max(1);
        let number = millis(now) / step;
        let behind = number < self.open;
        let seasons = self.smooth.as_ref().map_or(0, |smooth| smooth.season.len());
        if self.step != step || behind || self.past.len().max(seasons) > HISTORY {
            *self = Self { step, open: number, ..Self::default() };
            return;
        }
        let over = number - self.open;
        if over > MAX_MISSING {
            // What was in between is not known, and what was before it is too old.
            *self = Self { step, open: number, ..Self::default() };
            return;
        }
        for _ in 0..over {
            if let Some(value) = self.highest.take().or_else(|| self.past.last().copied()) {
                self.close(&forecast.model, value);
            }
        }
        self.open = number;
    }

    /// Takes in a value of the open step.
    pub(crate) fn observe(&mut self, value: f64) {
        let value = value as f32;
        if value.is_finite() {
            self.highest = Some(self.highest.map_or(value, |highest| highest.max(value)));
        }
    }

    /// The highest load expected from `now` on within so long; `None` as long as nothing can be expected.
    pub(crate) fn highest_within(
        &self,
        forecast: &Forecast,
        now: Duration,
        horizon: Duration,
    ) -> Option<f64> {
        let ahead = self.ahead(now, horizon);
        let expected = match forecast.model {
            Model::Recurring => self.seasonal(self.season?, ahead)?,
            Model::Seasonal { steps } => self.seasonal(steps, ahead)?,
            Model::HoltWinters { .. } => self.smooth.as_ref()?.highest(ahead)?,
        };
        (expected.is_finite() && expected > 0.0).then(|| f64::from(expected))
    }

    /// How many steps after the open one begin within so long.
    fn ahead(&self, now: Duration, horizon: Duration) -> u32 {
        let last = millis(now.saturating_add(horizon)) / self.step.max(1);
        u32::try_from(last.saturating_sub(self.open).min(HISTORY as u64)).unwrap_or(0)
    }

    /// What a steady rise adds to the present load within so long: the smallest of the last rises goes on. A jump is no
    /// steady rise, and noise hardly ever is one.
    pub(crate) fn rise_within(&self, horizon: Duration) -> Option<f64> {
        let last = self.past.get(self.past.len().checked_sub(STEADY + 1)?..)?;
        let rises = last.windows(2).map(|pair| pair[1] - pair[0]);
        let least = rises.reduce(f32::min).filter(|rise| *rise > 0.0)?;
        let steps = millis(horizon) as f64 / self.step.max(1) as f64;
        Some(f64::from(least) * steps)
    }

    /// The highest of what was one season before the open step and `ahead` more.
    fn seasonal(&self, season: u32, ahead: u32) -> Option<f32> {
        let length = self.past.len();
        let season = usize::try_from(season).ok().filter(|season| (1..=length).contains(season))?;
        let first = length - season;
        let expected = (0..=ahead as usize).filter_map(|k| self.past.get(first + k % season));
        expected.copied().reduce(f32::max)
    }

    fn close(&mut self, model: &Model, value: f32) {
        if let Model::HoltWinters { steps, level, trend, season } = *model {
            let smooth = self.smooth.get_or_insert_with(Smooth::default);
            smooth.close(steps as usize, [level as f32, trend as f32, season as f32], value);
            // The smoothed values are all that it needs; the newest stands in for a step without a value.
            self.past = vec![value];
            return;
        }
        self.past.push(value);
        if self.past.len() > HISTORY {
            self.past.remove(0);
        }
        if *model == Model::Recurring {
            self.recur();
        }
    }

    /// Keeps the season as long as the past bears it out, and searches on for a better one.
    fn recur(&mut self) {
        if self.season.is_some_and(|season| self.score(season) < KEEP) {
            self.season = None;
        }
        let longest = u32::try_from(self.past.len() / 2).unwrap_or(0);
        for _ in 0..SEARCHED_AT_ONCE {
            if self.search.next < SHORTEST {
                self.search = Search { next: SHORTEST, ..Search::default() };
            }
            if self.search.next > longest {
                if self.search.score >= ADOPT && self.score(self.search.best) >= ADOPT {
                    self.season = Some(self.search.best);
                }
                self.search = Search::default();
                return;
            }
            let score = self.score(self.search.next);
            // A multiple of a season fits as well as the season, so a longer one has to be clearly better.
            if score > self.search.score + CLEARLY {
                (self.search.best, self.search.score) = (self.search.next, score);
            }
            self.search.next += 1;
        }
    }

    /// How well the last season repeats the one before it: 1 for exactly, 0 for no better than its own mean.
    fn score(&self, season: u32) -> f32 {
        let season = season as usize;
        let Some(start) = self.past.len().checked_sub(2 * season).filter(|_| season > 0) else { return 0.0 };
        let (before, last) = self.past.split_at(start + season);
        let Some(before) = before.get(start..) else { return 0.0 };
        let mean = last.iter().sum::<f32>() / last.len() as f32;
        let spread: f32 = last.iter().map(|value| (value - mean).abs()).sum();
        // A load that hardly moves needs no forecast.
        if spread < LEAST_SPREAD * mean * last.len() as f32 {
            return 0.0;
        }
        let missed: f32 = last.iter().zip(before).map(|(value, earlier)| (value - earlier).abs()).sum();
        1.0 - missed / spread
    }
}

impl Smooth {
    fn close(&mut self, steps: usize, [alpha, beta, gamma]: [f32; 3], value: f32) {
        let seen = self.seen as usize;
        self.seen = self.seen.saturating_add(1);
        if seen < steps {
            // The first season is only collected.
            self.season.push(value);
            if seen + 1 == steps {
                self.level = self.season.iter().sum::<f32>() / steps as f32;
                let level = self.level;
                self.season.iter_mut().for_each(|value| *value -= level);
            }
            return;
        }
        if steps == 0 && seen == 0 {
            self.level = value;
            return;
        }
        let deviation = seen.checked_rem(steps).and_then(|index| self.season.get_mut(index));
        let expected = deviation.as_ref().map_or(0.0, |deviation| **deviation);
        let before = self.level;
        self.level = alpha * (value - expected) + (1.0 - alpha) * (self.level + self.trend);
        self.trend = beta * (self.level - before) + (1.0 - beta) * self.trend;
        if let Some(deviation) = deviation {
            *deviation = gamma * (value - self.level) + (1.0 - gamma) * *deviation;
        }
    }

    /// The highest of the open step and `ahead` more.
    fn highest(&self, ahead: u32) -> Option<f32> {
        let steps = self.season.len();
        let seen = self.seen as usize;
        if seen < steps || seen < 2 {
            return None;
        }
        let expected = (0..=ahead).map(|k| {
            let deviation = (seen + k as usize).checked_rem(steps).and_then(|index| self.season.get(index));
            self.level + (k + 1) as f32 * self.trend + deviation.copied().unwrap_or(0.0)
        });
        expected.reduce(f32::max)
    }
}

const HISTORY: usize = Model::HISTORY as usize;
/// Steps without a value that the last one may stand in for.
const MAX_MISSING: u64 = 6;
/// The shortest season looked for, in steps: what recurs faster than an instance starts and stops can't be followed.
const SHORTEST: u32 = 9;
/// So many steps that each rise are a steady rise.
const STEADY: usize = 3;
/// How well the past must repeat itself for a season to be believed, and to stay believed once it is.
const ADOPT: f32 = 0.7;
const KEEP: f32 = 0.4;
const CLEARLY: f32 = 0.05;
/// Of the mean.
const LEAST_SPREAD: f32 = 0.1;
/// All seasons are searched in six steps.
const SEARCHED_AT_ONCE: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn play(forecast: &Forecast, seconds: u64, load: impl Fn(u64) -> f64) -> Expectation {
        let mut memory = Expectation::default();
        for second in (0..seconds).step_by(5) {
            memory.advance(forecast, Duration::from_secs(second));
            memory.observe(load(second));
        }
        memory.advance(forecast, Duration::from_secs(seconds));
        memory
    }

    fn expected(memory: &Expectation, forecast: &Forecast, now: u64) -> Option<f64> {
        memory.highest_within(forecast, Duration::from_secs(now), forecast.horizon)
    }

    #[test]
    fn what_recurs_is_found_and_expected() {
        let forecast = Forecast::default();
        let square = |second: u64| if second % 360 < 180 { 200.0 } else { 900.0 };
        let memory = play(&forecast, 860, square);
        assert_eq!(memory.season, Some(36));
        assert_eq!(expected(&memory, &forecast, 860), Some(200.0), "900 is 40 s away");
        assert_eq!(expected(&memory, &forecast, 870), Some(900.0), "and now 30 s");
    }

    #[test]
    fn only_what_rises_in_each_of_three_steps_is_a_steady_rise() {
        let forecast = Forecast::default();
        let minute = Duration::from_secs(60);
        let rise = play(&forecast, 200, |second| 5.0 * second as f64).rise_within(minute).unwrap();
        assert!((rise - 300.0).abs() < 1.0, "{rise}: 5 a second for a minute");
        let jump = play(&forecast, 200, |second| if second < 180 { 200.0 } else { 1400.0 });
        assert_eq!(jump.rise_within(minute), None);
        assert_eq!(play(&forecast, 200, |second| 900.0 - second as f64).rise_within(minute), None);
        assert_eq!(play(&forecast, 30, |second| second as f64).rise_within(minute), None, "too short a past");
    }

    #[test]
    fn neither_noise_nor_a_slope_nor_a_constant_recurs() {
        let forecast = Forecast::default();
        // The mixing steps of SplitMix64.
        let noise = |second: u64| {
            let z = second.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            500.0 + ((z ^ (z >> 27)) >> 55) as f64
        };
        for load in [noise, |second| 10.0 * second as f64, |_| 700.0] {
            let memory = play(&forecast, 2400, load);
            assert_eq!(memory.season, None);
            assert_eq!(expected(&memory, &forecast, 2400), None);
        }
    }

    #[test]
    fn what_stops_recurring_is_forgotten() {
        let forecast = Forecast::default();
        let load = |second: u64| if second < 1440 && second % 360 >= 180 { 900.0 } else { 200.0 };
        assert_eq!(play(&forecast, 1440, load).season, Some(36));
        assert_eq!(play(&forecast, 1440 + 600, load).season, None);
    }

    #[test]
    fn a_given_season_needs_to_be_seen_once() {
        let forecast = Forecast::new(Model::Seasonal { steps: 10 }, Duration::from_secs(60))
            .horizon(Duration::from_secs(60));
        let load = |second: u64| if second / 60 % 10 == 7 { 500.0 } else { 100.0 };
        assert_eq!(expected(&play(&forecast, 540, load), &forecast, 540), None);
        let memory = play(&forecast, 960, load);
        assert_eq!(expected(&memory, &forecast, 960), Some(500.0), "the seventh minute is next");
    }

    #[test]
    fn holt_winters_follows_a_trend_and_a_season() {
        let model = |steps| Model::HoltWinters { steps, level: 0.5, trend: 0.3, season: 0.3 };
        let trend = Forecast::new(model(0), Duration::from_secs(10));
        let slope = |second: u64| second as f64;
        let memory = play(&trend, 1000, slope);
        // Four steps ahead of the last closed one, whose highest was read at 995.
        let expected_load = expected(&memory, &trend, 1000).unwrap();
        assert!((expected_load - 1035.0).abs() < 5.0, "{expected_load}");
        let season = Forecast::new(model(12), Duration::from_secs(10));
        let wave = |second: u64| if second % 120 < 60 { 100.0 } else { 300.0 };
        let memory = play(&season, 1200, wave);
        let high = expected(&memory, &season, 1230).unwrap();
        assert!((high - 300.0).abs() < 20.0, "{high}");
        let low = expected(&memory, &season, 1200).unwrap();
        assert!((low - 100.0).abs() < 20.0, "{low}");
    }

    #[test]
    fn a_gap_or_a_clock_that_steps_back_begins_anew() {
        let forecast = Forecast::default();
        let mut memory = play(&forecast, 1000, |_| 5.0);
        memory.advance(&forecast, Duration::from_secs(1100));
        assert!(memory.past.is_empty());
        let mut memory = play(&forecast, 1000, |_| 5.0);
        memory.advance(&forecast, Duration::from_secs(10));
        assert!(memory.past.is_empty());
    }
}

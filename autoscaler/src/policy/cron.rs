//! The five fields of a cron expression, and the next minute that fits them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Minutes at which something happens: `minute hour day-of-month month day-of-week`, as in crontab(5).
///
/// Each field is `*`, a number, a range `a-b`, a list with commas, each with `/step` if wanted; months and days may be
/// named by their first three letters; Sunday is 0 and 7. Where both kinds of day are given, either one is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

/// Why a text is no cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no cron expression: {why}")]
pub struct CronError {
    text: String,
    why: String,
}

impl Cron {
    /// The first minute after `minute` that fits, both counted from the start of 1970 in local time. `None` if none does
    /// within eight years, in which each date occurs.
    pub(crate) fn next_after(&self, minute: i64) -> Option<i64> {
        let first = minute.saturating_add(1);
        let (mut day, mut from) = (first.div_euclid(DAY), first.rem_euclid(DAY));
        for _ in 0..=YEARS_OF_DAYS {
            if self.fits_day(day) {
                let found = (from..DAY).find(|m| has(self.hours, m / 60) && has(self.minutes, m % 60));
                if let Some(found) = found {
                    return Some(day.saturating_mul(DAY).saturating_add(found));
                }
            }
            (day, from) = (day.saturating_add(1), 0);
        }
        None
    }

    fn fits_day(&self, day: i64) -> bool {
        let (month, date) = date(day);
        // 1 January 1970 was a Thursday.
        let weekday = has(self.weekdays, day.saturating_add(4).rem_euclid(7));
        let date = has(self.days, date);
        let fits = match (self.any_day, self.any_weekday) {
            (true, _) => weekday,
            (_, true) => date,
            _ => date || weekday,
        };
        fits && has(self.months, month)
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let error = |why: String| CronError { text: text.chars().take(80).collect(), why };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(error(format!("it has {} fields instead of five", fields.len())));
        };
        let mut weekdays = field(weekday, 0, 7, &WEEKDAYS, 0).map_err(&error)?;
        if has(weekdays, 7) {
            weekdays |= 1;
        }
        let cron = Self {
            text: text.to_owned(),
            minutes: field(minute, 0, 59, &[], 0).map_err(&error)?,
            hours: field(hour, 0, 23, &[], 0).map_err(&error)?,
            days: field(day, 1, 31, &[], 0).map_err(&error)?,
            months: field(month, 1, 12, &MONTHS, 1).map_err(&error)?,
            weekdays,
            any_day: day.starts_with('*'),
            any_weekday: weekday.starts_with('*'),
        };
        if cron.next_after(0).is_none() {
            return Err(error("no such date exists".to_owned()));
        }
        Ok(cron)
    }
}

impl TryFrom<String> for Cron {
    type Error = CronError;

    fn try_from(text: String) -> Result<Self, CronError> {
        text.parse()
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The numbers of one field as bits.
fn field(text: &str, low: u32, high: u32, names: &[&str], first: u32) -> Result<u64, String> {
    let number = |text: &str| -> Result<u32, String> {
        let lower = text.to_ascii_lowercase();
        let named = names.iter().position(|name| *name == lower);
        let number = match named.and_then(|index| u32::try_from(index).ok()) {
            Some(index) => index + first,
            None => text.parse().map_err(|_| format!("{text:?} is no number"))?,
        };
        if (low..=high).contains(&number) {
            Ok(number)
        } else {
            Err(format!("{number} is not {low} to {high}"))
        }
    };
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse::<usize>().ok().filter(|step| *step > 0);
                (range, Some(step.ok_or_else(|| format!("the step of {part:?} is no positive number"))?))
            }
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((from, to)) => (number(from)?, number(to)?),
            None => {
                let from = number(range)?;
                (from, if step.is_some() { high } else { from })
            }
        };
        if from > to {
            return Err(format!("the range {range:?} runs backwards"));
        }
        for number in (from..=to).step_by(step.unwrap_or(1)) {
            bits |= 1 << number;
        }
    }
    Ok(bits)
}

fn has(bits: u64, number: i64) -> bool {
    u32::try_from(number).is_ok_and(|number| bits.checked_shr(number).is_some_and(|bits| bits & 1 == 1))
}

/// Month and day of the month, of a day counted from the start of 1970 in the Gregorian calendar. The year begins in
/// March here, so that the leap day is its last (the usual era-based reckoning).
fn date(day: i64) -> (i64, i64) {
    let of_era = day.saturating_add(719_468).rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    (if month < 10 { month + 3 } else { month - 9 }, of_year - (153 * month + 2) / 5 + 1)
}

/// Minutes of a day.
const DAY: i64 = 24 * 60;
/// Eight years: the longest time between two leap days.
const YEARS_OF_DAYS: i64 = 8 * 366;
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(text: &str, minute: i64) -> Option<i64> {
        text.parse::<Cron>().unwrap().next_after(minute)
    }

    #[test]
    fn the_next_minute_is_strictly_after() {
        assert_eq!(next("*/15 * * * *", 0), Some(15));
        assert_eq!(next("0 0 * * *", 0), Some(DAY));
        assert_eq!(next("0 0 * * *", -1), Some(0));
        // Day 59 of 1970 is the first of March; 1972 has a leap day, which is day 789.
        assert_eq!(next("0 0 1 3 *", 0), Some(59 * DAY));
        assert_eq!(next("0 0 29 feb *", 0), Some(789 * DAY));
        // The 13th, or a Friday: 2 January 1970 was one.
        assert_eq!(next("0 0 13 * 5", 0), Some(DAY));
        assert_eq!(next("0 0 * * 7", 0), Some(3 * DAY));
    }

    #[test]
    fn what_is_no_expression_says_why() {
        for (text, why) in [
            ("0 8 * *", "it has 4 fields instead of five"),
            ("60 8 * * *", "60 is not 0 to 59"),
            ("0 8 * * someday", "\"someday\" is no number"),
            ("0 8-4 * * *", "the range \"8-4\" runs backwards"),
            ("*/0 * * * *", "the step of \"*/0\" is no positive number"),
            ("0 0 30 2 *", "no such date exists"),
        ] {
            let error = text.parse::<Cron>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} is no cron expression: {why}"));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}", minute in any::<i64>()) {
            if let Ok(cron) = text.parse::<Cron>() {
                let _ = cron.next_after(minute);
            }
        }

        #[test]
        fn any_fields_are_parsed_or_refused(text in "([0-9*/,-]{1,6} ){4}[a-z0-9*/,-]{1,6}", minute in any::<i64>()) {
            if let Ok(cron) = text.parse::<Cron>() {
                prop_assert!(minute > i64::MAX - 10_000_000 || cron.next_after(minute) > Some(minute));
            }
        }
    }
}

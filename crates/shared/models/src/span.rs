//! Times as people write them: spans such as `90s`, `15m`, `8h`, `7d`, and moments.

use crate::clock::Millis;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// A span; a bare number counts seconds.
///
/// # Errors
/// What is allowed, where it is none.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; allowed: a number and s, m, h or d, such as 15m");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let factor = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(wrong)
}

/// A moment: epoch milliseconds, `2026-11-22`, `2026-11-22T04:06:17Z` (UTC), or a span before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    At(Millis),
    Before(Duration),
}

impl Moment {
    /// In epoch milliseconds.
    pub fn at(self, now: Millis) -> Millis {
        match self {
            Self::At(at) => at,
            Self::Before(span) => now.saturating_sub(Millis::try_from(span.as_millis()).unwrap_or(now)),
        }
    }
}

/// Reads a [`Moment`].
///
/// # Errors
/// What is allowed, where it is none.
pub fn parse_moment(text: &str) -> Result<Moment, String> {
    if text.len() >= 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Moment::At).map_err(|_| format!("`{text}` is too large"));
    }
    if let Some(at) = iso(text) {
        return Ok(Moment::At(at));
    }
    let wrong = |_| {
        format!(
            "`{text}` is no moment; allowed: 2026-11-22, 2026-11-22T04:06:17Z, 15m (ago), or epoch milliseconds"
        )
    };
    parse_span(text).map(Moment::Before).map_err(wrong)
}

/// In JSON a number counts epoch milliseconds, however small, and a text is read as [`parse_moment`] does.
impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected a moment: 2026-11-22, 2026-11-22T04:06:17Z, 15m (ago), or epoch milliseconds"
        )]
        enum Written {
            Number(Millis),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(at) => Ok(Self::At(at)),
            Written::Text(text) => parse_moment(&text).map_err(serde::de::Error::custom),
        }
    }
}

/// `YYYY-MM-DD`, with `THH:MM:SS[.mmm]Z` or without.
fn iso(text: &str) -> Option<Millis> {
    let (date, clock) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
    let date = numbers(date, '-')?;
    let clock = clock.strip_suffix('Z')?;
    let (clock, millis) = clock.split_once('.').unwrap_or((clock, "0"));
    let millis: Millis = format!("{millis:0<3}").get(..3)?.parse().ok()?;
    let clock = numbers(clock, ':')?;
    let ([year, month, day], [hour, minute, second]) = (date, clock);
    let fits = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    fits.then_some(seconds * 1000 + millis)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let parts: Vec<i64> = text
        .split(separator)
        .map(|part| part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit())))
        .collect::<Option<_>>()?;
    parts.try_into().ok()
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::iso8601;

    #[test]
    fn spans_count_seconds() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("8h", 28_800), ("7d", 604_800)] {
            assert_eq!(parse_span(text).unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "s", "1w", "-5m", "1.5h", "99999999999999999999d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_dates_times_milliseconds_or_spans_before_now() {
        for text in ["2026-11-22T04:06:17.010Z", "2024-02-29T23:59:59.000Z", "1970-01-01T00:00:00.000Z"] {
            assert_eq!(parse_moment(text).map(|moment| iso8601(moment.at(0))), Ok(text.to_owned()));
        }
        assert_eq!(
            parse_moment("2026-11-22").map(|m| iso8601(m.at(0))),
            Ok("2026-11-22T00:00:00.000Z".into())
        );
        assert_eq!(parse_moment("1795320377054"), Ok(Moment::At(1_795_320_377_054)));
        assert_eq!(parse_moment("15m").map(|m| m.at(1_000_000)), Ok(100_000));
        for text in ["2023-02-29", "2026-13-01", "yesterday", "2026-11-22T25:00:00Z", "2026-11-22T04:06:17"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }
    #[test]
    fn a_moment_in_json_is_a_number_of_milliseconds_or_a_text() {
        let read = |text: &str| serde_json::from_str::<Moment>(text);
        assert_eq!(read("5").unwrap(), Moment::At(5));
        assert_eq!(read("\"2026-11-22\"").unwrap(), parse_moment("2026-11-22").unwrap());
        assert_eq!(read("\"24h\"").unwrap(), Moment::Before(Duration::from_hours(24)));
        for (text, says) in
            [("\"soon\"", "`soon` is no moment"), ("1.5", "expected a moment"), ("[1]", "expected a moment")]
        {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

//! Wall-clock time as v5 counts it. For people and for the wire only: nothing is decided by it.

use std::fmt;
use std::time::{Duration, SystemTime};

/// 100 ns ticks since 0001-01-01 UTC, as .NET has them. Displayed as ISO 8601 with up to seven fraction digits and `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub i64);

/// Ticks from 0001-01-01 to 1970-01-01.
const UNIX_EPOCH_TICKS: i64 = 621_355_968_000_000_000;
const TICKS_PER_SECOND: i64 = 10_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// The last tick of the year 9999: later times have no text form on the wire.
const LAST_TICKS: i64 = 3_155_378_975_999_999_999;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

impl WallTime {
    /// The moment that the system's clock showed; times before 1970 count as 1970.
    #[must_use]
    pub fn from_system(time: SystemTime) -> WallTime {
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let ticks = i64::try_from(since_epoch.as_nanos() / 100).unwrap_or(i64::MAX);
        WallTime(UNIX_EPOCH_TICKS.saturating_add(ticks).min(LAST_TICKS))
    }

    /// How far apart two moments are.
    #[must_use]
    pub fn distance(self, other: WallTime) -> Duration {
        Duration::from_nanos(self.0.abs_diff(other.0).saturating_mul(100))
    }

    /// The form of HTTP's `Date` header.
    #[must_use]
    pub fn http_date(self) -> String {
        let civil = self.civil();
        let weekday = WEEKDAYS[usize::try_from(civil.days_since_1970.rem_euclid(7)).expect("below seven")];
        let month = MONTHS[usize::try_from(civil.month - 1).expect("a month")];
        let Civil { year, day, hour, minute, second, .. } = civil;
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }

    fn civil(self) -> Civil {
        let ticks = self.0.clamp(0, LAST_TICKS) - UNIX_EPOCH_TICKS;
        let seconds = ticks.div_euclid(TICKS_PER_SECOND);
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let in_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        Civil {
            days_since_1970: days,
            year,
            month,
            day,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
            fraction: ticks.rem_euclid(TICKS_PER_SECOND),
        }
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil { year, month, day, hour, minute, second, fraction, .. } = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if fraction != 0 {
            let digits = format!("{fraction:07}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

struct Civil {
    days_since_1970: i64,
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// In ticks.
    fraction: i64,
}

/// Year, month and day of a day number, in the proleptic Gregorian calendar. Years here begin in March, so that the leap
/// day is the last of its year; 146,097 days are 400 years.
fn civil_from_days(days_since_1970: i64) -> (i64, i64, i64) {
    let shifted = days_since_1970 + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_v5_writes_them() {
        let check = |ticks: i64, expected: &str| assert_eq!(WallTime(ticks).to_string(), expected);
        check(0, "0001-01-01T00:00:00Z");
        check(UNIX_EPOCH_TICKS, "1970-01-01T00:00:00Z");
        check(637_135_310_456_780_000, "2020-01-02T03:04:05.678Z");
        check(UNIX_EPOCH_TICKS + 951_782_400 * TICKS_PER_SECOND, "2000-02-29T00:00:00Z");
        check(UNIX_EPOCH_TICKS + 1, "1970-01-01T00:00:00.0000001Z");
        check(LAST_TICKS, "9999-12-31T23:59:59.9999999Z");
        check(i64::MAX, "9999-12-31T23:59:59.9999999Z");
    }

    #[test]
    fn the_http_date_is_that_of_the_standard() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(WallTime::from_system(time).http_date(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}

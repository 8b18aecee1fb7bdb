//! The name of a run: later runs sort later.

use std::ffi::OsStr;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names the run that a test process belongs to. `cargo ktstr test` sets it for all of its test processes.
pub const RUN_ID_ENV: &str = "KTSTR_RUN_ID";

const MAX_LEN: usize = 100;

/// Name of a run and of its folder, such as `20260102T030405.678Z-1f3a-9c0b`: UTC to the millisecond,
/// process id, random bits. As text, a later run sorts after an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(String);

/// The text can't be the name of a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a run id: it may hold up to {MAX_LEN} letters, digits, `.`, `-` and `_`, and starts \
     with a letter or digit"
)]
pub struct RunIdError {
    /// The text.
    pub text: String,
}

impl RunId {
    /// A new id for a run that starts at `now`.
    pub fn generate(now: SystemTime) -> Self {
        // The standard library's only source of random bits: the keys of a fresh hasher.
        let random = RandomState::new().hash_one(std::process::id()) & 0xffff_ffff;
        Self(format!(
            "{}-{:x}-{random:08x}",
            compact_utc(now),
            std::process::id(),
        ))
    }

    /// The run that this process belongs to: what [`RUN_ID_ENV`] says, else one id for the life of the process.
    pub fn of_this_process(told: Option<&OsStr>) -> Result<Self, RunIdError> {
        static OWN: OnceLock<RunId> = OnceLock::new();
        match told {
            Some(text) if !text.is_empty() => text.to_string_lossy().parse(),
            _ => Ok(OWN
                .get_or_init(|| Self::generate(SystemTime::now()))
                .clone()),
        }
    }

    /// When the run began, to the millisecond, if the id says so as those of [`Self::generate`] do.
    pub fn started(&self) -> Option<SystemTime> {
        // `20260102T030405.678Z`.
        let text = self.0.get(..20)?;
        let number = |range: std::ops::Range<usize>| -> Option<u64> {
            let digits = text.get(range)?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok())?
        };
        let separators = [8, 15, 19].map(|at| text.as_bytes()[at]);
        if separators != *b"T.Z" {
            return None;
        }
        let days = days_since_1970(number(0..4)?, number(4..6)?, number(6..8)?)?;
        let seconds = number(9..11)? * 3600 + number(11..13)? * 60 + number(13..15)?;
        let since_epoch =
            Duration::from_secs(days * 86_400 + seconds) + Duration::from_millis(number(16..19)?);
        UNIX_EPOCH.checked_add(since_epoch)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RunId {
    type Err = RunIdError;

    fn from_str(text: &str) -> Result<Self, RunIdError> {
        let fits = text.len() <= MAX_LEN
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(RunIdError {
                text: text.to_owned(),
            })
        }
    }
}

/// `20260102T030405.678Z`. A clock before 1970 counts as 1970.
fn compact_utc(now: SystemTime) -> String {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}.{:03}Z",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        since_epoch.subsec_millis(),
    )
}

const DAYS_FROM_0000_03_01: u64 = 719_468;

/// The reverse of [`civil_date`], for dates from 1970 on.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    Some(days - DAYS_FROM_0000_03_01)
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years are
/// counted from March, so that the leap day is the last of the year.
fn civil_date(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days_since_1970 + DAYS_FROM_0000_03_01;
    let era = days / DAYS_IN_400_YEARS;
    let day_of_era = days % DAYS_IN_400_YEARS;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let text = |seconds| compact_utc(UNIX_EPOCH + Duration::from_millis(seconds));
        assert_eq!(text(0), "19700101T000000.000Z");
        assert_eq!(text(951_782_400_000), "20000229T000000.000Z");
        assert_eq!(text(1_767_322_800_001), "20260102T030000.001Z");
        assert_eq!(text(1_798_761_599_999), "20261231T235959.999Z");
        assert_eq!(text(4_107_542_400_000), "21000301T000000.000Z");
    }

    #[test]
    fn an_id_says_when_its_run_began() {
        for millis in [
            0,
            951_782_400_000,
            1_767_322_800_001,
            1_798_761_599_999,
            4_107_542_400_000,
        ] {
            let moment = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(RunId::generate(moment).started(), Some(moment));
        }
        for other in [
            "ci-4711",
            "20260102T030405.678",
            "20261302T030405.678Z",
            "2026010aT030405.678Z",
        ] {
            assert_eq!(other.parse::<RunId>().unwrap().started(), None, "{other}");
        }
    }

    #[test]
    fn ids_of_one_moment_differ_and_later_ones_sort_later() {
        let moment = UNIX_EPOCH + Duration::from_secs(1_767_322_800);
        let earlier = RunId::generate(moment);
        assert_ne!(earlier, RunId::generate(moment));
        assert!(earlier < RunId::generate(moment + Duration::from_millis(1)));
        assert_eq!(earlier.as_str().parse(), Ok(earlier));
    }

    #[test]
    fn what_is_not_one_plain_folder_name_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "-x",
            "ä",
            &"x".repeat(101),
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text:?}");
        }
    }
}

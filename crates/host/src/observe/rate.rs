//! When the monitor samples.

use std::str::FromStr;
use std::time::Duration;

/// Shortest and longest time between two samples that can be asked for, in milliseconds.
const INTERVAL_MS: std::ops::RangeInclusive<u64> = 1..=10_000;

/// When the monitor samples, or not at all: `KTSTR_MONITOR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorRate {
    /// The host doesn't look into the guest: no samples, snapshots or failure dump.
    Off,
    /// One sample after the other at this distance.
    Every(Duration),
    /// One sample each time that the guest has paused its machine: at the snapshots that the test asks for and at the
    /// moments of a failure dump. All of it is then of one moment.
    AtPauses,
}

/// `KTSTR_MONITOR` has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it takes `off`, `pauses`, or the milliseconds between two samples, {} to {}",
    .0.start(), .0.end()
)]
pub struct MonitorRateError(std::ops::RangeInclusive<u64>);

impl Default for MonitorRate {
    fn default() -> Self {
        Self::Every(ktstr_monitor::DEFAULT_INTERVAL)
    }
}

impl FromStr for MonitorRate {
    type Err = MonitorRateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => return Ok(Self::Off),
            "pauses" => return Ok(Self::AtPauses),
            _ => {}
        }
        match text.parse() {
            Ok(ms) if INTERVAL_MS.contains(&ms) => Ok(Self::Every(Duration::from_millis(ms))),
            _ => Err(MonitorRateError(INTERVAL_MS)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_distance_in_milliseconds_or_a_word() {
        let rate = |text: &str| text.parse::<MonitorRate>();
        assert_eq!(rate("off"), Ok(MonitorRate::Off));
        assert_eq!(rate("pauses"), Ok(MonitorRate::AtPauses));
        let shortest = MonitorRate::Every(Duration::from_millis(1));
        assert_eq!(rate("1"), Ok(shortest));
        for wrong in ["", "0", "10001", "-5", "100ms", "OFF"] {
            let error = rate(wrong).expect_err(wrong).to_string();
            let words =
                "it takes `off`, `pauses`, or the milliseconds between two samples, 1 to 10000";
            assert_eq!(error, words);
        }
    }
}

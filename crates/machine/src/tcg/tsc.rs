//! The rate of this host's time stamp counter. An emulated CPU has the same one: without `-icount` QEMU hands
//! it on as it is (`cpu_get_host_ticks` in include/qemu/timer.h).
//!
//! A guest that has to find the rate out by itself compares the counter with the emulated PIT, in bursts of
//! a few milliseconds. On a busy host it is off the CPU meanwhile, and settles on a rate that is several
//! times too low: its clock then runs several times too fast, and every deadline in it comes too early.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use ktstr_sys::time_stamp_counter as ticks;

/// Long enough for an error below one in ten thousand.
const INTERVAL: Duration = Duration::from_millis(20);

/// A reading counts if the clock was read within this part of the interval.
const PRECISION: u64 = 2_000;

const TRIES: usize = 20;

/// What no CPU's counter is below or above, in kHz.
const BELIEVABLE_KHZ: std::ops::RangeInclusive<u64> = 100_000..=10_000_000;

/// The rate in kHz, measured once; nothing when the host is too busy to tell.
pub(crate) fn host_tsc_khz() -> Option<u64> {
    static RATE: OnceLock<Option<u64>> = OnceLock::new();
    *RATE.get_or_init(measure)
}

struct Reading {
    at: Instant,
    ticks: u64,
    /// Ticks that passed while it was taken.
    width: u64,
}

fn measure() -> Option<u64> {
    let first = read()?;
    thread::sleep(INTERVAL);
    let last = read()?;
    let ticks = last.ticks.checked_sub(first.ticks)?;
    if (first.width + last.width).saturating_mul(PRECISION) > ticks {
        return None;
    }
    let elapsed_us = u64::try_from((last.at - first.at).as_micros()).ok()?;
    let khz = ticks.checked_mul(1_000)?.checked_div(elapsed_us)?;
    BELIEVABLE_KHZ.contains(&khz).then_some(khz)
}

/// Clock and counter at one time: of several readings, the one during which the least time passed.
fn read() -> Option<Reading> {
    let once = |_| {
        let before = ticks();
        let at = Instant::now();
        let width = ticks().checked_sub(before)?;
        Some(Reading {
            at,
            ticks: before + width / 2,
            width,
        })
    };
    (0..TRIES)
        .filter_map(once)
        .min_by_key(|reading| reading.width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        // A busy host may leave one without a result, but not all of them.
        let rates: Vec<u64> = (0..20).filter_map(|_| measure()).take(2).collect();
        assert_eq!(rates.len(), 2, "no measurement came through");
        let difference = rates[0].abs_diff(rates[1]);
        assert!(difference * 200 < rates[0], "{rates:?}");
    }
}

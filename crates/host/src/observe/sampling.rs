//! How a test is sampled.

use std::time::Duration;

use ktstr_monitor::{Clock, CpuSample, Settings};

use super::rate::MonitorRate;

/// Memory that the samples of one test may take at most.
const MAX_RECORDING_BYTES: u64 = 64 << 20;

/// How to sample a guest of that many CPUs with `hz` ticks a second, so that all samples of a test that may
/// run for `limit` are kept, if they don't take too much memory; `None` for not at all.
pub(crate) fn sampling(
    rate: MonitorRate,
    cpus: u32,
    limit: Option<Duration>,
    hz: Option<u32>,
) -> Option<Settings> {
    let clock = match rate {
        MonitorRate::Off => return None,
        MonitorRate::Every(interval) => Clock::HostInterval(interval),
        MonitorRate::AtPauses => Clock::GuestPauses,
    };
    let default = Settings::default();
    // What a CPU lacks is said in texts of about that length.
    let cpu_bytes = size_of::<CpuSample>() as u64 + 128;
    let sample_bytes = cpu_bytes * u64::from(cpus) + 2048;
    let max = usize::try_from(MAX_RECORDING_BYTES / sample_bytes).unwrap_or(usize::MAX);
    let wanted = limit.zip(clock.interval());
    let wanted = wanted.map_or(default.capacity, |(limit, interval)| {
        let samples = limit.as_millis() / interval.as_millis().max(1) + 1;
        usize::try_from(samples).unwrap_or(usize::MAX)
    });
    Some(Settings {
        clock,
        tick: hz.map_or(default.tick, |hz| Duration::from_secs(1) / hz.max(1)),
        capacity: wanted.min(max),
    })
}

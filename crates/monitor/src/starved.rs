//! How much of the CPU time that they wanted vCPUs had before a moment of the guest.
//!
//! A kernel that reports a stall says that a CPU did not come to something for so long. Where the host gave that CPU
//! next to nothing meanwhile, the report says nothing of the kernel.

use std::time::Duration;

use crate::recording::{Recording, float};
use crate::sample::{Sample, VcpuTime};

/// What the kernel waits before it reports a stall, at least: twice `watchdog_thresh` for a soft lockup
/// (kernel/watchdog.c), 21 s for RCU, 30 s for workqueues.
pub const STALL_SPAN: Duration = Duration::from_secs(20);

/// With less of the time in which it wanted to run, in percent, a vCPU had under a second in [`STALL_SPAN`], where
/// an emulated CPU does the work of some 50 ms.
pub const MIN_VCPU_SHARE_PCT: f64 = 5.0;

/// The least share, in percent, that a vCPU had of the time in which it wanted to run, in the [`STALL_SPAN`] before
/// `at_us` of the guest's clock (`sched_clock`, by which printk stamps messages and runqueues keep their clocks).
/// `None` if the samples don't say: there are none for half of that span, or no vCPU wanted to run for half of it.
///
/// A thread that runs vCPUs wants to run while it runs or waits on a runqueue of the host; one that takes several vCPUs
/// in turns is shared by those that have tasks in the guest.
pub fn vcpu_share_pct_before(recording: &Recording, at_us: u64) -> Option<f64> {
    let at_ns = at_us.saturating_mul(1000);
    let span_ns = u64::try_from(STALL_SPAN.as_nanos()).unwrap_or(u64::MAX);
    let from_ns = at_ns.saturating_sub(span_ns);
    let timed = || {
        let samples = recording.samples.iter();
        samples.filter_map(|sample| Some((guest_ns(sample)?, sample)))
    };
    let before = timed().take_while(|(ns, _)| *ns <= from_ns).last();
    let (_, first) = before.or_else(|| timed().next())?;
    let after = timed().find(|(ns, _)| *ns >= at_ns);
    let (_, last) = after.or_else(|| timed().next_back())?;
    let apart_ns = last.at_ns.saturating_sub(first.at_ns);
    if apart_ns < span_ns / 2 {
        return None;
    }
    let (wait_before, wait_after) = (
        first.vcpu_wait_ns.as_ref().ok()?,
        last.vcpu_wait_ns.as_ref().ok()?,
    );
    let share = |ran_ns: u64, thread: usize, sharers: f64| -> Option<f64> {
        let waited_ns = wait_after
            .get(thread)?
            .checked_sub(*wait_before.get(thread)?)?;
        let wanted_ns = ran_ns.saturating_add(waited_ns);
        let wants = wanted_ns >= apart_ns / 2;
        wants.then(|| float(ran_ns) * 100.0 / (float(wanted_ns) * sharers))
    };
    match (
        first.vcpu_time.as_ref().ok()?,
        last.vcpu_time.as_ref().ok()?,
    ) {
        (VcpuTime::Own(before), VcpuTime::Own(after)) => before
            .iter()
            .zip(after)
            .enumerate()
            .filter_map(|(cpu, (before, after))| share(after.checked_sub(*before)?, cpu, 1.0))
            .min_by(f64::total_cmp),
        (
            VcpuTime::Shared {
                thread_ns: before, ..
            },
            VcpuTime::Shared {
                thread_ns: after, ..
            },
        ) => {
            let within = timed().map(|(_, sample)| sample);
            let within = within.filter(|sample| (first.at_ns..=last.at_ns).contains(&sample.at_ns));
            share(after.checked_sub(*before)?, 0, mean_busy_cpus(within))
        }
        _ => None,
    }
}

/// The guest's clock when the sample was taken: that of the runqueue which was last used.
fn guest_ns(sample: &Sample) -> Option<u64> {
    let clocks = (0..sample.cpus.len()).filter_map(|cpu| Some(sample.rq(cpu)?.clock_ns));
    clocks.max().filter(|&ns| ns > 0)
}

/// How many CPUs had tasks, on average; at least one.
fn mean_busy_cpus<'a>(samples: impl Iterator<Item = &'a Sample>) -> f64 {
    let (mut count, mut busy) = (0_u64, 0_u64);
    for sample in samples {
        count += 1;
        let cpus = (0..sample.cpus.len()).filter_map(|cpu| sample.rq(cpu));
        busy += cpus.filter(|rq| rq.nr_running > 0).count() as u64;
    }
    (float(busy) / float(count.max(1))).max(1.0)
}

//! Whether what was read is the state of a kernel that runs at all.

use crate::sample::Sample;

/// No local DSQ of a living kernel is this deep: it is memory that was not set up yet.
const DEEPEST_DSQ: u32 = 10_000;

/// The error says what gives it away.
pub(super) fn check(samples: &[&Sample]) -> Result<(), String> {
    samples.iter().try_for_each(|sample| check_one(sample))
}

fn check_one(sample: &Sample) -> Result<(), String> {
    for cpu in 0..sample.cpus.len() {
        if let Some(scx) = sample.scx(cpu)
            && scx.local_dsq_depth > DEEPEST_DSQ
        {
            return Err(format!(
                "the kernel's memory was not initialised when it was read: the local DSQ of CPU {cpu} seems to \
                 hold {} tasks",
                scx.local_dsq_depth
            ));
        }
    }
    let clocks: Vec<u64> = (0..sample.cpus.len())
        .filter_map(|cpu| sample.rq(cpu))
        .map(|rq| rq.clock_ns)
        .collect();
    match clocks.split_first() {
        Some((first, rest)) if !rest.is_empty() && rest.iter().all(|clock| clock == first) => {
            Err(format!(
                "the kernel's memory was not initialised when it was read: the runqueue clocks of all {} CPUs \
                 seem to be {first}",
                clocks.len()
            ))
        }
        _ => Ok(()),
    }
}

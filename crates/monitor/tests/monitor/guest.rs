//! Recordings of guests that never ran.

use std::collections::BTreeMap;

use ktstr_monitor::{
    CpuSample, Missing, Recording, RqSample, Sample, SchedExtSample, SchedExtState, ScxRqSample,
    VcpuTime,
};

pub(crate) const INTERVAL_NS: u64 = 100_000_000;
pub(crate) const TICK_NS: u64 = 4_000_000;

pub(crate) const FALLBACK: &str = "SCX_EV_SELECT_CPU_FALLBACK";
pub(crate) const KEEP_LAST: &str = "SCX_EV_DISPATCH_KEEP_LAST";

/// A CPU whose clock reads `clock_ns`, with that many tasks and that many on its local DSQ.
pub(crate) fn cpu(clock_ns: u64, nr_running: u32, local_dsq_depth: u32) -> CpuSample {
    CpuSample {
        online: true,
        rq: Ok(RqSample {
            nr_running,
            clock_ns,
        }),
        scx: Ok(ScxRqSample {
            nr_running,
            local_dsq_depth,
            flags: 0,
        }),
        schedstat: Err(Missing::Absent("rq_sched_info".to_owned())),
    }
}

pub(crate) fn scheduler(fallbacks: u64, kept: u64) -> SchedExtSample {
    SchedExtSample {
        state: SchedExtState::Enabled,
        events: Ok(BTreeMap::from([
            (FALLBACK.to_owned(), fallbacks),
            (KEEP_LAST.to_owned(), kept),
        ])),
    }
}

/// The `at`-th sample of a healthy machine of two busy CPUs that each have a thread of the host to
/// themselves.
pub(crate) fn healthy(at: u64) -> Sample {
    let now = at * INTERVAL_NS;
    Sample {
        at_ns: now,
        took_ns: 20_000,
        cpus: vec![cpu(1 + now, 2, 1), cpu(7 + now, 3, 0)],
        sched_ext: Ok(scheduler(at, at)),
        vcpu_time: Ok(VcpuTime::Own(vec![now, now])),
        vcpu_wait_ns: Ok(vec![0, 0]),
    }
}

pub(crate) fn recording(samples: impl IntoIterator<Item = Sample>) -> Recording {
    Recording {
        interval_ns: INTERVAL_NS,
        tick_ns: TICK_NS,
        samples: samples.into_iter().collect(),
        ..Recording::default()
    }
}

/// `count` healthy samples, each changed by `change`, which gets its number.
pub(crate) fn changed(count: u64, change: impl Fn(u64, &mut Sample)) -> Recording {
    recording((0..count).map(|at| {
        let mut sample = healthy(at);
        change(at, &mut sample);
        sample
    }))
}

pub(crate) fn rq(sample: &mut Sample, cpu: usize) -> &mut RqSample {
    sample.cpus[cpu].rq.as_mut().expect("set by healthy")
}

pub(crate) fn scx(sample: &mut Sample, cpu: usize) -> &mut ScxRqSample {
    sample.cpus[cpu].scx.as_mut().expect("set by healthy")
}

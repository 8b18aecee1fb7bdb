//! With a scheduler attached, what the host reads from outside equals what the guest says of itself: 50 times, with the
//! guest asked before and after. What moves in between only grows, so that the host's value must lie between.

mod bpf_syscalls;
mod compare;
mod told;

use ktstr::prelude::*;

use compare::Seen;
use told::Teller;

declare_scheduler!(KTSTR, {
    name = "ktstr",
    binary = "scx_ktstr",
    topology = (1, 1, 2, 1),
});

const SAMPLES: usize = 50;

// The monitor's own bounds are no part of this: each snapshot takes time from its samples.
#[ktstr_test(
    scheduler = KTSTR,
    max_local_dsq_depth = off,
    fail_on_rq_clock_stuck = off,
    max_fallback_rate = off,
    post_vm = outside_equals_inside
)]
fn what_the_host_sees_is_what_the_guest_says(ctx: &Ctx) -> Result<AssertResult> {
    let spin = |policy: SchedPolicy, name: &str| {
        let mut config = WorkloadConfig::new(WorkType::SpinWait, 1);
        config.spec.sched_policy = policy;
        config.spec.comm = Some(name.to_owned());
        config.slack = ctx.timing.stretch(config.slack);
        WorkloadHandle::spawn(config)
    };
    let mut workloads = [
        spin(SchedPolicy::Normal, "spins")?,
        spin(SchedPolicy::Ext, "asks for ext")?,
        spin(SchedPolicy::Batch, "is bound")?,
    ];
    for workload in &mut workloads {
        workload.start()?;
        ensure!(workload.wait_running() == 0, "a worker does not run");
    }
    workloads[2].set_affinity(0, &CpuSet::from_range(1..2))?;
    let pids = workloads.iter().flat_map(WorkloadHandle::worker_tids);

    let mut teller = Teller::begin(pids.collect(), ctx.topo.cpus().len())?;
    for number in 0..SAMPLES {
        teller.tell()?;
        ctx.capture_snapshot(&number.to_string())?;
        teller.tell()?;
    }
    for workload in workloads {
        workload.stop_and_collect()?;
    }
    Ok(AssertResult::default())
}

fn outside_equals_inside(vm: &VmResult) -> Result<AssertResult> {
    let (types, told) = told::read_lines(&vm.sidecar.output)?;
    let snapshots = &vm.observation.snapshots;
    ensure!(
        snapshots.len() == SAMPLES && told.len() == 2 * SAMPLES,
        "{} readings",
        told.len()
    );
    let mut seen = Seen::new(&types)?;
    for (moment, around) in snapshots.iter().zip(told.chunks(2)) {
        seen.compare(&moment.kernel, &around[0], &around[1])
            .with_context(|| format!("sample {}", moment.label))?;
    }
    seen.finish()?;
    let mut result = AssertResult::default();
    result.push(vm.global_series("nr_enqueued").nondecreasing());
    Ok(result)
}

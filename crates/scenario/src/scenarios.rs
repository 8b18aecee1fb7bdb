//! Ready-made scenarios.

use ktstr_report::AssertResult;

use crate::{CgroupDef, CpusetSpec, Ctx, ScenarioError, WorkType, execute_defs};

/// Most workers that [`oversubscribed`] puts into one cgroup.
const MAX_OVERSUBSCRIBED: u32 = 32;

/// Two cgroups of spinning workers that together just fill the machine: half as many workers each as
/// there are CPUs, at least one. What any scheduler should be at ease with.
pub fn steady(ctx: &Ctx) -> Result<AssertResult, ScenarioError> {
    let workers = (ctx.topo.cpu_count() / 2).max(1) as usize;
    let def = |name| {
        CgroupDef::named(name)
            .workers(workers)
            .work_type(WorkType::SpinWait)
    };
    execute_defs(ctx, vec![def("cg_0"), def("cg_1")])
}

/// One cgroup for each LLC, confined to its CPUs, with as many spinning workers. Shows whether a
/// scheduler keeps to cpusets.
pub fn steady_llc(ctx: &Ctx) -> Result<AssertResult, ScenarioError> {
    let defs = (0..ctx.topo.llcs())
        .map(|llc| {
            CgroupDef::named(format!("llc_{llc}"))
                .cpuset(CpusetSpec::llc(llc))
                .workers_pct(1.0)
                .work_type(WorkType::SpinWait)
        })
        .collect();
    execute_defs(ctx, defs)
}

/// Two cgroups with twice as many workers each as there are CPUs (at most 32) that spin and yield: long
/// runqueues, and many reasons to pick another task.
pub fn oversubscribed(ctx: &Ctx) -> Result<AssertResult, ScenarioError> {
    let workers = (ctx.topo.cpu_count() * 2).min(MAX_OVERSUBSCRIBED) as usize;
    let def = |name| {
        CgroupDef::named(name)
            .workers(workers)
            .work_type(WorkType::Mixed)
    };
    execute_defs(ctx, vec![def("cg_0"), def("cg_1")])
}

//! Running a scenario.

use std::thread;
use std::time::{Duration, Instant};

use ktstr_report::{AssertResult, CgroupAccount, CgroupReport, PhaseCgroup, PhaseReport};
use ktstr_topology::CpuSet;

use crate::cgroup::{CgroupError, CgroupGroup, CgroupKind, CgroupOps as _};
use crate::checks::judge_workers;
use crate::cpuset_spec::CpusetSpecError;
use crate::workload::{
    AffinityError, CloneMode, Gate, Reading, WorkloadConfig, WorkloadError, WorkloadHandle,
};
use crate::{CgroupDef, Ctx};

/// How often the workers are looked after while load is held.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// CPU time that a worker may take to begin, on emulated CPUs and without optimisation.
const START_CPU_TIME: Duration = Duration::from_millis(50);

/// Longest that workers may take to begin for want of quota.
const MAX_START_UNDER_QUOTA: Duration = Duration::from_secs(20);

/// Why a scenario could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// No cgroups.
    #[error("a scenario without cgroups: give it at least one CgroupDef")]
    NoDefs,
    /// A cgroup operation failed.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// A cgroup's CPUs don't fit the machine.
    #[error("the cpuset of cgroup `{cgroup}` does not fit the machine")]
    Cpuset {
        /// The cgroup.
        cgroup: String,
        /// Why.
        source: CpusetSpecError,
    },
    /// Workers can't be bound as asked.
    #[error("the workers of cgroup `{cgroup}` can't be bound to CPUs as asked")]
    Affinity {
        /// The cgroup.
        cgroup: String,
        /// Why.
        source: AffinityError,
    },
    /// The workers could not be set up.
    #[error("the workers of cgroup `{cgroup}` can't be set up")]
    Workload {
        /// The cgroup.
        cgroup: String,
        /// Why.
        source: WorkloadError,
    },
    /// The workers could not be started.
    #[error(transparent)]
    Start(#[from] WorkloadError),
}

struct Running {
    name: String,
    cpuset: CpuSet,
    workload: WorkloadHandle,
}

/// Makes the cgroups and their workers, releases all workers together, holds the load for
/// `ctx.duration`, stops them, and judges their reports by `ctx.assert`. The hold ends early when a
/// worker dies or `ctx.load_stop` asks for it. The cgroups are gone afterwards.
///
/// For the stop the quotas of the cgroups and of those above them are lifted, and what is frozen is let go:
/// throttled and frozen workers can't be told to stop. What was used is read before; the limits of cgroups that
/// are not these are put back after.
pub fn execute_defs(ctx: &Ctx, defs: Vec<CgroupDef>) -> Result<AssertResult, ScenarioError> {
    if defs.is_empty() {
        return Err(ScenarioError::NoDefs);
    }
    let mut group = CgroupGroup::new(&ctx.cgroups);
    let gate = Gate::new()?;
    // Declared after the group, so that an early return ends the workers before their cgroups go.
    let mut running = Vec::new();
    for def in defs {
        running.push(prepare(ctx, &def, &mut group, &gate)?);
    }
    gate.open();
    let mut notes = wait_running(&running, ctx)?;
    let window = ctx.cgroups.begin_account();
    let mut phases = Vec::new();
    let step = ctx.phases.next_step(ctx.host(), &mut phases);
    let before = read_all(&running);
    notes.extend(hold(&mut running, ctx));
    let after = read_all(&running);
    phases.push(PhaseReport {
        cgroups: figures(&running, &before, &after),
        ..step.end(ctx.host())
    });
    let accounts: Vec<CgroupAccount> = running
        .iter()
        .map(|cgroup| window.account(&cgroup.name))
        .collect::<Result<_, _>>()?;
    for cgroup in &running {
        cgroup.workload.request_stop();
    }
    let names: Vec<&str> = running.iter().map(|cgroup| cgroup.name.as_str()).collect();
    // What can't be lifted shows as workers that don't stop.
    let (lifted, problem) = ctx.cgroups.lift_limits(&names);
    notes.extend(
        problem
            .err()
            .map(|error| format!("lifting the limits for the stop: {error}")),
    );
    let cgroups = collect(running, accounts);
    let removed = group.remove_all();
    lifted.restore()?;
    removed?;
    let mut result = judge_workers(&ctx.assert, &ctx.timing, &cgroups);
    result.cgroups = cgroups;
    result.phases = phases;
    result.notes.extend(notes);
    Ok(result)
}

fn prepare(
    ctx: &Ctx,
    def: &CgroupDef,
    group: &mut CgroupGroup<'_>,
    gate: &Gate,
) -> Result<Running, ScenarioError> {
    let name = &def.name;
    make_cgroup(ctx, def, group)?;
    let cpuset = ctx.cgroups.effective_cpuset(name)?;
    let workers = def.worker_count(u32::try_from(cpuset.len()).unwrap_or(u32::MAX));
    let of_workload = |source| ScenarioError::Workload {
        cgroup: name.clone(),
        source,
    };
    let config = WorkloadConfig {
        spec: def.spec.clone(),
        workers,
        clone_mode: def.clone_mode,
        slack: ctx.timing.stretch(Duration::ZERO),
        tell_memory: ctx.cgroups.declared_mems(name).is_some(),
    };
    let mut workload = WorkloadHandle::spawn_behind(config, gate).map_err(of_workload)?;
    let tids = workload.worker_tids();
    match def.clone_mode {
        CloneMode::Fork => ctx.cgroups.move_tasks(name, &tids)?,
        CloneMode::Thread => ctx.cgroups.move_threads(name, &tids)?,
    }
    let bindings = def
        .affinity
        .resolve(&ctx.topo, &cpuset, workers)
        .map_err(|source| ScenarioError::Affinity {
            cgroup: name.clone(),
            source,
        })?;
    for (index, cpus) in bindings.iter().enumerate() {
        if let Some(cpus) = cpus {
            workload.set_affinity(index, cpus).map_err(of_workload)?;
        }
    }
    let levels = def.nice_levels.iter().cycle();
    for (index, &nice) in (0..workers).zip(levels) {
        workload.set_nice(index, nice).map_err(of_workload)?;
    }
    workload.configure().map_err(of_workload)?;
    Ok(Running {
        name: name.clone(),
        cpuset,
        workload,
    })
}

fn make_cgroup(
    ctx: &Ctx,
    def: &CgroupDef,
    group: &mut CgroupGroup<'_>,
) -> Result<(), ScenarioError> {
    let kind = match def.clone_mode {
        CloneMode::Fork => CgroupKind::Domain,
        CloneMode::Thread => CgroupKind::Threaded,
    };
    let cpus = def.cpuset.as_ref().map(|spec| spec.resolve(&ctx.topo));
    let cpus = cpus.transpose().map_err(|source| ScenarioError::Cpuset {
        cgroup: def.name.clone(),
        source,
    })?;
    group.create(&def.name, kind)?;
    if let Some(cpus) = cpus {
        ctx.cgroups.set_cpuset(&def.name, &cpus)?;
    }
    for knob in &def.knobs {
        ctx.cgroups.set(&def.name, knob)?;
    }
    Ok(())
}

/// A remark for each cgroup whose workers did not all get to run in time. Frozen ones are not waited for.
fn wait_running(running: &[Running], ctx: &Ctx) -> Result<Vec<String>, CgroupError> {
    let mut time = Duration::ZERO;
    let mut awaited = Vec::new();
    for cgroup in running {
        let held = ctx.cgroups.held(&cgroup.name)?;
        let workers = cgroup.workload.worker_tids().len();
        time = time.max(cgroup.workload.ready_time() + start_time(held.quota_cpus, workers));
        if !held.frozen {
            awaited.push(cgroup);
        }
    }
    let deadline = Instant::now() + time;
    let late = awaited.into_iter().filter_map(|cgroup| {
        let missing = cgroup.workload.wait_running_by(deadline);
        (missing > 0).then(|| {
            format!(
                "{missing} workers of cgroup `{}` had not started before the deadline",
                cgroup.name
            )
        })
    });
    Ok(late.collect())
}

/// How much longer workers may take to begin because a quota holds them back.
fn start_time(quota_cpus: Option<f64>, workers: usize) -> Duration {
    let Some(cpus) = quota_cpus else {
        return Duration::ZERO;
    };
    let cpu_time = START_CPU_TIME.saturating_mul(u32::try_from(workers).unwrap_or(u32::MAX));
    Duration::try_from_secs_f64(cpu_time.as_secs_f64() / cpus)
        .unwrap_or(MAX_START_UNDER_QUOTA)
        .min(MAX_START_UNDER_QUOTA)
}

/// Holds the load; a remark if it ended early.
fn hold(running: &mut [Running], ctx: &Ctx) -> Option<String> {
    let started = Instant::now();
    let cut_short = |until: String| {
        Some(format!(
            "the load was held for {:.1} s of {:.1} s, until {until}",
            started.elapsed().as_secs_f64(),
            ctx.duration.as_secs_f64(),
        ))
    };
    loop {
        if let Some(reason) = ctx.load_stop.reason() {
            return cut_short(reason.to_string());
        }
        for cgroup in &mut *running {
            if let Some((pid, _)) = cgroup.workload.dead_workers().first() {
                return cut_short(format!("worker {pid} of cgroup `{}` had died", cgroup.name));
            }
        }
        let left = ctx.duration.saturating_sub(started.elapsed());
        if left.is_zero() {
            return None;
        }
        thread::sleep(left.min(LOOK_EVERY));
    }
}

/// The figures of all workers now.
fn read_all(running: &[Running]) -> Vec<Vec<Reading>> {
    let cgroups = running.iter();
    cgroups.map(|cgroup| cgroup.workload.read()).collect()
}

/// What the workers of each cgroup did between two readings.
fn figures(
    running: &[Running],
    before: &[Vec<Reading>],
    after: &[Vec<Reading>],
) -> Vec<PhaseCgroup> {
    let readings = before.iter().zip(after);
    let cgroups = running.iter().zip(readings);
    cgroups
        .map(|(cgroup, (before, after))| PhaseCgroup {
            name: cgroup.name.clone(),
            workers: before
                .iter()
                .zip(after)
                .map(|(before, after)| after.since(before))
                .collect(),
        })
        .collect()
}

/// The reports of workers that were told to stop.
fn collect(running: Vec<Running>, accounts: Vec<CgroupAccount>) -> Vec<CgroupReport> {
    let time = running.iter().map(|cgroup| cgroup.workload.report_time());
    let deadline = Instant::now() + time.max().unwrap_or_default();
    running
        .into_iter()
        .zip(accounts)
        .map(|(cgroup, account)| CgroupReport {
            name: cgroup.name,
            cpuset: Some(cgroup.cpuset),
            workers: cgroup.workload.collect_by(deadline),
            account: Some(account),
        })
        .collect()
}

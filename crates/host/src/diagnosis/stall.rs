//! Why a runnable task was not run.

use ktstr_monitor::state::{CpuState, TaskState};
use ktstr_report::SchedulerReport;
use ktstr_topology::CpuSet;

use super::Scene;

/// A task that waits, and the CPU whose runqueue it is on.
#[derive(Clone, Copy)]
struct Victim<'a> {
    task: &'a TaskState,
    cpu: u32,
}

/// Who waited, and the reason that the state of the kernel shows; `None` if it shows none.
pub(super) fn cause(scheduler: &SchedulerReport, scenes: &[Scene<'_>]) -> Option<String> {
    let message = scheduler
        .exit
        .as_ref()
        .map_or("", |exit| exit.message.as_str());
    let named = failed_to_run(message);
    scenes.iter().find_map(|scene| {
        let victim = victim(scene.cpus, named.map(|(pid, _)| pid))?;
        let why = reason(scene.cpus, victim)?;
        let task = name(victim.task);
        // What the kernel says of the task that it names, else what was seen.
        let waited = match named {
            Some((_, seconds)) => format!("{seconds} s"),
            None => format!("at least {} ms", victim.task.runnable_ms?),
        };
        Some(format!(
            "scheduler `{}` left {task} runnable for {waited}: {why}",
            scheduler.name
        ))
    })
}

/// Pid and seconds in `NAME[PID] failed to run for 5.060s`, by check_rq_for_timeouts() in kernel/sched/ext.c.
fn failed_to_run(message: &str) -> Option<(i32, &str)> {
    let (task, rest) = message.split_once("] failed to run for ")?;
    let (_, pid) = task.rsplit_once('[')?;
    Some((pid.parse().ok()?, rest.strip_suffix('s').unwrap_or(rest)))
}

/// The task that the kernel names, or the one that waits longest.
fn victim(cpus: &[CpuState], pid: Option<i32>) -> Option<Victim<'_>> {
    let waiting = cpus.iter().flat_map(|cpu| {
        let tasks = cpu.waiting.iter();
        tasks.map(|task| Victim { task, cpu: cpu.cpu })
    });
    let ext = waiting.filter(|victim| victim.task.runnable_ms.is_some());
    match pid {
        Some(pid) => ext.into_iter().find(|victim| victim.task.pid == pid),
        None => ext.into_iter().max_by_key(|victim| victim.task.runnable_ms),
    }
}

/// The first of the rules that fits.
fn reason(cpus: &[CpuState], victim: Victim<'_>) -> Option<String> {
    let local = victim.task.dsq.as_deref().and_then(local_dsq);
    let on_local = local.and_then(|cpu| cpus.iter().find(|state| state.cpu == cpu));
    on_local
        .and_then(|cpu| unreachable_queue(cpu, victim.task))
        .or_else(|| held_by_real_time(cpus, victim, on_local))
        .or_else(|| nobody_dispatches(cpus, victim.task))
}

/// Its queue is the local DSQ of a CPU that will not run it.
fn unreachable_queue(cpu: &CpuState, task: &TaskState) -> Option<String> {
    let number = cpu.cpu;
    if !cpu.online {
        return Some(format!(
            "it is on the local DSQ of CPU {number}, which is offline"
        ));
    }
    let allowed: CpuSet = task.cpus.parse().ok()?;
    (!allowed.contains(number))
        .then(|| format!("it is on the local DSQ of CPU {number}, and may use only CPUs {allowed}"))
}

/// All CPUs that could run it run tasks of the real-time class.
fn held_by_real_time(
    cpus: &[CpuState],
    victim: Victim<'_>,
    on_local: Option<&CpuState>,
) -> Option<String> {
    let allowed: CpuSet = victim.task.cpus.parse().ok()?;
    let could_run: Vec<&CpuState> = match on_local {
        Some(cpu) => vec![cpu],
        None => {
            let online = cpus.iter().filter(|cpu| cpu.online);
            online.filter(|cpu| allowed.contains(cpu.cpu)).collect()
        }
    };
    let hogs: Vec<&TaskState> = could_run
        .iter()
        .map(|cpu| cpu.running.as_ref().filter(|task| task.class == "realtime"))
        .collect::<Option<_>>()?;
    let first = hogs.first()?;
    let policy = first.policy.to_ascii_uppercase();
    let hog = format!("real-time task {} (SCHED_{policy})", name(first));
    Some(match (hogs.len(), allowed.len()) {
        (1, 1) => format!(
            "{hog} held CPU {}, the only one that it may use",
            victim.cpu
        ),
        (1, _) => format!(
            "{hog} held CPU {}, on whose local DSQ it waited",
            could_run[0].cpu
        ),
        (count, _) => format!("{hog} and {} more held all CPUs that it may use", count - 1),
    })
}

/// It waits on a DSQ of the scheduler's own while a CPU that may run it is idle.
fn nobody_dispatches(cpus: &[CpuState], task: &TaskState) -> Option<String> {
    let dsq = task.dsq.as_deref()?;
    let id = u64::from_str_radix(dsq.strip_prefix("0x")?, 16).ok()?;
    let allowed: CpuSet = task.cpus.parse().ok()?;
    let idle: CpuSet = cpus
        .iter()
        .filter(|cpu| cpu.online && cpu.running.is_none() && allowed.contains(cpu.cpu))
        .map(|cpu| cpu.cpu)
        .collect();
    if idle.is_empty() {
        return None;
    }
    let on_queue = |cpu: &CpuState| {
        let tasks = cpu.waiting.iter();
        tasks
            .filter(|other| other.dsq.as_deref() == Some(dsq))
            .count()
    };
    let others = match cpus.iter().map(on_queue).sum::<usize>() {
        0 | 1 => String::new(),
        many => format!(", as do {} more", many - 1),
    };
    // Schedulers with a DSQ for each CPU give it the CPU's number.
    let own = u32::try_from(id).ok().filter(|&cpu| idle.contains(cpu));
    let idle = match own {
        Some(cpu) => format!("CPU {cpu} is"),
        None if idle.len() == 1 => format!("CPU {idle}, which may run it, is"),
        None => format!("CPUs {idle}, which may run it, are"),
    };
    Some(format!(
        "it waits on DSQ {dsq}{others}, from which no CPU dispatches, while {idle} idle"
    ))
}

/// The CPU of `local 3`.
fn local_dsq(dsq: &str) -> Option<u32> {
    dsq.strip_prefix("local ")?.parse().ok()
}

fn name(task: &TaskState) -> String {
    format!("{}[{}]", task.comm, task.pid)
}

//! Reading the state.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ktstr_introspect::Budget;
use ktstr_introspect::bpf::GlobalField;
use ktstr_introspect::kernel::{
    CpuMask, DispatchQueue, DispatchQueues, DsqKind, ExitInfo, Kernel, PerCpu, ReadError, Runqueue,
    Runqueues, SchedClass, SchedExt, Task, Tasks,
};

use super::bpf::MapReader;
use super::globals::GlobalLookupError;
use super::{CpuState, KernelState, SchedExtExit, ScxState, TaskState};
use crate::kernel_source::{missing, sample_sched_ext};
use crate::sample::{Missing, Reading};

/// Reads the state of a kernel.
#[derive(Debug)]
pub struct StateReader {
    kernel: Kernel,
    percpu: PerCpu,
    runqueues: Runqueues,
    tasks: Tasks,
    sched_ext: Option<SchedExt>,
    queues: Option<DispatchQueues>,
    maps: MapReader,
    tick: Duration,
}

impl StateReader {
    /// Looks up where in `kernel`, of a machine of `declared_cpus` and with a tick of that length, everything
    /// is.
    pub fn new(kernel: &Kernel, declared_cpus: u32, tick: Duration) -> Result<Self, ReadError> {
        let percpu = PerCpu::read(kernel, declared_cpus)?;
        Ok(Self {
            runqueues: Runqueues::new(kernel, &percpu)?,
            tasks: Tasks::new(kernel, &percpu)?,
            sched_ext: SchedExt::new(kernel, &percpu)?,
            queues: DispatchQueues::new(kernel, &percpu)?,
            maps: MapReader::new(kernel, &percpu)?,
            kernel: kernel.clone(),
            percpu,
            tick,
        })
    }

    /// The state now, as far as `budget` goes: CPUs and tasks first, maps last.
    pub fn read(&self, budget: &Budget) -> KernelState {
        KernelState {
            cpus: self.cpus(budget).map_err(missing),
            sched_ext: self.sched_ext(),
            maps: self.maps.read(budget).map_err(missing),
            exhausted: budget.exhausted().map(|why| why.to_string()),
        }
    }

    /// The number at `path` among the global variables of BPF programs, to be written.
    pub fn find_global(
        &self,
        path: &str,
        budget: &Budget,
    ) -> Result<GlobalField, GlobalLookupError> {
        self.maps.find_global(path, budget)
    }

    /// How long the kernel lets a task of sched_ext wait before it throws the scheduler out.
    pub fn watchdog_timeout_ms(&self) -> Option<u64> {
        let variable = self.kernel.optional_symbol("scx_watchdog_timeout");
        let address = variable.or_else(|| {
            // Since there can be several schedulers, each has its own.
            let scheduler = self.kernel.image().btf.structure("scx_sched").ok()?;
            let timeout = scheduler.optional("watchdog_timeout").ok()??;
            let root = self.sched_ext.as_ref()?.root_address().ok()??;
            Some(root.wrapping_add(timeout.offset))
        });
        let jiffies = self.kernel.memory().u64(address?).ok()?;
        Some(self.ms(jiffies))
    }

    /// The task of sched_ext that has been runnable longest without running, and for how long, in
    /// milliseconds; nothing if none waits.
    pub fn longest_waiting(&self, budget: &Budget) -> Result<Option<(Task, u64)>, ReadError> {
        let now = self.jiffies()?;
        let tasks = self.tasks.all(budget)?.into_iter();
        let waiting =
            tasks.filter(|task| task.class == SchedClass::Ext && task.on_rq && !task.on_cpu);
        let waited = waiting.filter_map(|task| {
            let since = task.scx?.runnable_at_jiffies;
            Some((task, self.ms(now.saturating_sub(since))))
        });
        Ok(waited.max_by_key(|(_, ms)| *ms))
    }

    fn ms(&self, jiffies: u64) -> u64 {
        let tick_ns = u64::try_from(self.tick.as_nanos()).unwrap_or(u64::MAX);
        jiffies.saturating_mul(tick_ns) / 1_000_000
    }

    fn cpus(&self, budget: &Budget) -> Result<Vec<CpuState>, ReadError> {
        let online = self.percpu.online(&self.kernel)?;
        let active = self.percpu.active(&self.kernel)?;
        let queues = self.queue_names(budget)?;
        let now = self.jiffies()?;
        let mut waiting: HashMap<u32, Vec<TaskState>> = HashMap::new();
        let mut running = HashMap::new();
        let runqueues = self.runqueues.read()?;
        let current: HashSet<u64> = runqueues.iter().map(|rq| rq.curr).collect();
        for task in self.tasks.all(budget)? {
            if current.contains(&task.address) {
                running.insert(task.address, self.task(&task, None, &queues));
            } else if task.on_rq {
                let state = self.task(&task, Some(now), &queues);
                waiting.entry(task.cpu).or_default().push(state);
            }
        }
        let cpu = |rq: &Runqueue| {
            let mut waiting = waiting.remove(&rq.cpu).unwrap_or_default();
            waiting.sort_by_key(|task| std::cmp::Reverse(task.runnable_ms));
            CpuState {
                cpu: rq.cpu,
                online: online.contains(rq.cpu),
                active: active.contains(rq.cpu),
                nr_running: rq.nr_running,
                clock_ns: rq.clock_ns,
                local_dsq_depth: rq.scx.map(|scx| scx.local_dsq_nr),
                running: running.remove(&rq.curr),
                waiting,
            }
        };
        Ok(runqueues.iter().map(cpu).collect())
    }

    /// `now` in jiffies for a task that waits.
    fn task(&self, task: &Task, now: Option<u64>, queues: &HashMap<u64, String>) -> TaskState {
        let scx = task.scx.filter(|_| task.class == SchedClass::Ext);
        let runnable_ms = scx
            .zip(now)
            .map(|(scx, now)| self.ms(now.saturating_sub(scx.runnable_at_jiffies)));
        TaskState {
            pid: task.pid,
            comm: task.comm.clone(),
            class: format!("{:?}", task.class).to_ascii_lowercase(),
            policy: policy(task.policy),
            cpus: list(&task.cpus),
            runnable_ms,
            dsq: scx.and_then(|scx| queues.get(&scx.dsq).cloned()),
        }
    }

    /// Names of dispatch queues by address. One that can't be read has none.
    fn queue_names(&self, budget: &Budget) -> Result<HashMap<u64, String>, ReadError> {
        let Some(queues) = &self.queues else {
            return Ok(HashMap::new());
        };
        let read = [
            queues.local(budget),
            queues.global(budget),
            queues.user(budget),
        ];
        if let Some(exhausted) = budget.exhausted() {
            return Err(exhausted.into());
        }
        let name = |queue: DispatchQueue| {
            let name = match queue.kind {
                DsqKind::Local { cpu } => format!("local {cpu}"),
                DsqKind::Global { node } => format!("global {node}"),
                DsqKind::User => format!("{:#x}", queue.id),
            };
            (queue.address, name)
        };
        Ok(read.into_iter().flatten().flatten().map(name).collect())
    }

    fn jiffies(&self) -> Result<u64, ReadError> {
        let name = "jiffies_64";
        Ok(self.kernel.memory().u64(self.kernel.symbol(name)?)?)
    }

    fn sched_ext(&self) -> Reading<ScxState> {
        let Some(sched_ext) = &self.sched_ext else {
            return Err(Missing::Absent("sched_ext".to_owned()));
        };
        let exit = |info: ExitInfo| SchedExtExit {
            kind: info.kind_name.unwrap_or_else(|| info.kind.to_string()),
            code: info.code,
            reason: info.reason,
            message: info.message,
            dump: info.dump,
        };
        let ops = sched_ext.ops_name().map_err(missing)?;
        Ok(ScxState {
            sample: sample_sched_ext(sched_ext)?,
            watchdog_timeout_ms: ops.as_ref().and_then(|_| self.watchdog_timeout_ms()),
            ops,
            exit: sched_ext
                .exit_info()
                .map_err(missing)?
                .filter(|info| info.kind != 0)
                .map(exit),
        })
    }
}

/// `SCHED_*` in small letters (`include/uapi/linux/sched.h`).
fn policy(number: u32) -> String {
    let name = match number {
        0 => "other",
        1 => "fifo",
        2 => "rr",
        3 => "batch",
        5 => "idle",
        6 => "deadline",
        7 => "ext",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// `0-3,8`.
fn list(cpus: &CpuMask) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus.iter() {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let range = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

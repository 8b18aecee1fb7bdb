//! The state of a kernel's scheduling at one moment, in full: what a snapshot keeps, and what a failure
//! dump shows.

mod bpf;
mod globals;
mod reader;
mod text;

use ktstr_introspect::bpf::Value;
use serde::{Deserialize, Serialize};

use crate::sample::{Reading, SchedExtSample};

pub use globals::GlobalLookupError;
pub use reader::StateReader;

/// Everything of a kernel that explains what its scheduler does. Of a paused guest its parts belong together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelState {
    /// CPUs by number.
    pub cpus: Reading<Vec<CpuState>>,
    /// sched_ext as a whole.
    pub sched_ext: Reading<ScxState>,
    /// BPF maps, in order of their ids.
    pub maps: Reading<Vec<MapState>>,
    /// Set if the look ended before all was read, as it would have cost too much: why. What is missing then is no
    /// fault of the scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exhausted: Option<String>,
}

/// One CPU, what runs on it, and what waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuState {
    /// Its number.
    pub cpu: u32,
    /// Whether it is online.
    pub online: bool,
    /// Whether tasks may be placed on it (`cpu_active_mask`). One that is online and not active goes offline, or
    /// comes online.
    #[serde(default = "active")]
    pub active: bool,
    /// Tasks that run or wait, of all classes.
    pub nr_running: u32,
    /// Its runqueue's clock.
    pub clock_ns: u64,
    /// Tasks on its local DSQ; `None` without sched_ext.
    pub local_dsq_depth: Option<u32>,
    /// The task that runs; `None` if it is the idle task.
    pub running: Option<TaskState>,
    /// Tasks that wait on its runqueue, the longest waiting of sched_ext first.
    pub waiting: Vec<TaskState>,
}

/// A task that runs or waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// Its id.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// Its scheduling class: `fair`, `ext`.
    pub class: String,
    /// Its policy without `SCHED_`: `other`, `batch`, `ext`. One that is not known here as a number.
    pub policy: String,
    /// CPUs that it may use, as a list: `0-3,8`.
    pub cpus: String,
    /// How long it has been runnable without running; known of waiting tasks of sched_ext.
    pub runnable_ms: Option<u64>,
    /// The dispatch queue that it is on: `local 3`, `global 0`, or the id of one of the scheduler's own.
    pub dsq: Option<String>,
}

/// sched_ext as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScxState {
    /// What a sample has of it.
    #[serde(flatten)]
    pub sample: SchedExtSample,
    /// The name of the scheduler's ops.
    pub ops: Option<String>,
    /// How long the kernel's watchdog lets a runnable task wait, while there is a scheduler.
    pub watchdog_timeout_ms: Option<u64>,
    /// Why it ends or ended, if it does.
    pub exit: Option<SchedExtExit>,
}

/// Why a scheduler ended (`struct scx_exit_info`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedExtExit {
    /// `SCX_EXIT_…`, or the number.
    pub kind: String,
    /// The scheduler's own code.
    pub code: i64,
    /// The kind in words.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// The kernel's dump.
    pub dump: String,
}

/// A BPF map and what is in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MapState {
    /// Its id.
    pub id: u32,
    /// Its name; of global data the section's: `.bss`.
    pub name: String,
    /// The kind of map: `array`, `percpu_hash`.
    pub kind: String,
    /// What is in it.
    pub content: Reading<MapContent>,
}

/// What is in a map.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MapContent {
    /// Global variables by name.
    Globals(#[serde(serialize_with = "bpf::serialize")] Value),
    /// Entries.
    Entries {
        /// Those that were read.
        entries: Vec<MapEntry>,
        /// Whether there are more.
        cut: bool,
    },
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MapEntry {
    /// Its key.
    #[serde(serialize_with = "bpf::serialize")]
    pub key: Value,
    /// Its value, or one for each possible CPU.
    #[serde(serialize_with = "bpf::serialize_all")]
    pub values: Vec<Value>,
}

/// What a dump without the field means.
fn active() -> bool {
    true
}

impl KernelState {
    /// A global variable of the BPF objects in the kernel, by its path in `.bss`, `.data` or `.rodata`:
    /// `stats.enqueued`, `per_cpu[3]`.
    pub fn global(&self, path: &str) -> Option<&Value> {
        let maps = self.maps.as_ref().ok()?;
        maps.iter().find_map(|map| match &map.content {
            Ok(MapContent::Globals(variables)) => variables.get(path),
            _ => None,
        })
    }

    /// Bytes of memory that it takes here, about.
    pub fn memory_bytes(&self) -> u64 {
        let cpus = self.cpus.iter().flatten().map(|cpu| {
            let tasks = cpu.running.iter().chain(&cpu.waiting);
            size_of::<CpuState>() as u64 + tasks.map(TaskState::memory_bytes).sum::<u64>()
        });
        let maps = self.maps.iter().flatten().map(MapState::memory_bytes);
        let scx = self.sched_ext.as_ref().ok();
        let exit = scx.and_then(|scx| scx.exit.as_ref());
        let exit = exit.map_or(0, |exit| exit.dump.len() + exit.message.len());
        size_of::<Self>() as u64 + exit as u64 + cpus.chain(maps).sum::<u64>()
    }

    /// The task of sched_ext that has waited longest, and its CPU.
    pub fn longest_waiting(&self) -> Option<(u32, &TaskState)> {
        let cpus = self.cpus.as_ref().ok()?;
        let waiting = cpus
            .iter()
            .flat_map(|cpu| cpu.waiting.iter().map(|task| (cpu.cpu, task)));
        waiting
            .filter(|(_, task)| task.runnable_ms.is_some())
            .max_by_key(|(_, task)| task.runnable_ms)
    }
}

impl TaskState {
    fn memory_bytes(&self) -> u64 {
        let texts = [&self.comm, &self.class, &self.policy, &self.cpus];
        let texts = texts.into_iter().chain(&self.dsq).map(String::len);
        (size_of::<Self>() + texts.sum::<usize>()) as u64
    }
}

impl MapState {
    fn memory_bytes(&self) -> u64 {
        let content = match &self.content {
            Ok(MapContent::Globals(value)) => value.memory_bytes(),
            Ok(MapContent::Entries { entries, .. }) => entries
                .iter()
                .flat_map(|entry| entry.values.iter().chain([&entry.key]))
                .map(Value::memory_bytes)
                .sum(),
            Err(_) => 0,
        };
        size_of::<Self>() as u64 + content
    }
}

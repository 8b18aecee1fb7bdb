//! Tasks (`struct task_struct`, `include/linux/sched.h`).

use super::BudgetedMemory;
use super::record::{Record, RecordBuilder, value, value_i32, value_u32};
use super::{CpuMask, Kernel, PerCpu, ReadError, list, stable};
use crate::btf::{Field, LayoutError};
use crate::budget::Budget;
use crate::bytes;

/// `PF_KTHREAD`.
const PF_KTHREAD: u32 = 0x0020_0000;
/// `TASK_REPORT`, `TASK_IDLE`, `TASK_RTLOCK_WAIT`, `TASK_FROZEN`.
const TASK_REPORT: u32 = 0x7f;
const TASK_IDLE: u32 = 0x402;
const TASK_SHOWN_AS_BLOCKED: u32 = 0x1000 | 0x8000;

/// A task (a thread, in the words of user space), at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Address of its `task_struct`.
    pub address: u64,
    /// Its id in the initial pid namespace; of an idle task 0.
    pub pid: i32,
    /// That of its process.
    pub tgid: i32,
    pub comm: String,
    /// As in `/proc/PID/stat`: R runs or waits for a CPU, S sleeps, D sleeps uninterruptibly, I is an idle kernel
    /// thread, T stopped, t traced, X dead, Z zombie, P parked.
    pub state: char,
    /// The CPU it is on, or was last on.
    pub cpu: u32,
    /// Whether it runs.
    pub on_cpu: bool,
    /// Whether it is queued on a runqueue.
    pub on_rq: bool,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
    /// `SCHED_*` (`include/uapi/linux/sched.h`).
    pub policy: u32,
    /// Priority in effect: 100 to 139 for nice -20 to 19, below that realtime, -1 deadline.
    pub prio: i32,
    /// Priority by nice value: 120 + nice.
    pub static_prio: i32,
    /// Realtime priority, 1 to 99; 0 for others.
    pub rt_priority: u32,
    /// The CPUs that it may run on.
    pub cpus: CpuMask,
    /// Whether it is kept on its CPU for the moment.
    pub migration_disabled: bool,
    /// Which class schedules it.
    pub class: SchedClass,
    /// Nanoseconds that it ran.
    pub sum_exec_runtime_ns: u64,
    /// Nanoseconds that it waited for a CPU; nothing if the kernel does not count it.
    pub run_delay_ns: Option<u64>,
    /// The part of sched_ext; nothing if the kernel has none.
    pub scx: Option<ScxTask>,
}

/// Scheduling classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedClass {
    Stop,
    Deadline,
    Realtime,
    Fair,
    Ext,
    Idle,
    /// None that is known here.
    Other,
}

/// What sched_ext has of a task (`struct sched_ext_entity`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScxTask {
    /// Address of the dispatch queue that it is on; 0 for none.
    pub dsq: u64,
    /// What is left of its slice.
    pub slice_ns: u64,
    /// Its place in a queue ordered by virtual time.
    pub dsq_vtime: u64,
    /// Its weight, 1 to 10000.
    pub weight: u32,
    /// `SCX_TASK_*`.
    pub flags: u32,
    /// When it became runnable, in jiffies (the low bits of the kernel's `jiffies_64`); of the past if it is
    /// not.
    pub runnable_at_jiffies: u64,
}

#[derive(Clone, Debug)]
pub struct Tasks {
    kernel: Kernel,
    cpus: u32,
    init_task: u64,
    record: Record,
    fields: Fields,
    scx: Option<ScxFields>,
    classes: Vec<(u64, SchedClass)>,
    signal_threads: u64,
}

#[derive(Clone, Debug)]
struct Fields {
    tasks: Field,
    thread_node: Field,
    signal: Field,
    pid: Field,
    tgid: Field,
    comm: Field,
    state: Field,
    exit_state: Field,
    cpu: Field,
    on_cpu: Field,
    on_rq: Field,
    flags: Field,
    policy: Field,
    prio: Field,
    static_prio: Field,
    rt_priority: Field,
    cpus_ptr: Field,
    cpus_mask: Field,
    migration_disabled: Option<Field>,
    class: Field,
    sum_exec_runtime: Field,
    run_delay: Option<Field>,
}

#[derive(Clone, Copy, Debug)]
struct ScxFields {
    dsq: Field,
    slice: Field,
    dsq_vtime: Field,
    weight: Field,
    flags: Field,
    runnable_at: Field,
}

impl Tasks {
    /// Looks up where everything is.
    pub fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Self, ReadError> {
        let btf = &kernel.image.btf;
        let mut task = RecordBuilder::new(btf.structure("task_struct")?);
        let fields = Fields::new(&mut task, percpu.cpus())?;
        let scx = ScxFields::new(&mut task)?;
        let classes = [
            ("stop_sched_class", SchedClass::Stop),
            ("dl_sched_class", SchedClass::Deadline),
            ("rt_sched_class", SchedClass::Realtime),
            ("fair_sched_class", SchedClass::Fair),
            ("ext_sched_class", SchedClass::Ext),
            ("idle_sched_class", SchedClass::Idle),
        ];
        Ok(Self {
            cpus: percpu.cpus(),
            init_task: kernel.symbol("init_task")?,
            record: task.finish(),
            fields,
            scx,
            classes: classes
                .into_iter()
                .filter_map(|(name, class)| Some((kernel.optional_symbol(name)?, class)))
                .collect(),
            signal_threads: btf.structure("signal_struct")?.offset("thread_head")?,
            kernel: kernel.clone(),
        })
    }

    /// All tasks: every thread of every process, and kernel threads. The idle tasks, which are on no list, are
    /// not among them ([`Runqueue::idle`](super::Runqueue::idle) has them).
    pub fn all(&self, budget: &Budget) -> Result<Vec<Task>, ReadError> {
        let memory = self.kernel.memory.within(budget);
        stable(|| {
            let mut bytes = Vec::new();
            let mut tasks = Vec::new();
            for leader in self.leaders(memory)? {
                for address in self.threads(memory, leader)? {
                    tasks.push(self.read_with(memory, address, &mut bytes)?);
                }
            }
            Ok(tasks)
        })
    }

    /// The task with this id in the initial pid namespace.
    pub fn by_pid(&self, pid: i32, budget: &Budget) -> Result<Option<Task>, ReadError> {
        Ok(self.all(budget)?.into_iter().find(|task| task.pid == pid))
    }

    /// The task whose `task_struct` is at `address`.
    pub fn read(&self, address: u64, budget: &Budget) -> Result<Task, ReadError> {
        let memory = self.kernel.memory.within(budget);
        self.read_with(memory, address, &mut Vec::new())
    }

    /// The first thread of every process.
    fn leaders(&self, memory: BudgetedMemory<'_>) -> Result<Vec<u64>, ReadError> {
        let offset = self.fields.tasks.offset;
        let head = self.init_task.wrapping_add(offset);
        let nodes = list::walk(memory, head, "the list of tasks")?;
        Ok(nodes.iter().map(|node| node.wrapping_sub(offset)).collect())
    }

    /// The threads of the process of `leader`.
    fn threads(&self, memory: BudgetedMemory<'_>, leader: u64) -> Result<Vec<u64>, ReadError> {
        let signal = memory.u64(leader.wrapping_add(self.fields.signal.offset))?;
        let head = signal.wrapping_add(self.signal_threads);
        let nodes = list::walk(memory, head, "the list of a process's threads")?;
        let offset = self.fields.thread_node.offset;
        Ok(nodes.iter().map(|node| node.wrapping_sub(offset)).collect())
    }

    fn read_with(
        &self,
        memory: BudgetedMemory<'_>,
        address: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Task, ReadError> {
        self.record.read_within(memory, address, bytes)?;
        let fields = &self.fields;
        let class = value(fields.class, bytes);
        let class = self.classes.iter().find(|(at, _)| *at == class);
        let comm = usize::try_from(fields.comm.offset).ok();
        Ok(Task {
            address,
            pid: value_i32(fields.pid, bytes),
            tgid: value_i32(fields.tgid, bytes),
            comm: comm
                .and_then(|at| bytes.get(at..at + 16))
                .map(bytes::text)
                .unwrap_or_default(),
            state: state_letter(
                value_u32(fields.state, bytes),
                value_u32(fields.exit_state, bytes),
            ),
            cpu: value_u32(fields.cpu, bytes),
            on_cpu: value(fields.on_cpu, bytes) != 0,
            on_rq: value(fields.on_rq, bytes) != 0,
            kernel_thread: value_u32(fields.flags, bytes) & PF_KTHREAD != 0,
            policy: value_u32(fields.policy, bytes),
            prio: value_i32(fields.prio, bytes),
            static_prio: value_i32(fields.static_prio, bytes),
            rt_priority: value_u32(fields.rt_priority, bytes),
            cpus: self.cpus(memory, address, bytes)?,
            migration_disabled: fields
                .migration_disabled
                .is_some_and(|field| value(field, bytes) != 0),
            class: class.map_or(SchedClass::Other, |(_, class)| *class),
            sum_exec_runtime_ns: value(fields.sum_exec_runtime, bytes),
            run_delay_ns: fields.run_delay.map(|field| value(field, bytes)),
            scx: self.scx.map(|scx| ScxTask {
                dsq: value(scx.dsq, bytes),
                slice_ns: value(scx.slice, bytes),
                dsq_vtime: value(scx.dsq_vtime, bytes),
                weight: value_u32(scx.weight, bytes),
                flags: value_u32(scx.flags, bytes),
                runnable_at_jiffies: value(scx.runnable_at, bytes),
            }),
        })
    }

    /// The CPUs that `cpus_ptr` names: nearly always the task's own mask, which was read with the rest.
    fn cpus(
        &self,
        memory: BudgetedMemory<'_>,
        address: u64,
        bytes: &[u8],
    ) -> Result<CpuMask, ReadError> {
        let its_own = self.fields.cpus_mask.offset;
        let names = value(self.fields.cpus_ptr, bytes);
        if names == address.wrapping_add(its_own) {
            let mask = usize::try_from(its_own).ok().and_then(|at| bytes.get(at..));
            let len = usize::try_from(CpuMask::bytes(self.cpus)).unwrap_or(0);
            let mask = mask.and_then(|mask| mask.get(..len)).unwrap_or_default();
            return Ok(CpuMask::from_bytes(mask, self.cpus));
        }
        let mask = memory.bytes(names, CpuMask::bytes(self.cpus))?;
        Ok(CpuMask::from_bytes(&mask, self.cpus))
    }
}

impl Fields {
    fn new(task: &mut RecordBuilder<'_>, cpus: u32) -> Result<Self, LayoutError> {
        // Linux commit bcf9033e5449 ("sched: move CPU field back into thread_info if THREAD_INFO_IN_TASK=y") (v5.16).
        let cpu = task.want_one_of(&["thread_info.cpu", "cpu"])?;
        Ok(Self {
            tasks: task.need("tasks")?,
            thread_node: task.need("thread_node")?,
            signal: task.need("signal")?,
            pid: task.need("pid")?,
            tgid: task.need("tgid")?,
            comm: task.need("comm")?,
            // `state` before Linux commit 2f064a59a11f ("sched: Change task_struct::state") (v5.14): not read.
            state: task.need("__state")?,
            exit_state: task.need("exit_state")?,
            cpu: cpu.map_or_else(|| task.need("thread_info.cpu"), Ok)?,
            on_cpu: task.need("on_cpu")?,
            on_rq: task.need("on_rq")?,
            flags: task.need("flags")?,
            policy: task.need("policy")?,
            prio: task.need("prio")?,
            static_prio: task.need("static_prio")?,
            rt_priority: task.need("rt_priority")?,
            cpus_ptr: task.need("cpus_ptr")?,
            cpus_mask: task.need_first("cpus_mask", CpuMask::bytes(cpus))?,
            migration_disabled: task.want("migration_disabled")?,
            class: task.need("sched_class")?,
            sum_exec_runtime: task.need("se.sum_exec_runtime")?,
            run_delay: task.want("sched_info.run_delay")?,
        })
    }
}

impl ScxFields {
    fn new(task: &mut RecordBuilder<'_>) -> Result<Option<Self>, LayoutError> {
        let Some(dsq) = task.want("scx.dsq")? else {
            return Ok(None);
        };
        Ok(Some(Self {
            dsq,
            slice: task.need("scx.slice")?,
            dsq_vtime: task.need("scx.dsq_vtime")?,
            weight: task.need("scx.weight")?,
            flags: task.need("scx.flags")?,
            runnable_at: task.need("scx.runnable_at")?,
        }))
    }
}

/// As `task_state_index` (`include/linux/sched.h`) makes it.
fn state_letter(state: u32, exit_state: u32) -> char {
    let mut shown = (state | exit_state) & TASK_REPORT;
    if state & TASK_IDLE == TASK_IDLE {
        shown = TASK_REPORT + 1;
    }
    if state & TASK_SHOWN_AS_BLOCKED != 0 {
        shown = 2;
    }
    let index = u32::BITS - shown.leading_zeros();
    let letters = ['R', 'S', 'D', 'T', 't', 'X', 'Z', 'P', 'I'];
    letters.get(index as usize).copied().unwrap_or('?')
}

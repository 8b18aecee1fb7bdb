//! A made-up kernel with a scheduler: two CPUs, tasks, domains, dispatch queues.

use std::sync::Arc;

use ktstr_introspect::kernel::Kernel;
use ktstr_introspect::memory::{Evidence, PhysRead};

use super::btf_builder::{BtfBuilder, INT_SIGNED};
use super::fake_kernel::{FakeKernel, MOVED};

pub(crate) const CPUS: u64 = 2;
const TASK_BYTES: u64 = 256;
const RQ_BYTES: u64 = 256;
/// Offsets in a task.
pub(crate) const TASKS: u64 = 72;
pub(crate) const THREAD_NODE: u64 = 88;
pub(crate) const CPUS_PTR: u64 = 112;
pub(crate) const CPUS_MASK: u64 = 120;
pub(crate) const SCX: u64 = 176;
pub(crate) const DSQ_LINK: u64 = SCX + 40;
/// Offsets in a runqueue.
pub(crate) const RQ_LOCAL_DSQ: u64 = 64 + 8;
/// Offset of the list of threads in a process's signals.
const THREAD_HEAD: u64 = 16;

/// Which kernel it is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// With nothing that can be left out.
    Bare,
    /// sched_ext in variables, as up to v6.15.
    Variables,
    /// Members of `struct scx_sched`, as of v6.16.
    Members,
    /// In structures of each CPU and node.
    PerCpu,
}

pub(crate) struct FakeSched {
    pub(crate) kernel: FakeKernel,
    pub(crate) btf: BtfBuilder,
    pub(crate) era: Era,
    pub(crate) init_task: u64,
    /// Distance of each CPU's area from the per-CPU variables of the image.
    pub(crate) areas: [u64; 2],
    pub(crate) runqueues: u64,
    pub(crate) scheduler: u64,
    /// How many per-CPU allocations were made.
    pub(crate) allocated: u64,
}

impl FakeSched {
    pub(crate) fn new(era: Era) -> Self {
        let mut kernel = FakeKernel::new(MOVED);
        let runqueues = kernel.symbol("runqueues", RQ_BYTES);
        let areas = [0, 1].map(|_| kernel.object(4096).wrapping_sub(runqueues));
        let offsets = kernel.symbol("__per_cpu_offset", 8 * 128);
        for (at, area) in (offsets..).step_by(8).zip(areas) {
            kernel.write_u64(at, area);
        }
        let cpus = kernel.symbol("nr_cpu_ids", 4);
        kernel.write(cpus, &2_u32.to_le_bytes());
        let online = kernel.symbol("__cpu_online_mask", 8);
        kernel.write_u64(online, 0b1111);
        let active = kernel.symbol("__cpu_active_mask", 8);
        kernel.write_u64(active, 0b1111);
        let init_task = kernel.symbol("init_task", TASK_BYTES);
        kernel.write_list(init_task + TASKS, &[]);
        kernel.symbol("fair_sched_class", 8);
        kernel.symbol("ext_sched_class", 8);
        let mut this = Self {
            kernel,
            btf: types(era),
            era,
            init_task,
            areas,
            runqueues,
            scheduler: 0,
            allocated: 0,
        };
        for cpu in 0..2 {
            let dsq = this.rq(cpu) + RQ_LOCAL_DSQ;
            this.queue(dsq, 0x8000_0000_0000_0002, &[]);
        }
        if era != Era::Bare {
            this.sched_ext();
        }
        this
    }

    pub(crate) fn rq(&self, cpu: usize) -> u64 {
        self.runqueues.wrapping_add(self.areas[cpu])
    }

    /// What `name` is in the running kernel.
    pub(crate) fn address(&self, name: &str) -> u64 {
        let image = self.kernel.image(&self.btf);
        image.symbols.find(name).unwrap() + self.kernel.placement.slide
    }

    /// A process with so many threads; their tasks. The first has the id `pid`, the others those after it.
    pub(crate) fn process(&mut self, pid: u32, threads: u32) -> Vec<u64> {
        let signal = self.kernel.object(32);
        let tasks: Vec<u64> = (0..threads)
            .map(|number| self.task(pid + number, pid, signal))
            .collect();
        let nodes: Vec<u64> = tasks.iter().map(|task| task + THREAD_NODE).collect();
        self.kernel.write_list(signal + THREAD_HEAD, &nodes);
        tasks
    }

    fn task(&mut self, pid: u32, tgid: u32, signal: u64) -> u64 {
        let task = self.kernel.object(TASK_BYTES);
        let class = self.address("ext_sched_class");
        let kernel = &mut self.kernel;
        kernel.write(task, &1_u32.to_le_bytes());
        for (at, value) in [(28, 7), (36, 125), (48, pid), (52, tgid)] {
            kernel.write(task + at, &value.to_le_bytes());
        }
        kernel.write(task + 32, &(-1_i32).to_le_bytes());
        kernel.write(task + 56, format!("task {pid}\0").as_bytes());
        for (at, value) in [
            (104, signal),
            (CPUS_PTR, task + CPUS_MASK),
            (CPUS_MASK, 0b110),
            (136, class),
            (144, 1_000_000),
            (152 + 8, 77),
            (SCX + 8, 5_000),
        ] {
            kernel.write_u64(task + at, value);
        }
        task
    }

    /// Puts first threads on the list of all tasks.
    pub(crate) fn link(&mut self, leaders: &[u64]) {
        let nodes: Vec<u64> = leaders.iter().map(|task| task + TASKS).collect();
        self.kernel.write_list(self.init_task + TASKS, &nodes);
    }

    /// A dispatch queue at `dsq` with these tasks on it.
    pub(crate) fn queue(&mut self, dsq: u64, id: u64, tasks: &[u64]) {
        let nodes: Vec<u64> = tasks.iter().map(|task| task + DSQ_LINK).collect();
        self.kernel.write_list(dsq, &nodes);
        self.kernel.write_u64(dsq + 16, tasks.len() as u64);
        self.kernel.write_u64(dsq + 24, id);
    }

    fn sched_ext(&mut self) {
        let kernel = &mut self.kernel;
        let state_name = match self.era {
            Era::Variables => "scx_ops_enable_state_var",
            _ => "scx_enable_state_var",
        };
        let state = kernel.symbol(state_name, 4);
        kernel.write(state, &1_u32.to_le_bytes());
        let [global, user, other] = [0; 3].map(|_| kernel.object(64));
        let nodes = kernel.object(8);
        kernel.write_u64(
            nodes,
            if self.era == Era::PerCpu {
                global - 8
            } else {
                global
            },
        );
        // Three buckets, one of them locked, with two queues in the same.
        let table = kernel.object(64);
        kernel.write_u64(table, 3);
        kernel.write_u64(table + 8, 1);
        kernel.write_u64(table + 16, (user + 32) | 1);
        kernel.write_u64(user + 32, other + 32);
        kernel.write_u64(other + 32, 0x7001);
        let exit = kernel.object(40);
        let texts = kernel.object(64);
        kernel.write(texts, b"stalled\0");
        kernel.write(exit, &1026_u32.to_le_bytes());
        kernel.write_u64(exit + 8, u64::MAX - 4);
        kernel.write_u64(exit + 16, texts);
        if self.era == Era::Variables {
            let ops = kernel.symbol("scx_ops", 136);
            kernel.write(ops + 8, b"faulty\0");
            let pointer = kernel.symbol("scx_exit_info", 8);
            kernel.write_u64(pointer, exit);
            let hash = kernel.symbol("dsq_hash", 8);
            kernel.write_u64(hash, table);
            let queues = kernel.symbol("global_dsqs", 8);
            kernel.write_u64(queues, nodes);
            kernel.symbol("event_stats_cpu", 16);
        } else {
            self.scheduler = kernel.object(176);
            let root = kernel.symbol("scx_root", 8);
            kernel.write_u64(root, self.scheduler);
            kernel.write(self.scheduler + 8, b"faulty\0");
            // As percpu pointers are: the areas are added to it.
            let counters = self.runqueues + 1024;
            for (at, value) in [(136, table), (144, nodes), (152, counters), (160, exit)] {
                kernel.write_u64(self.scheduler + at, value);
            }
        }
        for (number, queue) in [(1, global), (2, user), (3, other)] {
            self.queue(queue, number, &[]);
        }
        let counters = match self.era {
            Era::Variables => self.address("event_stats_cpu"),
            Era::Members => self.runqueues + 1024,
            _ => self.runqueues + 1024 + 16,
        };
        for (cpu, area) in (1..).zip(self.areas) {
            let at = counters.wrapping_add(area);
            self.kernel.write_u64(at, 10 * cpu);
            self.kernel.write_u64(at + 8, u64::MAX);
        }
    }

    pub(crate) fn attach(&self) -> Kernel {
        self.attach_to(self.kernel.phys()).unwrap()
    }

    pub(crate) fn attach_to(&self, phys: Arc<dyn PhysRead + Send + Sync>) -> Option<Kernel> {
        let image = Arc::new(self.kernel.image(&self.btf));
        Kernel::attach(phys, image, &Evidence::default()).ok()
    }
}

impl FakeKernel {
    /// A `list_head` at `head` with these on it.
    pub(crate) fn write_list(&mut self, head: u64, nodes: &[u64]) {
        let ring: Vec<u64> = [&[head], nodes].concat();
        for (number, node) in ring.iter().enumerate() {
            self.write_u64(*node, ring[(number + 1) % ring.len()]);
            self.write_u64(*node + 8, ring[(number + ring.len() - 1) % ring.len()]);
        }
    }
}

/// The types that are members of others.
struct Parts {
    u32_: u32,
    i32_: u32,
    u64_: u32,
    pointer: u32,
    pointers: u32,
    counters: u32,
    name: u32,
    ops_name: u32,
    list: u32,
    sched_info: u32,
}

impl Parts {
    fn add(btf: &mut BtfBuilder) -> Self {
        let u32_ = btf.int("unsigned int", 4, 0);
        let i32_ = btf.int("int", 4, INT_SIGNED);
        let u64_ = btf.int("unsigned long", 8, 0);
        let char_ = btf.int("char", 1, INT_SIGNED);
        let pointer = btf.pointer(0);
        let links = [("next", pointer, 0), ("prev", pointer, 8)];
        let delays = [("pcount", u64_, 0), ("run_delay", u64_, 8)];
        Self {
            u32_,
            i32_,
            u64_,
            pointer,
            pointers: btf.array(pointer, 0),
            counters: btf.array(u32_, 3),
            name: btf.array(char_, 16),
            ops_name: btf.array(char_, 128),
            list: btf.structure("list_head", 16, &links),
            sched_info: btf.structure("sched_info", 16, &delays),
        }
    }
}

/// The types that readers ask for.
fn types(era: Era) -> BtfBuilder {
    let mut btf = BtfBuilder::new();
    let parts = Parts::add(&mut btf);
    let (list, pointer) = (parts.list, parts.pointer);
    let scx = (era != Era::Bare).then(|| add_scx_types(&mut btf, &parts, era));
    add_task(&mut btf, &parts, scx.map(|(entity, _)| entity));
    add_rq(&mut btf, &parts, scx.map(|(_, rq)| rq));
    btf.structure("signal_struct", 32, &[("thread_head", list, 16)]);
    btf.structure(
        "sched_domain",
        48,
        &[
            ("parent", pointer, 0),
            ("level", parts.i32_, 8),
            ("flags", parts.i32_, 12),
            ("name", pointer, 16),
            ("balance_interval", parts.u32_, 24),
            ("nr_balance_failed", parts.u32_, 28),
            ("lb_count", parts.counters, 32),
            ("ttwu_wake_remote", parts.u32_, 44),
        ],
    );
    btf
}

/// `task_struct`, with what it has for sched_ext.
fn add_task(btf: &mut BtfBuilder, parts: &Parts, scx: Option<u32>) {
    let &Parts {
        u32_,
        i32_,
        u64_,
        pointer,
        name,
        list,
        ..
    } = parts;
    let mask = btf.structure("cpumask", 16, &[("bits", u64_, 0)]);
    let info = btf.structure("thread_info", 8, &[("cpu", u32_, 0)]);
    let entity = btf.structure("sched_entity", 8, &[("sum_exec_runtime", u64_, 0)]);
    let mut members = vec![
        ("thread_info", info, 0),
        ("__state", u32_, 8),
        ("exit_state", i32_, 12),
        ("on_cpu", i32_, 16),
        ("on_rq", i32_, 20),
        ("flags", u32_, 24),
        ("policy", u32_, 28),
        ("prio", i32_, 32),
        ("static_prio", i32_, 36),
        ("rt_priority", u32_, 40),
        ("pid", i32_, 48),
        ("tgid", i32_, 52),
        ("comm", name, 56),
        ("tasks", list, 72),
        ("thread_node", list, 88),
        ("signal", pointer, 104),
        ("cpus_ptr", pointer, 112),
        ("cpus_mask", mask, 120),
        ("sched_class", pointer, 136),
        ("se", entity, 144),
    ];
    if let Some(scx) = scx {
        members.extend([
            ("sched_info", parts.sched_info, 152),
            ("scx", scx, SCX_OFFSET),
        ]);
    }
    btf.structure("task_struct", 256, &members);
}

/// `rq`, with what it has for sched_ext and the counters of the same kernels.
fn add_rq(btf: &mut BtfBuilder, parts: &Parts, scx: Option<u32>) {
    let &Parts {
        u32_,
        u64_,
        pointer,
        ..
    } = parts;
    let cfs = btf.structure("cfs_rq", 4, &[("h_nr_running", u32_, 0)]);
    let rt = btf.structure("rt_rq", 4, &[("rt_nr_running", u32_, 0)]);
    let mut rq = vec![
        ("nr_running", u32_, 0),
        ("clock", u64_, 8),
        ("curr", pointer, 16),
        ("idle", pointer, 24),
        ("nr_switches", u64_, 32),
        ("sd", pointer, 40),
        ("cfs", cfs, 48),
        ("rt", rt, 52),
    ];
    if let Some(scx) = scx {
        rq.extend([
            ("scx", scx, 64),
            ("yld_count", u32_, 160),
            ("sched_count", u32_, 164),
            ("sched_goidle", u32_, 168),
            ("ttwu_count", u32_, 172),
            ("ttwu_local", u32_, 176),
            ("rq_sched_info", parts.sched_info, 184),
        ]);
    }
    btf.structure("rq", 256, &rq);
}

/// What sched_ext has of its own; gives the entity of a task and the part of a runqueue.
fn add_scx_types(btf: &mut BtfBuilder, parts: &Parts, era: Era) -> (u32, u32) {
    let &Parts {
        u32_,
        u64_,
        pointer,
        list,
        ..
    } = parts;
    let link = btf.structure(
        "scx_dsq_list_node",
        24,
        &[("node", list, 0), ("flags", u32_, 16)],
    );
    let dsq = btf.structure(
        "scx_dispatch_q",
        40,
        &[
            ("list", list, 0),
            ("nr", u32_, 16),
            ("id", u64_, 24),
            ("hash_node", pointer, 32),
        ],
    );
    let entity = btf.structure(
        "sched_ext_entity",
        64,
        &[
            ("dsq", pointer, 0),
            ("slice", u64_, 8),
            ("dsq_vtime", u64_, 16),
            ("weight", u32_, 24),
            ("flags", u32_, 28),
            ("runnable_at", u64_, 32),
            ("dsq_list", link, 40),
        ],
    );
    let scx_rq = btf.structure(
        "scx_rq",
        80,
        &[
            ("nr_running", u32_, 0),
            ("flags", u32_, 4),
            ("local_dsq", dsq, 8),
        ],
    );
    let stats = btf.structure(
        "scx_event_stats",
        16,
        &[("SCX_EV_A", u64_, 0), ("SCX_EV_B", u64_, 8)],
    );
    sched_ext_types(btf, era, [pointer, dsq, parts.ops_name, stats]);
    btf.structure("rhashtable", 8, &[("tbl", pointer, 0)]);
    let buckets = [
        ("size", u32_, 0),
        ("nest", u32_, 4),
        ("buckets", parts.pointers, 8),
    ];
    btf.structure("bucket_table", 8, &buckets);
    btf.structure(
        "scx_exit_info",
        40,
        &[
            ("kind", u32_, 0),
            ("exit_code", u64_, 8),
            ("reason", pointer, 16),
            ("msg", pointer, 24),
            ("dump", pointer, 32),
        ],
    );
    btf.enumeration("scx_exit_kind", &[("SCX_EXIT_ERROR_STALL", 1026)]);
    (entity, scx_rq)
}

const SCX_OFFSET: u32 = 176;

fn sched_ext_types(btf: &mut BtfBuilder, era: Era, [pointer, dsq, name, stats]: [u32; 4]) {
    let ops = btf.structure("sched_ext_ops", 136, &[("name", name, 8)]);
    if era == Era::Variables {
        let states = [("SCX_OPS_ENABLED", 1), ("SCX_OPS_DISABLED", 3)];
        btf.enumeration("scx_ops_enable_state", &states);
        return;
    }
    btf.enumeration(
        "scx_enable_state",
        &[("SCX_ENABLED", 1), ("SCX_DISABLED", 3)],
    );
    let mut members = vec![
        ("ops", ops, 0),
        ("dsq_hash", pointer, 136),
        ("exit_info", pointer, 160),
    ];
    if era == Era::Members {
        members.extend([
            ("global_dsqs", pointer, 144),
            ("event_stats_cpu", pointer, 152),
        ]);
    } else {
        btf.structure("scx_sched_pnode", 48, &[("global_dsq", dsq, 8)]);
        let pcpu = btf.structure("scx_sched_pcpu", 32, &[("event_stats", stats, 16)]);
        let pcpu = btf.pointer(pcpu);
        members.extend([("pnode", pointer, 144), ("pcpu", pcpu, 152)]);
    }
    btf.structure("scx_sched", 176, &members);
}

//! Runqueues (`struct rq`, `kernel/sched/sched.h`).

use super::record::{Record, RecordBuilder, value, value_u32};
use super::{Kernel, PerCpu, ReadError};
use crate::btf::{Field, LayoutError};

/// A CPU's runqueue, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runqueue {
    pub cpu: u32,
    /// Address of the `struct rq`.
    pub address: u64,
    /// Runnable tasks, the running one included, the idle task not.
    pub nr_running: u32,
    pub clock_ns: u64,
    /// Address of the task that runs.
    pub curr: u64,
    /// Address of its idle task.
    pub idle: u64,
    /// Context switches so far.
    pub nr_switches: u64,
    /// Address of its lowest scheduling domain; 0 for none.
    pub sched_domain: u64,
    /// Tasks of the fair class that are queued, those in groups included.
    pub fair_nr_queued: u32,
    /// Realtime tasks.
    pub rt_nr_running: u32,
    /// Share of its time that goes to interrupts, of 1024; nothing if the kernel does not account for it.
    pub irq_util: Option<u64>,
    /// The part of sched_ext; nothing if the kernel has none.
    pub scx: Option<ScxRunqueue>,
    /// Counts of the scheduler; nothing if the kernel has none built in. They stand still while
    /// `kernel.sched_schedstats` is off.
    pub schedstat: Option<RunqueueSchedstat>,
}

/// What sched_ext has of a runqueue (`struct scx_rq`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScxRunqueue {
    /// Runnable tasks of sched_ext.
    pub nr_running: u32,
    /// `SCX_RQ_*`.
    pub flags: u32,
    /// Tasks in the CPU's local dispatch queue.
    pub local_dsq_nr: u32,
}

/// Counts of a runqueue (`/proc/schedstat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunqueueSchedstat {
    /// Nanoseconds that tasks waited on it.
    pub run_delay_ns: u64,
    /// How often a task was given this CPU.
    pub pcount: u64,
    /// Calls of `sched_yield`.
    pub yld_count: u32,
    /// Calls of `schedule`.
    pub sched_count: u32,
    /// Those after which it went idle.
    pub sched_goidle: u32,
    /// Wakeups.
    pub ttwu_count: u32,
    /// Those from the same CPU.
    pub ttwu_local: u32,
}

#[derive(Clone, Debug)]
pub struct Runqueues {
    kernel: Kernel,
    addresses: Vec<u64>,
    record: Record,
    nr_running: Field,
    clock: Field,
    curr: Field,
    idle: Field,
    nr_switches: Field,
    sched_domain: Option<Field>,
    fair_nr_queued: Option<Field>,
    rt_nr_running: Option<Field>,
    irq_util: Option<Field>,
    scx: Option<ScxFields>,
    schedstat: Option<SchedstatFields>,
}

#[derive(Clone, Copy, Debug)]
struct ScxFields {
    nr_running: Field,
    flags: Field,
    local_dsq_nr: Field,
}

#[derive(Clone, Copy, Debug)]
struct SchedstatFields {
    run_delay: Field,
    pcount: Field,
    yld_count: Field,
    sched_count: Field,
    sched_goidle: Field,
    ttwu_count: Field,
    ttwu_local: Field,
}

impl Runqueues {
    /// Looks up where everything is.
    pub fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Self, ReadError> {
        let variable = kernel.symbol("runqueues")?;
        let mut rq = RecordBuilder::new(kernel.image.btf.structure("rq")?);
        Ok(Self {
            addresses: percpu.addresses(variable).collect(),
            kernel: kernel.clone(),
            nr_running: rq.need("nr_running")?,
            clock: rq.need("clock")?,
            curr: rq.need("curr")?,
            idle: rq.need("idle")?,
            nr_switches: rq.need("nr_switches")?,
            sched_domain: rq.want("sd")?,
            // Renamed by Linux commit 7b8a702d9438 ("sched/fair: Rename h_nr_running into h_nr_queued") (v6.14, and in
            // v6.12's stable releases).
            fair_nr_queued: rq.want_one_of(&["cfs.h_nr_queued", "cfs.h_nr_running"])?,
            rt_nr_running: rq.want("rt.rt_nr_running")?,
            irq_util: rq.want("avg_irq.util_avg")?,
            scx: ScxFields::new(&mut rq)?,
            schedstat: SchedstatFields::new(&mut rq)?,
            record: rq.finish(),
        })
    }

    /// The runqueues of all possible CPUs, in their order.
    pub fn read(&self) -> Result<Vec<Runqueue>, ReadError> {
        let mut bytes = Vec::new();
        (0..)
            .zip(&self.addresses)
            .map(|(cpu, &address)| {
                self.record.read(&self.kernel.memory, address, &mut bytes)?;
                Ok(self.runqueue(cpu, address, &bytes))
            })
            .collect()
    }

    fn runqueue(&self, cpu: u32, address: u64, bytes: &[u8]) -> Runqueue {
        let number = |field: Option<Field>| field.map_or(0, |field| value_u32(field, bytes));
        Runqueue {
            cpu,
            address,
            nr_running: value_u32(self.nr_running, bytes),
            clock_ns: value(self.clock, bytes),
            curr: value(self.curr, bytes),
            idle: value(self.idle, bytes),
            nr_switches: value(self.nr_switches, bytes),
            sched_domain: self.sched_domain.map_or(0, |field| value(field, bytes)),
            fair_nr_queued: number(self.fair_nr_queued),
            rt_nr_running: number(self.rt_nr_running),
            irq_util: self.irq_util.map(|field| value(field, bytes)),
            scx: self.scx.map(|scx| ScxRunqueue {
                nr_running: value_u32(scx.nr_running, bytes),
                flags: value_u32(scx.flags, bytes),
                local_dsq_nr: value_u32(scx.local_dsq_nr, bytes),
            }),
            schedstat: self.schedstat.map(|stat| RunqueueSchedstat {
                run_delay_ns: value(stat.run_delay, bytes),
                pcount: value(stat.pcount, bytes),
                yld_count: value_u32(stat.yld_count, bytes),
                sched_count: value_u32(stat.sched_count, bytes),
                sched_goidle: value_u32(stat.sched_goidle, bytes),
                ttwu_count: value_u32(stat.ttwu_count, bytes),
                ttwu_local: value_u32(stat.ttwu_local, bytes),
            }),
        }
    }
}

impl ScxFields {
    fn new(rq: &mut RecordBuilder<'_>) -> Result<Option<Self>, LayoutError> {
        let (Some(nr_running), Some(flags), Some(local_dsq_nr)) = (
            rq.want("scx.nr_running")?,
            rq.want("scx.flags")?,
            rq.want("scx.local_dsq.nr")?,
        ) else {
            return Ok(None);
        };
        Ok(Some(Self {
            nr_running,
            flags,
            local_dsq_nr,
        }))
    }
}

impl SchedstatFields {
    /// `CONFIG_SCHEDSTATS` has all of them or none.
    fn new(rq: &mut RecordBuilder<'_>) -> Result<Option<Self>, LayoutError> {
        let Some(yld_count) = rq.want("yld_count")? else {
            return Ok(None);
        };
        Ok(Some(Self {
            run_delay: rq.need("rq_sched_info.run_delay")?,
            pcount: rq.need("rq_sched_info.pcount")?,
            yld_count,
            sched_count: rq.need("sched_count")?,
            sched_goidle: rq.need("sched_goidle")?,
            ttwu_count: rq.need("ttwu_count")?,
            ttwu_local: rq.need("ttwu_local")?,
        }))
    }
}

//! Scheduling domains (`struct sched_domain`, `include/linux/sched/topology.h`): over which CPUs load is
//! balanced, and with what success.

use super::record::{Record, RecordBuilder, value, value_i32, value_u32};
use super::{CpuMask, Kernel, PerCpu, ReadError, Runqueue, stable};
use crate::btf::Field;
use crate::bytes::u32_at;

/// More levels than any machine has.
const MAX_LEVELS: usize = 32;
const MAX_NAME_BYTES: usize = 16;
/// Members that count what balancing did, by how their names begin.
const COUNTERS: [&str; 5] = ["lb_", "alb_", "sbe_", "sbf_", "ttwu_"];

/// A scheduling domain of one CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedDomain {
    /// Address of its `struct sched_domain`.
    pub address: u64,
    /// 0 for the lowest.
    pub level: i32,
    /// `SMT`, `MC`, `PKG`, `NUMA`; empty if the kernel does not name them.
    pub name: String,
    /// `SD_*` (`include/linux/sched/sd_flags.h`).
    pub flags: u32,
    /// Its CPUs.
    pub span: CpuMask,
    /// Milliseconds between two attempts to balance, at the moment.
    pub balance_interval_ms: u32,
    /// Attempts in a row that failed.
    pub nr_balance_failed: u32,
    /// Counters in the order of [`SchedDomains::counter_names`]; empty if the kernel has none built in.
    pub counters: Vec<u32>,
}

/// Reads scheduling domains.
#[derive(Clone, Debug)]
pub struct SchedDomains {
    kernel: Kernel,
    cpus: u32,
    record: Record,
    parent: Field,
    level: Field,
    flags: Field,
    name: Option<Field>,
    balance_interval: Field,
    nr_balance_failed: Field,
    counters: Vec<(String, u64)>,
    span: u64,
}

impl SchedDomains {
    /// Looks up where everything is.
    pub fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Self, ReadError> {
        let domain = kernel.image.btf.structure("sched_domain")?;
        let mut record = RecordBuilder::new(domain);
        // The set of CPUs follows the structure, as a member of no length or without one.
        let span = match domain.optional("span")? {
            Some(span) => span.offset,
            None => domain.size()?,
        };
        Ok(Self {
            cpus: percpu.cpus(),
            parent: record.need("parent")?,
            level: record.need("level")?,
            flags: record.need("flags")?,
            name: record.want("name")?,
            balance_interval: record.need("balance_interval")?,
            nr_balance_failed: record.need("nr_balance_failed")?,
            counters: counters(&mut record),
            record: record.finish(),
            span,
            kernel: kernel.clone(),
        })
    }

    /// The names of the counters of a domain: `lb_count[1]` is the one while idle is 1
    /// (`enum cpu_idle_type`). None if the kernel was built without them.
    pub fn counter_names(&self) -> impl Iterator<Item = &str> {
        self.counters.iter().map(|(name, _)| name.as_str())
    }

    /// The domains of a CPU, the lowest first. None for a CPU that is alone.
    pub fn of(&self, runqueue: &Runqueue) -> Result<Vec<SchedDomain>, ReadError> {
        stable(|| {
            let mut domains = Vec::new();
            let mut at = runqueue.sched_domain;
            let mut bytes = Vec::new();
            while at != 0 {
                if domains.len() == MAX_LEVELS {
                    return Err(ReadError::TooMany {
                        what: "a CPU's list of scheduling domains",
                        limit: MAX_LEVELS,
                    });
                }
                self.record.read(&self.kernel.memory, at, &mut bytes)?;
                domains.push(self.domain(at, &bytes)?);
                at = value(self.parent, &bytes);
            }
            Ok(domains)
        })
    }

    fn domain(&self, address: u64, bytes: &[u8]) -> Result<SchedDomain, ReadError> {
        let memory = &self.kernel.memory;
        let name = match self.name.map(|field| value(field, bytes)) {
            None | Some(0) => String::new(),
            Some(name) => memory.text(name, MAX_NAME_BYTES)?,
        };
        let span = memory.bytes(address.wrapping_add(self.span), CpuMask::bytes(self.cpus))?;
        let counter = |&(_, at): &(String, u64)| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            u32_at(bytes, at).unwrap_or(0)
        };
        Ok(SchedDomain {
            address,
            level: value_i32(self.level, bytes),
            name,
            flags: value_u32(self.flags, bytes),
            span: CpuMask::from_bytes(&span, self.cpus),
            balance_interval_ms: value_u32(self.balance_interval, bytes),
            nr_balance_failed: value_u32(self.nr_balance_failed, bytes),
            counters: self.counters.iter().map(counter).collect(),
        })
    }
}

/// Every counter that this kernel has, with its offset. Those by kind of idleness are arrays.
fn counters(record: &mut RecordBuilder<'_>) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for (name, field) in
        record.members_that(|name| COUNTERS.iter().any(|start| name.starts_with(start)))
    {
        if field.size == 4 {
            found.push((name, field.offset));
            continue;
        }
        for (index, offset) in (0..field.size / 4).zip((field.offset..).step_by(4)) {
            found.push((format!("{name}[{index}]"), offset));
        }
    }
    found
}

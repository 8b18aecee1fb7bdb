//! Programs (`struct bpf_prog`, `include/linux/bpf.h`).

use std::ops::Range;

use super::xarray::IdTable;
use crate::btf::Field;
use crate::budget::Budget;
use crate::bytes;
use crate::kernel::BudgetedMemory;
use crate::kernel::record::{Record, RecordBuilder, value, value_u32};
use crate::kernel::{Kernel, PerCpu, ReadError};

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Address of its `struct bpf_prog`.
    pub address: u64,
    pub id: u32,
    /// Its name, of which the kernel keeps 15 bytes.
    pub name: String,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// Instructions that the verifier looked at to accept it; nothing if the kernel does not keep it.
    pub verified_insns: Option<u32>,
    /// Where its machine code is; empty if it is interpreted.
    pub code: Range<u64>,
    /// How it ran, over all CPUs.
    pub stats: ProgramStats,
}

/// How a program ran (`struct bpf_prog_stats`). Runs and their time are counted only while
/// `kernel.bpf_stats_enabled` is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// How often it ran.
    pub run_count: u64,
    /// Nanoseconds that it ran.
    pub run_time_ns: u64,
    /// How often it did not run because it was running already.
    pub recursion_misses: u64,
}

/// Reads the list of programs.
#[derive(Clone, Debug)]
pub struct Programs {
    kernel: Kernel,
    percpu: PerCpu,
    table: IdTable,
    prog: Record,
    prog_type: Field,
    stats: Field,
    aux: Field,
    aux_record: Record,
    id: Field,
    name: Field,
    verified_insns: Option<Field>,
    code: Option<(Field, Field)>,
    counters: Counters,
}

#[derive(Clone, Debug)]
struct Counters {
    record: Record,
    count: Field,
    time: Field,
    misses: Option<Field>,
}

impl Programs {
    /// Looks up where everything is.
    pub fn new(kernel: &Kernel, percpu: &PerCpu) -> Result<Self, ReadError> {
        let btf = &kernel.image().btf;
        let mut prog = RecordBuilder::new(btf.structure("bpf_prog")?);
        let mut aux = RecordBuilder::new(btf.structure("bpf_prog_aux")?);
        let mut counters = RecordBuilder::new(btf.structure("bpf_prog_stats")?);
        let code = aux.want("ksym.start")?.zip(aux.want("ksym.end")?);
        Ok(Self {
            table: IdTable::new(kernel, "prog_idr")?,
            prog_type: prog.need("type")?,
            stats: prog.need("stats")?,
            aux: prog.need("aux")?,
            prog: prog.finish(),
            id: aux.need("id")?,
            name: aux.need("name")?,
            verified_insns: aux.want("verified_insns")?,
            code,
            aux_record: aux.finish(),
            counters: Counters {
                count: counters.need("cnt")?,
                time: counters.need("nsecs")?,
                misses: counters.want("misses")?,
                record: counters.finish(),
            },
            kernel: kernel.clone(),
            percpu: percpu.clone(),
        })
    }

    /// All programs, in order of their ids.
    pub fn all(&self, budget: &Budget) -> Result<Vec<Program>, ReadError> {
        let (mut prog, mut aux) = (Vec::new(), Vec::new());
        let memory = self.kernel.memory().within(budget);
        self.table
            .objects(budget)?
            .into_iter()
            .map(|address| {
                self.prog.read_within(memory, address, &mut prog)?;
                let at = value(self.aux, &prog);
                self.aux_record.read_within(memory, at, &mut aux)?;
                let name = usize::try_from(self.name.offset).ok();
                let name = name.and_then(|at| aux.get(at..at.checked_add(16)?));
                let code = self
                    .code
                    .map(|(start, end)| value(start, &aux)..value(end, &aux));
                Ok(Program {
                    address,
                    id: value_u32(self.id, &aux),
                    name: name.map(bytes::text).unwrap_or_default(),
                    prog_type: value_u32(self.prog_type, &prog),
                    verified_insns: self.verified_insns.map(|field| value_u32(field, &aux)),
                    code: code.unwrap_or_default(),
                    stats: self.stats(memory, value(self.stats, &prog))?,
                })
            })
            .collect()
    }

    /// The sum of the counters at the per-CPU address `variable`.
    fn stats(&self, memory: BudgetedMemory<'_>, variable: u64) -> Result<ProgramStats, ReadError> {
        let mut sum = ProgramStats::default();
        if variable == 0 {
            return Ok(sum);
        }
        let counters = &self.counters;
        let mut bytes = Vec::new();
        for address in self.percpu.addresses(variable) {
            memory.budget().charge_nodes(1)?;
            counters.record.read_within(memory, address, &mut bytes)?;
            let add = |to: &mut u64, field| *to = to.wrapping_add(value(field, &bytes));
            add(&mut sum.run_count, counters.count);
            add(&mut sum.run_time_ns, counters.time);
            if let Some(misses) = counters.misses {
                add(&mut sum.recursion_misses, misses);
            }
        }
        Ok(sum)
    }
}

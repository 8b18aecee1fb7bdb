//! Per-CPU areas and sets of CPUs.

use super::{CpuMask, Kernel, ReadError};

/// More CPUs than any kernel has (`NR_CPUS`, `arch/x86/Kconfig`).
const MAX_CPUS: u32 = 8192;

/// Where each CPU's area is.
#[derive(Clone, Debug)]
pub struct PerCpu {
    offsets: Vec<u64>,
}

impl PerCpu {
    /// Reads where the areas are, of a machine that was declared with `declared_cpus`: a guest may say that it
    /// has more. They never move, so this is done once, after the kernel has set them up.
    pub fn read(kernel: &Kernel, declared_cpus: u32) -> Result<Self, ReadError> {
        let cpus = kernel.memory.u32(kernel.symbol("nr_cpu_ids")?)?;
        if cpus == 0 || cpus > MAX_CPUS {
            return Err(ReadError::Unsupported {
                what: "the number of possible CPUs is not one: the kernel has not come far enough in its boot",
            });
        }
        let cpus = cpus.min(declared_cpus);
        let table = kernel.symbol("__per_cpu_offset")?;
        let bytes = kernel.memory.bytes(table, u64::from(cpus) * 8)?;
        let (offsets, _) = bytes.as_chunks::<8>();
        Ok(Self {
            offsets: offsets
                .iter()
                .map(|&word| u64::from_le_bytes(word))
                .collect(),
        })
    }

    /// How many CPUs can ever be there (`nr_cpu_ids`), at most as many as were declared.
    pub fn cpus(&self) -> u32 {
        u32::try_from(self.offsets.len()).unwrap_or(MAX_CPUS)
    }

    /// The address for `cpu` of the per-CPU variable or allocation `variable`.
    pub fn address(&self, cpu: u32, variable: u64) -> Option<u64> {
        let offset = self.offsets.get(cpu as usize)?;
        Some(variable.wrapping_add(*offset))
    }

    /// For each CPU in order, the address of `variable`.
    pub fn addresses(&self, variable: u64) -> impl Iterator<Item = u64> + '_ {
        self.offsets
            .iter()
            .map(move |offset| variable.wrapping_add(*offset))
    }

    /// The CPUs that are online.
    pub fn online(&self, kernel: &Kernel) -> Result<CpuMask, ReadError> {
        let address = kernel.symbol("__cpu_online_mask")?;
        self.mask(kernel, address)
    }

    /// The CPUs that tasks may be placed on: those online, less those on their way off or on
    /// (`sched_cpu_deactivate()` in kernel/sched/core.c).
    pub fn active(&self, kernel: &Kernel) -> Result<CpuMask, ReadError> {
        let address = kernel.symbol("__cpu_active_mask")?;
        self.mask(kernel, address)
    }

    /// The set of CPUs at `address`.
    pub(super) fn mask(&self, kernel: &Kernel, address: u64) -> Result<CpuMask, ReadError> {
        let bytes = kernel.memory.bytes(address, CpuMask::bytes(self.cpus()))?;
        Ok(CpuMask::from_bytes(&bytes, self.cpus()))
    }
}

//! Reading the state of the kernel at one moment, with the machine stopped.

use std::time::{Duration, Instant};

use ktstr_introspect::kernel::ReadError;
use ktstr_introspect::{Budget, BudgetExhausted, BudgetLimits};
use ktstr_machine::{Machine, VcpuRegisters};
use ktstr_monitor::state::KernelState;
use ktstr_monitor::{Missing, Reading};
use serde::Serialize;

use super::attach::AttachedKernel;
use crate::causes::chain;

/// What looking for a task that waits too long may cost: it is done again and again, while the machine runs.
const STALL_LOOK: BudgetLimits = BudgetLimits {
    bytes: 128 << 20,
    nodes: 1 << 18,
    time: Duration::from_secs(1),
};

/// The state of the kernel at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// What the test calls it, or what it was taken for.
    pub label: String,
    /// When, on the clock of the recording's samples.
    pub at_ns: u64,
    /// How long the machine stood still for it.
    pub stopped_ns: u64,
    /// Where the vCPUs are.
    pub vcpus: Reading<Vec<VcpuState>>,
    /// The kernel.
    pub kernel: KernelState,
}

/// Where a vCPU is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VcpuState {
    /// CPU number in the guest.
    pub cpu: usize,
    /// Instruction pointer, in hexadecimal.
    pub rip: String,
    /// The kernel function it lies in, with the distance from its beginning, or "user space"; `None` in
    /// modules and BPF programs.
    pub place: Option<String>,
    /// Stack pointer, in hexadecimal.
    pub rsp: String,
    /// Root of the page tables, in hexadecimal.
    pub cr3: String,
    /// Whether it sleeps until an interrupt.
    pub halted: bool,
}

impl AttachedKernel {
    /// Stops the machine, reads, and lets it run on. A machine that has ended is read as it was left.
    pub(super) fn capture(
        &self,
        machine: &mut dyn Machine,
        label: String,
    ) -> Result<Moment, String> {
        let began = Instant::now();
        let ended = machine.end().is_some();
        if !ended {
            machine.pause().map_err(|error| chain(&error))?;
        }
        if self.samples_at_pauses && !ended {
            self.sampler.sample();
        }
        // Memory first: a guest that has paused its machine itself may run on for the registers.
        let kernel = self.reader.read(&Budget::default());
        let registers = machine.vcpu_registers();
        let resumed = if ended { Ok(()) } else { machine.resume() };
        let stopped = began.elapsed();
        // One that does not run on ends by the watchdog, or has ended meanwhile.
        resumed.map_err(|error| chain(&error))?;
        let place = |(cpu, registers)| self.vcpu(cpu, registers);
        Ok(Moment {
            label,
            at_ns: self.sampler.at_ns(began),
            stopped_ns: u64::try_from(stopped.as_nanos()).unwrap_or(u64::MAX),
            vcpus: match &registers {
                Ok(registers) => Ok(registers.iter().enumerate().map(place).collect()),
                Err(error) => Err(Missing::Failed(chain(error))),
            },
            kernel,
        })
    }

    /// Writes a number into the one global variable of BPF programs at `path`.
    pub(super) fn write_global(&self, path: &str, value: i128) -> Result<(), String> {
        let field = self
            .reader
            .find_global(path, &Budget::default())
            .map_err(|error| chain(&error))?;
        let written = field.write(self.kernel.memory(), &self.guest_ram, value);
        written.map_err(|error| chain(&error))
    }

    /// Which task has waited for at least half of what the kernel's watchdog allows, as a clause for a person. The
    /// error says why all tasks together cost more than a look may.
    pub(super) fn stalling(&self) -> Result<Option<String>, BudgetExhausted> {
        let latest = self.sampler.latest();
        let enabled = latest.and_then(|sample| sample.scx_enabled()) == Some(true);
        let limit_ms = self.reader.watchdog_timeout_ms().filter(|_| enabled);
        let Some(limit_ms) = limit_ms else {
            return Ok(None);
        };
        let waiting = match self.reader.longest_waiting(&Budget::new(STALL_LOOK)) {
            Err(ReadError::Budget(exhausted)) => return Err(exhausted),
            // What changed while it was read is looked for again.
            read => read.ok().flatten(),
        };
        Ok(waiting
            .filter(|(_, waited_ms)| *waited_ms >= limit_ms / 2)
            .map(|(task, waited_ms)| {
                let name = format!("{}[{}]", task.comm, task.pid);
                format!("when {name} had been runnable for {waited_ms} ms without running")
            }))
    }

    fn place(&self, rip: u64) -> Option<String> {
        if is_user_space(rip) {
            return Some("user space".to_owned());
        }
        self.kernel.place(rip).map(|place| place.to_string())
    }

    fn vcpu(&self, cpu: usize, registers: &VcpuRegisters) -> VcpuState {
        VcpuState {
            cpu,
            rip: format!("{:#x}", registers.rip),
            place: self.place(registers.rip),
            rsp: format!("{:#x}", registers.rsp()),
            cr3: format!("{:#x}", registers.cr3),
            halted: registers.halted,
        }
    }
}

/// The lower half of the address space: a process's (Documentation/arch/x86/x86_64/mm.rst).
fn is_user_space(address: u64) -> bool {
    address >> 63 == 0
}

impl Moment {
    /// sched_ext and the CPUs at that moment, in lines for a person, shortened.
    pub fn summary(&self) -> String {
        let place = |cpu: usize| {
            let vcpu = self.vcpus.as_ref().ok()?.get(cpu)?;
            let asleep = if vcpu.halted { ", asleep" } else { "" };
            let place = vcpu.place.as_ref().unwrap_or(&vcpu.rip);
            Some(format!("{place}{asleep}"))
        };
        let label = &self.label;
        format!("taken {label}\n{}", self.kernel.summary(place))
    }

    /// The BPF maps at that moment, in lines for a person, shortened.
    pub fn maps_summary(&self) -> String {
        self.kernel.maps_summary()
    }
}

/// When to take `count` snapshots evenly over the middle of a body that lasts `duration`, from its begin.
pub(super) fn periodic(count: u32, duration: Duration) -> impl Iterator<Item = Duration> {
    let (from, length) = (duration / 10, duration * 8 / 10);
    (1..=count).map(move |number| from + length * number / (count + 1))
}

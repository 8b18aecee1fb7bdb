//! What one test wants, and how long it may take.

use std::time::Duration;

use ktstr_declaration::{Boot, MachineShape, Packed, Run, Watch};
use ktstr_report::{Assert, Expectation};
use ktstr_topology::Topology;

use crate::initramfs;
use crate::memory::MemoryPlan;
use crate::scheduler::SchedulerPlan;

/// How long a machine may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From launch to the guest's first message.
    pub(crate) boot: Duration,
    /// From there to its last.
    pub(crate) run: Option<Duration>,
}

/// What one test wants.
#[derive(Clone, Debug)]
pub struct TestPlan {
    /// Name in the binary's registry.
    pub name: String,
    /// Run that the test belongs to.
    pub run_id: String,
    /// Its machine.
    pub shape: MachineShape,
    /// How the machine runs.
    pub boot: Boot,
    /// What the guest gets.
    pub packed: Packed,
    /// The run of its body.
    pub run: Run,
    /// What the host captures.
    pub watch: Watch,
    /// Its checks: the host judges those of the monitor.
    pub assert: Assert,
    /// The scheduler to run under, if not the kernel's own.
    pub scheduler: Option<SchedulerPlan>,
    /// What is expected to go wrong, if anything.
    pub expect: Option<Expectation>,
    /// Files of the host it needs.
    pub includes: Vec<initramfs::Include>,
}

impl TestPlan {
    /// A test that declares nothing.
    pub fn new(name: String, run_id: String) -> Self {
        Self {
            name,
            run_id,
            shape: MachineShape::DEFAULT,
            boot: Boot::DEFAULT,
            packed: Packed::DEFAULT,
            run: Run::DEFAULT,
            watch: Watch::DEFAULT,
            assert: Assert::DEFAULT,
            scheduler: None,
            expect: None,
            includes: Vec::new(),
        }
    }

    /// What is declared of its machine's memory.
    pub(crate) fn memory(&self) -> MemoryPlan {
        MemoryPlan::from(&self.shape)
    }

    /// Kernel modules that the guest loads: those that it asks for, and the drivers of its devices.
    pub(crate) fn modules(&self) -> Vec<&'static str> {
        let devices = ktstr_machine::devices(&self.boot);
        let drivers = devices.iter().flat_map(|device| device.kernel_modules());
        self.packed.modules.iter().chain(drivers).copied().collect()
    }

    pub(crate) fn limits(&self) -> Limits {
        let cpus = self.shape.topology.cpu_count();
        let default =
            Duration::from_secs(30) + 2 * self.run.duration() + Duration::from_secs(1) * cpus;
        let default = match &self.scheduler {
            Some(scheduler) => default + with_scheduler(scheduler),
            None => default,
        };
        Limits {
            boot: boot_limit(&self.shape.topology),
            run: Some(self.run.timeout().unwrap_or(default)),
        }
    }
}

/// What a scheduler may take beyond the test itself: being attached and ended, and a stall, in which the whole
/// guest stands still until the kernel's watchdog fires, twice if it has to be ended after it.
fn with_scheduler(scheduler: &SchedulerPlan) -> Duration {
    const ATTACH_AND_END: Duration = Duration::from_secs(180);
    /// `SCX_WATCHDOG_MAX_TIMEOUT` in kernel/sched/ext.c.
    const LONGEST_STALL: Duration = Duration::from_secs(30);
    let stall = scheduler
        .options
        .watchdog_timeout_ms
        .map_or(LONGEST_STALL, Duration::from_millis);
    ATTACH_AND_END + 2 * stall.max(LONGEST_STALL)
}

/// An emulated CPU takes its turn with the others, so a boot takes longer the more there are.
pub(crate) fn boot_limit(topology: &Topology) -> Duration {
    Duration::from_secs(60) + Duration::from_secs(3) * topology.cpu_count()
}

/// How much longer than on a real machine a boot may take on the emulated KVM, on a host that is busy.
pub(crate) const INNER_BOOT: Duration = Duration::from_secs(120);

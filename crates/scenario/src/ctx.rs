//! What a test's body is given.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ktstr_report::TimingSlack;
use ktstr_topology::{NumaMemory, Topology};

use crate::phases::Phases;
use crate::{
    Assert, CgroupManager, Host, HostError, LoadStop, SchedulerControl, SchedulerControlError,
};

/// The machine as a test's body sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ctx {
    /// Shape of the machine, as declared. All of its CPUs may be used.
    pub topo: Topology,
    /// Memory of the NUMA nodes, as declared. Nodes without CPUs come after those that `topo` counts.
    pub numa: NumaMemory,
    /// Makes, changes and removes the test's cgroups.
    pub cgroups: CgroupManager,
    /// How long load is held on the machine.
    pub duration: Duration,
    /// The checks that the test asked for.
    pub assert: Assert,
    /// What the engine itself may add to measurements.
    pub timing: TimingSlack,
    /// Ends loads before their time.
    pub load_stop: LoadStop,
    pub(crate) phases: Phases,
    host: Option<Arc<dyn Host>>,
    scheduler: Option<Arc<dyn SchedulerControl>>,
}

impl Ctx {
    /// Joins the parts.
    pub fn new(
        topo: Topology,
        numa: NumaMemory,
        cgroups: CgroupManager,
        duration: Duration,
        assert: Assert,
        timing: TimingSlack,
    ) -> Self {
        let cgroups = cgroups.with_slack(timing.stretch(Duration::ZERO));
        Self {
            topo,
            numa,
            cgroups,
            duration,
            assert,
            timing,
            load_stop: LoadStop::default(),
            phases: Phases::begin(),
            host: None,
            scheduler: None,
        }
    }

    /// Ends its loads early when `load_stop` asks for it.
    #[must_use]
    pub fn with_load_stop(self, load_stop: LoadStop) -> Self {
        Self { load_stop, ..self }
    }

    /// Asks `host` for what only it can do.
    #[must_use]
    pub fn with_host(self, host: Arc<dyn Host>) -> Self {
        Self {
            host: Some(host),
            ..self
        }
    }

    /// The body begins now, and may end and start the scheduler by `scheduler`.
    #[must_use]
    pub fn begin_body(self, scheduler: Option<Arc<dyn SchedulerControl>>) -> Self {
        Self {
            phases: Phases::begin(),
            scheduler,
            ..self
        }
    }

    /// Starts the scheduler under test again, after it was detached, and waits until it is attached.
    pub fn attach_scheduler(&self) -> Result<(), SchedulerControlError> {
        self.scheduler()?.attach()
    }

    /// Ends the scheduler under test and waits until the kernel has none: what follows runs under EEVDF. A scheduler
    /// that was attached until then has passed; a load is not ended by it.
    pub fn detach_scheduler(&self) -> Result<(), SchedulerControlError> {
        self.scheduler()?.detach()
    }

    /// Detaches the scheduler under test and attaches it again.
    pub fn restart_scheduler(&self) -> Result<(), SchedulerControlError> {
        self.scheduler()?.restart()
    }

    /// Detaches the scheduler under test, and attaches the same program with `args` instead of the arguments that the test
    /// declares; so does [`attach_scheduler`](Self::attach_scheduler) from then on.
    pub fn replace_scheduler(&self, args: &[&str]) -> Result<(), SchedulerControlError> {
        let args: Vec<String> = args.iter().copied().map(str::to_owned).collect();
        self.scheduler()?.replace(&args)
    }

    fn scheduler(&self) -> Result<&dyn SchedulerControl, SchedulerControlError> {
        let scheduler = self.scheduler.as_deref();
        scheduler.ok_or(SchedulerControlError::NoScheduler)
    }

    /// Has the host stop the machine, read the state of its kernel (runqueues and the tasks on them,
    /// sched_ext, BPF maps), and let it run on. A `post_vm` function finds it under `label`.
    pub fn capture_snapshot(&self, label: &str) -> Result<(), HostError> {
        self.ask(format!("take the snapshot `{label}`"), |host| {
            host.capture_snapshot(label)
        })
    }

    /// Has the host write `value` into a global variable of the scheduler's BPF programs, from outside: any
    /// integer, bool (0 or 1) or enumeration in `.bss` or `.data`, such as `strict` or `stats.per_cpu[3]`. The programs
    /// see it when they next read the variable, which must be `volatile` for them to do so each time.
    pub fn bpf_map_write(&self, path: &str, value: impl Into<i128>) -> Result<(), HostError> {
        let value = value.into();
        self.ask(format!("write {value} into `{path}`"), |host| {
            host.write_global(path, value)
        })
    }

    pub(crate) fn host(&self) -> Option<&dyn Host> {
        self.host.as_deref()
    }

    fn ask(
        &self,
        what: String,
        request: impl FnOnce(&dyn Host) -> io::Result<bool>,
    ) -> Result<(), HostError> {
        let Some(host) = &self.host else {
            return Err(HostError::NoHost { what });
        };
        match request(host.as_ref()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(HostError::Refused { what }),
            Err(source) => Err(HostError::Link { what, source }),
        }
    }
}

//! What a test's body is given.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ktstr_report::TimingSlack;
use ktstr_topology::{NumaMemory, Topology};

use crate::{Assert, CgroupManager, Host, HostError, LoadStop};

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
    host: Option<Arc<dyn Host>>,
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
            host: None,
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

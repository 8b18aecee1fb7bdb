//! What all tests of a process share, and what is made of it for one machine.

use std::ffi::OsString;
use std::sync::Arc;

use ktstr_declaration::Boot;
use ktstr_kernels::{Cache, Kernel, OptionState};
use ktstr_machine::{BootKernel, Engine, EngineOptions, InitrdPart, MachineSpec, usable_host_cpus};
use ktstr_report::TimingSlack;
use ktstr_topology::Topology;
use ktstr_wire::{Job, Task};

use super::set_up::SetUpError;
use crate::cpu_queue::{Admission, Claim, CpuQueue, Permit, QueueError, Ticket};
use crate::events::{RunEvent, RunObserver};
use crate::initramfs::{self, BaseCache, BaseContents};
use crate::memory::{MemoryPlan, Sized};
use crate::observe::{self, LazyImage, MonitorRate, ObserverSettings};
use crate::plan::{INNER_BOOT, Limits, TestPlan};
use crate::scheduler::{CargoSettings, SchedulerError};

/// The modules of a KVM on AMD-V, which is what QEMU emulates.
pub(super) const KVM_MODULES: [&str; 1] = ["kvm_amd"];

/// The machine of ours that this host is itself inside of. Its CPUs are emulated.
#[derive(Clone, Debug)]
pub struct OuterMachine {
    /// How far it may stretch this host's time.
    pub slack: TimingSlack,
}

/// Kernel, caches and queue, resolved once for all tests of a process.
#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) kernel: Kernel,
    pub(crate) image: Arc<LazyImage>,
    pub(crate) cache: Cache,
    pub(crate) bases: BaseCache,
    pub(crate) queue: Option<CpuQueue>,
    pub(crate) engine_options: EngineOptions,
    pub(crate) monitor: MonitorRate,
    /// The cargo that builds schedulers.
    pub(crate) cargo: CargoSettings,
    /// `PATH` of this process.
    pub(crate) search_path: Option<OsString>,
    /// `LD_LIBRARY_PATH` of this process.
    pub(crate) library_path: Option<String>,
    pub(crate) outer: Option<OuterMachine>,
    /// Variables for the guest's process.
    pub(crate) environment: Vec<(String, String)>,
}

impl Resources {
    pub(super) fn observer_settings(&self, plan: &TestPlan, limits: Limits) -> ObserverSettings {
        let hz = self.kernel.config().ok().flatten();
        let hz = hz.and_then(|config| config.get("HZ")?.parse().ok());
        ObserverSettings {
            image: Arc::clone(&self.image),
            sampling: observe::sampling(
                self.monitor,
                plan.shape.topology.cpu_count(),
                limits.run,
                hz,
            ),
            watch: plan.watch,
            duration: plan.run.duration(),
            cpus: plan.shape.topology.cpu_count(),
            has_scheduler: plan.scheduler.is_some(),
        }
    }

    /// Waits until the machine may start: until the host has CPUs and memory for it. One in performance mode has
    /// the CPUs for itself. `runner` is the word for where it runs.
    pub(super) fn permit(
        &self,
        engine: &dyn Engine,
        runner: &str,
        what: &str,
        spec: &MachineSpec,
        on: &mut dyn RunObserver,
    ) -> Result<Permit, QueueError> {
        let host_cpus = engine.host_cpus(&spec.topology);
        let own_cpus = spec.boot.performance_mode;
        let claim = Claim::new(what, runner, host_cpus)
            .with_memory(spec.numa.total_mib(), spec.boot.performance_mode);
        let mut ticket = match &self.queue {
            Some(queue) => Ticket::take(queue, claim, own_cpus)?,
            None => Ticket::without_queue(claim),
        };
        let mut permit = loop {
            match ticket.wait()? {
                Admission::Granted(permit) => break permit,
                Admission::Waiting(waiting) => on.event(&RunEvent::Queued(&waiting)),
            }
        };
        if own_cpus && self.queue.is_none() {
            permit.own_cpus = usable_host_cpus();
            permit.own_cpus.truncate(host_cpus as usize);
        }
        Ok(permit)
    }

    /// The plan's limits, and within a machine around this host what that costs a boot.
    pub(super) fn limits(&self, plan: &TestPlan) -> Limits {
        let mut limits = plan.limits();
        if self.outer.is_some() {
            limits.boot += INNER_BOOT;
        }
        limits
    }

    /// How far the engine, and a machine around this host, may stretch the guest's time.
    pub(super) fn slack(&self, engine: &dyn Engine, topology: &Topology) -> TimingSlack {
        let own = engine.timing(topology);
        match &self.outer {
            None => own,
            Some(outer) => own.within(&outer.slack),
        }
    }

    /// Adds the scheduler's program to what the guest gets; says which it is.
    pub(super) fn pack_scheduler(
        &self,
        plan: &TestPlan,
        contents: &mut BaseContents,
    ) -> Result<Option<initramfs::Include>, SetUpError> {
        let Some(scheduler) = &plan.scheduler else {
            return Ok(None);
        };
        let config = self.kernel.config()?;
        if scheduler.needs_sched_ext()
            && config.is_some_and(|config| config.state("SCHED_CLASS_EXT") == OptionState::Absent)
        {
            return Err(SetUpError::Scheduler(SchedulerError::NoSchedExt {
                name: scheduler.name.clone(),
                release: self.kernel.release().to_owned(),
            }));
        }
        let include = scheduler.include(scheduler.program(
            &self.cache,
            &self.cargo,
            self.search_path.as_deref(),
        )?);
        contents.programs.push(include.clone());
        Ok(Some(include))
    }

    /// What the base part of the initramfs holds, with the running binary as `/init`.
    pub(super) fn base_contents(
        &self,
        mut includes: Vec<initramfs::Include>,
        modules: &[&str],
    ) -> Result<BaseContents, SetUpError> {
        let mut names: Vec<&str> = self.kernel.boot_modules()?;
        names.extend(modules);
        let modules = if names.is_empty() {
            Vec::new()
        } else {
            self.kernel.modules_for(&names)?
        };
        // libbpf resolves what programs ask of the kernel's options in this file.
        if let Some(config) = self.kernel.config_file() {
            includes.push(initramfs::Include {
                host: config,
                guest: format!("/boot/config-{}", self.kernel.release()),
            });
        }
        Ok(BaseContents {
            // Not by its path, where another program may be by now.
            init: initramfs::OWN_BINARY.into(),
            programs: Vec::new(),
            includes,
            modules,
            library_path: self.library_path.clone(),
        })
    }

    /// The machine for one task, and what its guest is told.
    pub(super) fn machine_spec(
        &self,
        topology: Topology,
        memory: &MemoryPlan,
        contents: &BaseContents,
        task: Task,
        on: &mut dyn RunObserver,
    ) -> Result<(MachineSpec, Job), SetUpError> {
        let mut environment = self.environment.clone();
        let mut cmdline = Vec::new();
        let base = self.bases.get(contents)?;
        let needed_mib =
            ktstr_machine::memory_for_initrd_mib(base.kept.bytes(), base.num_entries, &topology);
        let Sized { numa, remark } = memory.sized(&topology, needed_mib)?;
        for remark in base.remark.iter().chain(&remark) {
            on.event(&RunEvent::Remark(remark));
        }
        let archive = match base.kept {
            initramfs::Kept::File { path, file } => InitrdPart::Open { path, file },
            initramfs::Kept::Memory(archive) => InitrdPart::Bytes(archive.into()),
        };
        if let Some(path) = base.library_path {
            // The kernel hands what it doesn't know to /init as its environment.
            cmdline.push(format!("\"LD_LIBRARY_PATH={path}\""));
            environment.push(("LD_LIBRARY_PATH".to_owned(), path));
        }
        if let Task::InnerHost(test) = &task {
            environment.extend(test.environment());
        }
        let job = Job {
            topology,
            numa: numa.clone(),
            environment,
            task,
        };
        let spec = MachineSpec {
            topology,
            numa,
            kernel: BootKernel {
                bzimage: self.kernel.bzimage().map(Into::into),
                vmlinux: Some(self.kernel.vmlinux().into()),
                pvh: self.kernel.pvh_entry().is_some(),
            },
            initrd: vec![archive],
            initrd_entries: base.num_entries,
            boot: Boot::DEFAULT,
            // Both are entries of our caches.
            immutable_files: true,
            cmdline,
            interactive_console: false,
            frames_port_name: ktstr_wire::FRAME_PORT_NAME.to_owned(),
            devices: Vec::new(),
            pause_port: Some(ktstr_wire::PAUSE_PORT),
            amd_v: false,
            host_cpus: Vec::new(),
        };
        Ok((spec, job))
    }
}

/// Gives the machine AMD-V, for a KVM of its own.
pub(super) fn give_kvm(spec: &mut MachineSpec) {
    spec.amd_v = true;
    // They protect nothing here, and cost every exit of an inner machine dearly.
    spec.cmdline.push("mitigations=off".to_owned());
}

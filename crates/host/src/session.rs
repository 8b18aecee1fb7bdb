//! Tests of one process: what they share, and running one of them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ktstr_kernels::tools::{self, Tool};
use ktstr_kernels::{Cache, CacheError, Kernel, KernelSpec, OptionState, Progress, ResolveOptions};
use ktstr_machine::{
    BootKernel, Chosen, Engine, EngineKind, EngineOptions, InitrdPart, LaunchError, MachineSpec,
    ServicePriority, SpecError, usable_host_cpus,
};
use ktstr_report::{EngineInfo, Failure, FailureKind, KernelInfo, Outcome, Sidecar, TimingSlack};
use ktstr_topology::{NumaError, Topology};
use ktstr_wire::{Job, Task};

use crate::causes::chain;
use crate::cpu_queue::{self, Claim, CpuCap, CpuQueue, QueueError, Share, Waiting};
use crate::initramfs::{self, BaseCache, BaseContents, InitramfsError};
use crate::memory::{MemoryPlan, Sized};
use crate::millis::millis;
use crate::observe::{self, LazyImage, MonitorRate, Observation, ObserverSettings};
use crate::plan::{INNER_BOOT, Limits, TestPlan};
use crate::run::{Booted, DriveError, boot, drive};
use crate::scheduler::{CargoSettings, SchedulerError, watchdog_job};
use crate::verdict::{VmResult, apply_expectation, blank_sidecar, conclude, failure_of};

/// What a person or a command chose for all tests.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Kernel, or the implicit chain.
    pub kernel: Option<KernelSpec>,
    /// Engine.
    pub engine: EngineKind,
    /// Where the engine finds its tools.
    pub engine_options: EngineOptions,
    /// Root of the cache; none if this process has no folder for one.
    pub cache: Option<PathBuf>,
    /// How many host CPUs all running machines may keep busy together.
    pub cpu_cap: CpuCap,
    /// Folder of the line for host CPUs, or the default one.
    pub lock_folder: Option<PathBuf>,
    /// How often the monitor samples.
    pub monitor: MonitorRate,
    /// The cargo that builds schedulers.
    pub cargo: CargoSettings,
    /// `PATH` of this process.
    pub search_path: Option<OsString>,
    /// `LD_LIBRARY_PATH` of this process.
    pub library_path: Option<String>,
    /// What a machine around this host adds to the engine's own timing.
    pub outer_slack: TimingSlack,
    /// `RUST_BACKTRACE` and others that the guest's process shall have too.
    pub environment: Vec<(String, String)>,
}

/// Kernel, engine and caches, resolved once for all tests of a process.
#[derive(Debug)]
pub struct Session {
    pub(crate) settings: Settings,
    pub(crate) kernel: Kernel,
    pub(crate) engine: Chosen,
    pub(crate) bases: BaseCache,
    cache: Cache,
    image: Arc<LazyImage>,
    queue: Option<CpuQueue>,
}

/// No test can run here.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The cache can't be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// No kernel.
    #[error(transparent)]
    Kernel(#[from] ktstr_kernels::ResolveError),
    /// The kernel can't run a test.
    #[error("kernel {release} ({key}) can't run a test: it lacks {lacks}")]
    KernelUnfit {
        /// `uname -r`.
        release: String,
        /// Key in the cache.
        key: String,
        /// What it lacks, and what that means.
        lacks: String,
    },
    /// No engine.
    #[error(transparent)]
    Engine(#[from] ktstr_machine::EngineError),
    /// There is no line for host CPUs.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl SessionError {
    /// The failure that a test reports for it. Not the harness is at fault: what was named is wrong, or this host or
    /// its network lacks something.
    pub fn to_failure(&self) -> Failure {
        failure_of(FailureKind::Host, self)
    }
}

/// A test could not be run to any end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    #[error(transparent)]
    Kernel(#[from] CacheError),
    #[error(transparent)]
    Modules(#[from] ktstr_kernels::ModuleError),
    #[error("listing the kernel's files in {folder}")]
    KernelFiles {
        folder: PathBuf,
        source: std::io::Error,
    },
    #[error("the initramfs can't be packed")]
    Initramfs(#[from] InitramfsError),
    #[error(transparent)]
    Numa(#[from] NumaError),
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the threads that serve the machine can't have real-time priority")]
    Priority(#[source] std::io::Error),
    #[error(transparent)]
    Drive(#[from] DriveError),
}

impl SetUpError {
    /// What this engine or host can never give, while another could: the test is then skipped, since nothing is
    /// wrong with it.
    fn beyond_host(&self) -> Option<&SpecError> {
        self.spec().filter(|error| error.is_beyond_host())
    }

    /// Whether the host lacks at this moment what it may have at another: the test is then inconclusive.
    fn is_for_now(&self) -> bool {
        matches!(self, Self::Queue(QueueError::TimedOut { .. }))
            || self.spec().is_some_and(SpecError::is_for_now)
    }

    fn spec(&self) -> Option<&SpecError> {
        match self {
            Self::Spec(error) | Self::Drive(DriveError::Launch(LaunchError::Spec(error))) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// Whose fault it is.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            error if error.beyond_host().is_some() || error.is_for_now() => FailureKind::Host,
            Self::Queue(_) | Self::Priority(_) => FailureKind::Host,
            _ => FailureKind::Harness,
        }
    }
}

/// Lets the engine find the tools that were fetched into the cache.
pub fn look_in_cache(options: &mut EngineOptions, cache: &Cache) {
    if options.fetched_qemu.is_none() {
        let qemu = tools::find(cache, Tool::Qemu);
        options.fetched_qemu = qemu.map(|qemu| qemu.program());
    }
}

impl Session {
    /// Resolves the kernel and chooses the engine.
    pub fn open(mut settings: Settings, progress: &dyn Progress) -> Result<Self, SessionError> {
        let cache = Cache::open(settings.cache.as_deref().ok_or(CacheError::NoFolder)?)?;
        look_in_cache(&mut settings.engine_options, &cache);
        let engine = ktstr_machine::choose(settings.engine, &settings.engine_options)?;
        let kernel = ktstr_kernels::resolve(
            settings.kernel.as_ref(),
            &cache,
            &ResolveOptions::default(),
            progress,
        )?;
        let requirements = kernel.requirements()?;
        if !requirements.can_boot() {
            let lacks: Vec<String> = requirements
                .missing
                .iter()
                .map(ToString::to_string)
                .collect();
            return Err(SessionError::KernelUnfit {
                release: kernel.release().to_owned(),
                key: kernel.key().to_owned(),
                lacks: lacks.join("; "),
            });
        }
        Ok(Self {
            queue: CpuQueue::open(settings.lock_folder.as_deref(), settings.cpu_cap)?,
            bases: BaseCache::new(cache.root().join("initramfs")),
            cache,
            image: Arc::new(LazyImage::new(kernel.vmlinux().to_owned())),
            settings,
            kernel,
            engine,
        })
    }

    /// The kernel that tests run on.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The engine that runs the machines.
    pub fn engine(&self) -> &dyn Engine {
        self.engine.engine.as_ref()
    }

    /// What machines run on, and why on this if nobody chose it, in one line for people.
    pub fn engine_announcement(&self) -> String {
        self.engine.announcement(self.engine_name())
    }

    /// The word for where tests run: the engine's name, or `nested`.
    pub fn engine_name(&self) -> &'static str {
        match self.settings.engine {
            EngineKind::Nested => EngineKind::Nested.name(),
            _ => self.engine().name(),
        }
    }

    /// What the processes of single tests shall choose: what this one came to, so that they need not look again;
    /// but `auto` where that is `kvm`, so that they still may fall back.
    pub fn engine_of_tests(&self) -> EngineKind {
        match self.settings.engine {
            EngineKind::Auto if self.engine_name() == EngineKind::Tcg.name() => EngineKind::Tcg,
            kind => kind,
        }
    }

    /// Runs one test in a machine of its own. Whatever happens ends up in the result. While the test waits
    /// for host CPUs, `on_wait` is told now and then.
    pub fn run_test(&self, plan: &TestPlan, on_wait: &mut dyn FnMut(&Waiting)) -> VmResult {
        let started = Instant::now();
        let mut sidecar = blank_sidecar(plan);
        sidecar.kernel = Some(KernelInfo {
            release: self.kernel.release().to_owned(),
            key: self.kernel.key().to_owned(),
            source: self.kernel.source().to_owned(),
        });
        sidecar.engine = Some(EngineInfo {
            name: self.engine_name().to_owned(),
            detail: self.engine().describe(),
        });
        let release = self.kernel.release();
        let not_for_it = plan
            .scheduler
            .as_ref()
            .filter(|scheduler| !scheduler.is_for(release));
        let mut filled = match (not_for_it, self.settings.engine) {
            (Some(scheduler), _) => {
                sidecar.outcome = Outcome::Skip;
                sidecar.result.skipped = Some(format!(
                    "scheduler `{}` is declared for kernels {}, and this is {release}",
                    scheduler.name,
                    scheduler.kernels.join(", ")
                ));
                Ok(Observation::default())
            }
            (None, EngineKind::Nested) => self.fill_nested(plan, &mut sidecar, on_wait),
            (None, _) => self.fill(self.engine(), plan, started, &mut sidecar, on_wait),
        };
        if let Some((tcg, remark)) = filled.as_ref().err().and_then(|error| self.fallback(error)) {
            sidecar.remarks.push(remark);
            sidecar.engine = Some(EngineInfo {
                name: tcg.name().to_owned(),
                detail: tcg.describe(),
            });
            filled = self.fill(tcg.as_ref(), plan, started, &mut sidecar, on_wait);
        }
        let mut is_host_short = false;
        let observation = filled.unwrap_or_else(|error| {
            match error.beyond_host() {
                Some(error) => {
                    sidecar.outcome = Outcome::Skip;
                    sidecar.result.skipped = Some(error.to_string());
                }
                None => {
                    is_host_short = error.is_for_now();
                    sidecar.outcome = match is_host_short {
                        true => Outcome::Inconclusive,
                        false => Outcome::Fail,
                    };
                    sidecar.failure = Some(failure_of(error.kind(), &error));
                }
            }
            Observation::default()
        });
        // An inner host has applied it already.
        if let Some(what) = &plan.expect
            && sidecar.expected.is_none()
            && !is_host_short
        {
            apply_expectation(&mut sidecar, what);
        }
        sidecar.timings.total_ms = millis(started.elapsed());
        VmResult {
            sidecar,
            observation,
        }
    }

    /// The engine that `auto` takes after all, and what to say about it, if KVM turned out to be not usable.
    pub(crate) fn fallback(&self, error: &SetUpError) -> Option<(Box<dyn Engine>, String)> {
        let SetUpError::Drive(DriveError::Launch(why)) = error else {
            return None;
        };
        if !self.settings.engine.falls_back_on(why) {
            return None;
        }
        let tcg = ktstr_machine::choose(EngineKind::Tcg, &self.settings.engine_options).ok()?;
        let why = chain(why);
        let remark = format!("KVM refused this machine, so it ran on tcg: {why}");
        Some((tcg.engine, remark))
    }

    fn fill(
        &self,
        engine: &dyn Engine,
        plan: &TestPlan,
        started: Instant,
        sidecar: &mut Sidecar,
        on_wait: &mut dyn FnMut(&Waiting),
    ) -> Result<Observation, SetUpError> {
        let mut contents = self.base_contents(plan.includes.clone(), &plan.modules)?;
        let program = self.pack_scheduler(plan, &mut contents)?;
        let scheduler = plan.scheduler.as_ref().zip(program.as_ref());
        let task = Task::Test {
            name: plan.name.clone(),
            slack: self.slack(engine, &plan.topology),
            scheduler: scheduler.map(|(scheduler, program)| {
                let timeout_ms = scheduler.watchdog_timeout_ms;
                let watchdog = timeout_ms.map(|ms| watchdog_job(ms, &self.image));
                scheduler.job(program, watchdog)
            }),
        };
        let memory = plan.memory();
        let mut spec = self.machine_spec(
            plan.topology,
            &memory,
            &contents,
            task,
            &mut sidecar.remarks,
        )?;
        sidecar.memory_mib = spec.numa.total_mib();
        sidecar.numa = sidecar.numa.take().map(|_| spec.numa.clone());
        spec.performance_mode = plan.performance_mode;
        spec.kaslr = plan.kaslr;
        engine.check(&spec)?;
        sidecar.timings.prepare_ms = millis(started.elapsed());
        let own_cpus = plan.performance_mode;
        let mut share = self.share(engine, &plan.name, &spec, on_wait)?;
        sidecar.timings.queued_ms = millis(share.waited);
        spec.host_cpus = std::mem::take(&mut share.own_cpus);
        // The threads that serve the machine are started by this one, and inherit its priority. Inside a machine this
        // process has no other purpose, and no CPU but the vCPU's: there its other threads must have it too.
        let take = match self.is_inside_a_machine() {
            true => ServicePriority::take_for_process,
            false => ServicePriority::take,
        };
        let priority = own_cpus.then(take).transpose();
        let priority = priority.map_err(SetUpError::Priority)?;
        let limits = self.limits(plan);
        let is_emulated = engine.emulates_cpus() || self.is_inside_a_machine();
        let Booted {
            record,
            retries,
            remarks,
        } = boot(is_emulated, || {
            drive(
                engine,
                &spec,
                limits,
                Some(self.observer_settings(plan, limits)),
                &mut |machine| {
                    let performance = machine.performance().map(str::to_owned);
                    sidecar.remarks.extend(performance);
                },
                &mut |_, _, _| {},
            )
        })?;
        sidecar.boot_retries.extend(retries);
        sidecar.remarks.extend(remarks);
        drop((priority, share));
        Ok(conclude(sidecar, record, limits, &plan.thresholds))
    }

    fn observer_settings(&self, plan: &TestPlan, limits: Limits) -> ObserverSettings {
        let hz = self.kernel.config().ok().flatten();
        let hz = hz.and_then(|config| config.get("HZ")?.parse().ok());
        ObserverSettings {
            image: Arc::clone(&self.image),
            sampling: observe::sampling(
                self.settings.monitor,
                plan.topology.cpu_count(),
                limits.run,
                hz,
            ),
            num_snapshots: plan.num_snapshots,
            duration: plan.duration,
            cpus: plan.topology.cpu_count(),
            has_scheduler: plan.scheduler.is_some(),
        }
    }

    /// Waits until the machine may start: until the host has CPUs and memory for it. One in performance mode has
    /// the CPUs for itself.
    pub(crate) fn share(
        &self,
        engine: &dyn Engine,
        what: &str,
        spec: &MachineSpec,
        on_wait: &mut dyn FnMut(&Waiting),
    ) -> Result<Share, QueueError> {
        let host_cpus = engine.host_cpus(&spec.topology);
        let own_cpus = spec.performance_mode;
        let name = match self.settings.engine {
            EngineKind::Nested => self.engine_name(),
            _ => engine.name(),
        };
        let claim = Claim::new(what, name, host_cpus)
            .with_memory(spec.numa.total_mib(), spec.performance_mode);
        let Some(queue) = &self.queue else {
            let mut share = cpu_queue::wait_for_memory(&claim, on_wait)?;
            if own_cpus {
                share.own_cpus = usable_host_cpus();
                share.own_cpus.truncate(host_cpus as usize);
            }
            return Ok(share);
        };
        queue.take(&claim, own_cpus, on_wait)
    }

    /// The plan's limits, and within a machine around this host what that costs a boot.
    fn limits(&self, plan: &TestPlan) -> Limits {
        let mut limits = plan.limits();
        if self.is_inside_a_machine() {
            limits.boot += INNER_BOOT;
        }
        limits
    }

    /// Whether this host is the guest of a machine of ours, whose CPUs are emulated.
    fn is_inside_a_machine(&self) -> bool {
        !self.settings.outer_slack.why.is_empty()
    }

    /// How far the engine, and a machine around this host, may stretch the guest's time.
    pub(crate) fn slack(&self, engine: &dyn Engine, topology: &Topology) -> TimingSlack {
        engine.timing(topology).within(&self.settings.outer_slack)
    }

    /// Adds the scheduler's program to what the guest gets; says which it is.
    pub(crate) fn pack_scheduler(
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
            &self.settings.cargo,
            self.settings.search_path.as_deref(),
        )?);
        contents.programs.push(include.clone());
        Ok(Some(include))
    }

    /// What the base part of the initramfs holds, with the running binary as `/init`.
    pub(crate) fn base_contents(
        &self,
        mut includes: Vec<initramfs::Include>,
        modules: &[String],
    ) -> Result<BaseContents, SetUpError> {
        let mut names: Vec<&str> = self.kernel.boot_modules()?;
        names.extend(modules.iter().map(String::as_str));
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
            library_path: self.settings.library_path.clone(),
        })
    }

    /// The machine for one job.
    pub(crate) fn machine_spec(
        &self,
        topology: Topology,
        memory: &MemoryPlan,
        contents: &BaseContents,
        task: Task,
        remarks: &mut Vec<String>,
    ) -> Result<MachineSpec, SetUpError> {
        let mut environment = self.settings.environment.clone();
        let mut cmdline = Vec::new();
        let base = self.bases.get(contents)?;
        let needed_mib = ktstr_machine::memory_for_initrd_mib(
            base.kept.bytes() + JOB_BYTES,
            base.num_entries,
            &topology,
        );
        let Sized { numa, remark } = memory.sized(&topology, needed_mib)?;
        for remark in base.remark.into_iter().chain(remark) {
            // A machine that is tried on another engine is made twice.
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
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
        if let Task::Nested(test) = &task {
            environment.extend(test.environment());
        }
        let job = Job {
            topology,
            numa: numa.clone(),
            modules: contents.guest_modules(),
            environment,
            task,
        };
        Ok(MachineSpec {
            topology,
            numa,
            kernel: BootKernel {
                bzimage: self.kernel.bzimage().map(Into::into),
                vmlinux: Some(self.kernel.vmlinux().into()),
                pvh: self.kernel.pvh_entry().is_some(),
            },
            initrd: vec![
                archive,
                InitrdPart::Bytes(initramfs::pack_job(&job)?.into()),
            ],
            initrd_entries: base.num_entries,
            kaslr: false,
            // Both are entries of our caches.
            immutable_files: true,
            cmdline,
            interactive_console: false,
            frames_port_name: ktstr_wire::FRAME_PORT_NAME.to_owned(),
            nested_virtualization: false,
            performance_mode: false,
            host_cpus: Vec::new(),
        })
    }
}

/// Room for the job in the initramfs; it is a few kilobytes.
const JOB_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use crate::cpu_queue::Lack;

    use super::*;

    #[test]
    fn fault_a2_what_the_host_lacks_for_good_skips_and_what_it_lacks_now_does_not() {
        let too_much = SetUpError::Spec(SpecError::TooMuchMemory {
            memory_mib: 9_000,
            total_mib: 8_000,
        });
        assert!(too_much.beyond_host().is_some() && !too_much.is_for_now());
        let waiting = Waiting {
            lack: Lack::Memory {
                needed_mib: 4_000,
                left_mib: 900,
            },
            waited: std::time::Duration::from_secs(120),
            before: Vec::new(),
        };
        let taken = SpecError::HugePagesTaken {
            source: std::io::Error::from_raw_os_error(12),
        };
        for now in [
            SetUpError::Queue(QueueError::TimedOut { waiting }),
            SetUpError::Drive(DriveError::Launch(taken.into())),
        ] {
            assert!(now.beyond_host().is_none() && now.is_for_now(), "{now}");
            assert_eq!(now.kind(), FailureKind::Host);
        }
    }
}

//! Tests of one process: what they share, and running one of them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ktstr_kernels::tools::{self, Tool};
use ktstr_kernels::{
    Cache, CacheError, Kernel, KernelSpec, Progress, Requirements, ResolveOptions,
};
use ktstr_machine::{Chosen, Engine, EngineKind, EngineOptions};
use ktstr_report::{EngineInfo, Failure, FailureKind, KernelInfo, Outcome, Sidecar};

use crate::cpu_queue::{CpuCap, CpuQueue, QueueError};
use crate::events::RunObserver;
use crate::initramfs::BaseCache;
use crate::millis::millis;
use crate::observe::{LazyImage, MonitorRate, Observation};
use crate::plan::TestPlan;
use crate::runner::{
    OuterMachine, Resources, Runner, RunsIn, SetUpError, ShellEnd, ShellError, ShellPlan, run_shell,
};
use crate::scheduler::CargoSettings;
use crate::verdict::{SidecarWriter, VmResult, apply_expectation, blank_sidecar, failure_of};

/// What the user or a command chose for all tests.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Kernel, or the implicit chain.
    pub kernel: Option<KernelSpec>,
    /// Where tests run.
    pub runs_in: RunsIn,
    /// Where the engine finds its tools.
    pub engine_options: EngineOptions,
    /// Root of the cache; none if this process has no folder for one.
    pub cache: Option<PathBuf>,
    /// How many host CPUs all running machines may keep busy together.
    pub cpu_cap: CpuCap,
    /// Folder of the CPU queue, or the default one.
    pub lock_folder: Option<PathBuf>,
    /// How often the monitor samples.
    pub monitor: MonitorRate,
    /// The cargo that builds schedulers.
    pub cargo: CargoSettings,
    /// `PATH` of this process.
    pub search_path: Option<OsString>,
    /// `LD_LIBRARY_PATH` of this process.
    pub library_path: Option<String>,
    /// The machine of ours that this host is inside of, if it is.
    pub outer: Option<OuterMachine>,
    /// `RUST_BACKTRACE` and others that the guest's process gets too.
    pub environment: Vec<(String, String)>,
}

/// Kernel, engine and caches, resolved once for all tests of a process.
#[derive(Debug)]
pub struct Session {
    runs_in: RunsIn,
    chosen: Chosen,
    resources: Resources,
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
    /// The CPU queue can't be used.
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
        let chosen = ktstr_machine::choose(settings.runs_in.engine(), &settings.engine_options)?;
        let kernel = ktstr_kernels::resolve(
            settings.kernel.as_ref(),
            &cache,
            &ResolveOptions::default(),
            progress,
        )?;
        require_bootable(&kernel)?;
        tracing::info!(
            kernel = kernel.release(),
            key = kernel.key(),
            engine = chosen.engine.name(),
            "session"
        );
        Ok(Self {
            runs_in: settings.runs_in,
            chosen,
            resources: Resources {
                queue: CpuQueue::open(settings.lock_folder.as_deref(), settings.cpu_cap)?,
                bases: BaseCache::new(cache.root().join("initramfs")),
                image: Arc::new(LazyImage::new(kernel.vmlinux().to_owned())),
                cache,
                kernel,
                engine_options: settings.engine_options,
                monitor: settings.monitor,
                cargo: settings.cargo,
                search_path: settings.search_path,
                library_path: settings.library_path,
                outer: settings.outer,
                environment: settings.environment,
            },
        })
    }

    /// The kernel that tests run on.
    pub fn kernel(&self) -> &Kernel {
        &self.resources.kernel
    }

    /// The engine that runs the machines of this host.
    pub fn engine(&self) -> &dyn Engine {
        self.chosen.engine.as_ref()
    }

    /// Where tests run, and why there if nobody chose it, in one line for people.
    pub fn engine_announcement(&self) -> String {
        self.chosen.announcement(self.runner().name())
    }

    /// The choice for the processes of single tests: the engine resolved here, so that they need not probe again.
    /// `auto` stays `auto` where it is KVM, so that they can still fall back.
    pub fn runs_in_of_tests(&self) -> RunsIn {
        match self.runs_in {
            RunsIn::ThisHost(EngineKind::Auto)
                if self.engine().name() == EngineKind::Tcg.name() =>
            {
                EngineKind::Tcg.into()
            }
            chosen => chosen,
        }
    }

    fn runner(&self) -> Box<dyn Runner + '_> {
        self.runs_in.runner(&self.resources, self.engine())
    }

    /// Runs one test in a machine of its own. Whatever happens ends up in the result, and is told as it happens.
    pub fn run_test(&self, plan: &TestPlan, on: &mut dyn RunObserver) -> VmResult {
        let started = Instant::now();
        let runner = self.runner();
        let kernel = self.kernel();
        let mut sidecar = blank_sidecar(plan);
        sidecar.kernel = Some(KernelInfo {
            release: kernel.release().to_owned(),
            key: kernel.key().to_owned(),
            source: kernel.source().to_owned(),
        });
        sidecar.engine = Some(EngineInfo {
            name: runner.name().to_owned(),
            detail: self.engine().describe(),
        });
        let ran = match not_for(kernel.release(), plan) {
            Some(why) => {
                sidecar.outcome = Outcome::Skip;
                sidecar.result.skipped = Some(why);
                Ok(None)
            }
            None => {
                let on = &mut SidecarWriter::new(&mut sidecar, started, on);
                runner.run(plan, on).map(Some)
            }
        };
        let is_host_short = ran.as_ref().is_err_and(SetUpError::is_for_now);
        let observation = match ran {
            Ok(Some(ran)) => runner.conclude(&mut sidecar, ran, &plan.assert),
            Ok(None) => Observation::default(),
            Err(error) => {
                not_set_up(&mut sidecar, &error);
                Observation::default()
            }
        };
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

    /// Runs a command or a shell in a machine of its own. What it prints is among the events; so is the terminal of an
    /// interactive shell.
    pub fn run_shell(
        &self,
        plan: &ShellPlan,
        on: &mut dyn RunObserver,
    ) -> Result<ShellEnd, ShellError> {
        let here = self.runs_in.here(&self.resources, self.engine())?;
        run_shell(here, plan, on)
    }
}

fn require_bootable(kernel: &Kernel) -> Result<(), SessionError> {
    let requirements: Requirements = kernel.requirements()?;
    if requirements.can_boot() {
        return Ok(());
    }
    let lacks: Vec<String> = requirements
        .missing
        .iter()
        .map(ToString::to_string)
        .collect();
    Err(SessionError::KernelUnfit {
        release: kernel.release().to_owned(),
        key: kernel.key().to_owned(),
        lacks: lacks.join("; "),
    })
}

/// Why a test is not for the kernel of this release, if it is not.
fn not_for(release: &str, plan: &TestPlan) -> Option<String> {
    let scheduler = plan.scheduler.as_ref()?;
    (!scheduler.is_for(release)).then(|| {
        format!(
            "scheduler `{}` is declared for kernels {}, and this is {release}",
            scheduler.name,
            scheduler.kernels.join(", ")
        )
    })
}

/// The outcome of a test whose machine could not be set up.
fn not_set_up(sidecar: &mut Sidecar, error: &SetUpError) {
    if let Some(beyond) = error.beyond_host() {
        sidecar.outcome = Outcome::Skip;
        sidecar.result.skipped = Some(beyond.to_string());
        return;
    }
    sidecar.outcome = match error.is_for_now() {
        true => Outcome::Inconclusive,
        false => Outcome::Fail,
    };
    sidecar.failure = Some(failure_of(error.kind(), error));
}

//! Tests of one process: what they share, and running one of them.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ktstr_kernels::{Cache, Kernel, KernelSpec, Progress, ResolveOptions};
use ktstr_machine::{
    BootKernel, End, Engine, EngineKind, EngineOptions, InitrdPart, MachineSpec, SpecError,
};
use ktstr_report::{
    BootAttempt, EngineInfo, Failure, FailureKind, KernelInfo, Outcome, SCHEMA_VERSION, Sidecar,
    Timings,
};
use ktstr_topology::Topology;
use ktstr_wire::{Job, Task, TimingSlack};

use crate::drive::{DriveError, Limits, Record, drive};
use crate::initramfs::{self, BaseCache, BaseContents, InitramfsError};
use crate::outcome::{judge, numbered};

/// Memory of a machine whose test doesn't say.
const DEFAULT_MEMORY_MIB: u64 = 512;

/// Lines of the console that a report keeps.
const CONSOLE_LINES: usize = 60;

/// And at most, after a panic.
const MOST_CONSOLE_LINES: usize = 400;

/// Lines before a panic that a report keeps: what led to it.
const LINES_BEFORE_PANIC: usize = 20;

/// What a person or a command chose for all tests.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Kernel, or the implicit chain.
    pub kernel: Option<KernelSpec>,
    /// Engine.
    pub engine: EngineKind,
    /// Where the engine finds its tools.
    pub engine_options: EngineOptions,
    /// Root of the cache, or the default one.
    pub cache: Option<PathBuf>,
    /// `LD_LIBRARY_PATH` of this process.
    pub library_path: Option<String>,
    /// `RUST_BACKTRACE` and others that the guest's process shall have too.
    pub environment: Vec<(String, String)>,
}

/// What one test wants.
#[derive(Clone, Debug)]
pub struct TestPlan {
    /// Name in the binary's registry.
    pub name: String,
    /// Run that the test belongs to.
    pub run_id: String,
    /// Shape of the machine.
    pub topology: Topology,
    /// Memory of the machine, 512 MiB if unset.
    pub memory_mib: Option<u64>,
    /// How long its scenario holds.
    pub duration: Duration,
    /// How long it may take from the guest's first message to its last; if unset, thirty seconds, twice
    /// the duration and one second a CPU.
    pub timeout: Option<Duration>,
    /// Kernel modules it needs, by name; those they need come along.
    pub modules: Vec<String>,
    /// Files of the host it needs.
    pub includes: Vec<initramfs::Include>,
}

/// Kernel, engine and caches, resolved once for all tests of a process.
#[derive(Debug)]
pub struct Session {
    pub(crate) settings: Settings,
    pub(crate) kernel: Kernel,
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) bases: BaseCache,
}

/// No test can run here.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The cache can't be used.
    #[error(transparent)]
    Cache(#[from] ktstr_kernels::CacheError),
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
}

impl SessionError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Engine(_) => FailureKind::Host,
            _ => FailureKind::Harness,
        }
    }

    /// The failure that a test reports for it.
    pub fn to_failure(&self) -> Failure {
        failure_of(self.kind(), self)
    }
}

/// A test could not be run to any end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    #[error(transparent)]
    Kernel(#[from] ktstr_kernels::CacheError),
    #[error(transparent)]
    Modules(#[from] ktstr_kernels::ModuleError),
    #[error("the initramfs can't be packed")]
    Initramfs(#[from] InitramfsError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Drive(#[from] DriveError),
}

impl SetUpError {
    /// Whose fault it is.
    pub(crate) fn kind(&self) -> FailureKind {
        match self {
            Self::Spec(error) if is_beyond_host(error) => FailureKind::Host,
            _ => FailureKind::Harness,
        }
    }
}

impl Session {
    /// Resolves the kernel and chooses the engine.
    pub fn open(settings: Settings, progress: &dyn Progress) -> Result<Self, SessionError> {
        let cache = Cache::open(settings.cache.as_deref())?;
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
            bases: BaseCache::new(cache.root().join("initramfs")),
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
        self.engine.as_ref()
    }

    /// Runs one test in a machine of its own. Whatever happens ends up in the sidecar.
    pub fn run_test(&self, plan: &TestPlan) -> Sidecar {
        let started = Instant::now();
        let mut sidecar = blank_sidecar(plan);
        sidecar.kernel = Some(KernelInfo {
            release: self.kernel.release().to_owned(),
            key: self.kernel.key().to_owned(),
            source: self.kernel.source().to_owned(),
        });
        sidecar.engine = Some(EngineInfo {
            name: self.engine.name().to_owned(),
            detail: self.engine.describe(),
        });
        if let Err(error) = self.fill(plan, started, &mut sidecar) {
            match error {
                SetUpError::Spec(error) if is_beyond_host(&error) => {
                    sidecar.outcome = Outcome::Skip;
                    sidecar.result.skipped = Some(error.to_string());
                }
                error => {
                    sidecar.outcome = Outcome::Fail;
                    sidecar.failure = Some(failure_of(error.kind(), &error));
                }
            }
        }
        sidecar.timings.total_ms = millis(started.elapsed());
        sidecar
    }

    fn fill(
        &self,
        plan: &TestPlan,
        started: Instant,
        sidecar: &mut Sidecar,
    ) -> Result<(), SetUpError> {
        let timing = self.engine.timing(&plan.topology);
        let task = Task::Test {
            name: plan.name.clone(),
            slack: TimingSlack {
                gap_ms: timing.gap_slack_ms,
                spread_pct: timing.spread_slack_pct,
                why: timing.why,
            },
        };
        let contents = self.base_contents(plan.includes.clone(), &plan.modules)?;
        let memory_mib = sidecar.memory_mib;
        let spec = self.machine_spec(
            plan.topology,
            memory_mib,
            &contents,
            task,
            &mut sidecar.remarks,
        )?;
        self.engine.check(&spec)?;
        sidecar.timings.prepare_ms = millis(started.elapsed());
        let limits = plan.limits();
        let record = loop {
            let record = drive(
                self.engine.as_ref(),
                &spec,
                limits,
                &mut |_| {},
                &mut |_, _| {},
            )?;
            let died_booting = !record.booted() && is_death(&record.end);
            if !died_booting || !sidecar.boot_retries.is_empty() {
                break record;
            }
            sidecar.boot_retries.push(BootAttempt {
                end: record.end.to_string(),
                console_tail: console_end(&record.console),
            });
        };
        conclude(sidecar, record, limits);
        Ok(())
    }

    /// What the base part of the initramfs holds, with the running binary as `/init`.
    pub(crate) fn base_contents(
        &self,
        includes: Vec<initramfs::Include>,
        modules: &[String],
    ) -> Result<BaseContents, SetUpError> {
        let mut names: Vec<&str> = self.kernel.boot_modules()?;
        names.extend(modules.iter().map(String::as_str));
        let modules = if names.is_empty() {
            Vec::new()
        } else {
            self.kernel.modules_for(&names)?
        };
        Ok(BaseContents {
            init: own_binary(),
            includes,
            modules,
            library_path: self.settings.library_path.clone(),
        })
    }

    /// The machine for one job.
    pub(crate) fn machine_spec(
        &self,
        topology: Topology,
        memory_mib: u64,
        contents: &BaseContents,
        task: Task,
        remarks: &mut Vec<String>,
    ) -> Result<MachineSpec, SetUpError> {
        let mut environment = self.settings.environment.clone();
        let mut cmdline = Vec::new();
        let (base, library_path) = match self.bases.get(contents)? {
            initramfs::CachedBase::File { path, library_path } => {
                (InitrdPart::File(path), library_path)
            }
            initramfs::CachedBase::Memory { base, reason } => {
                remarks.push(format!("the initramfs could not be cached: {reason}"));
                (InitrdPart::Bytes(base.archive.into()), base.library_path)
            }
        };
        if let Some(path) = library_path {
            // The kernel hands what it doesn't know to /init as its environment.
            cmdline.push(format!("LD_LIBRARY_PATH={path}"));
            environment.push(("LD_LIBRARY_PATH".to_owned(), path));
        }
        let job = Job {
            topology,
            modules: contents.guest_modules(),
            environment,
            task,
        };
        Ok(MachineSpec {
            topology,
            memory_mib,
            kernel: BootKernel {
                bzimage: self.kernel.bzimage().map(Into::into),
                vmlinux: Some(self.kernel.vmlinux().into()),
                pvh: self.kernel.pvh_entry().is_some(),
            },
            initrd: vec![base, InitrdPart::Bytes(initramfs::pack_job(&job)?.into())],
            cmdline,
            interactive_console: false,
        })
    }
}

impl TestPlan {
    fn limits(&self) -> Limits {
        let cpus = self.topology.cpu_count();
        let default = Duration::from_secs(30) + 2 * self.duration + Duration::from_secs(1) * cpus;
        Limits {
            boot: boot_limit(&self.topology),
            run: Some(self.timeout.unwrap_or(default)),
        }
    }
}

/// An emulated CPU takes its turn with the others, so a boot takes longer the more there are.
pub(crate) fn boot_limit(topology: &Topology) -> Duration {
    Duration::from_secs(60) + Duration::from_secs(3) * topology.cpu_count()
}

/// The sidecar of a test that has not begun.
pub fn blank_sidecar(plan: &TestPlan) -> Sidecar {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Sidecar {
        schema: SCHEMA_VERSION,
        run_id: plan.run_id.clone(),
        test: plan.name.clone(),
        outcome: Outcome::Inconclusive,
        failure: None,
        result: ktstr_report::AssertResult::default(),
        kernel: None,
        engine: None,
        topology: plan.topology,
        memory_mib: plan.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB),
        started_unix_ms: millis(since_epoch),
        timings: Timings::default(),
        engine_memory_bytes: None,
        boot_retries: Vec::new(),
        console_tail: String::new(),
        output: String::new(),
        remarks: Vec::new(),
    }
}

fn conclude(sidecar: &mut Sidecar, record: Record, limits: Limits) {
    let (outcome, failure, result) = judge(&record, limits);
    sidecar.outcome = outcome;
    sidecar.failure = failure;
    sidecar.result = result;
    sidecar.timings.boot_ms = millis(record.boot);
    sidecar.timings.test_ms = millis(record.run);
    sidecar.timings.teardown_ms = millis(record.teardown);
    sidecar.engine_memory_bytes = record.footprint_bytes;
    sidecar.console_tail = console_end(&record.console);
    sidecar.remarks.extend(record.remarks);
    sidecar
        .remarks
        .extend(record.frame_errors.iter().map(ToString::to_string));
    if record.more_frame_errors > 0 {
        sidecar.remarks.push(format!(
            "and {} more damaged stretches on the link",
            record.more_frame_errors
        ));
    }
    if record.output.dropped() > 0 {
        sidecar.remarks.push(format!(
            "the test printed {} bytes more than a report keeps",
            record.output.dropped()
        ));
    }
    sidecar.output = record.output.into_text();
}

/// An error and its causes as a failure.
pub(crate) fn failure_of(kind: FailureKind, error: &dyn std::error::Error) -> Failure {
    let mut chain = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // A message may already have taken in its cause.
        if !chain.last().is_some_and(|outer| outer.ends_with(&text)) {
            chain.push(text);
        }
        cause = error.source();
    }
    let detail = if chain.len() > 1 {
        numbered(&chain)
    } else {
        String::new()
    };
    Failure {
        kind,
        summary: chain.swap_remove(0),
        detail,
    }
}

/// Whether the machine is one that this engine or host can't give, while another could: the test is then
/// skipped, since nothing is wrong with it.
fn is_beyond_host(error: &SpecError) -> bool {
    use SpecError::{TooManyCpus, TooManyNodes, TooMuchMemory};
    matches!(
        error,
        TooManyCpus { .. } | TooManyNodes { .. } | TooMuchMemory { .. }
    )
}

/// Whether the guest ended of itself, as a kernel does that is caught by an emulator's fault.
fn is_death(end: &End) -> bool {
    matches!(
        end,
        End::PoweredOff | End::Reset | End::Panicked { .. } | End::Broken { .. }
    )
}

/// The file that this process runs.
fn own_binary() -> PathBuf {
    static OWN: OnceLock<PathBuf> = OnceLock::new();
    // The link works even when the file has been replaced meanwhile.
    OWN.get_or_init(|| std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()))
        .clone()
}

/// The lines of a console that matter: the last ones, and after a panic all since shortly before it.
pub(crate) fn console_end(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let panic = lines
        .iter()
        .position(|line| line.contains("Kernel panic - not syncing"));
    let since_panic = panic.map_or(0, |at| lines.len() - at + LINES_BEFORE_PANIC);
    last_lines(
        console,
        since_panic.clamp(CONSOLE_LINES, MOST_CONSOLE_LINES),
    )
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

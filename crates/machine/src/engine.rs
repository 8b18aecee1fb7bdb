//! What an engine is.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ktstr_report::TimingSlack;
use ktstr_topology::Topology;

use crate::machine::{End, Machine};
use crate::spec::{MachineSpec, SpecError};

/// Where an engine finds its tools, and what is special about its machines. The default looks on `PATH`.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// The QEMU binary for x86-64 machines, instead of `qemu-system-x86_64` on `PATH`.
    pub qemu: Option<PathBuf>,
    /// One that was fetched into the cache: it is taken when none was named and the one on `PATH` can't be used.
    pub fetched_qemu: Option<PathBuf>,
    /// The bit of APIC ids at which a microVM's LLC numbers begin, if it is higher than the CPUs of an LLC need:
    /// see [`VmConfig::llc_from_apic_id_bit`](ktstr_vmm::VmConfig::llc_from_apic_id_bit).
    pub apic_id_llc_bit: u32,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// This host's KVM can't run a kernel.
    #[error(
        "the `kvm` engine can't run here: {source}; use `--engine tcg`, which runs on any host"
    )]
    KvmUnusable {
        /// What the probe found.
        #[source]
        source: Box<ktstr_vmm::Unusable>,
    },
    /// QEMU is not installed.
    #[error(
        "the `tcg` engine needs QEMU, and `{}` was not found: `cargo ktstr setup` fetches one into the cache where \
         there is apt (Debian, Ubuntu); elsewhere install the system emulator for x86-64, or set KTSTR_QEMU to the \
         path of a qemu-system-x86_64",
        qemu.display()
    )]
    QemuMissing {
        /// The binary that was looked for.
        qemu: PathBuf,
    },
    /// QEMU is there but can't be run.
    #[error(
        "`{} --version` could not be run: check that KTSTR_QEMU or PATH names a working QEMU",
        qemu.display()
    )]
    QemuUnusable {
        /// The binary that was started.
        qemu: PathBuf,
        /// Why it could not.
        #[source]
        source: io::Error,
    },
    /// QEMU ended with an error, such as that of the loader when a library is missing.
    #[error(
        "`{} --version` failed: {said}; check that KTSTR_QEMU or PATH names a working QEMU, or let `cargo ktstr \
         setup` fetch one",
        qemu.display()
    )]
    QemuBroken {
        /// The binary that was started.
        qemu: PathBuf,
        /// The start of what it said.
        said: String,
    },
    /// The binary runs, but does not introduce itself as QEMU.
    #[error(
        "`{} --version` printed {output:?}, which is not a QEMU version: is it qemu-system-x86_64?",
        qemu.display()
    )]
    QemuVersion {
        /// The binary that was started.
        qemu: PathBuf,
        /// The start of what it printed.
        output: String,
    },
    /// QEMU lacks what the engine relies on.
    #[error(
        "`{}` is QEMU {version}: 7.2 or newer is needed; let `cargo ktstr setup` fetch one, or set KTSTR_QEMU",
        qemu.display()
    )]
    QemuTooOld {
        /// The binary.
        qemu: PathBuf,
        /// Its version.
        version: String,
    },
}

impl EngineError {
    /// Whether this user may not open /dev/kvm, while another may.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::KvmUnusable { source } if source.is_permission())
    }
}

/// Why a machine did not start. What can be told beforehand is a [`SpecError`]; QEMU refusing to run is
/// an [`End::FailedToStart`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The machine can't be built as specified.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The microVM can't be started.
    #[error(transparent)]
    Vmm(#[from] Box<ktstr_vmm::StartError>),
    /// The host refused something the machine needs.
    #[error("can't {action}")]
    Host {
        /// What was tried.
        action: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

impl From<ktstr_vmm::StartError> for LaunchError {
    fn from(error: ktstr_vmm::StartError) -> Self {
        Self::Vmm(Box::new(error))
    }
}

impl LaunchError {
    pub(crate) fn host(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Host {
            action: action.into(),
            source: source.into(),
        }
    }
}

/// What happens to a machine by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineEvent {
    /// Its guest has paused it, by [`MachineSpec::pause_port`]. The vCPU that did so runs no further instruction until
    /// [`Machine::release`]; [`Machine::pause`] returns when none does.
    Paused,
    /// It has ended, and its process is gone. Told once, and last.
    Ended(End),
}

/// Called from threads of the engine. It must return at once, and not wait for the machine.
pub type OnEvent = Arc<dyn Fn(MachineEvent) + Send + Sync>;

/// For who waits for the end of a machine only.
pub fn on_end(ended: impl Fn(End) + Send + Sync + 'static) -> OnEvent {
    Arc::new(move |event| {
        if let MachineEvent::Ended(end) = event {
            ended(end);
        }
    })
}

/// Something that runs machines.
pub trait Engine: Send + Sync + fmt::Debug {
    /// The word by which users choose it.
    fn name(&self) -> &'static str;

    /// Whether guest code runs under software emulation (TCG) rather than on a CPU.
    fn emulates_cpus(&self) -> bool;

    /// What runs underneath, for people: `QEMU 7.2.22, one emulation thread`.
    fn describe(&self) -> String;

    /// How far this engine may stretch time on a machine of shape `topology`.
    fn timing(&self, topology: &Topology) -> TimingSlack;

    /// How many host CPUs a machine of shape `topology` keeps busy at most.
    fn host_cpus(&self, topology: &Topology) -> u32 {
        topology.cpu_count()
    }

    /// Whether `spec` can be run, checked without starting anything.
    fn check(&self, spec: &MachineSpec) -> Result<(), SpecError>;

    /// Starts a machine. `on_event` is dropped uncalled when this fails.
    fn launch(
        &self,
        spec: &MachineSpec,
        on_event: OnEvent,
    ) -> Result<Box<dyn Machine>, LaunchError>;
}

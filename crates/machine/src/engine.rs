//! What an engine is, and the choice of one.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ktstr_report::TimingSlack;
use ktstr_topology::Topology;

use crate::kvm::KvmEngine;
use crate::machine::{End, Machine};
use crate::spec::{MachineSpec, SpecError};
use crate::tcg::TcgEngine;

/// What the user asked to run machines on: `KTSTR_ENGINE`, `--engine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// The best that this host can do.
    #[default]
    Auto,
    /// Our own microVM on the host's KVM.
    Kvm,
    /// QEMU as a child process, emulating the CPU in software.
    Tcg,
}

impl EngineKind {
    /// Every kind, in the order in which texts list them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Kvm, Self::Tcg];

    /// The word that the user writes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Whether a machine that did not start for `error` may start on `tcg`, and the user left the choice to us:
    /// KVM passed the probe, but refused this machine.
    pub fn falls_back_on(self, error: &LaunchError) -> bool {
        self == Self::Auto && matches!(error, LaunchError::Vmm(_))
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

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

/// Called exactly once, from a thread of the engine, when the machine has ended and its process is gone.
pub type OnEnd = Box<dyn FnOnce(End) + Send>;

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

    /// Starts a machine. `on_end` is dropped uncalled when this fails.
    fn launch(&self, spec: &MachineSpec, on_end: OnEnd) -> Result<Box<dyn Machine>, LaunchError>;
}

/// An engine, and why it is this one.
#[derive(Debug)]
pub struct Chosen {
    /// The engine.
    pub engine: Box<dyn Engine>,
    /// What `auto` went by; nothing when the user chose.
    pub why: Option<String>,
}

/// The engine for `kind`. `kvm` is one that a tiny guest has shown to run a kernel; `auto` is `kvm` where it is
/// usable, else `tcg`.
pub fn choose(kind: EngineKind, options: &EngineOptions) -> Result<Chosen, EngineError> {
    let tcg =
        || -> Result<Box<dyn Engine>, EngineError> { Ok(Box::new(TcgEngine::find(options)?)) };
    let (engine, why): (Box<dyn Engine>, _) = match kind {
        EngineKind::Tcg => (tcg()?, None),
        EngineKind::Kvm => match KvmEngine::probe(options) {
            Ok(engine) => (Box::new(engine), None),
            Err(source) => {
                return Err(EngineError::KvmUnusable {
                    source: Box::new(source),
                });
            }
        },
        EngineKind::Auto => match KvmEngine::probe(options) {
            Ok(engine) => (Box::new(engine), Some("KVM is usable".to_owned())),
            Err(unusable) => (tcg()?, Some(format!("KVM is not usable: {unusable}"))),
        },
    };
    Ok(Chosen { engine, why })
}

impl Chosen {
    /// What machines run on, in one line: `engine: tcg (QEMU 7.2.22, one emulation thread)`, and why it is this
    /// one if `auto` chose it. `name` is the word for it.
    pub fn announcement(&self, name: &str) -> String {
        let engine = format!("engine: {name} ({})", self.engine.describe());
        match &self.why {
            Some(why) => format!("{engine}; {why}"),
            None => engine,
        }
    }
}

#[cfg(test)]
mod tests {
    use ktstr_vmm::StartError;

    use super::*;

    #[test]
    fn only_a_microvm_that_auto_chose_is_replaced() {
        let refused = LaunchError::from(StartError::KvmCpus { cpus: 9, max: 8 });
        assert!(EngineKind::Auto.falls_back_on(&refused));
        assert!(!EngineKind::Kvm.falls_back_on(&refused));
        assert!(!EngineKind::Auto.falls_back_on(&SpecError::NoKernel.into()));
    }
}

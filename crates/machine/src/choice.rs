//! The choice of an engine.

use std::fmt;

use crate::engine::{Engine, EngineError, EngineOptions, LaunchError};
use crate::kvm::KvmEngine;
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
    use crate::spec::SpecError;

    #[test]
    fn only_a_microvm_that_auto_chose_is_replaced() {
        let refused = LaunchError::from(StartError::KvmCpus { cpus: 9, max: 8 });
        assert!(EngineKind::Auto.falls_back_on(&refused));
        assert!(!EngineKind::Kvm.falls_back_on(&refused));
        assert!(!EngineKind::Auto.falls_back_on(&SpecError::NoKernel.into()));
    }
}

//! The choice of where tests run.

use std::fmt;
use std::str::FromStr;

use ktstr_machine::{Engine, EngineKind};

use super::Runner;
use super::here::Here;
use super::nested::Nested;
use super::resources::Resources;

/// Where tests run: what `KTSTR_ENGINE` and `--engine` choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunsIn {
    /// In machines of this host, on an engine of this kind.
    ThisHost(EngineKind),
    /// In `kvm` machines of a host that is itself an emulated machine of this host.
    Nested,
}

impl Default for RunsIn {
    fn default() -> Self {
        Self::ThisHost(EngineKind::default())
    }
}

impl RunsIn {
    /// Every choice, in the order in which texts list them.
    pub fn all() -> impl Iterator<Item = Self> {
        let here = EngineKind::ALL.into_iter().map(Self::ThisHost);
        here.chain([Self::Nested])
    }

    /// The word that the user writes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ThisHost(kind) => kind.name(),
            Self::Nested => Nested::NAME,
        }
    }

    /// All words: `auto, kvm, tcg or nested`.
    pub fn names() -> String {
        let names: Vec<&str> = Self::all().map(Self::name).collect();
        match names.split_last() {
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }

    /// The engine of the machines that this host starts.
    pub(crate) const fn engine(self) -> EngineKind {
        match self {
            Self::ThisHost(kind) => kind,
            Self::Nested => Nested::OUTER_ENGINE,
        }
    }

    /// Whether tests have a host other than this one, where a `host_only` test runs as well.
    pub const fn has_inner_host(self) -> bool {
        matches!(self, Self::Nested)
    }

    /// What runs tests there. `engine` is the one chosen for [`Self::engine`].
    pub(crate) fn runner<'a>(
        self,
        resources: &'a Resources,
        engine: &'a dyn Engine,
    ) -> Box<dyn Runner + 'a> {
        match self {
            Self::ThisHost(kind) => Box::new(Here::new(resources, kind, engine)),
            Self::Nested => Box::new(Nested::new(resources, engine)),
        }
    }

    /// What runs shells there.
    pub(crate) fn here<'a>(
        self,
        resources: &'a Resources,
        engine: &'a dyn Engine,
    ) -> Result<Here<'a>, TestsOnly> {
        match self {
            Self::ThisHost(kind) => Ok(Here::new(resources, kind, engine)),
            Self::Nested => Err(TestsOnly),
        }
    }
}

impl fmt::Display for RunsIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<EngineKind> for RunsIn {
    fn from(kind: EngineKind) -> Self {
        Self::ThisHost(kind)
    }
}

/// A shell has no use for a machine around its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the `{}` engine runs tests only: use `--engine tcg`, or `--engine kvm` where there is a KVM",
    Nested::NAME
)]
pub struct TestsOnly;

/// There is no such choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no engine `{name}`: use {}", RunsIn::names())]
pub struct UnknownEngine {
    /// What was written.
    pub name: String,
}

impl FromStr for RunsIn {
    type Err = UnknownEngine;

    fn from_str(text: &str) -> Result<Self, UnknownEngine> {
        Self::all()
            .find(|place| place.name() == text)
            .ok_or_else(|| UnknownEngine {
                name: text.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for place in RunsIn::all() {
            assert_eq!(place.name().parse(), Ok(place));
        }
        insta::assert_snapshot!(
            "qemu".parse::<RunsIn>().unwrap_err(),
            @"there is no engine `qemu`: use auto, kvm, tcg or nested"
        );
    }

    #[test]
    fn the_machine_around_an_inner_host_is_emulated() {
        assert_eq!(RunsIn::Nested.engine(), EngineKind::Tcg);
    }
}

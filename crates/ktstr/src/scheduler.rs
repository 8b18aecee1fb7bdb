//! Declaring the scheduler under test.

use std::path::{Path, PathBuf};

use ktstr_declaration::SchedulerOptions;
use ktstr_host::{SchedulerPlan, SchedulerSource};
use ktstr_scenario::{Assert, Check};
use ktstr_topology::Topology;

/// A scheduler to run tests under. Declare it with [`declare_scheduler!`](crate::declare_scheduler), or build it:
///
/// ```
/// use ktstr::Scheduler;
///
/// const MINE: Scheduler = Scheduler::named("mine")
///     .binary_discover("scx_mine")
///     .sched_args(&["--slice-us", "5000"])
///     .topology(1, 2, 2, 1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Scheduler {
    name: &'static str,
    source: Option<Source>,
    topology: Option<Topology>,
    sched_args: &'static [&'static str],
    ops: Option<&'static str>,
    kernels: &'static [&'static str],
    checks_off: &'static [Check],
    manifest_dir: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Discover(&'static str),
    Path(&'static str),
    Builtin {
        enable: &'static str,
        disable: &'static str,
        is_enabled: Option<&'static str>,
    },
}

impl Scheduler {
    /// A scheduler by this name, which reports use. It needs one of [`binary_discover`](Self::binary_discover),
    /// [`binary_path`](Self::binary_path) and [`kernel_builtin`](Self::kernel_builtin).
    pub const fn named(name: &'static str) -> Self {
        Self {
            name,
            source: None,
            topology: None,
            sched_args: &[],
            ops: None,
            kernels: &[],
            checks_off: &[],
            manifest_dir: None,
        }
    }

    /// Its program is the file that the environment variable `KTSTR_SCHEDULER` names, else the binary target
    /// `binary`, which is built with cargo in the workspace of the crate that declares the scheduler. A build
    /// that fails fails the test.
    #[must_use]
    pub const fn binary_discover(mut self, binary: &'static str) -> Self {
        self.source = Some(Source::Discover(binary));
        self
    }

    /// Its program is this file; a relative path starts at the crate that declares the scheduler.
    #[must_use]
    pub const fn binary_path(mut self, path: &'static str) -> Self {
        self.source = Some(Source::Path(path));
        self
    }

    /// It is part of the kernel, and these shell commands switch it on and off. If it is not one of sched_ext, it needs
    /// [`is_enabled`](Self::is_enabled) too: else nothing shows that it is on, and its tests are inconclusive.
    #[must_use]
    pub const fn kernel_builtin(mut self, enable: &'static str, disable: &'static str) -> Self {
        self.source = Some(Source::Builtin {
            enable,
            disable,
            is_enabled: None,
        });
        self
    }

    /// A shell command that ends with status 0 while the scheduler of [`kernel_builtin`](Self::kernel_builtin) is on, and
    /// with another while it is off: `grep -qw FEATURE /sys/kernel/debug/sched/features`.
    ///
    /// # Panics
    ///
    /// When the scheduler is no such one; at compile time, if used in a constant.
    #[must_use]
    pub const fn is_enabled(mut self, command: &'static str) -> Self {
        let Some(Source::Builtin {
            enable, disable, ..
        }) = self.source
        else {
            panic!(
                "`is_enabled` is for a scheduler that commands switch on: call kernel_builtin first"
            );
        };
        self.source = Some(Source::Builtin {
            enable,
            disable,
            is_enabled: Some(command),
        });
        self
    }

    /// The machine that its tests get, where they don't declare their own: NUMA nodes, LLCs in total, cores of
    /// each LLC, threads of each core.
    ///
    /// # Panics
    ///
    /// When there can be no such machine; at compile time, if used in a constant.
    #[must_use]
    pub const fn topology(mut self, numa_nodes: u32, llcs: u32, cores: u32, threads: u32) -> Self {
        let Ok(topology) = Topology::new(numa_nodes, llcs, cores, threads) else {
            panic!("the scheduler's topology is impossible");
        };
        self.topology = Some(topology);
        self
    }

    /// Arguments of its program; those of a test come after them.
    #[must_use]
    pub const fn sched_args(mut self, args: &'static [&'static str]) -> Self {
        self.sched_args = args;
        self
    }

    /// The name that the kernel has for it, or its beginning. If unset, the name of a discovered binary without
    /// `scx_`; any for a file, which may have been renamed.
    #[must_use]
    pub const fn ops(mut self, ops: &'static str) -> Self {
        self.ops = Some(ops);
        self
    }

    /// Releases that it is for, by their beginning: `6.16`, `7.3.4`. On others its tests are skipped.
    #[must_use]
    pub const fn kernels(mut self, kernels: &'static [&'static str]) -> Self {
        self.kernels = kernels;
        self
    }

    pub(crate) const fn is_discovered(&self) -> bool {
        matches!(self.source, Some(Source::Discover(_)))
    }

    /// Checks of declared properties that it ignores by design. They are off in its tests, and the report says by
    /// whom; a test can turn them on.
    #[must_use]
    pub const fn checks_off(mut self, checks: &'static [Check]) -> Self {
        self.checks_off = checks;
        self
    }

    /// Folder of the crate that declares it: `env!("CARGO_MANIFEST_DIR")`. If unset, that of the test.
    #[must_use]
    pub const fn declared_in(mut self, manifest_dir: &'static str) -> Self {
        self.manifest_dir = Some(manifest_dir);
        self
    }
}

/// The machine of a test under `scheduler`, which has the counts that the test doesn't declare.
pub const fn topology_under(scheduler: &Scheduler, declared: [Option<u32>; 4]) -> Topology {
    assert!(
        scheduler.source.is_some(),
        "the scheduler has no program: call binary_discover, binary_path or kernel_builtin"
    );
    match Topology::declared(declared, scheduler.topology) {
        Ok(topology) => topology,
        Err(_) => {
            panic!("the topology that the test and its scheduler declare together is impossible")
        }
    }
}

/// The checks of a test under `scheduler` that says nothing about them.
pub const fn assert_under(scheduler: &Scheduler) -> Assert {
    let mut assert = Assert::DEFAULT;
    let mut at = 0;
    while at < scheduler.checks_off.len() {
        assert = assert.off_by_scheduler(scheduler.checks_off[at], scheduler.name);
        at += 1;
    }
    assert
}

/// How one test uses a scheduler.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerUse {
    /// The scheduler.
    pub scheduler: &'static Scheduler,
    /// What the test says of it.
    pub options: SchedulerOptions,
    /// Folder of the crate that declares the test.
    pub manifest_dir: &'static str,
}

impl SchedulerUse {
    /// What the host needs of it. `chosen` is the file that the environment names.
    pub(crate) fn plan(&self, chosen: Option<&Path>) -> SchedulerPlan {
        let scheduler = self.scheduler;
        let folder = Path::new(scheduler.manifest_dir.unwrap_or(self.manifest_dir));
        let source = match (scheduler.source, chosen) {
            (Some(Source::Discover(_)), Some(path)) => SchedulerSource::Path(path.to_owned()),
            (Some(Source::Discover(binary)), None) => SchedulerSource::Cargo {
                binary: binary.to_owned(),
                manifest_dir: folder.to_owned(),
            },
            (
                Some(Source::Builtin {
                    enable,
                    disable,
                    is_enabled,
                }),
                _,
            ) => SchedulerSource::Builtin {
                enable: enable.to_owned(),
                disable: disable.to_owned(),
                is_enabled: is_enabled.map(str::to_owned),
            },
            (Some(Source::Path(path)), _) => SchedulerSource::Path(folder.join(path)),
            // Refused at compile time by `topology_under`.
            (None, _) => SchedulerSource::Path(PathBuf::new()),
        };
        let ops = scheduler.ops.map(str::to_owned);
        SchedulerPlan {
            name: scheduler.name.to_owned(),
            ops: ops.or_else(|| usual_ops(&source)),
            source,
            args: [scheduler.sched_args, self.options.extra_args]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            kernels: scheduler.kernels.iter().map(|&k| k.to_owned()).collect(),
            options: self.options,
        }
    }
}

/// `scx_x` calls itself `x`, or `x` and its version. A file may have been renamed.
fn usual_ops(source: &SchedulerSource) -> Option<String> {
    match source {
        SchedulerSource::Cargo { binary, .. } => binary.strip_prefix("scx_").map(str::to_owned),
        SchedulerSource::Path(_) | SchedulerSource::Builtin { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: Scheduler = Scheduler::named("x")
        .binary_discover("scx_x")
        .topology(1, 4, 2, 1)
        .sched_args(&["--a"])
        .declared_in("/w/x");

    const USE: SchedulerUse = SchedulerUse {
        scheduler: &DECLARED,
        options: SchedulerOptions {
            extra_args: &["--b"],
            ..SchedulerOptions::DEFAULT
        },
        manifest_dir: "/w/tests",
    };

    #[test]
    fn counts_are_inherited_one_by_one() {
        let topology = topology_under(&DECLARED, [None, Some(2), None, Some(2)]);
        assert_eq!(topology, Topology::new(1, 2, 2, 2).expect("possible"));
        const BARE: Scheduler = Scheduler::named("y").binary_path("y");
        let topology = topology_under(&BARE, [Some(2), None, None, None]);
        assert_eq!(topology, Topology::new(2, 2, 1, 1).expect("possible"));
    }

    #[test]
    fn checks_that_a_scheduler_turns_off_can_be_turned_on_by_a_test() {
        const PLAIN: Scheduler = Scheduler::named("plain").checks_off(&[Check::CpuShare]);
        let assert = assert_under(&PLAIN);
        let off = Assert::DEFAULT.off_by_scheduler(Check::CpuShare, "plain");
        assert_eq!(assert, off);
        assert!(assert.cpu_share(true).of(Check::CpuShare).is_by_test());
    }

    #[test]
    fn it_is_built_where_it_is_declared_unless_the_environment_names_a_file() {
        let plan = USE.plan(None);
        let source = SchedulerSource::Cargo {
            binary: "scx_x".to_owned(),
            manifest_dir: "/w/x".into(),
        };
        assert_eq!(plan.source, source);
        assert_eq!(plan.args, ["--a", "--b"]);
        assert_eq!(plan.ops.as_deref(), Some("x"));
        let plan = USE.plan(Some(Path::new("/opt/scx_other")));
        assert_eq!(plan.source, SchedulerSource::Path("/opt/scx_other".into()));
        assert_eq!(plan.ops, None);
    }

    #[test]
    fn a_relative_path_starts_at_the_crate() {
        const BESIDE: Scheduler = Scheduler::named("y").binary_path("bin/y").ops("why");
        let plan = SchedulerUse {
            scheduler: &BESIDE,
            ..USE
        }
        .plan(None);
        assert_eq!(plan.source, SchedulerSource::Path("/w/tests/bin/y".into()));
        assert_eq!(plan.ops.as_deref(), Some("why"));
    }
}

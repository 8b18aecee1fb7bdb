//! A test in a machine inside a machine: the outer one emulated, with a real KVM in it.
//!
//! The outer guest is this binary again, as a host with the `kvm` engine and the kernel that travels with
//! it. Its sidecar becomes ours, marked as nested.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ktstr_machine::{Engine, EngineKind};
use ktstr_report::{Assert, EngineInfo, FailureKind, Outcome, Sidecar, Timings};
use ktstr_topology::Topology;
use ktstr_wire::{InnerTest, Task};

use super::resources::{KVM_MODULES, Resources, give_kvm};
use super::set_up::SetUpError;
use super::{Ran, Runner};
use crate::events::{RunEvent, RunObserver};
use crate::initramfs::Include;
use crate::memory::MemoryPlan;
use crate::observe::Observation;
use crate::plan::{INNER_BOOT, Limits, TestPlan, boot_limit};
use crate::run::drive;
use crate::verdict::{against_outer_machine, conclude, inconclusive};

/// CPUs of the outer machine. With more, on one emulation thread, inner vCPUs that wait for each other do so
/// until the turns of the outer ones change, and a boot takes minutes.
const OUTER_TOPOLOGY: Topology = Topology::SINGLE;

/// Memory of the outer machine beyond that of the inner one: kernel, both initramfs with the files unpacked
/// from them, and the kernel image for the inner machine.
const OUTER_MIB: u64 = 1536;

/// How much longer than on a real machine the inner host may take for everything.
const OUTER_LIMIT: Duration = Duration::from_secs(180).saturating_add(INNER_BOOT);

/// Runs a test on a host that is itself a machine.
#[derive(Debug)]
pub(super) struct Nested<'a> {
    resources: &'a Resources,
    engine: &'a dyn Engine,
}

impl Runner for Nested<'_> {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn run(&self, plan: &TestPlan, on: &mut dyn RunObserver) -> Result<Ran, SetUpError> {
        let resources = self.resources;
        // A shape that can't be is refused before the outer machine boots.
        let inner = plan.memory().resolve(&plan.shape.topology)?;
        let topology = OUTER_TOPOLOGY;
        let files = self.kernel_files(&plan.modules())?;
        let mut contents = resources.base_contents(files, &KVM_MODULES)?;
        let scheduler = resources.pack_scheduler(plan, &mut contents)?;
        let task = Task::InnerHost(InnerTest {
            name: plan.name.clone(),
            kernel: self.resources.kernel.key().to_owned(),
            run_id: plan.run_id.clone(),
            slack: resources.slack(self.engine, &topology),
            scheduler: scheduler.map(|include| include.guest),
        });
        let memory = MemoryPlan {
            memory_mib: Some(inner.total_mib().saturating_add(OUTER_MIB)),
            ..MemoryPlan::default()
        };
        // The inner host says what its machine has.
        let (mut spec, job) =
            resources.machine_spec(topology, &memory, &contents, task, &mut ())?;
        give_kvm(&mut spec);
        if plan.boot.performance_mode {
            // All of the inner machine's memory, in pages of 2 MiB.
            let pages = inner.total_mib().div_ceil(2);
            spec.cmdline.push(format!("hugepages={pages}"));
        }
        self.engine.check(&spec)?;
        let permit = resources.permit(self.engine, self.name(), &plan.name, &spec, on)?;
        let limits = Limits {
            boot: boot_limit(&topology),
            run: Some(plan.limits().boot + plan.limits().run.unwrap_or_default() + OUTER_LIMIT),
        };
        on.event(&RunEvent::Booting {
            attempt: 1,
            queued: permit.waited,
        });
        let record = drive(self.engine, &spec, &job, limits, None, on)?;
        Ok(Ran { record, limits })
    }

    fn conclude(&self, sidecar: &mut Sidecar, ran: Ran, assert: &Assert) -> Observation {
        let Ran { record, limits } = ran;
        let inner = record.sidecar.as_ref().map(|json| Sidecar::from_json(json));
        match inner {
            Some(Ok(inner)) => {
                let against = against_outer_machine(&record);
                let printed = record.output.text();
                *sidecar = marked(inner, sidecar, &printed, &self.engine.describe());
                if let Some(why) = against {
                    distrust(sidecar, why);
                }
                Observation::of_inner_host(record.inner_dump)
            }
            Some(Err(error)) => {
                let remark = format!("the inner host's sidecar can't be read: {error}");
                let observation = conclude(sidecar, record, limits, assert);
                sidecar.remarks.push(remark);
                observation
            }
            None => conclude(sidecar, record, limits, assert),
        }
    }
}

impl<'a> Nested<'a> {
    /// The word for it.
    pub(super) const NAME: &'static str = "nested";

    /// What runs the outer machine: only QEMU emulates AMD-V.
    pub(super) const OUTER_ENGINE: EngineKind = EngineKind::Tcg;

    pub(super) fn new(resources: &'a Resources, engine: &'a dyn Engine) -> Self {
        Self { resources, engine }
    }

    /// The kernel's entry in the cache, for the cache of the inner host. Of its modules, only the files of these and
    /// of those that they need.
    fn kernel_files(&self, modules: &[&str]) -> Result<Vec<Include>, SetUpError> {
        let folder = self.resources.kernel.dir();
        let lists =
            ["modules/modules.builtin", "modules/modules.dep"].map(|name| folder.join(name));
        let entries = fs::read_dir(folder).map_err(|source| SetUpError::KernelFiles {
            folder: folder.to_owned(),
            source,
        })?;
        // A kernel may have no modules at all.
        let modules = match modules {
            [] => Vec::new(),
            names => self.resources.kernel.modules_for(names)?,
        };
        let files = entries
            .flatten()
            .map(|entry| entry.path())
            .chain(lists)
            .chain(modules.into_iter().map(|module| module.path))
            .filter(|path| path.is_file());
        Ok(files
            .filter_map(|path| self.in_inner_cache(folder, path.as_path()))
            .collect())
    }

    fn in_inner_cache(&self, folder: &Path, file: &Path) -> Option<Include> {
        let name = file.strip_prefix(folder).ok()?;
        let guest = Path::new(InnerTest::CACHE)
            .join("kernels")
            .join(self.resources.kernel.key())
            .join(name);
        Some(Include {
            host: file.to_owned(),
            guest: guest.to_str()?.to_owned(),
        })
    }
}

/// Takes back what an inner host said of its test, but for a failure.
fn distrust(sidecar: &mut Sidecar, why: String) {
    if sidecar.outcome == Outcome::Fail {
        sidecar.remarks.push(why);
    } else {
        (sidecar.outcome, sidecar.failure) = inconclusive(FailureKind::Harness, why, "");
    }
}

/// The inner host's sidecar as ours.
fn marked(inner: Sidecar, ours: &Sidecar, printed: &str, outer: &str) -> Sidecar {
    let engine = inner.engine.unwrap_or_default();
    Sidecar {
        engine: Some(EngineInfo {
            name: Nested::NAME.to_owned(),
            detail: format!("{} ({}) in {outer}", engine.name, engine.detail),
        }),
        kernel: ours.kernel.clone(),
        started_unix_ms: ours.started_unix_ms,
        timings: Timings {
            queued_ms: ours.timings.queued_ms,
            ..inner.timings
        },
        output: format!("{printed}{}", inner.output),
        remarks: [ours.remarks.as_slice(), &inner.remarks].concat(),
        ..inner
    }
}

//! All that is left of a machine whose test has ended.

use ktstr_monitor::Series;
use ktstr_monitor::state::KernelState;
use ktstr_report::{
    AssertResult, Failure, FailureKind, Outcome, Phase, PhaseCgroup, SchedulerReport, Sidecar,
};
use serde::Serialize;

use super::outcome::numbered;
use crate::diagnosis::{self, Scene};
use crate::observe::{Moment, Observation};

/// Everything that the host has of one run of a test. A `post_vm` function gets it.
#[derive(Clone, Debug)]
pub struct VmResult {
    /// What is reported and kept: outcome, checks, workers, kernel, output.
    pub sidecar: Sidecar,
    /// What the host saw of the kernel: samples and snapshots.
    pub observation: Observation,
}

/// Version of a failure dump's layout. Fields are only ever added under the same number.
pub const DUMP_SCHEMA_VERSION: u32 = 1;

/// A failure dump as it is kept.
#[derive(Serialize)]
struct FailureDump<'a> {
    schema: u32,
    run_id: &'a str,
    test: &'a str,
    kernel: Option<&'a str>,
    scheduler: Option<&'a SchedulerReport>,
    console_tail: &'a str,
    moments: &'a [Moment],
}

impl VmResult {
    /// Of a test that no machine was started for.
    pub fn without_machine(sidecar: Sidecar) -> Self {
        Self {
            sidecar,
            observation: Observation::default(),
        }
    }

    /// Whether this host ran the test, not an inner one.
    pub fn is_of_this_host(&self) -> bool {
        self.observation.inner.is_none()
    }

    /// The snapshot that the test took under this label.
    pub fn snapshot(&self, label: &str) -> Option<&Moment> {
        let mut snapshots = self.observation.snapshots.iter();
        snapshots.find(|moment| moment.label == label)
    }

    /// What the workers of the cgroup `name` did in `phase`.
    pub fn phase_cgroup(&self, phase: Phase, name: &str) -> Option<&PhaseCgroup> {
        let mut phases = self.sidecar.result.phases.iter();
        let phase = phases.find(|report| report.phase == phase)?;
        phase.cgroups.iter().find(|cgroup| cgroup.name == name)
    }

    /// What `value` reads off each snapshot, in order of time.
    pub fn series(
        &self,
        name: impl Into<String>,
        unit: impl Into<String>,
        value: impl Fn(&KernelState) -> Option<f64>,
    ) -> Series {
        self.observation.snapshot_series(name, unit, value)
    }

    /// A global variable of the scheduler over the snapshots, by its path in `.bss` or `.data`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count beyond 2^53 is near enough as a float"
    )]
    pub fn global_series(&self, path: &str) -> Series {
        self.series(path, "", |kernel| {
            Some(kernel.global(path)?.as_integer()? as f64)
        })
    }

    /// Takes in what a `post_vm` function returned: its checks, or its error with the causes, outermost first.
    pub fn take_post_vm(&mut self, returned: Result<AssertResult, Vec<String>>) {
        let sidecar = &mut self.sidecar;
        match returned {
            Ok(result) => {
                let worst = result.checks.iter().map(|check| check.outcome).max();
                sidecar.outcome = sidecar.outcome.max(worst.unwrap_or(sidecar.outcome));
                sidecar.result.merge(result);
            }
            Err(chain) => {
                sidecar.outcome = Outcome::Fail;
                let reason = chain.first().map_or("no reason was given", String::as_str);
                let failure = Failure {
                    kind: FailureKind::Test,
                    summary: format!("post_vm returned an error: {reason}"),
                    detail: numbered(&chain),
                };
                sidecar.failure.get_or_insert(failure);
            }
        }
    }

    /// Fills in the cause of a failure, and what the report shows of the failure dump; nothing for a test that is
    /// green.
    pub fn explain(&mut self) {
        let scenes: Vec<Scene<'_>> = self.dump().iter().map(Scene::from).collect();
        let cause = diagnosis::cause(&self.sidecar, &scenes);
        // The first is nearest to the cause.
        let first = self.dump().first();
        let shown = first.map(|moment| (moment.summary(), moment.maps_summary()));
        self.sidecar.cause = cause;
        if let Some((state, maps)) = shown {
            self.sidecar.failure_dump = state;
            self.sidecar.failure_maps = maps;
        }
    }

    /// The failure dump as JSON; nothing for a test that is green, or one whose kernel could not be seen.
    pub fn dump_json(&self) -> Option<serde_json::Result<Vec<u8>>> {
        if let Some(inner) = &self.observation.inner {
            return inner.dump.clone().map(Ok);
        }
        let kernel = self.sidecar.kernel.as_ref();
        let moments = self.dump();
        (!moments.is_empty()).then(|| {
            serde_json::to_vec_pretty(&FailureDump {
                schema: DUMP_SCHEMA_VERSION,
                run_id: &self.sidecar.run_id,
                test: &self.sidecar.test,
                kernel: kernel.map(|kernel| kernel.release.as_str()),
                scheduler: self.sidecar.scheduler.as_ref(),
                console_tail: &self.sidecar.console_tail,
                moments,
            })
        })
    }

    fn dump(&self) -> &[Moment] {
        match self.sidecar.outcome.is_green() {
            true => &[],
            false => &self.observation.dump,
        }
    }
}

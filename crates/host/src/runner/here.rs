//! Tests in machines of this host.

use std::time::Instant;

use ktstr_machine::{Engine, EngineKind, ServicePriority};
use ktstr_report::{EngineInfo, Sidecar};
use ktstr_wire::Task;

use super::Runner;
use super::resources::Resources;
use super::set_up::SetUpError;
use crate::causes::chain;
use crate::cpu_queue::Waiting;
use crate::millis::millis;
use crate::observe::Observation;
use crate::plan::TestPlan;
use crate::run::{Booted, DriveError, boot, drive};
use crate::scheduler::watchdog_job;
use crate::verdict::conclude;

/// Runs a test in one machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here<'a> {
    pub(super) resources: &'a Resources,
    kind: EngineKind,
    pub(super) engine: &'a dyn Engine,
}

impl<'a> Here<'a> {
    /// `engine` is the one chosen for `kind`.
    pub(super) fn new(resources: &'a Resources, kind: EngineKind, engine: &'a dyn Engine) -> Self {
        Self {
            resources,
            kind,
            engine,
        }
    }

    /// The engine that `auto` takes after all, and what to say about it, if KVM turned out to be not usable.
    pub(super) fn fallback(&self, error: &SetUpError) -> Option<(Box<dyn Engine>, String)> {
        let SetUpError::Drive(DriveError::Launch(why)) = error else {
            return None;
        };
        if !self.kind.falls_back_on(why) {
            return None;
        }
        let options = &self.resources.engine_options;
        let tcg = ktstr_machine::choose(EngineKind::Tcg, options).ok()?;
        let why = chain(why);
        let remark = format!("KVM refused this machine, so it ran on tcg: {why}");
        Some((tcg.engine, remark))
    }

    /// The same runner with another engine.
    pub(super) fn on<'b>(&self, engine: &'b dyn Engine) -> Here<'b>
    where
        'a: 'b,
    {
        Here {
            resources: self.resources,
            kind: self.kind,
            engine,
        }
    }

    fn run_once(
        &self,
        plan: &TestPlan,
        started: Instant,
        sidecar: &mut Sidecar,
        on_wait: &mut dyn FnMut(&Waiting),
    ) -> Result<Observation, SetUpError> {
        let (resources, engine) = (self.resources, self.engine);
        let mut contents = resources.base_contents(plan.includes.clone(), &plan.modules())?;
        let program = resources.pack_scheduler(plan, &mut contents)?;
        let scheduler = plan.scheduler.as_ref().zip(program.as_ref());
        let task = Task::Test {
            name: plan.name.clone(),
            slack: resources.slack(engine, &plan.shape.topology),
            scheduler: scheduler.map(|(scheduler, program)| {
                let timeout_ms = scheduler.options.watchdog_timeout_ms;
                let watchdog = timeout_ms.map(|ms| watchdog_job(ms, &resources.image));
                scheduler.job(program, watchdog)
            }),
        };
        let memory = plan.memory();
        let mut spec = resources.machine_spec(
            plan.shape.topology,
            &memory,
            &contents,
            task,
            &mut sidecar.remarks,
        )?;
        sidecar.memory_mib = spec.numa.total_mib();
        sidecar.numa = sidecar.numa.take().map(|_| spec.numa.clone());
        spec.boot = plan.boot;
        spec.devices = ktstr_machine::devices(&plan.boot);
        engine.check(&spec)?;
        sidecar.timings.prepare_ms = millis(started.elapsed());
        let own_cpus = plan.boot.performance_mode;
        let mut share = resources.share(engine, self.name(), &plan.name, &spec, on_wait)?;
        sidecar.timings.queued_ms = millis(share.waited);
        spec.host_cpus = std::mem::take(&mut share.own_cpus);
        // The threads that serve the machine are started by this one, and inherit its priority. Inside a machine this
        // process has no other purpose, and no CPU but the vCPU's: there its other threads must have it too.
        let take = match resources.outer.is_some() {
            true => ServicePriority::take_for_process,
            false => ServicePriority::take,
        };
        let priority = own_cpus.then(take).transpose();
        let priority = priority.map_err(SetUpError::Priority)?;
        let limits = resources.limits(plan);
        let is_emulated = engine.emulates_cpus() || resources.outer.is_some();
        let Booted {
            record,
            retries,
            remarks,
        } = boot(is_emulated, || {
            drive(
                engine,
                &spec,
                limits,
                Some(resources.observer_settings(plan, limits)),
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
}

impl Runner for Here<'_> {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn run(
        &self,
        plan: &TestPlan,
        started: Instant,
        sidecar: &mut Sidecar,
        on_wait: &mut dyn FnMut(&Waiting),
    ) -> Result<Observation, SetUpError> {
        let ran = self.run_once(plan, started, sidecar, on_wait);
        let Some((tcg, remark)) = ran.as_ref().err().and_then(|error| self.fallback(error)) else {
            return ran;
        };
        sidecar.remarks.push(remark);
        sidecar.engine = Some(EngineInfo {
            name: tcg.name().to_owned(),
            detail: tcg.describe(),
        });
        self.on(tcg.as_ref())
            .run_once(plan, started, sidecar, on_wait)
    }
}

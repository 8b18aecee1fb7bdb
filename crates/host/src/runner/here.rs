//! Tests in machines of this host.

use ktstr_machine::{Engine, EngineKind, ServicePriority};
use ktstr_report::EngineInfo;
use ktstr_wire::Task;

use super::resources::Resources;
use super::set_up::SetUpError;
use super::{Ran, Runner};
use crate::causes::chain;
use crate::events::{RunEvent, RunObserver};
use crate::initramfs::Include;
use crate::plan::TestPlan;
use crate::run::{DriveError, boot, drive};
use crate::scheduler::watchdog_job;

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

    /// The engine that `auto` takes after all, if KVM turned out to be not usable.
    pub(super) fn fallback(
        &self,
        error: &SetUpError,
        on: &mut dyn RunObserver,
    ) -> Option<Box<dyn Engine>> {
        let SetUpError::Drive(DriveError::Launch(why)) = error else {
            return None;
        };
        if !self.kind.falls_back_on(why) {
            return None;
        }
        let options = &self.resources.engine_options;
        let tcg = ktstr_machine::choose(EngineKind::Tcg, options).ok()?.engine;
        let why = chain(why);
        on.event(&RunEvent::Fallback {
            engine: &EngineInfo {
                name: tcg.name().to_owned(),
                detail: tcg.describe(),
            },
            remark: &format!("KVM refused this machine, so it ran on tcg: {why}"),
        });
        Some(tcg)
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

    fn run_once(&self, plan: &TestPlan, on: &mut dyn RunObserver) -> Result<Ran, SetUpError> {
        let (resources, engine) = (self.resources, self.engine);
        let mut contents = resources.base_contents(plan.includes.clone(), &plan.modules())?;
        let program = resources.pack_scheduler(plan, &mut contents)?;
        let task = self.task(plan, program.as_ref());
        let (mut spec, job) =
            resources.machine_spec(plan.shape.topology, &plan.memory(), &contents, task, on)?;
        spec.boot = plan.boot;
        spec.devices = ktstr_machine::devices(&plan.boot);
        engine.check(&spec)?;
        on.event(&RunEvent::Prepared { memory: &spec.numa });
        let mut permit = resources.permit(engine, self.name(), &plan.name, &spec, on)?;
        spec.host_cpus = std::mem::take(&mut permit.own_cpus);
        let priority = self.service_priority(plan)?;
        let limits = resources.limits(plan);
        let is_emulated = engine.emulates_cpus() || resources.outer.is_some();
        let record = boot(is_emulated, permit.waited, on, |on| {
            let observe = resources.observer_settings(plan, limits);
            drive(engine, &spec, &job, limits, Some(observe), on)
        })?;
        drop((priority, permit));
        Ok(Ran { record, limits })
    }

    fn task(&self, plan: &TestPlan, program: Option<&Include>) -> Task {
        let resources = self.resources;
        let scheduler = plan.scheduler.as_ref().zip(program);
        Task::Test {
            name: plan.name.clone(),
            slack: resources.slack(self.engine, &plan.shape.topology),
            scheduler: scheduler.map(|(scheduler, program)| {
                let timeout_ms = scheduler.options.watchdog_timeout_ms;
                let watchdog = timeout_ms.map(|ms| watchdog_job(ms, &resources.image));
                scheduler.job(program, watchdog)
            }),
        }
    }

    /// The priority of the threads that serve a machine with host CPUs for itself. They are started by this one, and
    /// inherit it. Inside a machine this process has no other purpose, and no CPU but the vCPU's: there its other threads
    /// must have it too.
    fn service_priority(&self, plan: &TestPlan) -> Result<Option<ServicePriority>, SetUpError> {
        let take = match self.resources.outer {
            Some(_) => ServicePriority::take_for_process,
            None => ServicePriority::take,
        };
        let priority = plan.boot.performance_mode.then(take).transpose();
        priority.map_err(SetUpError::Priority)
    }
}

impl Runner for Here<'_> {
    fn name(&self) -> &'static str {
        self.engine.name()
    }

    fn run(&self, plan: &TestPlan, on: &mut dyn RunObserver) -> Result<Ran, SetUpError> {
        let ran = self.run_once(plan, on);
        match ran
            .as_ref()
            .err()
            .and_then(|error| self.fallback(error, on))
        {
            Some(tcg) => self.on(tcg.as_ref()).run_once(plan, on),
            None => ran,
        }
    }
}

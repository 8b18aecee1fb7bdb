//! Running one test in the test process.

use std::sync::Arc;

use anyhow::Context as _;
use ktstr_declaration::{Run, SchedulerOptions};
use ktstr_report::{AssertResult, Outcome, TimingSlack};
use ktstr_scenario::{
    Assert, CgroupKind, CgroupManager, Ctx, Host, LoadStop, SchedulerControl, checks,
};
use ktstr_wire::{DumpMoment, GuestStage, Job, Message, Request, SchedulerJob, TestEnd};

use crate::crash;
use crate::link::Link;
use crate::output::OutputPump;
use crate::scheduler::{Schedulers, Started};

/// What the guest needs to know of a test.
#[derive(Clone, Copy, Debug)]
pub struct TestCase {
    /// The run of its body.
    pub run: Run,
    /// What it says of its scheduler.
    pub scheduler: SchedulerOptions,
    /// Its checks.
    pub assert: Assert,
    /// Its body.
    pub body: fn(&Ctx) -> anyhow::Result<AssertResult>,
}

/// Finds a test of this binary by its full name.
pub type TestLookup = fn(&str) -> Option<TestCase>;

/// Runs the test `name` and sends what it came to.
pub(crate) fn run(
    job: &Job,
    name: &str,
    slack: &TimingSlack,
    scheduler: Option<&SchedulerJob>,
    link: Link,
    tests: TestLookup,
) -> anyhow::Result<()> {
    crash::install_in_test_process();
    let Some(case) = tests(name) else {
        link.send(&Message::SetupFailed(vec![format!(
            "the test {name} is not in this binary's registry"
        )]))?;
        return Ok(link.send(&Message::Bye)?);
    };
    let link = Arc::new(link);
    let pump = OutputPump::start(Arc::clone(&link)).context("redirecting the test's output")?;
    let load_stop = LoadStop::default();
    let ctx = match context(job, &case, slack, &load_stop, &link) {
        Ok(ctx) => ctx,
        Err(error) => {
            let chain = error.chain().map(ToString::to_string).collect();
            pump.finish()?;
            link.send(&Message::SetupFailed(chain))?;
            return Ok(link.send(&Message::Bye)?);
        }
    };
    let started = scheduler
        .map(|scheduler| {
            link.send(&Message::Stage(GuestStage::Attaching))?;
            Schedulers::start(scheduler, &link, &load_stop)
        })
        .transpose()?;
    let end = match started {
        Some(Started::Failed(mut result)) => {
            result.merge(checks::judge_live_machine(&case.assert, &job.topology));
            TestEnd {
                result,
                error: None,
            }
        }
        Some(Started::Attached(schedulers)) => run_body(&case, ctx, Some(schedulers), &link)?,
        None => run_body(&case, ctx, None, &link)?,
    };
    pump.finish()?;
    link.send(&Message::Result(end))?;
    Ok(link.send(&Message::Bye)?)
}

/// What the body gets. A declared workload root is made here, before the scheduler starts.
fn context(
    job: &Job,
    case: &TestCase,
    slack: &TimingSlack,
    load_stop: &LoadStop,
    link: &Arc<Link>,
) -> anyhow::Result<Ctx> {
    let declared = case.run.workload_root_cgroup;
    let cgroups = CgroupManager::of_tests(declared.unwrap_or(CgroupManager::WORKLOAD_ROOT))?;
    if let Some(root) = declared {
        cgroups
            .make_root(CgroupKind::Domain)
            .with_context(|| format!("making the workload root {root}"))?;
    }
    let numa = job.numa.clone();
    let ctx = Ctx::new(
        job.topology,
        numa,
        cgroups,
        case.run.duration(),
        case.assert,
        slack.clone(),
    );
    let ctx = ctx.with_load_stop(load_stop.clone());
    Ok(ctx.with_host(Arc::clone(link) as Arc<dyn Host>))
}

fn run_body(
    case: &TestCase,
    ctx: Ctx,
    schedulers: Option<Arc<Schedulers>>,
    link: &Arc<Link>,
) -> anyhow::Result<TestEnd> {
    link.send(&Message::Stage(GuestStage::Body))?;
    let control = schedulers.clone();
    let control = control.map(|schedulers| schedulers as Arc<dyn SchedulerControl>);
    let ctx = ctx.begin_body(control);
    let mut writes = case.scheduler.bpf_map_write.iter();
    let returned = writes
        .try_for_each(|&(path, value)| ctx.bpf_map_write(path, value))
        .map_err(anyhow::Error::from)
        .and_then(|()| (case.body)(&ctx));
    link.ask(Request::Dump(DumpMoment::BodyEnded))?;
    let of_scheduler = schedulers
        .map(|schedulers| {
            link.send(&Message::Stage(GuestStage::Detaching))?;
            schedulers.finish()
        })
        .transpose()?;
    link.send(&Message::Stage(GuestStage::Judging))?;
    let (mut result, error) = match returned {
        Ok(result) => (result, None),
        Err(error) => {
            let chain = error.chain().map(ToString::to_string).collect();
            (AssertResult::default(), Some(chain))
        }
    };
    let of_machine = checks::judge_live_machine(&case.assert, &ctx.topo);
    add(&mut result, of_scheduler.into_iter().chain([of_machine]));
    Ok(TestEnd { result, error })
}

/// Adds what was judged beside the body. A skipped body exercises neither the scheduler nor the kernel, and
/// stays a skip, unless something was wrong with them all the same.
fn add(result: &mut AssertResult, judged: impl IntoIterator<Item = AssertResult>) {
    let is_skip = result.skipped.is_some() && result.checks.is_empty();
    for mut judged in judged {
        if is_skip {
            judged.not_checked.clear();
            judged.checks.retain(|check| check.outcome != Outcome::Pass);
        }
        result.merge(judged);
    }
}

#[cfg(test)]
mod tests {
    use ktstr_report::CheckResult;

    use super::*;

    fn judged(value: f64) -> AssertResult {
        let mut judged = AssertResult::default();
        judged.push(CheckResult::at_most("kernel_log", value, 0.0, ""));
        judged.push_not_checked("cpus_online", "turned off by the test");
        judged
    }

    #[test]
    fn fault_a7_a_skip_is_not_green_after_the_kernel_complained() {
        let mut result = AssertResult::skip("not here");
        add(&mut result, [judged(0.0)]);
        assert_eq!(result, AssertResult::skip("not here"));
        add(&mut result, [judged(1.0)]);
        assert_eq!(result.outcome(), Outcome::Fail);
        // What could not be read is no evidence that all is well.
        let mut result = AssertResult::skip("not here");
        add(&mut result, [judged(f64::NAN)]);
        assert_eq!(result.outcome(), Outcome::Inconclusive);
    }

    #[test]
    fn a_body_that_ran_has_all_that_was_judged() {
        let mut result = AssertResult::default();
        add(&mut result, [judged(0.0)]);
        assert_eq!((result.checks.len(), result.not_checked.len()), (1, 1));
    }
}

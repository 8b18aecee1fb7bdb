//! Why a scheduler failed, in one line: what happened, to whom, because of what.
//!
//! A pure function of what a test left: the scheduler's report and log, and the kernel's state at the moments of
//! the failure dump. Each rule states facts that were read, never a guess; without one that fits, the line says
//! how the scheduler ended, and no more.

mod log;
mod stall;

use ktstr_monitor::state::{CpuState, ScxState};
use ktstr_report::{Outcome, SchedulerEnd, SchedulerReport, Sidecar};

use crate::observe::Moment;

/// What of a moment the rules look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// CPUs by number; empty if they could not be read.
    pub(crate) cpus: &'a [CpuState],
    /// sched_ext, if it could be read.
    pub(crate) sched_ext: Option<&'a ScxState>,
}

impl<'a> From<&'a Moment> for Scene<'a> {
    fn from(moment: &'a Moment) -> Self {
        Self {
            cpus: moment.kernel.cpus.as_deref().unwrap_or_default(),
            sched_ext: moment.kernel.sched_ext.as_ref().ok(),
        }
    }
}

/// The cause of a failure of the scheduler under test. `scenes` are in order of time. Empty for a test without a
/// scheduler, one that is green, and one whose scheduler was attached to the end.
pub(crate) fn cause(sidecar: &Sidecar, scenes: &[Scene<'_>]) -> String {
    let Some(scheduler) = &sidecar.scheduler else {
        return String::new();
    };
    if sidecar.outcome.is_green() || scheduler.end == SchedulerEnd::Attached {
        return String::new();
    }
    let release = sidecar
        .kernel
        .as_ref()
        .map(|kernel| kernel.release.as_str());
    let found = match scheduler.end {
        SchedulerEnd::NeverLoaded => not_loaded(scheduler, release),
        SchedulerEnd::Stalled => stall::cause(scheduler, scenes),
        SchedulerEnd::Died => died(scheduler, scenes),
        _ => None,
    };
    let mut cause = match (found, scheduler.end) {
        (Some(found), _) => found,
        // The failure that ended the machine is the first line of its own.
        (None, SchedulerEnd::Unknown) => return String::new(),
        (None, _) => scheduler.sentence(),
    };
    if let Some(warning) = kernel_warning(sidecar) {
        cause.push_str("; ");
        cause.push_str(warning);
    }
    cause
}

fn not_loaded(scheduler: &SchedulerReport, release: Option<&str>) -> Option<String> {
    let why = log::refusal(&scheduler.log, release).or_else(|| log::last_error(&scheduler.log))?;
    Some(format!(
        "scheduler `{}` was not loaded: {why}",
        scheduler.name
    ))
}

fn died(scheduler: &SchedulerReport, scenes: &[Scene<'_>]) -> Option<String> {
    let name = &scheduler.name;
    let mut text = match log::panic(&scheduler.log) {
        Some(panic) => format!("scheduler `{name}` panicked: {panic}"),
        None => {
            let error = log::last_error(&scheduler.log)?;
            format!("scheduler `{name}` died: {error}")
        }
    };
    if let Some(before) = disabled_before(scenes) {
        text.push_str(", after the kernel had disabled it: ");
        text.push_str(&before);
    }
    Some(text)
}

/// Why the kernel disabled the scheduler before its process ended, where it was not the process that asked for it.
fn disabled_before(scenes: &[Scene<'_>]) -> Option<String> {
    let exits = scenes
        .iter()
        .filter_map(|scene| scene.sched_ext?.exit.as_ref());
    let exit = exits
        .into_iter()
        .find(|exit| exit.kind != "SCX_EXIT_UNREG")?;
    Some(match exit.message.as_str() {
        "" => exit.reason.clone(),
        message => message.to_owned(),
    })
}

/// What the check of the kernel's log says of the first complaint.
fn kernel_warning(sidecar: &Sidecar) -> Option<&str> {
    let mut failed = sidecar.result.with_outcome(Outcome::Fail);
    let check = failed.find(|check| check.check == "kernel_log")?;
    check.detail.lines().next().filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests;

//! One test: the line for a pass, the full report for all else.

use std::fmt::Write;
use std::path::Path;

use super::palette::{Palette, paint};
use super::phases::phases;
use super::quantity::{count, value, wall_ms};
use super::reasons::by_reason;
use super::stats::stats;
use super::text::{block, clean_line, first_lines};
use crate::{CheckResult, FailureKind, NotChecked, Outcome, SchedulerReport, Sidecar, Subject};

const OUTPUT_LINES: usize = 200;
const CONSOLE_LINES: usize = 60;
const FAILED_BOOT_LINES: usize = 10;
const DETAIL_LINES: usize = 60;
const SCHEDULER_LOG_LINES: usize = 60;
const DUMP_LINES: usize = 80;
const KERNEL_STATE_LINES: usize = 120;
const MAP_LINES: usize = 80;

/// Waiting for host CPUs and memory that is worth a word.
const LONG_QUEUED_MS: u64 = 5_000;

/// `PASS name  shape · kernel · engine · time · checks`, and what was unusual.
pub(super) fn line(palette: Palette, sidecar: &Sidecar) -> String {
    let name = paint(palette.strong, &clean_line(&sidecar.test));
    let mut facts = vec![sidecar.topology.to_string()];
    // One that was asked for and not found has no release.
    let release = sidecar.kernel.as_ref().map(|kernel| &kernel.release);
    facts.extend(
        release
            .filter(|release| !release.is_empty())
            .map(|release| clean_line(release)),
    );
    if sidecar.kaslr {
        facts.push("KASLR".to_owned());
    }
    if let Some(engine) = &sidecar.engine {
        facts.push(clean_line(&engine.name));
    }
    facts.push(wall_ms(sidecar.timings.total_ms));
    if sidecar.timings.queued_ms >= LONG_QUEUED_MS {
        let queued = wall_ms(sidecar.timings.queued_ms);
        facts.push(format!("{queued} of it waiting for its turn"));
    }
    if sidecar.outcome == Outcome::Skip {
        facts.push(clean_line(&sidecar.reason().unwrap_or_default()));
    } else {
        facts.push(checks_judged(sidecar));
    }
    if let Some(expected) = sidecar.expected.as_ref().filter(|expected| expected.met) {
        facts.push(format!("as expected: {}", clean_line(&expected.seen)));
        if !expected.excused.is_empty() {
            let excused = clean_line(&expected.excused.join(", "));
            facts.push(format!("which excuses {excused}"));
        }
    }
    if let Some(last) = sidecar.boot_retries.last() {
        facts.push(format!(
            "{} before it (the last: {})",
            count(sidecar.boot_retries.len(), "failed boot"),
            clean_line(&last.end)
        ));
    }
    format!(
        "{} {name}  {}",
        palette.label(sidecar.outcome),
        facts.join(" · ")
    )
}

/// The line, then what decided, then everything that helps to find out why.
pub(super) fn report(
    palette: Palette,
    sidecar: &Sidecar,
    path: Option<&Path>,
    log: Option<&Path>,
) -> String {
    let mut out = line(palette, sidecar) + "\n";
    if !sidecar.cause.is_empty() {
        let label = paint(palette.outcome(sidecar.outcome), "cause");
        _ = writeln!(out, "  {label}: {}", clean_line(&sidecar.cause));
    }
    out.push('\n');
    what_decided(&mut out, palette, sidecar);

    let mut section = |title: &str, body: &str| {
        if !body.is_empty() {
            _ = writeln!(out, "\n{}\n{body}", paint(palette.strong, title));
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
    };
    section(
        "the kernel",
        &first_lines(&sidecar.failure_dump, KERNEL_STATE_LINES),
    );
    section("workers", &stats(&sidecar.result.cgroups));
    section("phases", &phases(&sidecar.result.phases));
    section("remarks", &remarks(sidecar));
    for boot in &sidecar.boot_retries {
        let title = format!("a boot before this one: {}", clean_line(&boot.end));
        section(&title, &block(&boot.console_tail, FAILED_BOOT_LINES));
    }
    if let Some(scheduler) = &sidecar.scheduler {
        let whole = sidecar.outcome != Outcome::Pass;
        section("the scheduler", &lives(scheduler, &sidecar.other_lives));
        if whole {
            let title = "the scheduler's log";
            section(title, &block(&scheduler.log, SCHEDULER_LOG_LINES));
            section(
                "the kernel's dump",
                &first_lines(&scheduler.dump, DUMP_LINES),
            );
        }
    }
    section("guest output", &block(&sidecar.output, OUTPUT_LINES));
    section(
        "end of the guest console",
        &block(&sidecar.console_tail, CONSOLE_LINES),
    );
    section("BPF maps", &first_lines(&sidecar.failure_maps, MAP_LINES));

    out.push('\n');
    if let Some(path) = path {
        let label = paint(palette.faint, "sidecar  ");
        _ = writeln!(out, "{label}  {}", clean_line(&path.to_string_lossy()));
        if !sidecar.failure_dump.is_empty() {
            let label = paint(palette.faint, "full dump");
            let path = Sidecar::dump_path(path);
            _ = writeln!(out, "{label}  {}", clean_line(&path.to_string_lossy()));
        }
    }
    if let Some(log) = log {
        let label = paint(palette.faint, "log      ");
        _ = writeln!(out, "{label}  {}", clean_line(&log.to_string_lossy()));
    }
    let label = paint(palette.faint, "run again");
    _ = writeln!(out, "{label}  {}", clean_line(&sidecar.rerun_command()));
    out
}

/// All lives of a scheduler, in order.
fn lives(decisive: &SchedulerReport, others: &[SchedulerReport]) -> String {
    let mut all: Vec<&SchedulerReport> = others.iter().chain([decisive]).collect();
    all.sort_by_key(|life| life.life);
    all.into_iter().map(scheduler_lines).collect()
}

fn scheduler_lines(scheduler: &SchedulerReport) -> String {
    let mut out = format!("  {}\n", clean_line(&scheduler.sentence()));
    if !scheduler.command.is_empty() {
        _ = writeln!(out, "  started as {}", clean_line(&scheduler.command));
    }
    if let (Some(ops), Some(attach_ms)) = (&scheduler.ops, scheduler.attach_ms) {
        let after = wall_ms(attach_ms);
        _ = writeln!(out, "  attached as `{}` after {after}", clean_line(ops));
    }
    for exit in &scheduler.exits {
        let when = exit
            .uptime_ms
            .map(|ms| format!(" {} after boot", wall_ms(ms)));
        let kind = exit.kind.map(|kind| format!(", exit kind {kind}"));
        let (when, kind) = (when.unwrap_or_default(), kind.unwrap_or_default());
        let exit = clean_line(&exit.to_string());
        _ = writeln!(out, "  disabled{when}{kind}: {exit}");
    }
    out
}

fn checks_judged(sidecar: &Sidecar) -> String {
    let result = &sidecar.result;
    let mut text = format!("{} judged", count(result.judged(), "check"));
    let no_data = result.with_outcome(Outcome::Inconclusive).count();
    if no_data > 0 {
        _ = write!(text, ", {no_data} without data");
    }
    let not_checked = distinct(&result.not_checked);
    if !not_checked.is_empty() {
        _ = write!(
            text,
            ", {} not ({})",
            not_checked.len(),
            reasons(&not_checked)
        );
    }
    text
}

/// A body of several steps leaves a check out at each step.
fn distinct(not_checked: &[NotChecked]) -> Vec<&NotChecked> {
    let mut distinct: Vec<&NotChecked> = Vec::new();
    for skipped in not_checked {
        let same = |other: &&NotChecked| other.check == skipped.check && other.why == skipped.why;
        if !distinct.iter().any(same) {
            distinct.push(skipped);
        }
    }
    distinct
}

/// `a, b: turned off by the test; 5 checks: the test sets no bound`. The sidecar has all names.
fn reasons(not_checked: &[&NotChecked]) -> String {
    const MAX_NAMES: usize = 3;

    let pairs = not_checked
        .iter()
        .map(|skipped| (skipped.check.as_str(), skipped.why.clone()));
    let groups: Vec<String> = by_reason(pairs)
        .into_iter()
        .map(|(why, checks)| match checks.len() {
            0..=MAX_NAMES => format!("{}: {why}", checks.join(", ")),
            many => format!("{many} checks: {why}"),
        })
        .map(|group| clean_line(&group))
        .collect();
    groups.join("; ")
}

fn what_decided(out: &mut String, palette: Palette, sidecar: &Sidecar) {
    if let Some(failure) = &sidecar.failure {
        let whose = match failure.kind {
            FailureKind::Test => "the test failed",
            FailureKind::Guest => "the guest died",
            FailureKind::Harness => "the harness failed",
            FailureKind::Host => "this host can't run the test",
        };
        let whose = paint(palette.outcome(sidecar.outcome), whose);
        _ = writeln!(out, "  {whose}: {}", clean_line(&failure.summary));
        out.push_str(&block(&failure.detail, DETAIL_LINES));
    }
    let mut decisive = 0;
    for outcome in [Outcome::Fail, Outcome::Inconclusive] {
        let (of_scheduler, others): (Vec<_>, Vec<_>) = sidecar
            .result
            .with_outcome(outcome)
            .partition(|check| check.check.starts_with("scheduler_"));
        // What became of the scheduler explains what became of its tasks.
        for check in of_scheduler.into_iter().chain(others) {
            decisive += 1;
            out.push_str(&check_lines(palette, check));
        }
    }
    if decisive == 0 && sidecar.failure.is_none() {
        let reason = sidecar.reason().unwrap_or_default();
        _ = writeln!(out, "  {}", clean_line(&reason));
    }
}

/// `max_gap_ms  FAIL  3120.4 ms, bound 2000 ms · cgroup cg_0, worker 71, CPU 2`, then the detail.
fn check_lines(palette: Palette, check: &CheckResult) -> String {
    let unit = clean_line(&check.unit);
    let measured = check.value.map(|measured| value(measured, &unit));
    let bound = check
        .bound
        .map(|bound| format!("bound {}", value(bound, &unit)));
    let figures: Vec<String> = measured.into_iter().chain(bound).collect();
    let facts: Vec<String> = [figures.join(", "), subject(&check.subject)]
        .into_iter()
        .filter(|fact| !fact.is_empty())
        .collect();
    let head = format!(
        "  {}  {}  {}",
        paint(palette.strong, &clean_line(&check.check)),
        palette.label(check.outcome),
        facts.join(" · ")
    );
    let mut out = head.trim_end().to_owned() + "\n";
    let detail = clean_line(&check.detail);
    if !detail.is_empty() {
        _ = writeln!(out, "      {detail}");
    }
    out
}

fn subject(subject: &Subject) -> String {
    let cgroup = subject
        .cgroup
        .as_ref()
        .map(|name| format!("cgroup {}", clean_line(name)));
    let worker = subject.worker.map(|pid| format!("worker {pid}"));
    let cpu = subject.cpu.map(|cpu| format!("CPU {cpu}"));
    let parts: Vec<String> = [cgroup, worker, cpu].into_iter().flatten().collect();
    parts.join(", ")
}

fn remarks(sidecar: &Sidecar) -> String {
    let all = sidecar.result.notes.iter().chain(&sidecar.remarks);
    all.map(|remark| format!("  {}\n", clean_line(remark)))
        .collect()
}

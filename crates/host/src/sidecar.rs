//! From a record to a sidecar.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ktstr_report::{
    Failure, FailureKind, Outcome, SCHEMA_VERSION, SchedulerReport, Sidecar, Thresholds, Timings,
};
use ktstr_topology::{NumaMemory, NumaSpec};

use crate::causes::causes;
use crate::drive::{Limits, Record};
use crate::observe::Observation;
use crate::outcome::{Terms, judge, numbered};
use crate::plan::TestPlan;

/// Lines of the console that a report keeps.
const CONSOLE_LINES: usize = 60;

/// And at most, after a panic.
const MOST_CONSOLE_LINES: usize = 400;

/// Lines before a panic that a report keeps: what led to it.
const LINES_BEFORE_PANIC: usize = 20;

/// The sidecar of a test that has not begun.
pub fn blank_sidecar(plan: &TestPlan) -> Sidecar {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let numa = plan.memory().resolve(&plan.topology).ok();
    Sidecar {
        schema: SCHEMA_VERSION,
        run_id: plan.run_id.clone(),
        test: plan.name.clone(),
        outcome: Outcome::Inconclusive,
        failure: None,
        result: ktstr_report::AssertResult::default(),
        scheduler: plan.scheduler.as_ref().map(|scheduler| SchedulerReport {
            name: scheduler.name.clone(),
            ..SchedulerReport::default()
        }),
        expected: None,
        kernel: None,
        engine: None,
        topology: plan.topology,
        memory_mib: numa.as_ref().map_or(0, NumaMemory::total_mib),
        numa: numa.filter(|_| plan.numa != NumaSpec::default()),
        kaslr: plan.kaslr,
        started_unix_ms: millis(since_epoch),
        timings: Timings::default(),
        engine_memory_bytes: None,
        boot_retries: Vec::new(),
        console_tail: String::new(),
        output: String::new(),
        cause: String::new(),
        failure_dump: String::new(),
        failure_maps: String::new(),
        remarks: Vec::new(),
    }
}

/// Fills in what the machine said and how it ended. What the host saw is given back.
pub(crate) fn conclude(
    sidecar: &mut Sidecar,
    mut record: Record,
    limits: Limits,
    thresholds: &Thresholds,
) -> Observation {
    let terms = Terms {
        limits,
        thresholds,
        has_scheduler: sidecar.scheduler.is_some(),
    };
    let (outcome, failure, result) = judge(&record, terms);
    sidecar.outcome = outcome;
    sidecar.failure = failure;
    sidecar.result = result;
    if let Some(blank) = sidecar.scheduler.take() {
        let log = record.scheduler_log.into_text();
        let sent = record.scheduler.unwrap_or(SchedulerReport {
            ops: record.scheduler_attached,
            ..blank
        });
        sidecar.scheduler = Some(SchedulerReport { log, ..sent });
    }
    sidecar.timings.boot_ms = millis(record.boot);
    sidecar.timings.test_ms = millis(record.run);
    sidecar.timings.teardown_ms = millis(record.teardown);
    sidecar.engine_memory_bytes = record.footprint_bytes;
    sidecar.console_tail = console_end(&record.console);
    sidecar.remarks.extend(record.remarks);
    let observation = record.observation.take().unwrap_or_default();
    sidecar.remarks.extend(observation.remarks.iter().cloned());
    sidecar
        .remarks
        .extend(record.frame_errors.iter().map(ToString::to_string));
    if record.more_frame_errors > 0 {
        sidecar.remarks.push(format!(
            "and {} more damaged stretches on the link",
            record.more_frame_errors
        ));
    }
    if record.output.dropped() > 0 {
        sidecar.remarks.push(format!(
            "the test printed {} bytes more than a report keeps",
            record.output.dropped()
        ));
    }
    sidecar.output = record.output.into_text();
    observation
}

/// An error and its causes as a failure.
pub(crate) fn failure_of(kind: FailureKind, error: &dyn std::error::Error) -> Failure {
    let mut chain = causes(error);
    let detail = numbered(&chain);
    Failure {
        kind,
        summary: chain.swap_remove(0),
        detail,
    }
}

/// The lines of a console that matter: the last ones, and after a panic all since shortly before it.
pub(crate) fn console_end(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let panic = lines
        .iter()
        .position(|line| line.contains("Kernel panic - not syncing"));
    let since_panic = panic.map_or(0, |at| lines.len() - at + LINES_BEFORE_PANIC);
    last_lines(
        console,
        since_panic.clamp(CONSOLE_LINES, MOST_CONSOLE_LINES),
    )
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

//! From a record to a sidecar.

use std::time::{SystemTime, UNIX_EPOCH};

use ktstr_declaration::NumaEntry;
use ktstr_report::{
    Assert, Failure, FailureKind, Outcome, SCHEMA_VERSION, SchedulerReport, Sidecar, Timings,
};
use ktstr_topology::NumaMemory;

use super::outcome::{Terms, judge, numbered};
use crate::causes::causes;
use crate::millis::millis;
use crate::observe::Observation;
use crate::plan::{Limits, TestPlan};
use crate::run::{Record, console_end};

/// The sidecar of a test that has not begun.
pub fn blank_sidecar(plan: &TestPlan) -> Sidecar {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let numa = plan.memory().resolve(&plan.shape.topology).ok();
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
        other_lives: Vec::new(),
        expected: None,
        kernel: None,
        engine: None,
        topology: plan.shape.topology,
        memory_mib: numa.as_ref().map_or(0, NumaMemory::total_mib),
        numa: numa.filter(|_| plan.shape.numa != NumaEntry::DEFAULT),
        kaslr: plan.boot.kaslr,
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
    assert: &Assert,
) -> Observation {
    let terms = Terms {
        limits,
        assert,
        has_scheduler: sidecar.scheduler.is_some(),
    };
    let (outcome, failure, result) = judge(&record, terms);
    sidecar.outcome = outcome;
    sidecar.failure = failure;
    sidecar.result = result;
    if let Some(blank) = sidecar.scheduler.take() {
        let mut lives = record.lives.reports(&blank);
        let bad = lives.iter().position(|life| !life.end.is_good());
        let decisive = bad.unwrap_or(lives.len() - 1);
        sidecar.scheduler = Some(lives.remove(decisive));
        sidecar.other_lives = lives;
    }
    sidecar.timings.boot_ms = millis(record.boot);
    sidecar.timings.test_ms = millis(record.run);
    sidecar.timings.teardown_ms = millis(record.teardown);
    sidecar.engine_memory_bytes = record.footprint_bytes;
    sidecar.console_tail = console_end(&record.console);
    sidecar.remarks.extend(record.performance);
    sidecar.remarks.extend(record.remarks);
    let observation = record.observation.take().unwrap_or_default();
    sidecar.remarks.extend(observation.remarks.iter().cloned());
    sidecar
        .remarks
        .extend(record.frame_errors.iter().map(ToString::to_string));
    if record.more_frame_errors > 0 {
        sidecar.remarks.push(format!(
            "and {} more corrupted frames",
            record.more_frame_errors
        ));
    }
    if record.output.dropped_bytes() > 0 {
        sidecar.remarks.push(format!(
            "the test printed {} bytes more than a report keeps",
            record.output.dropped_bytes()
        ));
    }
    sidecar.output = record.output.text();
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

//! A test whose body runs in this process: there is no machine.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_report::{EngineInfo, FailureKind, KernelInfo, Outcome, Sidecar};
use ktstr_wire::TestEnd;

use crate::millis::millis;
use crate::plan::TestPlan;
use crate::verdict::{blank_sidecar, fail, failure_of, judge_end};

/// The body of a test, with all that it needs.
pub type Body = Box<dyn FnOnce() -> TestEnd + Send>;

/// Runs `body` on a thread of its own, for as long as the plan allows. A body that takes longer fails its
/// test, and stays behind until this process ends: a thread can't be stopped from outside.
pub fn run_host_only(plan: &TestPlan, body: Body) -> Sidecar {
    let started = Instant::now();
    let mut sidecar = Sidecar {
        kernel: Some(own_kernel()),
        engine: Some(EngineInfo {
            name: EngineInfo::HOST.to_owned(),
            detail: "no machine: the test is for the host only".to_owned(),
        }),
        memory_mib: 0,
        ..blank_sidecar(plan)
    };
    let limit = plan.limits().run.unwrap_or(Duration::MAX);
    let (sender, ended) = channel();
    let thread = thread::Builder::new()
        .name(plan.name.clone())
        // Nobody waits any more for what comes too late.
        .spawn(move || drop(sender.send(body())));
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            sidecar.outcome = Outcome::Fail;
            sidecar.failure = Some(failure_of(FailureKind::Host, &error));
            return sidecar;
        }
    };
    (sidecar.outcome, sidecar.failure) = match ended.recv_timeout(limit) {
        Ok(end) => {
            let judged = judge_end(end.error.as_deref(), &end.result);
            sidecar.result = end.result;
            judged
        }
        Err(RecvTimeoutError::Timeout) => {
            let seconds = limit.as_secs_f64();
            let summary = format!("the test still ran after {seconds:.1} s, on the host");
            let detail =
                "its thread stays behind until this process ends; `timeout_s` sets the limit";
            fail(FailureKind::Test, summary, detail)
        }
        Err(RecvTimeoutError::Disconnected) => {
            let payload = thread.join().err();
            let message = payload.as_deref().and_then(panic_text);
            let message = message.unwrap_or("non-string panic payload");
            let summary = format!("the test panicked: {message}");
            fail(FailureKind::Test, summary, "its output says where")
        }
    };
    sidecar.timings.test_ms = millis(started.elapsed());
    sidecar.timings.total_ms = sidecar.timings.test_ms;
    sidecar
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

fn own_kernel() -> KernelInfo {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    KernelInfo {
        release: release.trim_end().to_owned(),
        key: String::new(),
        source: "the host's own".to_owned(),
    }
}

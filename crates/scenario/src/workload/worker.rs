//! The life of a worker, from its birth to its report.

use std::any::Any;
use std::cell::Cell;
use std::ffi::CString;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::Ordering;

use ktstr_report::WorkerExit;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpid, getppid, gettid, setpgid};

use super::WorkerControl;
use super::seat::{DONE, RUNNING, Seat, WAITING};
use super::telemetry::{Telemetry, now_ns};
use super::witness::{self, MemoryWitness};

/// Longest part of a panic's message that goes into a report.
const MAX_MESSAGE_BYTES: usize = 512;

/// What a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloneMode {
    /// A process of its own, placed through `cgroup.procs`.
    #[default]
    Fork,
    /// A thread of the harness, placed through `cgroup.threads` in a threaded cgroup.
    Thread,
}

thread_local! {
    static IN_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is a worker. A worker's panic is caught and becomes
/// [`WorkerExit::Panicked`]; the harness's panic hook is not told of it.
pub fn in_worker() -> bool {
    IN_WORKER.get()
}

/// Keeps the harness's panic hook from workers' panics: it may print, end the machine, or want locks.
///
/// Done once, by the harness, and not by each forked worker: there, setting a hook would wait forever if
/// another thread of the harness was running one at the fork. Reading the hook does not.
pub(super) fn keep_hook_from_workers() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let harness_hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !in_worker() {
                harness_hook(info);
            }
        }));
    });
}

/// Begins the life of a forked worker: its own process group, so that helpers of its work can be killed
/// with it, and death with the harness.
pub(super) fn become_process(harness: Pid) -> bool {
    // The harness does the same from its side; whoever is first, the group is there before the worker
    // works.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let tied = prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
    // The harness may have died before the line above: then nobody will kill this worker.
    if !tied || getppid() != harness {
        return false;
    }
    true
}

/// Waits at the gate, works, reports.
pub(super) fn run(seat: Seat) {
    IN_WORKER.set(true);
    // Writing to a partner that is gone is to give EPIPE, whether or not the process ignores SIGPIPE.
    let mut sigpipe = SigSet::empty();
    sigpipe.add(Signal::SIGPIPE);
    let _ = sigpipe.thread_block();
    if let Ok(comm) = CString::new(seat.comm.as_str()) {
        let _ = prctl::set_name(&comm);
    }
    let board = seat.board.clone();
    let slot = &board.slots[seat.index];
    let tid = gettid().as_raw();
    slot.tid.store(tid, Ordering::Release);
    board.set_stage(seat.index, WAITING);
    if !seat.gate.pass(board.stop()) {
        return;
    }
    let memory = seat.tell_memory.then(MemoryWitness::allocate);
    let telemetry = Telemetry::begin(now_ns());
    board.set_stage(seat.index, RUNNING);
    let member = board.member(seat.index);
    let mut control = WorkerControl {
        stop: board.stop(),
        slot,
        cells: board.cells(seat.index),
        member: u32::try_from(member).unwrap_or(u32::MAX),
        link: seat.link,
        telemetry,
    };
    let ended = catch_unwind(AssertUnwindSafe(|| seat.work_type.run(&mut control)));
    let exit = match ended {
        Ok(()) => WorkerExit::Completed,
        Err(payload) => WorkerExit::Panicked(message(payload.as_ref())),
    };
    let epoch = &slot.mask_epoch;
    let mut report = control.telemetry.finish(tid, exit, epoch);
    report.policy = Some(witness::policy());
    report.node_pages = memory.map(|memory| memory.node_pages()).unwrap_or_default();
    board.put_report(seat.index, &report);
    board.set_stage(seat.index, DONE);
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text");
    let end = text.floor_char_boundary(MAX_MESSAGE_BYTES);
    text[..end].to_owned()
}

/// The process that forked workers must be children of.
pub(super) fn harness() -> Pid {
    getpid()
}

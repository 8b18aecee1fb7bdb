//! How a scheduler ended, from what was seen. A pure function.

use std::process::ExitStatus;

use ktstr_report::{KernelExit, SchedulerEnd};

/// What was seen of a scheduler that was attached once.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Whether it was attached, with its process alive, until the harness ended it.
    pub(super) to_the_end: bool,
    /// How its process ended by itself; nothing if it lived until the harness ended it, or has none.
    pub(super) process: Option<ExitStatus>,
    /// Why the kernel disabled it.
    pub(super) exit: Option<KernelExit>,
}

/// What `scx_exit_reason()` in kernel/sched/ext.c says of a stall (`SCX_EXIT_ERROR_STALL`).
const STALL: &str = "runnable task stall";

/// How it begins what is no error: unregistered from user space, from BPF, from the main kernel, or the
/// SysRq key.
const NO_ERROR: [&str; 2] = ["unregistered from ", "disabled by sysrq-"];

pub(super) fn end(seen: &Seen) -> SchedulerEnd {
    let reason = seen.exit.as_ref().map(|exit| exit.reason.as_str());
    match (reason, seen.process) {
        (Some(STALL), _) => SchedulerEnd::Stalled,
        (Some(reason), _) if !NO_ERROR.iter().any(|start| reason.starts_with(start)) => {
            SchedulerEnd::Error
        }
        _ if seen.to_the_end => SchedulerEnd::Attached,
        (_, Some(status)) if status.success() => SchedulerEnd::Left,
        (_, Some(_)) => SchedulerEnd::Died,
        (_, None) => SchedulerEnd::FellBack,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn of(to_the_end: bool, process: Option<i32>, reason: &str) -> SchedulerEnd {
        end(&Seen {
            to_the_end,
            process: process.map(ExitStatus::from_raw),
            exit: (!reason.is_empty()).then(|| KernelExit {
                kind: None,
                reason: reason.to_owned(),
                message: String::new(),
            }),
        })
    }

    const ABORT: Option<i32> = Some(6);
    const FAILURE: Option<i32> = Some(1 << 8);
    const SUCCESS: Option<i32> = Some(0);
    const UNREGISTERED: &str = "unregistered from user space";

    #[test]
    fn the_kernels_reason_comes_first() {
        for process in [ABORT, FAILURE, SUCCESS, None] {
            for to_the_end in [true, false] {
                assert_eq!(of(to_the_end, process, STALL), SchedulerEnd::Stalled);
                assert_eq!(
                    of(to_the_end, process, "scx_bpf_error"),
                    SchedulerEnd::Error
                );
                assert_eq!(
                    of(to_the_end, process, "a reason yet unknown"),
                    SchedulerEnd::Error
                );
            }
        }
    }

    #[test]
    fn who_ended_it_tells_the_rest_apart() {
        assert_eq!(of(true, None, UNREGISTERED), SchedulerEnd::Attached);
        assert_eq!(of(false, ABORT, UNREGISTERED), SchedulerEnd::Died);
        assert_eq!(of(false, FAILURE, UNREGISTERED), SchedulerEnd::Died);
        assert_eq!(of(false, SUCCESS, UNREGISTERED), SchedulerEnd::Left);
        assert_eq!(of(false, None, UNREGISTERED), SchedulerEnd::FellBack);
        assert_eq!(
            of(false, None, "disabled by sysrq-S"),
            SchedulerEnd::FellBack
        );
    }

    #[test]
    fn a_lost_log_leaves_what_the_process_came_to() {
        assert_eq!(of(true, None, ""), SchedulerEnd::Attached);
        assert_eq!(of(false, ABORT, ""), SchedulerEnd::Died);
        assert_eq!(of(false, None, ""), SchedulerEnd::FellBack);
    }
}

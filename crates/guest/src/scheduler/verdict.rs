//! How a scheduler ended, from what was seen. A pure function.

use std::process::ExitStatus;

use ktstr_report::{KernelExit, SchedulerEnd};

/// What was seen of a scheduler that was attached once.
#[derive(Clone, Debug)]
pub(super) struct Seen<'a> {
    /// Whether it was attached, with its process alive, whenever it was looked at until the harness ended it.
    pub(super) to_the_end: bool,
    /// Whether the harness ended it because the test had asked for that.
    pub(super) by_test: bool,
    /// How its process ended by itself; nothing if it lived until the harness ended it, or has none.
    pub(super) process: Option<ExitStatus>,
    /// Every time that the kernel disabled it.
    pub(super) exits: &'a [KernelExit],
    /// How often the kernel enabled it, if that is known.
    pub(super) enables: Option<u64>,
}

pub(super) fn end(seen: &Seen<'_>) -> SchedulerEnd {
    let decisive = KernelExit::decisive(seen.exits);
    // It may have gone and come back between two looks.
    let was_reloaded = seen.enables.is_some_and(|enables| enables > 1);
    match (decisive, seen.process) {
        (Some(exit), _) if exit.is_stall() => SchedulerEnd::Stalled,
        (Some(exit), _) if exit.is_error() => SchedulerEnd::Error,
        _ if seen.to_the_end && !was_reloaded && seen.by_test => SchedulerEnd::Detached,
        _ if seen.to_the_end && !was_reloaded => SchedulerEnd::Attached,
        (_, Some(status)) if status.success() => SchedulerEnd::Left,
        (_, Some(_)) => SchedulerEnd::Died,
        (_, None) if was_reloaded => SchedulerEnd::Reloaded,
        (_, None) => SchedulerEnd::FellBack,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn exits(reasons: &[&str]) -> Vec<KernelExit> {
        let exit = |reason: &&str| KernelExit {
            reason: (*reason).to_owned(),
            ..KernelExit::default()
        };
        reasons.iter().map(exit).collect()
    }

    fn of(to_the_end: bool, process: Option<i32>, reason: &str) -> SchedulerEnd {
        end(&Seen {
            to_the_end,
            by_test: false,
            process: process.map(ExitStatus::from_raw),
            exits: &exits(&[reason][usize::from(reason.is_empty())..]),
            enables: Some(1),
        })
    }

    const ABORT: Option<i32> = Some(6);
    const FAILURE: Option<i32> = Some(1 << 8);
    const SUCCESS: Option<i32> = Some(0);
    const STALL: &str = "runnable task stall";
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
    fn one_that_the_test_detaches_is_told_from_one_that_had_gone_before() {
        let detached = |to_the_end, process: Option<i32>, reason: &str| {
            end(&Seen {
                to_the_end,
                by_test: true,
                process: process.map(ExitStatus::from_raw),
                exits: &exits(&[reason]),
                enables: Some(1),
            })
        };
        assert_eq!(detached(true, None, UNREGISTERED), SchedulerEnd::Detached);
        assert_eq!(detached(false, ABORT, UNREGISTERED), SchedulerEnd::Died);
        assert_eq!(detached(true, None, STALL), SchedulerEnd::Stalled);
    }

    #[test]
    fn a_lost_log_leaves_what_the_process_came_to() {
        assert_eq!(of(true, None, ""), SchedulerEnd::Attached);
        assert_eq!(of(false, ABORT, ""), SchedulerEnd::Died);
        assert_eq!(of(false, None, ""), SchedulerEnd::FellBack);
    }
    #[test]
    fn fault_a5_a_reload_that_no_look_has_seen_is_not_attached_to_the_end() {
        let reloaded = |process: Option<i32>, reasons: &[&str], enables| {
            end(&Seen {
                to_the_end: true,
                by_test: false,
                process: process.map(ExitStatus::from_raw),
                exits: &exits(reasons),
                enables,
            })
        };
        let twice = [UNREGISTERED, UNREGISTERED];
        assert_eq!(reloaded(None, &twice, Some(2)), SchedulerEnd::Reloaded);
        assert_eq!(reloaded(ABORT, &twice, Some(2)), SchedulerEnd::Died);
        assert_eq!(
            reloaded(None, &[UNREGISTERED], Some(1)),
            SchedulerEnd::Attached
        );
        assert_eq!(
            reloaded(None, &[UNREGISTERED], None),
            SchedulerEnd::Attached
        );
        let stalled = [UNREGISTERED, STALL, UNREGISTERED];
        assert_eq!(reloaded(None, &stalled, Some(3)), SchedulerEnd::Stalled);
    }
}

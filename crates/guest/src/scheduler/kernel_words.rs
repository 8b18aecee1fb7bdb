//! What the kernel printed when it disabled a scheduler.

use ktstr_report::KernelExit;

/// `pr_fmt` of kernel/sched/ext.c.
const PREFIX: &str = "sched_ext: ";

/// Most that is kept of a message. The kernel's own limit is `SCX_EXIT_MSG_LEN`, 1024.
const MESSAGE_BYTES: usize = 2048;

/// Why the scheduler that the kernel calls `ops` was disabled last, from records as /dev/kmsg gives them.
///
/// scx_disable_workfn() in kernel/sched/ext.c prints `sched_ext: BPF scheduler "OPS" disabled (REASON)`,
/// and for an error `sched_ext: OPS: MESSAGE` after it.
pub(super) fn last_exit(log: &str, ops: &str) -> Option<KernelExit> {
    let mut found: Option<KernelExit> = None;
    for line in log.lines() {
        let message = line.split_once(';').map_or(line, |(_, message)| message);
        let Some(words) = message.strip_prefix(PREFIX) else {
            continue;
        };
        if let Some(reason) = disabled(words, ops) {
            found = Some(KernelExit {
                kind: None,
                reason: reason.to_owned(),
                message: String::new(),
            });
        } else if let Some(exit) = &mut found
            && exit.message.is_empty()
            && let Some(more) = words
                .strip_prefix(ops)
                .and_then(|rest| rest.strip_prefix(": "))
        {
            let end = more.floor_char_boundary(MESSAGE_BYTES);
            exit.message = more[..end].to_owned();
        }
    }
    found
}

/// What kind of exit it was (`enum scx_exit_kind`): as the dump says (`… triggered exit kind 1026:`), else the
/// one that has this reason. The numbers are part of what schedulers are told, and have never changed.
pub(super) fn kind(exit: &KernelExit, dump: &str) -> Option<u32> {
    let said = dump.lines().find_map(|line| {
        let (_, rest) = line.split_once(" triggered exit kind ")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        rest[..digits.unwrap_or(rest.len())].parse().ok()
    });
    said.or(match exit.reason.as_str() {
        "unregistered from user space" => Some(64),
        "unregistered from BPF" => Some(65),
        "unregistered from the main kernel" => Some(66),
        "disabled by sysrq-S" => Some(67),
        "runtime error" => Some(1024),
        "scx_bpf_error" => Some(1025),
        "runnable task stall" => Some(1026),
        _ => None,
    })
}

/// The reason in `BPF scheduler "OPS" disabled (REASON)`.
fn disabled<'a>(words: &'a str, ops: &str) -> Option<&'a str> {
    let rest = words.strip_prefix("BPF scheduler \"")?;
    let rest = rest.strip_prefix(ops)?.strip_prefix("\" disabled (")?;
    rest.strip_suffix(')')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOG: &str = "\
6,700,4750547,-;sched_ext: BPF scheduler \"ktstr\" enabled
4,701,4750549,-;sched_ext: ktstr: watchdog timeout 3000ms <= rescue overload threshold 4096ms
3,702,9408396,-;sched_ext: BPF scheduler \"ktstr\" disabled (runnable task stall)
3,703,9408464,-;sched_ext: ktstr: kworker/3:0[38] failed to run for 4.252s
3,704,9408465,-;   scx_watchdog_workfn+0x18a/0x210
";

    #[test]
    fn reason_and_message_are_told_apart() {
        let exit = last_exit(LOG, "ktstr").expect("disabled");
        assert_eq!(exit.reason, "runnable task stall");
        assert_eq!(exit.message, "kworker/3:0[38] failed to run for 4.252s");
    }

    #[test]
    fn the_dump_says_the_kind_and_else_the_reason() {
        let exit = last_exit(LOG, "ktstr").expect("disabled");
        assert_eq!(kind(&exit, ""), Some(1026));
        let dump = "x: root\nkworker/u8:1[29] triggered exit kind 1028 on CPU 0:\n";
        assert_eq!(kind(&exit, dump), Some(1028));
        assert_eq!(kind(&exit, "a triggered exit kind 99999999999"), Some(1026));
        assert_eq!(kind(&KernelExit::default(), ""), None);
    }

    #[test]
    fn another_scheduler_is_another() {
        assert_eq!(last_exit(LOG, "kts"), None);
        assert_eq!(last_exit(LOG, "ktstr_1.0"), None);
        assert_eq!(last_exit("", "ktstr"), None);
    }

    #[test]
    fn the_last_end_counts() {
        let again =
            "6,1,1,-;sched_ext: BPF scheduler \"ktstr\" disabled (unregistered from user space)\n";
        let exit = last_exit(&format!("{LOG}{again}"), "ktstr").expect("disabled");
        assert_eq!(exit.reason, "unregistered from user space");
        assert_eq!(exit.message, "");
    }

    proptest! {
        #[test]
        fn any_log_is_read(log in "(3,1,1,-;)?sched_ext: (BPF scheduler \"|k: )?\\PC{0,40}(\n\\PC{0,40}){0,3}") {
            let exit = last_exit(&log, "k").unwrap_or_default();
            let _ = kind(&exit, &log);
        }
    }
}

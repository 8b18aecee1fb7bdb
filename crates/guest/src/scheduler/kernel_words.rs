//! What the kernel printed when it disabled a scheduler.

use ktstr_report::KernelExit;

/// `pr_fmt` of kernel/sched/ext.c.
const PREFIX: &str = "sched_ext: ";

/// Most that is kept of a message. The kernel's own limit is `SCX_EXIT_MSG_LEN`, 1024.
const MESSAGE_BYTES: usize = 2048;

/// Exits that are kept. A scheduler that loads again and again has as many as there is time for.
const MAX_EXITS: usize = 64;

/// What the kernel's log says of one scheduler.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogWords {
    /// How often it was enabled.
    pub(super) enables: u64,
    /// Every time that it was disabled after it was first enabled, in order.
    pub(super) exits: Vec<KernelExit>,
}

/// Reads records as /dev/kmsg gives them, of the scheduler that the kernel calls `ops`.
///
/// `scx_root_enable_workfn()` in kernel/sched/ext.c prints `sched_ext: BPF scheduler "OPS" enabled`,
/// `scx_disable_workfn()` prints `sched_ext: BPF scheduler "OPS" disabled (REASON)`, and for an error
/// `sched_ext: OPS: MESSAGE` after it.
pub(super) fn of_log(log: &str, ops: &str) -> LogWords {
    let mut words = LogWords::default();
    // Where the log was overwritten, the first that is left may be an end.
    let is_whole = log.lines().any(|line| is_enabled(split(line).1, ops));
    for line in log.lines() {
        let (uptime_ms, message) = split(line);
        if is_enabled(message, ops) {
            words.enables += 1;
        }
        if is_whole && words.enables == 0 {
            continue;
        }
        if let Some(reason) = disabled(message, ops) {
            if words.exits.len() < MAX_EXITS {
                words.exits.push(KernelExit {
                    kind: kind_of(reason),
                    reason: reason.to_owned(),
                    message: String::new(),
                    uptime_ms,
                });
            }
        } else if let Some(exit) = words.exits.last_mut()
            && exit.message.is_empty()
            && exit.is_error()
            && let Some(more) = message
                .strip_prefix(PREFIX)
                .and_then(|words| words.strip_prefix(ops)?.strip_prefix(": "))
        {
            exit.message = bounded(more);
        }
    }
    words
}

/// The sequence number of the last record.
pub(super) fn last_sequence(log: &str) -> Option<u64> {
    log.lines().rev().find_map(sequence)
}

/// The records of `log` after the one with this sequence number.
pub(super) fn after(log: &str, passed: Option<u64>) -> &str {
    let Some(passed) = passed else {
        return log;
    };
    let mut rest = log;
    for line in log.split_inclusive('\n') {
        if sequence(line).is_some_and(|sequence| sequence > passed) {
            return rest;
        }
        rest = &rest[line.len()..];
    }
    rest
}

/// The second field of `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;MESSAGE` (Documentation/ABI/testing/dev-kmsg).
fn sequence(record: &str) -> Option<u64> {
    record.split_once(';')?.0.split(',').nth(1)?.parse().ok()
}

/// Every time that any scheduler was disabled, in order: that of one that was never attached is the kernel's refusal.
pub(super) fn of_any(log: &str) -> Vec<KernelExit> {
    let named = log.lines().rev().find_map(|line| {
        let rest = split(line).1.strip_prefix(PREFIX)?;
        let rest = rest.strip_prefix("BPF scheduler \"")?;
        rest.split_once("\" disabled (")
    });
    named.map_or(Vec::new(), |(ops, _)| of_log(log, ops).exits)
}

/// Adds what only the trace knows: the messages of exits that are no errors, which the kernel does not print, and the
/// kinds of all. A scheduler that user space ends is not in it.
pub(super) fn complete(exits: &mut [KernelExit], traced: &[KernelExit]) {
    let mut traced = traced.iter();
    for exit in exits.iter_mut().filter(|exit| !exit.is_from_user_space()) {
        // Both are in order. One that the log has lost is passed over.
        let Some(same) = traced.find(|same| same.reason == exit.reason) else {
            return;
        };
        exit.kind = same.kind;
        if exit.message.is_empty() {
            exit.message = bounded(&same.message);
        }
    }
}

/// The kind of the first error (`enum scx_exit_kind`) as the dump says it: `… triggered exit kind 1026:`.
pub(super) fn kind_in_dump(dump: &str) -> Option<u32> {
    dump.lines().find_map(|line| {
        let (_, rest) = line.split_once(" triggered exit kind ")?;
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        rest[..digits.unwrap_or(rest.len())].parse().ok()
    })
}

/// The kind that has this reason (`scx_exit_reason()`). The numbers are part of what schedulers are told, and have
/// never changed.
fn kind_of(reason: &str) -> Option<u32> {
    match reason {
        "unregistered from user space" => Some(64),
        "unregistered from BPF" => Some(65),
        "unregistered from the main kernel" => Some(66),
        "disabled by sysrq-S" => Some(67),
        "runtime error" => Some(1024),
        "scx_bpf_error" => Some(1025),
        "runnable task stall" => Some(1026),
        _ => None,
    }
}

/// The time and the message of a record: `priority,number,time in µs,flags;message`. What user space has written to
/// /dev/kmsg, which has another facility than 0, has no message here.
fn split(line: &str) -> (Option<u64>, &str) {
    let Some((head, message)) = line.split_once(';') else {
        return (None, line);
    };
    let mut fields = head.split(',').map(str::parse::<u64>);
    if fields
        .next()
        .is_some_and(|field| field.is_ok_and(|priority| priority >> 3 != 0))
    {
        return (None, "");
    }
    let time_us = fields.nth(1).and_then(Result::ok);
    (time_us.map(|time_us| time_us / 1000), message)
}

/// The text after `BPF scheduler "OPS" `.
fn about<'a>(message: &'a str, ops: &str) -> Option<&'a str> {
    let rest = message.strip_prefix(PREFIX)?;
    let rest = rest.strip_prefix("BPF scheduler \"")?;
    rest.strip_prefix(ops)?.strip_prefix("\" ")
}

/// `enabled`, and what some kernels add to it.
fn is_enabled(message: &str, ops: &str) -> bool {
    about(message, ops).is_some_and(|rest| rest.starts_with("enabled"))
}

/// The reason in `disabled (REASON)`.
fn disabled<'a>(message: &'a str, ops: &str) -> Option<&'a str> {
    let rest = about(message, ops)?.strip_prefix("disabled (")?;
    rest.strip_suffix(')')
}

fn bounded(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_BYTES)].to_owned()
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

    /// scx_rusty 1.1.4 on 7.3.4, as CPU 3 went offline.
    const RELOADED: &str = "\
6,700,11480918,-;sched_ext: BPF scheduler \"rusty\" enabled
6,701,12666564,-;smpboot: CPU 3 is now offline
6,702,12780213,-;sched_ext: BPF scheduler \"rusty\" disabled (unregistered from the main kernel)
6,703,16203117,-;sched_ext: BPF scheduler \"rusty\" disabled (unregistered from the main kernel)
6,704,18918211,-;sched_ext: BPF scheduler \"rusty\" enabled
6,705,19015076,-;sched_ext: BPF scheduler \"rusty\" disabled (unregistered from user space)
";

    fn traced(message: &str) -> KernelExit {
        KernelExit {
            kind: Some(66),
            reason: "unregistered from the main kernel".to_owned(),
            message: message.to_owned(),
            uptime_ms: None,
        }
    }

    #[test]
    fn reason_and_message_are_told_apart() {
        let words = of_log(LOG, "ktstr");
        assert_eq!(words.enables, 1);
        let [exit] = &words.exits[..] else {
            panic!("{words:?}");
        };
        assert_eq!(exit.reason, "runnable task stall");
        assert_eq!(exit.message, "kworker/3:0[38] failed to run for 4.252s");
        assert_eq!((exit.kind, exit.uptime_ms), (Some(1026), Some(9408)));
    }

    #[test]
    fn an_earlier_life_is_passed_over_by_its_records() {
        let log = "6,7,100,-;one\n SUBSYSTEM=x\n6,8,200,-;two, 9\n6,12,300,-;three\n";
        assert_eq!(last_sequence(log), Some(12));
        assert_eq!(after(log, None), log);
        assert_eq!(after(log, Some(7)), "6,8,200,-;two, 9\n6,12,300,-;three\n");
        assert_eq!(after(log, Some(9)), "6,12,300,-;three\n");
        assert_eq!(after(log, Some(12)), "");
        assert_eq!(last_sequence("no record"), None);
    }

    #[test]
    fn fault_a5_every_exit_since_attach_is_kept_in_order_with_the_kernels_message() {
        let mut words = of_log(RELOADED, "rusty");
        assert_eq!(words.enables, 2);
        complete(
            &mut words.exits,
            &[
                traced("cpu 3 going offline, exiting scheduler"),
                traced("expected hotplug seq 4 did not match actual 5"),
            ],
        );
        let exits: Vec<String> = words.exits.iter().map(ToString::to_string).collect();
        assert_eq!(
            exits,
            [
                "unregistered from the main kernel: cpu 3 going offline, exiting scheduler",
                "unregistered from the main kernel: expected hotplug seq 4 did not match actual 5",
                "unregistered from user space",
            ]
        );
        let decisive = KernelExit::decisive(&words.exits).expect("one");
        assert_eq!(decisive.uptime_ms, Some(12780));
    }

    #[test]
    fn fault_a5_an_error_exit_wins_over_all_others() {
        let log = format!("{RELOADED}{}", LOG.replace("ktstr", "rusty"));
        let words = of_log(&log, "rusty");
        assert_eq!((words.enables, words.exits.len()), (3, 4));
        let decisive = KernelExit::decisive(&words.exits).expect("one");
        assert_eq!(decisive.reason, "runnable task stall");
    }

    #[test]
    fn what_was_before_the_scheduler_was_attached_is_not_its_end() {
        let refused = "3,1,1,-;sched_ext: BPF scheduler \"ktstr\" disabled (runtime error)\n3,2,2,-;sched_ext: ktstr: x\n";
        let words = of_log(&format!("{refused}{LOG}"), "ktstr");
        assert_eq!(words, of_log(LOG, "ktstr"));
        // Without the line of its attach all that is left counts.
        assert_eq!(of_log(refused, "ktstr").exits.len(), 1);
        assert_eq!(of_any(refused)[0].to_string(), "runtime error: x");
        assert_eq!(of_any("6,1,1,-;x\n"), []);
    }

    #[test]
    fn the_dump_says_the_kind() {
        let dump = "x: root\nkworker/u8:1[29] triggered exit kind 1028 on CPU 0:\n";
        assert_eq!(kind_in_dump(dump), Some(1028));
        assert_eq!(kind_in_dump("a triggered exit kind 99999999999"), None);
        assert_eq!(kind_in_dump(""), None);
    }

    #[test]
    fn another_scheduler_is_another() {
        assert_eq!(of_log(LOG, "kts"), LogWords::default());
        assert_eq!(of_log(LOG, "ktstr_1.0"), LogWords::default());
        assert_eq!(of_log("", "ktstr"), LogWords::default());
        // What a program writes to /dev/kmsg.
        let forged = LOG.replace("\n6,", "\n14,").replace("\n3,", "\n11,");
        assert_eq!(of_log(&forged[1..], "ktstr").exits, []);
    }

    proptest! {
        #[test]
        fn any_log_is_read(log in "(3,1,1,-;)?sched_ext: (BPF scheduler \"|k: )?\\PC{0,40}(\n\\PC{0,40}){0,3}") {
            let mut words = of_log(&log, "k");
            let traced = words.exits.clone();
            complete(&mut words.exits, &traced);
            let _ = (kind_in_dump(&log), of_any(&log));
        }
    }
}

//! `kernel_log`: the guest's kernel printed no warning, bug, oops, lockup or stall since boot.

use ktstr_report::{AssertResult, Subject};

use super::OFF;
use super::verdict::{Check, Measured, float};

pub(super) const CHECK: Check = Check {
    name: "kernel_log",
    unit: "complaints",
};

/// How the kernel begins a message about itself being broken, and the file that prints it. Matched at the
/// start of a message, after the prefixes in [`PREFIXES`]: benign messages have such words in their midst.
const COMPLAINTS: &[&str] = &[
    // kernel/panic.c, __warn(): up to 6.18, and from 6.19 on without a place (with one, see
    // `is_placed_warning`).
    "WARNING: CPU: ",
    "WARNING: at ",
    // kernel/locking/lockdep.c.
    "WARNING: possible circular locking dependency detected",
    "WARNING: possible recursive locking detected",
    "WARNING: possible irq lock inversion dependency detected",
    "WARNING: inconsistent lock state",
    "WARNING: bad unlock balance detected",
    "WARNING: bad contention detected",
    "WARNING: held lock freed",
    "WARNING: lock held when returning to user space",
    "WARNING: Nested lock was not taken",
    "WARNING: suspicious RCU usage",
    "[ BUG: Invalid wait context ]",
    // arch/x86/mm/fault.c (page faults, NULL pointers), kernel/sched/core.c (scheduling while atomic,
    // sleeping function called from invalid context), kernel/watchdog.c (soft lockup), kernel/workqueue.c
    // (workqueue lockup), mm/page_alloc.c, mm/slub.c, mm/kasan/report.c, kernel/kcsan/report.c,
    // kernel/locking/spinlock_debug.c, lib/smp_processor_id.c.
    "BUG: ",
    // lib/bug.c, report_bug().
    "kernel BUG at ",
    "Kernel BUG at ",
    // arch/x86/kernel/dumpstack.c, __die_header().
    "Oops: ",
    // arch/x86/kernel/traps.c.
    "general protection fault",
    "double fault: ",
    // kernel/panic.c, vpanic().
    "Kernel panic - not syncing",
    // kernel/watchdog.c before 6.5 (later kernels name the CPU first, see `is_hard_lockup`).
    "Watchdog detected hard LOCKUP",
    // lib/list_debug.c.
    "list_add corruption",
    "list_del corruption",
    // lib/ubsan.c.
    "UBSAN: ",
];

/// What may stand before a message: `pr_fmt` of kernel/watchdog.c, kernel/rcu/tree.c and
/// arch/x86/kernel/traps.c.
const PREFIXES: &[&str] = &["watchdog: ", "NMI watchdog: ", "rcu: ", "traps: "];

/// Complaints that are quoted at most in the detail.
const MAX_QUOTE_BYTES: usize = 200;

pub(super) fn judge(result: &mut AssertResult, on: bool, log: &str) {
    if !on {
        return result.push_not_checked(CHECK.name, OFF);
    }
    let scan = scan(log);
    let measured = Measured {
        value: float(scan.complaints.len() as u64),
        bound: 0.0,
    };
    if let Some(first) = scan.complaints.first() {
        let end = first.floor_char_boundary(MAX_QUOTE_BYTES);
        let more = match scan.complaints.len() {
            1 => String::new(),
            count => format!(" (the first of {count} complaints)"),
        };
        let detail = format!("the guest's kernel printed `{}`{more}", &first[..end]);
        return CHECK.conclude(result, false, measured, Subject::default(), detail);
    }
    if scan.records == 0 {
        return CHECK.inconclusive(result, Some(0.0), "the kernel's log was empty");
    }
    if scan.lost > 0 {
        let detail = format!(
            "{} records of the kernel's log were overwritten before they could be read; {} had no complaint: \
             boot with a larger log_buf_len",
            scan.lost, scan.records
        );
        return CHECK.inconclusive(result, Some(0.0), detail);
    }
    let detail = format!(
        "no complaint in {} records of the kernel's log",
        scan.records
    );
    CHECK.conclude(result, true, measured, Subject::default(), detail);
}

#[derive(Debug, Default)]
struct Scan<'a> {
    records: u64,
    /// Records that the kernel had to drop, by the holes in their numbers.
    lost: u64,
    complaints: Vec<&'a str>,
}

/// Reads records as /dev/kmsg gives them (Documentation/ABI/testing/dev-kmsg): `level,number,time,flags;`
/// and the message, then lines of properties that begin with a space. Lines without such a head are taken
/// for the kernel's.
fn scan(log: &str) -> Scan<'_> {
    let mut scan = Scan::default();
    let mut next = 0;
    for line in log
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(' '))
    {
        let (head, message) = match split(line) {
            Some((head, message)) => (Some(head), message),
            None => (None, line),
        };
        scan.records += 1;
        if let Some(head) = head {
            scan.lost = scan.lost.saturating_add(head.number.saturating_sub(next));
            next = head.number.saturating_add(1);
        }
        let from_kernel = head.is_none_or(|head| head.facility == 0);
        if from_kernel && is_complaint(message) {
            scan.complaints.push(message);
        }
    }
    scan
}

#[derive(Clone, Copy, Debug)]
struct Head {
    /// 0 for the kernel; what user space writes to /dev/kmsg always has another (devkmsg_write() in
    /// kernel/printk/printk.c).
    facility: u32,
    number: u64,
}

fn split(line: &str) -> Option<(Head, &str)> {
    let (head, message) = line.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    // The time, which every record has.
    fields.next()?.parse::<u64>().ok()?;
    let facility = priority >> 3;
    Some((Head { facility, number }, message))
}

fn is_complaint(message: &str) -> bool {
    let bare = PREFIXES.iter().fold(message, |message, prefix| {
        message.strip_prefix(prefix).unwrap_or(message)
    });
    COMPLAINTS.iter().any(|start| bare.starts_with(start))
        || is_placed_warning(bare)
        || is_hard_lockup(bare)
        || is_hung_task(bare)
        || is_rcu_stall(bare)
}

/// From 6.19 on __warn() in kernel/panic.c names the place first: `WARNING: FILE:LINE at SYMBOL, CPU#N:`.
fn is_placed_warning(message: &str) -> bool {
    message.strip_prefix("WARNING: ").is_some_and(|rest| {
        let place = rest.split_once(" at ").map(|(place, _)| place);
        let line = place
            .and_then(|place| place.rsplit_once(':'))
            .map(|(_, line)| line);
        line.is_some_and(|line| line.parse::<u32>().is_ok()) && rest.contains(", CPU#")
    })
}

/// kernel/watchdog.c: `CPU3: Watchdog detected hard LOCKUP on cpu 2`.
fn is_hard_lockup(message: &str) -> bool {
    message.starts_with("CPU") && message.contains(": Watchdog detected hard LOCKUP on cpu")
}

/// kernel/hung_task.c: `INFO: task NAME:PID blocked for more than N seconds.`, or `blocked in I/O wait for
/// more than`.
fn is_hung_task(message: &str) -> bool {
    message.starts_with("INFO: task ")
        && message.contains(" blocked ")
        && message.contains("for more than ")
}

/// kernel/rcu/tree_stall.h and tree_exp.h: `INFO: rcu_preempt detected stalls on CPUs/tasks`,
/// `INFO: rcu_preempt self-detected stall on CPU`, `INFO: rcu_preempt detected expedited stalls`, and
/// `rcu_preempt kthread starved for`.
fn is_rcu_stall(message: &str) -> bool {
    let stall = [
        " detected stalls on ",
        " self-detected stall on ",
        " detected expedited stalls on ",
    ];
    (message.starts_with("INFO: ") && stall.iter().any(|part| message.contains(part)))
        || message.contains(" kthread starved for ")
        || message.contains(" kthread timer wakeup didn't happen for ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn complaints(log: &str) -> usize {
        scan(log).complaints.len()
    }

    #[test]
    fn the_kernels_complaints_are_found() {
        for message in [
            "WARNING: CPU: 1 PID: 77 at kernel/sched/ext.c:1234 scx_foo+0x1/0x2",
            "WARNING: kernel/sched/ext.c:1234 at scx_foo+0x1/0x2, CPU#1: bash/77",
            "WARNING: at scx_foo+0x1/0x2, CPU#1: bash/77",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [spin:99]",
            "watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 2",
            "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "BUG: scheduling while atomic: worker/77/0x00000002",
            "Oops: Oops: 0000 [#1] SMP NOPTI",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "rcu: INFO: rcu_sched self-detected stall on CPU",
            "rcu: rcu_preempt kthread starved for 5252 jiffies!",
            "INFO: task worker:77 blocked for more than 120 seconds.",
            "kernel BUG at mm/slub.c:1!",
            "Kernel panic - not syncing: sysrq triggered crash",
        ] {
            assert_eq!(complaints(&format!("4,0,1,-;{message}\n")), 1, "{message}");
        }
    }

    #[test]
    fn benign_messages_are_not() {
        for message in [
            "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
            "WARNING: this message is no warning of __warn()",
            "Run /init as init process",
            "INFO: NMI handler (perf_event_nmi_handler) took too long to run",
            "debug: BUG: in the midst",
        ] {
            assert_eq!(complaints(&format!("4,0,1,-;{message}\n")), 0, "{message}");
        }
    }

    #[test]
    fn what_user_space_writes_is_passed_over() {
        assert_eq!(complaints("12,0,1,-;BUG: says a program\n"), 0);
        assert_eq!(complaints("4,0,1,-;BUG: says the kernel\n"), 1);
    }

    #[test]
    fn properties_are_not_messages() {
        assert_eq!(complaints("6,0,1,-;hello\n SUBSYSTEM=BUG: x\n"), 0);
    }

    #[test]
    fn overwritten_records_leave_it_open() {
        let mut result = AssertResult::default();
        judge(&mut result, true, "6,5,1,-;hello\n6,8,2,-;again\n");
        assert_eq!(scan("6,5,1,-;hello\n6,8,2,-;again\n").lost, 7);
        assert_eq!(result.outcome(), ktstr_report::Outcome::Inconclusive);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "\\PC{0,200}(\n\\PC{0,80}){0,4}") {
            let _ = scan(&text);
        }
    }
}

//! `kernel_log`: the guest's kernel printed no warning, bug, oops, lockup or stall since boot.

use ktstr_declaration::Check;
use ktstr_report::{AssertResult, CheckResult, KERNEL_PANIC, Subject};

use super::figure::Measured;

/// How the kernel begins a message about itself being broken, and the file that prints it. Matched at the
/// start of a message, after the prefixes in [`PREFIXES`]: benign messages have such words in their midst.
const COMPLAINTS: &[&str] = &[
    // kernel/panic.c, __warn(): up to 6.18, and from 6.19 on without a place (with one, see
    // `is_placed_warning`).
    "WARNING: CPU: ",
    "WARNING: at ",
    // kernel/locking/lockdep.c.
    "WARNING: possible circular locking dependency detected", // print_circular_bug_header()
    "WARNING: possible recursive locking detected",           // print_deadlock_bug()
    "WARNING: possible irq lock inversion dependency detected", // print_irq_inversion_bug()
    "WARNING: inconsistent lock state",                       // print_usage_bug()
    "WARNING: bad unlock balance detected",                   // print_unlock_imbalance_bug()
    "WARNING: bad contention detected",                       // print_lock_contention_bug()
    "WARNING: held lock freed",                               // print_freed_lock_bug()
    "WARNING: lock held when returning to user space",        // lockdep_sys_exit()
    "WARNING: Nested lock was not taken",                     // print_lock_nested_lock_not_held()
    "WARNING: suspicious RCU usage",                          // lockdep_rcu_suspicious()
    "[ BUG: Invalid wait context ]",                          // print_lock_invalid_wait_context()
    "INFO: trying to register non-static key",                // assign_lock_key()
    // arch/x86/mm/fault.c (page faults, NULL pointers), kernel/sched/core.c (scheduling while atomic,
    // sleeping function called from invalid context), kernel/watchdog.c (soft lockup), kernel/workqueue.c
    // (workqueue lockup), mm/page_alloc.c, mm/slub.c, mm/kasan/report.c, kernel/kcsan/report.c,
    // kernel/locking/spinlock_debug.c, lib/smp_processor_id.c.
    "BUG: ",
    // lib/bug.c, report_bug().
    "kernel BUG at ",
    "Kernel BUG at ",
    // arch/x86/kernel/dumpstack.c, __die_header(); up to 6.9 see `is_die_header`.
    "Oops: ",
    // arch/x86/kernel/traps.c: the names that it hands to die(), in do_error_trap() and the handlers of single
    // traps. For user space it prints `traps: COMM[PID] trap NAME`.
    "divide error: ",
    "int3: ",
    "overflow: ",
    "bounds: ",
    "invalid opcode: ",
    "coprocessor segment overrun: ",
    "invalid TSS: ",
    "segment not present: ",
    "stack segment: ",
    "general protection fault",
    "spurious interrupt bug: ",
    "fpu exception: ",
    "simd exception: ",
    "alignment check: ",
    "double fault: ",
    "control protection fault",
    "VE fault",
    // arch/x86/kernel/head64.c and entry/entry_fred.c.
    "PANIC: ",
    // kernel/exit.c, make_task_dead().
    "Fixing recursive fault but reboot is needed!",
    // kernel/softirq.c, handle_softirqs().
    "huh, entered softirq ",
    // kernel/panic.c, vpanic().
    KERNEL_PANIC,
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

/// How WARN() and BUG() begin, whatever follows (`CUT_HERE` in include/asm-generic/bug.h).
const CUT_HERE: &str = "------------[ cut here ]------------";

/// Messages after that line among which the warning's own line is. With WARN()'s text and lines of other CPUs there are
/// some between them.
const CUT_HERE_MESSAGES: usize = 16;

/// What is no fault of the kernel's, and still explains a test that failed.
const NOTEWORTHY: &[&str] = &[
    // kernel/sched/rt.c, sched_rt_runtime_exceeded().
    "sched: RT throttling activated",
    // kernel/sched/deadline.c, replenish_dl_entity().
    "sched: DL replenish lagged too much",
];

/// Stalls whose times are told at most.
const MAX_STALLS: usize = 1000;

/// Complaints that are quoted at most in the detail.
const MAX_QUOTE_BYTES: usize = 200;

pub(super) fn judge(result: &mut AssertResult, log: &str) {
    let scan = scan(log);
    for message in &scan.noteworthy {
        result
            .notes
            .push(format!("the guest's kernel printed `{message}`"));
    }
    if scan.is_all_stalls() {
        result.kernel_stalls_us.extend(&scan.stalls_us);
    }
    let measured = Measured::count(scan.complaints.len());
    if let Some(first) = scan.complaints.first() {
        let end = first.floor_char_boundary(MAX_QUOTE_BYTES);
        let more = match scan.complaints.len() {
            1 => String::new(),
            count => format!(" (the first of {count} complaints)"),
        };
        let detail = format!("the guest's kernel printed `{}`{more}", &first[..end]);
        let fail = CheckResult::fail(Check::KernelLog, detail);
        return result.push(measured.of(fail, Subject::default()));
    }
    if scan.records == 0 {
        return result.push(no_data("the kernel's log was empty".to_owned()));
    }
    if scan.lost > 0 {
        let detail = format!(
            "{} records of the kernel's log were overwritten before they could be read; {} had no complaint: \
             boot with a larger log_buf_len",
            scan.lost, scan.records
        );
        return result.push(no_data(detail));
    }
    let detail = format!(
        "no complaint in {} records of the kernel's log",
        scan.records
    );
    let pass = CheckResult::pass(Check::KernelLog, detail);
    result.push(measured.of(pass, Subject::default()));
}

fn no_data(why: String) -> CheckResult {
    CheckResult::inconclusive(Check::KernelLog, why).with_bound(0.0)
}

#[derive(Debug, Default)]
struct Scan<'a> {
    records: u64,
    /// Records that the kernel had to drop, by the holes in their numbers.
    lost: u64,
    complaints: Vec<&'a str>,
    noteworthy: Vec<&'a str>,
    /// When the kernel printed complaints that are reports of stalls.
    stalls_us: Vec<u64>,
}

/// Reads records as /dev/kmsg gives them (Documentation/ABI/testing/dev-kmsg): `level,number,time,flags;`
/// and the message, then lines of properties that begin with a space. Lines without such a head are taken
/// for the kernel's.
fn scan(log: &str) -> Scan<'_> {
    let mut scan = Scan::default();
    let mut next = 0;
    let mut cut = None;
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
        if head.is_none_or(|head| head.facility == 0) {
            scan.take(message, &mut cut);
            if let Some(head) = head.filter(|_| is_stall(message)) {
                scan.stalls_us.push(head.at_us);
            }
        }
    }
    scan.complaints.extend(cut.map(|cut| cut.first));
    scan
}

/// A [`CUT_HERE`] whose complaint has not come yet.
struct Cut<'a> {
    /// What the kernel printed first after it; the line itself if that was all.
    first: &'a str,
    messages_left: usize,
}

impl<'a> Scan<'a> {
    /// Whether there are complaints, all of which are reports of stalls and not too many to be told.
    fn is_all_stalls(&self) -> bool {
        self.stalls_us.len() == self.complaints.len() && self.stalls_us.len() <= MAX_STALLS
    }

    fn take(&mut self, message: &'a str, cut: &mut Option<Cut<'a>>) {
        if message.starts_with(CUT_HERE) {
            self.complaints.extend(cut.take().map(|cut| cut.first));
            *cut = Some(Cut {
                first: message,
                messages_left: CUT_HERE_MESSAGES,
            });
        } else if is_complaint(message) {
            // The two lines are one complaint.
            *cut = None;
            self.complaints.push(message);
        } else if let Some(open) = cut {
            if open.messages_left == CUT_HERE_MESSAGES {
                open.first = message;
            }
            open.messages_left -= 1;
            if open.messages_left == 0 {
                self.complaints.extend(cut.take().map(|cut| cut.first));
            }
        }
        if NOTEWORTHY.iter().any(|start| message.starts_with(start)) {
            self.noteworthy.push(message);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Head {
    /// 0 for the kernel; what user space writes to /dev/kmsg always has another (devkmsg_write() in
    /// kernel/printk/printk.c).
    facility: u32,
    number: u64,
    /// When it was printed, by the kernel's clock.
    at_us: u64,
}

fn split(line: &str) -> Option<(Head, &str)> {
    let (head, message) = line.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let number = fields.next()?.parse().ok()?;
    let at_us = fields.next()?.parse().ok()?;
    let facility = priority >> 3;
    let head = Head {
        facility,
        number,
        at_us,
    };
    Some((head, message))
}

/// Whether the kernel says by it only that something did not run for long: soft and hard lockups (kernel/watchdog.c),
/// workqueues (kernel/workqueue.c), hung tasks, RCU. Such a report a slow host can make too.
fn is_stall(message: &str) -> bool {
    let bare = bare(message);
    bare.starts_with("BUG: soft lockup - ")
        || bare.starts_with("BUG: workqueue lockup - ")
        || bare.starts_with("Watchdog detected hard LOCKUP")
        || is_hard_lockup(bare)
        || is_hung_task(bare)
        || is_rcu_stall(bare)
}

/// The message without what may stand before it.
fn bare(message: &str) -> &str {
    PREFIXES.iter().fold(message, |message, prefix| {
        message.strip_prefix(prefix).unwrap_or(message)
    })
}

fn is_complaint(message: &str) -> bool {
    let bare = bare(message);
    COMPLAINTS.iter().any(|start| bare.starts_with(start))
        || is_placed_warning(bare)
        || is_die_header(bare)
        || is_slub_report(bare)
        || is_lock_warning(bare)
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

/// __die_header() in arch/x86/kernel/dumpstack.c, up to 6.9 without `Oops: ` before it: `NAME: 0000 [#1] SMP`.
fn is_die_header(message: &str) -> bool {
    let Some((before, after)) = message.split_once(" [#") else {
        return false;
    };
    let code = before.rsplit_once(": ").map(|(_, code)| code);
    let has_code = code
        .is_some_and(|code| code.len() == 4 && code.bytes().all(|digit| digit.is_ascii_hexdigit()));
    has_code && after.starts_with(|digit: char| digit.is_ascii_digit())
}

/// slab_bug() in mm/slub.c: `BUG kmalloc-64 (Not tainted): Poison overwritten`.
fn is_slub_report(message: &str) -> bool {
    message.starts_with("BUG ") && message.contains("): ")
}

/// Warnings of kernel/locking/lockdep.c with a name in them: `WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order
/// detected` of print_bad_irq_dependency(), `WARNING: COMM/PID still has locks held!` of print_held_locks_bug(),
/// `WARNING: lock chain_key collision` of print_collision(). And csd_lock_wait_toolong() in kernel/smp.c.
fn is_lock_warning(message: &str) -> bool {
    let names = [
        "-unsafe lock order detected",
        " still has locks held!",
        "chain_key collision",
    ];
    (message.starts_with("WARNING: ") && names.iter().any(|part| message.contains(part)))
        || message.contains("non-responsive CSD lock")
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
    fn fault_a8_lockdeps_and_the_traps_lines_are_complaints() {
        for message in [
            "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
            "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
            "WARNING: spin/77 still has locks held!",
            "INFO: trying to register non-static key.",
            "divide error: 0000 [#1] SMP NOPTI",
            "traps: invalid opcode: 0000 [#1] SMP",
            "stack segment: 0000 [#1] SMP",
            "int3: 0000 [#1] SMP",
            "a trap of tomorrow: 00f0 [#2] PREEMPT SMP",
            "PANIC: early exception 0x0d IP 10:ffffffff81000000 error 0 cr2 0x0",
            "BUG kmalloc-64 (Not tainted): Poison overwritten",
            "smp: csd: Detected non-responsive CSD lock (#1) on CPU#0, waiting 5000000000 ns for CPU#01",
        ] {
            assert_eq!(complaints(&format!("4,0,1,-;{message}\n")), 1, "{message}");
        }
    }

    #[test]
    fn fault_a8_what_follows_a_cut_is_a_complaint_whatever_it_says() {
        let log = "4,0,1,-;------------[ cut here ]------------\n4,1,2,-;a warning of tomorrow\n6,2,3,-;x\n";
        assert_eq!(scan(log).complaints, ["a warning of tomorrow"]);
        let alone = "4,0,1,-;------------[ cut here ]------------\n";
        assert_eq!(scan(alone).complaints, [CUT_HERE]);
        // WARN() with a text of its own: one complaint, quoted by its own line.
        let warn = "4,0,1,-;------------[ cut here ]------------\n4,1,2,-;the text\n\
                    4,2,3,-;WARNING: CPU: 1 PID: 77 at kernel/sched/ext.c:1234 scx_foo+0x1/0x2\n";
        assert_eq!(complaints(&warn.repeat(2)), 2);
        assert!(scan(warn).complaints[0].starts_with("WARNING: CPU: 1"));
        let twice = alone.repeat(2) + &"6,5,6,-;x\n".repeat(40);
        assert_eq!(complaints(&twice), 2);
    }

    #[test]
    fn fault_a8_throttling_is_a_note_and_no_complaint() {
        let mut result = AssertResult::default();
        let log =
            "4,0,1,-;sched: RT throttling activated\n4,1,2,-;sched: DL replenish lagged too much\n";
        judge(&mut result, log);
        assert_eq!(result.outcome(), ktstr_report::Outcome::Pass);
        assert_eq!(
            result.notes,
            [
                "the guest's kernel printed `sched: RT throttling activated`",
                "the guest's kernel printed `sched: DL replenish lagged too much`"
            ]
        );
    }

    #[test]
    fn benign_messages_are_not() {
        for message in [
            "Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
            "WARNING: this message is no warning of __warn()",
            "Run /init as init process",
            "INFO: NMI handler (perf_event_nmi_handler) took too long to run",
            "debug: BUG: in the midst",
            "traps: worker[77] trap divide error ip:401000 sp:7ffd error:0 in worker[401000+1000]",
            "rcu: RCU restricting CPUs from NR_CPUS=8192 to nr_cpu_ids=4.",
            "node [#1] is there",
        ] {
            assert_eq!(complaints(&format!("4,0,1,-;{message}\n")), 0, "{message}");
        }
    }

    #[test]
    fn fault_c3_the_times_of_stalls_are_told_if_there_is_nothing_else() {
        let stalls = "4,0,21000000,-;rcu: INFO: rcu_preempt self-detected stall on CPU\n\
                      4,1,26500000,-;watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [spin:99]\n\
                      4,2,30000000,-;BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 33s!\n\
                      4,3,31000000,-;INFO: task worker:77 blocked for more than 120 seconds.\n";
        let told = |log: &str| {
            let mut result = AssertResult::default();
            judge(&mut result, log);
            assert_eq!(result.outcome(), ktstr_report::Outcome::Fail);
            result.kernel_stalls_us
        };
        let times = [21_000_000, 26_500_000, 30_000_000, 31_000_000];
        assert_eq!(told(stalls), times);
        let more = format!("{stalls}4,4,31500000,-;BUG: scheduling while atomic: worker/77/0x2\n");
        assert_eq!(told(&more), [0_u64; 0]);
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
        judge(&mut result, "6,5,1,-;hello\n6,8,2,-;again\n");
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

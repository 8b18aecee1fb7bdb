//! What a program had the kernel load by bpf(2), and whether it was refused, as the trace events of the system call
//! tell it (kernel/trace/trace_syscalls.c).

use std::collections::HashMap;

use ktstr_report::{FailedLoad, RefusedCall};
use nix::errno::Errno;

/// `enum bpf_cmd` (include/uapi/linux/bpf.h): what loads or attaches something.
const COMMANDS: [(u64, &str); 5] = [
    (0, "BPF_MAP_CREATE"),
    // Hands ops to the kernel.
    (2, "BPF_MAP_UPDATE_ELEM"),
    (5, "BPF_PROG_LOAD"),
    (18, "BPF_BTF_LOAD"),
    (28, "BPF_LINK_CREATE"),
];

/// The filter of the event `sys_enter_bpf` that lets through these.
pub(super) fn filter() -> String {
    let each: Vec<String> = COMMANDS
        .iter()
        .map(|(number, _)| format!("cmd == {number}"))
        .collect();
    each.join(" || ")
}

/// The calls of all threads so far.
#[derive(Debug, Default)]
pub(super) struct BpfCalls {
    count: u64,
    /// What a thread is about to be answered.
    open: HashMap<u32, &'static str>,
    refused: Option<RefusedCall>,
}

impl BpfCalls {
    /// Takes an event of thread `tid`: `sys_bpf(cmd: 5, uattr: 7ffc339f7ec0, …)` or `sys_bpf -> 0xfffffffffffffff3`.
    /// Kernels write numbers with and without `0x`.
    pub(super) fn take(&mut self, tid: u32, event: &str) {
        if let Some(args) = event.strip_prefix("sys_bpf(cmd: ") {
            let number = number(args.split(',').next().unwrap_or_default());
            let known = COMMANDS.iter().find(|(known, _)| Some(*known) == number);
            if let Some((_, name)) = known {
                self.count += 1;
                self.open.insert(tid, name);
            }
        } else if let Some(returned) = event.strip_prefix("sys_bpf -> ")
            && let Some(command) = self.open.remove(&tid)
        {
            let errno = number(returned).map_or(0, |value| value.cast_signed().wrapping_neg());
            let errno = i32::try_from(errno).ok().filter(|errno| *errno > 0);
            self.refused = errno.map(|errno| RefusedCall {
                command: command.to_owned(),
                errno: format!("{:?}", Errno::from_raw(errno)),
            });
        }
    }

    /// What they came to for a program that has ended by itself.
    pub(super) fn failed_load(&self) -> FailedLoad {
        FailedLoad {
            bpf_calls: Some(self.count),
            refused: self.refused.clone(),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(events: &[(u32, &str)]) -> FailedLoad {
        let mut calls = BpfCalls::default();
        for (tid, event) in events {
            calls.take(*tid, event);
        }
        calls.failed_load()
    }

    #[test]
    fn fault_a1_the_last_call_that_loads_something_says_whether_the_kernel_refused() {
        // As scx_rusty 1.1.4 begins on 7.3.4: libbpf tries what the kernel can do.
        let tried = [
            (7, "sys_bpf(cmd: 5, uattr: 0x7ffce4a78120, size: 0xa8)"),
            (7, "sys_bpf -> 0xfffffffffffffff3"),
            (7, "sys_bpf(cmd: 0, uattr: 0x7ffce4a78190, size: 0x5c)"),
            (7, "sys_bpf -> 0x7"),
        ];
        let load = calls(&tried);
        assert_eq!((load.bpf_calls, load.refused), (Some(2), None));
        let refused = [
            (7, "sys_bpf(cmd: 1c, uattr: 7ffc, size: 28)"),
            (8, "sys_bpf -> 0x3"),
            (7, "sys_bpf -> 0xffffffffffffffea"),
            // Another command, which the filter leaves out.
            (7, "sys_bpf -> 0xfffffffffffffffe"),
        ];
        let load = calls(&[&tried[..], &refused].concat());
        let words = load.refused.expect("refused").to_string();
        assert_eq!(words, "the kernel refused BPF_LINK_CREATE: EINVAL");
        // A program that goes on after a refusal was not ended by it.
        let load = calls(&[&refused[..], &tried[2..]].concat());
        assert_eq!(load.refused, None);
        assert_eq!(calls(&[]).bpf_calls, Some(0));
    }

    #[test]
    fn numbers_that_make_no_sense_are_passed_over() {
        let load = calls(&[
            (1, "sys_bpf(cmd: x"),
            (1, "sys_bpf -> 0x8000000000000000"),
            (1, "sys_bpf(cmd: 5"),
            (1, "sys_bpf -> 0x8000000000000000"),
        ]);
        assert_eq!((load.bpf_calls, load.refused), (Some(1), None));
    }
}

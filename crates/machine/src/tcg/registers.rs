//! Reads the text of QEMU's `info registers -a`.

use std::collections::HashMap;

use serde_json::{Value, json};

use ktstr_vmm::VcpuRegisters;

/// In the order of [`VcpuRegisters::gprs`], as QEMU's `x86_cpu_dump_state` names them
/// (target/i386/cpu-dump.c).
const GPRS: [&str; 16] = [
    "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];

/// What QEMU is asked for the text: the command and its arguments.
pub(crate) fn command() -> (&'static str, Value) {
    let arguments = json!({ "command-line": "info registers -a" });
    ("human-monitor-command", arguments)
}

/// The registers of `cpu_count` vCPUs in CPU order. The error is the place that is not as expected.
///
/// A vCPU outside long mode is dumped with 32-bit names (`EAX`, `EIP`): it has no R8 to R15.
pub(crate) fn parse(text: &str, cpu_count: u32) -> Result<Vec<VcpuRegisters>, String> {
    let blocks: Vec<_> = text.split("CPU#").skip(1).collect();
    if u32::try_from(blocks.len()) != Ok(cpu_count) {
        return Err(format!("{} CPUs instead of {cpu_count}", blocks.len()));
    }
    let mut all = Vec::with_capacity(blocks.len());
    for (cpu, block) in blocks.iter().enumerate() {
        let (number, dump) = block.split_once('\n').unwrap_or((block, ""));
        if number.trim().parse() != Ok(cpu) {
            return Err(format!("CPU#{number} in the place of CPU {cpu}"));
        }
        all.push(parse_cpu(dump).map_err(|name| format!("{name} of CPU {cpu}"))?);
    }
    Ok(all)
}

fn parse_cpu(dump: &str) -> Result<VcpuRegisters, &'static str> {
    let values = assignments(dump);
    let long = values.contains_key("RIP");
    // `RAX` in long mode, `EAX` else.
    let read = |name: &'static str| {
        let narrow;
        let key = if long || !name.starts_with('R') {
            name
        } else {
            narrow = name.replacen('R', "E", 1);
            narrow.as_str()
        };
        let digits = values.get(key).ok_or(name)?;
        u64::from_str_radix(digits, 16).map_err(|_| name)
    };
    let mut gprs = [0; GPRS.len()];
    let present = if long { GPRS.len() } else { 8 };
    for (value, name) in gprs.iter_mut().zip(GPRS).take(present) {
        *value = read(name)?;
    }
    Ok(VcpuRegisters {
        rip: read("RIP")?,
        rflags: read(if long { "RFL" } else { "EFL" })?,
        cr3: read("CR3")?,
        gprs,
        halted: values.get("HLT").is_some_and(|&halted| halted == "1"),
    })
}

/// The `NAME=VALUE` pairs; QEMU pads some names (`R8 =…`).
fn assignments(dump: &str) -> HashMap<&str, &str> {
    let mut values = HashMap::new();
    let mut parts = dump.split('=');
    let mut before = parts.next().unwrap_or_default();
    for part in parts {
        let name = before.split_whitespace().next_back().unwrap_or_default();
        let value = part.split_whitespace().next().unwrap_or_default();
        // The first wins: segment lines repeat names further down.
        values.entry(name).or_insert(value);
        before = part;
    }
    values
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// QEMU 7.2, two vCPUs: one in the kernel, one that waits for its start in real mode.
    const DUMP: &str = "\r
CPU#0\r
RAX=0000000000000000 RBX=0000000000000001 RCX=00000000000000c2 RDX=0000000000000003\r
RSI=0000000000000004 RDI=0000000000000005 RBP=0000000000000006 RSP=ffffffff82e03e90\r
R8 =0000000000000008 R9 =0000000000000009 R10=000000000000000a R11=000000000000000b\r
R12=000000000000000c R13=000000000000000d R14=000000000000000e R15=000000000000000f\r
RIP=ffffffff81e9a3ab RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r
ES =0000 0000000000000000 00000000 00000000\r
CR0=80050033 CR2=00007ffd00000000 CR3=0000000004c38000 CR4=000006f0\r
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000 \r
EFER=0000000000000d01\r
\r
CPU#1\r
EAX=00000000 EBX=00000001 ECX=00000000 EDX=00060fb1\r
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00000007\r
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r
CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000\r
EFER=0000000000000000\r
";

    #[test]
    fn long_mode_and_real_mode_are_read() {
        let all = parse(DUMP, 2).unwrap();
        assert_eq!(all[0].rip, 0xffff_ffff_81e9_a3ab);
        assert_eq!(all[0].rsp(), 0xffff_ffff_82e0_3e90);
        assert_eq!(all[0].cr3, 0x4c3_8000);
        assert_eq!(all[0].rflags, 0x246);
        assert_eq!(all[0].gprs[8..], [8, 9, 10, 11, 12, 13, 14, 15]);
        assert!(all[0].halted);
        assert_eq!((all[1].rip, all[1].rsp(), all[1].gprs[15]), (0xfff0, 7, 0));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(parse(DUMP, 4).unwrap_err(), "2 CPUs instead of 4");
        let no_cr3 = DUMP.replacen("CR3=0000000004c38000", "", 1);
        assert_eq!(parse(&no_cr3, 2).unwrap_err(), "CR3 of CPU 0");
        let bad = DUMP.replacen("RIP=ffff", "RIP=zzzz", 1);
        assert_eq!(parse(&bad, 2).unwrap_err(), "RIP of CPU 0");
        let swapped = DUMP.replacen("CPU#1", "CPU#7", 1);
        assert!(parse(&swapped, 2).unwrap_err().contains("place of CPU 1"));
    }

    proptest! {
        #[test]
        fn damaged_dumps_are_read_or_refused(at in 0..DUMP.len(), with in "[ -~\n]{0,3}") {
            let damaged = format!("{}{with}{}", &DUMP[..at], &DUMP[at + 1..]);
            let _ = parse(&damaged, 2);
        }
    }
}

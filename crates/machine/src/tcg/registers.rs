//! Reads the text of QEMU's `info registers -a`.

use std::collections::HashMap;

use crate::machine::VcpuRegisters;

/// In the order of [`VcpuRegisters::gprs`], as QEMU's `x86_cpu_dump_state` names them
/// (target/i386/cpu-dump.c).
const GPRS: [&str; 16] = [
    "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", "R8", "R9", "R10", "R11", "R12", "R13",
    "R14", "R15",
];

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

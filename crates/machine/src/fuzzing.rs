//! Fuzz targets: what must hold whatever a QEMU says, or a guest does to a device.
//!
//! `fuzz/` runs them under libFuzzer, the tests here with the seeds and what was once found. Not public API: it is
//! there only for tests and with the feature `fuzzing`.

mod disk;

use arbitrary::{Result, Unstructured};
use serde_json::Value;

use crate::tcg::{qmp, registers};
use ktstr_vmm::VcpuRegisters;

#[cfg(test)]
pub(crate) use disk::Guest as DiskGuest;
pub use disk::disk;

/// A control stream in pieces of any size. The pieces change nothing, no line is held for longer than it may be, and a
/// command of ours is one line that says what was meant.
pub fn qmp(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let cuts: [u8; 4] = input.arbitrary().unwrap_or_default();
    let stream = input.take_rest();
    let mut whole = qmp::Reader::default();
    let at_once = whole.feed(stream);
    let mut reader = qmp::Reader::default();
    let mut rest = stream;
    let mut in_pieces = Ok(Vec::new());
    let mut cuts = cuts.iter().cycle();
    while let Some(cut) = cuts.next().filter(|_| !rest.is_empty()) {
        let (piece, later) = rest.split_at(rest.len().min(usize::from(*cut) + 1));
        rest = later;
        let messages = reader.feed(piece);
        assert!(reader.held_bytes() <= qmp::LINE_BYTES);
        match (&mut in_pieces, messages) {
            (Ok(all), Ok(messages)) => all.extend(messages),
            (_, Err(error)) => {
                in_pieces = Err(error);
                break;
            }
            (Err(_), _) => {}
        }
    }
    match (&at_once, &in_pieces) {
        (Ok(one), Ok(other)) => assert_eq!(one, other),
        (one, other) => assert!(one.is_err() && other.is_err(), "{one:?} {other:?}"),
    }
    let command = String::from_utf8_lossy(stream);
    let arguments = Value::String(command.clone().into_owned());
    let line = qmp::request(&command, Some(&arguments), u64::MAX);
    assert_eq!(
        line.iter().position(|&byte| byte == b'\n'),
        Some(line.len() - 1)
    );
    let line: Value = serde_json::from_slice(&line).expect("a request is JSON");
    assert_eq!(line["execute"].as_str(), Some(&*command));
    assert_eq!(line["arguments"], arguments);
}

/// A dump of registers: any text, and one as QEMU writes it of any registers, which are read as they are.
pub fn info_registers(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let _ = dumps(&mut input);
    let count = u32::from(input.arbitrary::<u8>().unwrap_or_default() % 4);
    let text = String::from_utf8_lossy(input.take_rest());
    if let Ok(all) = registers::parse(&text, count) {
        assert_eq!(u32::try_from(all.len()), Ok(count));
    }
}

/// Dumps of up to three vCPUs.
fn dumps(input: &mut Unstructured<'_>) -> Result<()> {
    let mut text = String::new();
    let mut all = Vec::new();
    for _ in 0..input.arbitrary::<u8>()? % 4 {
        let vcpu = Vcpu::of(input)?;
        text.push_str(&format!("\r\nCPU#{}\r\n", all.len()));
        all.push(vcpu.dump(&mut text));
    }
    let count = u32::try_from(all.len()).expect("three at most");
    assert_eq!(registers::parse(&text, count), Ok(all));
    assert!(registers::parse(&text, count + 1).is_err());
    Ok(())
}

struct Vcpu {
    long_mode: bool,
    halted: bool,
    rip: u64,
    rflags: u32,
    cr3: u64,
    gprs: [u64; 16],
    /// What of it stands behind each register.
    padding: [u8; 2],
}

impl Vcpu {
    fn of(input: &mut Unstructured<'_>) -> Result<Self> {
        let [mode, first, second]: [u8; 3] = input.arbitrary()?;
        Ok(Self {
            long_mode: mode & 1 == 0,
            halted: mode & 2 == 0,
            rip: input.arbitrary()?,
            rflags: input.arbitrary()?,
            cr3: input.arbitrary()?,
            gprs: input.arbitrary()?,
            padding: [first, second],
        })
    }

    /// As `x86_cpu_dump_state` of QEMU (target/i386/cpu-dump.c); gives what it says.
    fn dump(&self, text: &mut String) -> VcpuRegisters {
        const NAMES: [&str; 8] = ["AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP"];
        let mask = if self.long_mode {
            u64::MAX
        } else {
            u64::from(u32::MAX)
        };
        let width = if self.long_mode { 16 } else { 8 };
        let letter = if self.long_mode { 'R' } else { 'E' };
        let mut gprs = self.gprs.map(|value| value & mask);
        let ends = self
            .padding
            .map(|byte| [" ", "\r\n", "  ", " \r\n"][usize::from(byte % 4)]);
        for (index, value) in gprs.iter_mut().enumerate() {
            match NAMES.get(index) {
                Some(name) => text.push_str(&format!("{letter}{name}={value:0width$x}")),
                None if self.long_mode => {
                    text.push_str(&format!("{:<3}={value:016x}", format!("R{index}")));
                }
                None => *value = 0,
            }
            text.push_str(ends[index % 2]);
        }
        let (rip, flags, halted) = (self.rip & mask, self.rflags, u8::from(self.halted));
        let fl = if self.long_mode { "RFL" } else { "EFL" };
        text.push_str(&format!(
            "\r\n{letter}IP={rip:0width$x} {fl}={flags:08x} [-------] CPL=0 II=0 A20=1 SMM=0 HLT={halted}\r\n\
             CR0=80050033 CR2=0000000000000000 CR3={:0width$x} CR4=000006f0\r\n",
            self.cr3 & mask
        ));
        VcpuRegisters {
            rip,
            rflags: flags.into(),
            cr3: self.cr3 & mask,
            gprs,
            halted: self.halted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs every seed and every finding of `target`.
    fn replay(target: &str, run: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let mut inputs = 0;
        for kept in ["seeds", "regressions"] {
            let Ok(folder) = fs::read_dir(fuzz.join(kept).join(target)) else {
                continue;
            };
            for file in folder {
                let path = file.unwrap().path();
                eprintln!("{}", path.display());
                run(&fs::read(path).unwrap());
                inputs += 1;
            }
        }
        assert!(inputs > 0, "there is no input for {target}");
        run(&[]);
    }

    #[test]
    fn kept_inputs_of_the_control_stream_hold() {
        replay("qmp", super::qmp);
    }

    #[test]
    fn kept_inputs_of_the_disk_hold() {
        replay("disk", super::disk);
    }

    #[test]
    fn kept_inputs_of_the_register_dump_hold() {
        replay("info_registers", super::info_registers);
    }
}

//! What the guest's kernel has to say against the machine it was given.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use ktstr::prelude::*;

const START: &str = "kernel complaint: ";
const END: &str = "kernel complaints: all told";

/// Parts of the machine that ACPI tables, CPUID and interrupt controllers tell the kernel of.
const SUBJECTS: [&str; 16] = [
    "acpi",
    "apic",
    "tsc",
    "topo",
    "srat",
    "slit",
    "hmat",
    "madt",
    "numa",
    "node",
    "smpboot",
    "clocksource",
    "cpuid",
    "cache",
    "sched_domain",
    "e820",
];

/// What a complaint says of them.
const WORDS: [&str; 24] = [
    "[firmware",
    "bug",
    "error",
    "warn",
    "fail",
    "invalid",
    "unstable",
    "unsynchronized",
    "mismatch",
    "conflict",
    "borken",
    "broken",
    "not valid",
    "bogus",
    "incorrect",
    "inconsist",
    "unexpected",
    "unable",
    "can't",
    "cannot",
    "could not",
    "overlap",
    "ignor",
    "not responding",
];

/// A line that has a subject and a word of a complaint, or a subject and the level of a warning.
fn is_complaint(level: u8, text: &str) -> bool {
    const WARNING: u8 = 4;
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    has(&SUBJECTS) && !is_harmless(&text) && (level <= WARNING || has(&WORDS))
}

/// Lines that a kernel prints on any machine.
fn is_harmless(text: &str) -> bool {
    // An offer of the kernel's, at every boot.
    text.contains("if necessary, use \"pci=nocrs\" and report a bug")
}

/// Level and text of a record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg).
fn parse(record: &str) -> Option<(u8, &str)> {
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    Some((u8::try_from(priority & 7).ok()?, text.lines().next()?))
}

/// In the guest: prints the complaints of its kernel.
pub(crate) fn print_complaints() -> Result<()> {
    let mut kmsg = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")?;
    let mut record = vec![0; 8192];
    loop {
        match kmsg.read(&mut record) {
            Ok(len) => {
                let record = String::from_utf8_lossy(&record[..len]);
                if let Some((level, text)) = parse(&record)
                    && is_complaint(level, text)
                {
                    println!("{START}{text}");
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // The record was overwritten before it was read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                bail!("the kernel's log has lost its beginning")
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{END}");
    Ok(())
}

/// On the host: the complaints in the output of a test, if it told all.
pub(crate) fn printed_complaints(output: &str) -> Option<Vec<&str>> {
    let lines = || output.lines();
    lines().any(|line| line == END).then(|| {
        let complaints = lines().filter_map(|line| line.strip_prefix(START));
        complaints.collect()
    })
}

#[test]
fn complaints_are_told_from_the_rest() {
    for record in [
        "6,300,1000,-;tsc: Marking TSC unstable due to TSCs unsynchronized",
        "6,300,1000,-;[Firmware Bug]: APIC: CPU 1 has a wrong id",
        "3,1,0,-;BUG: arch topology borken",
        "4,1,0,-;ACPI: SPCR table version 1",
        "6,1,0,-;resource: Expanded resource ACPI Tables due to conflict with System ROM",
        "3,1,0,-;ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.PCI0]",
        "4,1,0,-;smpboot: CPU 1 didn't come up",
    ] {
        let (level, text) = parse(record).unwrap();
        assert!(is_complaint(level, text), "{record}");
    }
    for record in [
        "6,300,1000,-;ACPI: SRAT: Node 0 PXM 0 [mem 0x00000000-0x0fffffff]",
        "6,300,1000,-;smpboot: Total of 2 processors activated (10384.51 BogoMIPS)",
        "6,1,0,-;PCI: Using host bridge windows from ACPI; if necessary, use \"pci=nocrs\" and report a bug",
        "4,1,0,-;random: crng init done",
        "5,1,0,-;random: get_random_bytes called with crng_init=0, a warning",
    ] {
        let (level, text) = parse(record).unwrap();
        assert!(!is_complaint(level, text), "{record}");
    }
}

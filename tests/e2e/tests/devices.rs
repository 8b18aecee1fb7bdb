//! Devices that a machine has when its test asks for them, as the guest's kernel finds and uses them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use ktstr::prelude::*;

const DISK: &str = "/dev/vda";
const SYSFS: &str = "/sys/class/block/vda";
const MIB: usize = 1 << 20;
const SECTOR_BYTES: usize = 512;

fn equal(result: &mut AssertResult, what: &str, seen: &str, wanted: &str) {
    result.push(CheckResult::equal("disk", what, seen, wanted));
}

/// A field of the disk's own counters: sectors that were read and written (Documentation/block/stat.rst).
fn sectors(field: usize) -> Result<f64> {
    let stat = fs::read_to_string(format!("{SYSFS}/stat"))?;
    let count = stat.split_whitespace().nth(field).context("a short stat")?;
    Ok(count.parse()?)
}

#[ktstr_test(disk_mib = 8)]
fn a_disk_keeps_what_is_written(_: &Ctx) -> Result<AssertResult> {
    let mut result = AssertResult::default();
    let attribute = |name: &str| fs::read_to_string(format!("{SYSFS}/{name}"));
    let wanted = (8 * MIB / SECTOR_BYTES).to_string();
    equal(
        &mut result,
        "its sectors",
        attribute("size")?.trim(),
        &wanted,
    );
    let serial = attribute("serial")?;
    equal(&mut result, "its serial number", serial.trim(), "ktstr");

    let disk = File::options().read(true).write(true).open(DISK)?;
    let pattern: Vec<u8> = (0..251).cycle().take(3 * MIB).collect();
    disk.write_all_at(&pattern, MIB as u64)?;
    disk.sync_all()?;
    // The kernel's own copy goes, so that the disk is read.
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let mut bytes = vec![1; 5 * MIB];
    disk.read_exact_at(&mut bytes, 0)?;
    let (before, rest) = bytes.split_at(MIB);
    let (written, behind) = rest.split_at(3 * MIB);
    let zeros = before.iter().chain(behind).all(|byte| *byte == 0);
    equal(
        &mut result,
        "what was written is read",
        &(written == pattern).to_string(),
        "true",
    );
    equal(&mut result, "the rest is zeros", &zeros.to_string(), "true");
    let moved = [("read", 2, 5), ("written", 6, 3)];
    for (what, field, mib) in moved {
        let wanted = f64::from(mib * 2048);
        let name = format!("sectors {what}");
        result.push(CheckResult::at_least(
            &name,
            sectors(field)?,
            wanted,
            "sectors",
        ));
    }

    // Its end is the end.
    let beyond = disk.write_all_at(&pattern, 6 * MIB as u64).is_err();
    equal(
        &mut result,
        "a write beyond its end fails",
        &beyond.to_string(),
        "true",
    );
    Ok(result)
}

#[test]
fn a_disk_of_the_microvm_keeps_what_is_written() {
    let sidecar = e2e::run_nested("a_disk_keeps_what_is_written");
    assert_eq!(sidecar.outcome, Outcome::Pass, "{sidecar:#?}");
}

#[ktstr_test]
fn a_machine_has_no_disk_unless_asked(_: &Ctx) -> Result<AssertResult> {
    let mut result = AssertResult::default();
    let found = fs::exists(DISK)?;
    equal(
        &mut result,
        "whether there is one",
        &found.to_string(),
        "false",
    );
    Ok(result)
}

//! What the machine itself must have.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::thread;

use ktstr_machine::{EngineKind, EngineOptions};

use super::Check;
use crate::setup::State;
use crate::{environment, test};

/// Memory that a test's machine takes when it declares none, with room for QEMU itself.
const COMFORTABLE_MIB: u64 = 1024;

/// Below this not even a small machine fits.
const LEAST_MIB: u64 = 512;

/// Where Debian's keys are on Debian, and on others with the package debian-archive-keyring.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// What machines run on where no KVM is usable.
pub(super) fn qemu(state: State) -> Check {
    match state {
        State::There(found) => Check::fine("QEMU", found),
        State::Lacking { why, remedy } => Check::missing("QEMU", why, remedy.advice()),
    }
}

/// Whether a tiny guest runs on this host's KVM. Tests run without it too, only slower.
pub(super) fn kvm() -> Check {
    match ktstr_machine::choose(EngineKind::Kvm, &EngineOptions::default()) {
        Ok(chosen) => Check::fine("KVM", format!("usable: {}", chosen.engine.describe())),
        Err(error) if error.is_permission() => Check::note(
            "KVM",
            "not usable: this user may not open /dev/kvm",
            "as root: `usermod -aG kvm USER`, then log in again; if /dev/kvm is not of group kvm with mode 0660, \
             `chgrp kvm /dev/kvm` and `chmod 0660 /dev/kvm`",
        ),
        Err(error) => Check::note(
            "KVM",
            format!("not usable: {}", innermost(&error)),
            "nothing: tests run emulated; a KVM needs hardware, or a host that nests virtualisation",
        ),
    }
}

/// The cause that no other has.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

pub(super) fn nextest() -> Check {
    let what = "cargo-nextest";
    match test::nextest_version(&environment::cargo()) {
        Ok(Some(version)) => Check::fine(what, version),
        Ok(None) => Check::missing(what, "not installed", test::NEXTEST_ADVICE),
        Err(error) => Check::missing(
            what,
            format!("cargo can't be run: {error}"),
            "put cargo on PATH",
        ),
    }
}

/// The shell of machines; most tests do without.
pub(super) fn busybox(state: State) -> Check {
    match state {
        State::There(found) => Check::fine("busybox", format!("{found} (for `shell`)")),
        State::Lacking { why, remedy } => {
            let found = format!("{why}, which `shell` needs; tests don't");
            Check::note("busybox", found, remedy.advice())
        }
    }
}

pub(super) fn memory() -> Check {
    let what = "memory";
    let Some(available_mib) = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| available_mib(&text))
    else {
        return Check::note(what, "unknown: /proc/meminfo doesn't say", "mount /proc");
    };
    let found = format!("{available_mib} MiB available");
    match available_mib {
        ..LEAST_MIB => Check::missing(
            what,
            found,
            format!("a machine needs about {LEAST_MIB} MiB: end other programs"),
        ),
        LEAST_MIB..COMFORTABLE_MIB => {
            Check::note(what, found, "enough for one small machine at a time")
        }
        _ => Check::fine(what, found),
    }
}

/// `MemAvailable` of /proc/meminfo (proc_meminfo(5)), which is in KiB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

pub(super) fn cpus() -> Check {
    match thread::available_parallelism().map(NonZero::get) {
        Ok(1) => Check::note(
            "CPUs",
            "1 for this process",
            "tests run, but slowly; timing checks grant the emulation its share",
        ),
        Ok(count) => Check::fine("CPUs", format!("{count} for this process")),
        Err(error) => Check::note("CPUs", format!("unknown: {error}"), "mount /proc and /sys"),
    }
}

/// What the `debian` kernels need: apt, Debian's keys, and a mirror that apt knows.
pub(super) fn debian() -> Check {
    let what = "Debian kernels";
    let other = "other kernels can be given as a path";
    if environment::on_path("apt-get").is_none() {
        return Check::note(what, "no apt-get, which fetches `debian` kernels", other);
    }
    let Some(keyring) = KEYRINGS.iter().find(|path| Path::new(path).exists()) else {
        let advice = format!("apt install debian-archive-keyring; {other}");
        return Check::note(
            what,
            "Debian's keys are not there, so what is fetched can't be trusted",
            advice,
        );
    };
    Check::fine(what, format!("apt-get and {keyring} are there"))
}

#[cfg(test)]
mod tests {
    use super::available_mib;

    #[test]
    fn available_memory_is_read_and_nonsense_is_not() {
        assert_eq!(
            available_mib("MemTotal: 9 kB\nMemAvailable:   2097152 kB\n"),
            Some(2048)
        );
        for nonsense in [
            "",
            "MemAvailable:",
            "MemAvailable: x kB",
            "MemAvailable: 5 MB",
        ] {
            assert_eq!(available_mib(nonsense), None, "{nonsense:?}");
        }
    }
}

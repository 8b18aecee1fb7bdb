//! Faults, each with the words that the report must have for it.

mod host_only;
mod kvm;
mod raw_syscalls;
mod stopped_host;
mod victim;
mod victims;

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ktstr_kernels::tools::{self, Tool};
use ktstr_kernels::{Cache, Kernel, KernelSpec, Quiet, ResolveOptions};
use ktstr_report::{FailureKind, Outcome, Sidecar};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use victim::{Reported, Victim, cpu_ticks, is_qemu, kill, wait_until};

fn run(name: &str) -> Reported {
    Victim::start(name, &[]).finish()
}

/// The victim's sidecar, and the failure in it, after checking what every failed test must show.
fn failed(reported: &Reported, kind: FailureKind) -> (&Sidecar, &str) {
    assert!(!reported.success, "{}", reported.text);
    let sidecar = reported
        .sidecar
        .as_ref()
        .unwrap_or_else(|| panic!("no sidecar: {}", reported.text));
    let failure = sidecar
        .failure
        .as_ref()
        .unwrap_or_else(|| panic!("no failure: {}", reported.text));
    assert_eq!(failure.kind, kind, "{}", reported.text);
    assert!(
        reported.text.contains(&failure.summary),
        "{}",
        reported.text
    );
    (sidecar, &failure.summary)
}

#[test]
fn a_panic_of_the_body_is_reported_with_its_place_and_backtrace() {
    let reported = run("body_panics");
    let (sidecar, summary) = failed(&reported, FailureKind::Test);
    assert_eq!(sidecar.outcome, Outcome::Fail);
    let place = "the test panicked at tests/e2e/tests/faults/victims.rs:";
    assert!(summary.starts_with(place), "{summary}");
    assert!(summary.ends_with(": the body gives up at 42"), "{summary}");
    let detail = &sidecar.failure.as_ref().expect("failed").detail;
    assert!(
        detail.contains("faults::victims"),
        "the backtrace has no names: {detail}"
    );
}

#[test]
fn an_error_of_the_body_is_reported_with_its_causes() {
    let reported = run("body_returns_an_error");
    let (sidecar, summary) = failed(&reported, FailureKind::Test);
    assert_eq!(summary, "the test returned an error: the outer cause");
    let detail = &sidecar.failure.as_ref().expect("failed").detail;
    assert_eq!(detail, "1: the inner cause\n");
}

#[test]
fn a_killed_body_is_reported_by_pid_1() {
    let reported = run("body_is_killed");
    let (_, summary) = failed(&reported, FailureKind::Test);
    assert_eq!(summary, "the test process was killed by SIGKILL");
}

#[test]
fn a_fault_in_the_body_is_reported() {
    let reported = run("body_faults");
    let (_, summary) = failed(&reported, FailureKind::Test);
    assert!(
        summary.starts_with("the test process got SIGSEGV"),
        "{summary}"
    );
}

#[test]
fn a_body_that_ends_its_process_has_no_result() {
    let reported = run("body_ends_its_process");
    let (_, summary) = failed(&reported, FailureKind::Guest);
    assert!(
        summary.contains("without a result, in the body of the test"),
        "{summary}"
    );
}

#[test]
fn a_kernel_panic_is_reported_with_its_text() {
    let reported = run("kernel_panics");
    let (sidecar, summary) = failed(&reported, FailureKind::Guest);
    assert!(summary.contains("sysrq triggered crash"), "{summary}");
    assert!(
        sidecar.console_tail.contains("sysrq"),
        "{}",
        sidecar.console_tail
    );
    assert!(
        sidecar.boot_retries.is_empty(),
        "a panic in the body is no failed boot"
    );
}

#[test]
fn a_killed_worker_fails_progress_by_name() {
    let reported = run("worker_is_killed");
    let sidecar = reported.sidecar.as_ref().expect("a sidecar");
    assert_eq!(sidecar.outcome, Outcome::Fail, "{}", reported.text);
    let failed: Vec<_> = sidecar.result.with_outcome(Outcome::Fail).collect();
    let progress = failed
        .iter()
        .find(|check| check.check == "progress")
        .expect("progress failed");
    assert_eq!(progress.subject.cgroup.as_deref(), Some("prey"));
    assert!(
        progress.subject.worker.is_some() && progress.detail.contains("SIGKILL"),
        "{}",
        progress.detail
    );
    assert!(
        reported.text.contains(&progress.detail),
        "{}",
        reported.text
    );
}

#[test]
fn a_worker_outside_its_cpuset_fails_isolation_with_the_cpu() {
    let reported = run("worker_strays");
    let sidecar = reported.sidecar.as_ref().expect("a sidecar");
    let failed: Vec<_> = sidecar.result.with_outcome(Outcome::Fail).collect();
    assert_eq!(failed.len(), 1, "{}", reported.text);
    assert_eq!(
        (failed[0].check.as_str(), failed[0].subject.cpu),
        ("isolation", Some(1))
    );
    assert!(reported.text.contains("bound"), "{}", reported.text);
}

#[test]
fn an_offline_cpu_fails_the_test_by_its_number() {
    let reported = run("a_cpu_goes_offline");
    let sidecar = reported.sidecar.as_ref().expect("a sidecar");
    let failed: Vec<_> = sidecar.result.with_outcome(Outcome::Fail).collect();
    assert_eq!(failed.len(), 1, "{}", reported.text);
    assert_eq!(failed[0].check, "cpus_online");
}

/// A QEMU whose guests panic as they boot: it adds an option to the kernel's.
fn qemu_without_init(folder: &Path) -> String {
    const QEMU: &str = "qemu-system-x86_64";
    const SCRIPT: &str = r#"#!/bin/sh
for word do
    shift
    case $before in -append) set -- "$@" "$word rdinit=/no/such/program" ;; *) set -- "$@" "$word" ;; esac
    before=$word
done
exec "qemu-system-x86_64" "$@"
"#;
    let script = SCRIPT.replace(QEMU, &own_qemu());
    let path = folder.join("qemu");
    fs::write(&path, script).expect("ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    path.display().to_string()
}

#[test]
fn fault_a3_a_boot_that_dies_by_the_kernels_own_fault_is_not_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let qemu = qemu_without_init(folder.path());
    let environment = [("KTSTR_QEMU", qemu.as_str()), ("KTSTR_ENGINE", "tcg")];
    let reported = Victim::start("boot_dies", &environment).finish();
    let (sidecar, summary) = failed(&reported, FailureKind::Guest);
    assert!(
        summary.starts_with("the guest kernel panicked: "),
        "{summary}"
    );
    assert!(
        sidecar.boot_retries.is_empty(),
        "{:?}",
        sidecar.boot_retries
    );
    assert!(
        sidecar.console_tail.contains("Kernel panic"),
        "{}",
        sidecar.console_tail
    );
}

#[test]
fn a_hanging_body_is_ended_and_the_consoles_end_is_in_the_report() {
    let reported = run("body_hangs");
    let (sidecar, summary) = failed(&reported, FailureKind::Guest);
    assert_eq!(
        summary,
        "the watchdog ended the machine after 4.0 s, in the body of the test"
    );
    assert!(
        sidecar.console_tail.contains("about to hang"),
        "{}",
        sidecar.console_tail
    );
    assert!(reported.text.contains("about to hang"), "{}", reported.text);
    assert!(
        sidecar
            .remarks
            .iter()
            .any(|remark| remark.starts_with("vCPU 1")),
        "{:?}",
        sidecar.remarks
    );
}

#[test]
fn a_killed_qemu_says_nothing_of_the_test() {
    let victim = Victim::start("body_waits", &[]);
    let qemu = victim.qemu();
    wait_until("the guest runs", || (cpu_ticks(qemu) > 50).then_some(()));
    kill(qemu);
    let reported = victim.finish();
    let (sidecar, summary) = failed(&reported, FailureKind::Host);
    assert_eq!(sidecar.outcome, Outcome::Inconclusive);
    assert!(
        summary.contains("killed from outside by SIGKILL"),
        "{summary}"
    );
    assert!(reported.text.contains("INCONCLUSIVE"), "{}", reported.text);
}

#[test]
fn nothing_is_left_behind_by_a_killed_host() {
    let shared_memory = entries("/dev/shm");
    let victim = Victim::start("body_waits", &[]);
    let qemu = victim.qemu();
    wait_until("the guest runs", || (cpu_ticks(qemu) > 50).then_some(()));
    let temporary = victim.temporary.path().to_owned();
    kill(victim.child.id());
    let mut child = victim.child;
    child.wait().expect("our child");
    wait_until("QEMU is gone", || (!is_qemu(qemu)).then_some(()));
    assert_eq!(entries(&temporary), Vec::<String>::new());
    assert_eq!(entries("/dev/shm"), shared_memory);
}

#[test]
fn fault_a6_a_damaged_frame_is_named_and_not_read_and_passes_no_test() {
    let reported = run("frame_is_damaged");
    let (sidecar, summary) = failed(&reported, FailureKind::Harness);
    assert_eq!(sidecar.outcome, Outcome::Inconclusive, "{}", reported.text);
    let words = "frames on the link were corrupted, and what was lost is not known: ";
    assert!(summary.starts_with(words), "{summary}");
    let damage =
        |remark: &String| remark.contains("(remark, ") && remark.contains("fails its checksum");
    assert!(sidecar.remarks.iter().any(damage), "{:?}", sidecar.remarks);
    assert!(!sidecar.remarks.iter().any(|remark| remark == "forged"));
}

#[test]
fn a_flood_costs_time_not_memory() {
    let reported = run("port_and_console_are_flooded");
    let (sidecar, _) = failed(&reported, FailureKind::Harness);
    assert_eq!(sidecar.outcome, Outcome::Inconclusive, "{}", reported.text);
    assert!(
        sidecar.output.len() < 2 << 20,
        "{} bytes kept",
        sidecar.output.len()
    );
    assert!(sidecar.output.contains("bytes left out"));
    assert!(
        sidecar
            .remarks
            .iter()
            .any(|remark| remark.contains("belong to no frame")),
        "{:?}",
        sidecar.remarks
    );
    assert!(
        (1..256).contains(&reported.peak_rss_mib),
        "{} MiB",
        reported.peak_rss_mib
    );
}

#[test]
fn an_unknown_module_is_named_before_a_machine_starts() {
    let reported = run("module_is_unknown");
    let (sidecar, _) = failed(&reported, FailureKind::Harness);
    assert!(
        reported.text.contains("no_such_module"),
        "{}",
        reported.text
    );
    assert_eq!(sidecar.timings.boot_ms, 0);
}

#[test]
fn a_module_that_does_not_load_is_named_with_the_kernels_reason() {
    let reported = run("module_does_not_load");
    let (_, summary) = failed(&reported, FailureKind::Harness);
    let words = "the guest could not be made ready: module kvm_intel was refused by the kernel (E";
    assert!(summary.starts_with(words), "{summary}");
}

#[test]
fn more_cpus_than_the_engine_has_is_a_skip_with_the_number() {
    let reported = run("more_cpus_than_the_engine_has");
    let sidecar = reported.sidecar.as_ref().expect("a sidecar");
    assert!(reported.success, "{}", reported.text);
    assert_eq!(sidecar.outcome, Outcome::Skip);
    assert!(reported.text.contains("8192 CPUs"), "{}", reported.text);
}

#[test]
fn without_any_check_a_test_is_inconclusive() {
    let reported = run("nothing_is_checked");
    assert!(!reported.success);
    assert!(reported.text.contains("INCONCLUSIVE"), "{}", reported.text);
}

#[test]
fn a_skip_is_green_and_gives_its_reason() {
    let reported = run("body_skips");
    let sidecar = reported.sidecar.as_ref().expect("a sidecar");
    assert!(reported.success, "{}", reported.text);
    assert_eq!(sidecar.outcome, Outcome::Skip);
    assert!(
        reported.text.contains("not on a Monday"),
        "{}",
        reported.text
    );
}

/// The QEMU that the engine takes, as it can be named to another process.
fn own_qemu() -> String {
    let named = env::var("KTSTR_QEMU")
        .ok()
        .filter(|named| !named.is_empty());
    let name = Tool::Qemu.program();
    let path = env::var_os("PATH").unwrap_or_default();
    let is_on_path = env::split_paths(&path).any(|folder| folder.join(name).is_file());
    let fetched = || {
        let fetched = tools::find(
            &Cache::open_default(env::var_os).expect("a cache"),
            Tool::Qemu,
        );
        let program = fetched.expect("`cargo ktstr setup` was run").program();
        program.display().to_string()
    };
    named
        .or_else(|| is_on_path.then(|| name.to_owned()))
        .unwrap_or_else(fetched)
}

/// A path or a setting that is wrong, and what the report says about it.
fn refused(environment: &[(&str, &str)], words: &[&str]) {
    let mut environment = environment.to_vec();
    // In another cache there may be no QEMU, which would be refused first.
    let qemu = own_qemu();
    let names = |name| environment.iter().any(|(set, _)| *set == name);
    if names("KTSTR_CACHE_DIR") && !names("KTSTR_QEMU") {
        environment.push(("KTSTR_QEMU", &qemu));
    }
    let reported = Victim::start("nothing_is_checked", &environment).finish();
    let (sidecar, _) = failed(&reported, FailureKind::Host);
    assert_eq!(sidecar.timings.boot_ms, 0, "a machine was started");
    for word in words {
        assert!(
            reported.text.contains(word),
            "no `{word}` in: {}",
            reported.text
        );
    }
}

#[test]
fn a_file_that_is_no_kernel_is_named() {
    refused(
        &[("KTSTR_KERNEL", "/etc/passwd")],
        &["/etc/passwd", "not a kernel"],
    );
}

#[test]
fn a_kernel_file_that_is_missing_is_named() {
    refused(
        &[("KTSTR_KERNEL", "/no/such/vmlinuz")],
        &["/no/such/vmlinuz"],
    );
}

#[test]
fn an_unknown_spec_says_what_there_is() {
    let unknown = [("KTSTR_KERNEL", "windows")];
    let words = ["`windows`", "kernel cache", "debian-"];
    refused(&unknown, &words);
    let unfinished = [("KTSTR_KERNEL", "debian/")];
    refused(&unfinished, &["KTSTR_KERNEL", "debian/"]);
}

#[test]
fn an_unknown_engine_says_which_there_are() {
    refused(
        &[("KTSTR_ENGINE", "warp")],
        &["KTSTR_ENGINE", "warp", "tcg"],
    );
}

#[test]
fn without_qemu_the_report_says_what_to_install() {
    let words = ["/no/such/qemu", "cargo ktstr setup"];
    refused(&[("KTSTR_QEMU", "/no/such/qemu")], &words);
}

/// The kernel that the other tests run on, as a folder whose config says that it has no virtio console.
#[test]
fn a_kernel_without_virtio_is_refused_before_it_boots() {
    let kernel = cached_kernel();
    let config = kernel
        .config_text()
        .expect("readable")
        .expect("Debian's kernels have one");
    let without = config.replace(
        "CONFIG_VIRTIO_CONSOLE=y",
        "# CONFIG_VIRTIO_CONSOLE is not set",
    );
    assert_ne!(config, without);
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(
        kernel.bzimage().expect("an image"),
        folder.path().join("vmlinuz"),
    )
    .expect("a copy");
    fs::write(folder.path().join("config"), without).expect("writable");
    let own_cache = tempfile::tempdir().expect("a folder");
    let environment = [
        ("KTSTR_KERNEL", folder.path().to_str().expect("text")),
        ("KTSTR_CACHE_DIR", own_cache.path().to_str().expect("text")),
    ];
    refused(&environment, &["CONFIG_VIRTIO_CONSOLE"]);
}

#[test]
fn a_read_only_cache_is_named_and_left_alone() {
    let (words, kernel) = (["Read-only file system"], own_kernel());
    let cache = SmallDisk::mount(64);
    cache.make_read_only();
    let path = cache.path();
    refused(
        &[("KTSTR_CACHE_DIR", path), ("KTSTR_KERNEL", &kernel)],
        &[&words[..], &[path]].concat(),
    );
}

#[test]
fn a_full_cache_is_named_and_nothing_half_written_stays() {
    let kernel = own_kernel();
    let cache = SmallDisk::mount(4);
    let path = cache.path();
    let words = ["No space left on device", path];
    refused(
        &[("KTSTR_CACHE_DIR", path), ("KTSTR_KERNEL", &kernel)],
        &words,
    );
    let kept = Cache::open(Path::new(path))
        .expect("a cache")
        .list()
        .expect("readable");
    assert!(kept.is_empty(), "{kept:?}");
}

/// The kernel that the other tests run on.
fn cached_kernel() -> Kernel {
    let cache = Cache::open_default(env::var_os).expect("a cache");
    ktstr_kernels::resolve(
        kernel_of_environment().as_ref(),
        &cache,
        &ResolveOptions::default(),
        &Quiet,
    )
    .expect("a kernel")
}

/// Path of its image.
fn own_kernel() -> String {
    let kernel = cached_kernel();
    kernel.bzimage().expect("an image").display().to_string()
}

/// A file system of a few MiB.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size_mib: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={size_mib}m");
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(&*size),
        )
        .expect("root mounts");
        Self { folder }
    }

    fn make_read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(
            None::<&str>,
            self.folder.path(),
            None::<&str>,
            flags,
            None::<&str>,
        )
        .expect("root remounts");
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().expect("text")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}

/// What `KTSTR_KERNEL` names.
fn kernel_of_environment() -> Option<KernelSpec> {
    let settings = ktstr::settings_from_environment().expect("settings");
    settings.kernel
}

fn entries(folder: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

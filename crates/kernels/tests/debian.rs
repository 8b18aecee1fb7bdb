//! The Debian source, with this machine's real apt and mirror.
//!
//! What is downloaded is kept under the target folder, so that only the first run fetches it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on is to stop there"
)]

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use ktstr_kernels::{
    Cache, DebianError, Event, Kernel, KernelSpec, Lines, OptionState, Origin, Progress, Quiet,
    ResolveError, ResolveOptions, resolve,
};

fn shared_cache() -> Cache {
    Cache::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel-cache")).unwrap()
}

fn get(cache: &Cache, spec: &str) -> Kernel {
    let spec: KernelSpec = spec.parse().unwrap();
    resolve(
        Some(&spec),
        cache,
        &ResolveOptions::default(),
        &Lines::default(),
    )
    .unwrap_or_else(|error| panic!("{spec}: {error}"))
}

/// What every Debian kernel must have for tests to run on it.
fn assert_usable(kernel: &Kernel) {
    assert!(kernel.bzimage().unwrap().is_file());
    let vmlinux = std::fs::read(kernel.vmlinux()).unwrap();
    assert!(vmlinux.starts_with(b"\x7fELF"));
    // The magic of a BTF header (Documentation/bpf/btf.rst).
    let btf = kernel.btf().unwrap().unwrap();
    assert_eq!(btf[..2], [0x9f, 0xeb]);
    assert!(btf.len() > 1 << 20, "{} bytes of BTF", btf.len());
    assert!(
        kernel.pvh_entry().is_some_and(|entry| entry >= 0x10_0000),
        "{:?}",
        kernel.pvh_entry()
    );
    let config = kernel.config().unwrap().unwrap();
    assert_eq!(config.state("CONFIG_CPUSETS"), OptionState::BuiltIn);
    let requirements = kernel.requirements().unwrap();
    assert!(
        requirements.can_boot() && !requirements.unchecked,
        "{requirements:?}"
    );
    kernel.entry().verify().unwrap();
}

/// Each module after those it depends on, and each file an ELF object.
fn assert_module_order(kernel: &Kernel, wanted: &str, before: &[&str]) {
    let files = kernel.modules_for(&[wanted]).unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names.last(), Some(&wanted), "{names:?}");
    for dependency in before {
        assert!(names.contains(dependency), "{names:?} lacks {dependency}");
    }
    for file in &files {
        assert!(
            file.read().unwrap().starts_with(b"\x7fELF"),
            "{}",
            file.name
        );
    }
}

#[test]
fn the_newest_kernel_is_split_over_packages_and_complete() {
    let cache = shared_cache();
    let kernel = get(&cache, "debian");
    assert!(
        kernel.release().contains("cloud-amd64"),
        "{}",
        kernel.release()
    );
    let Origin::Debian {
        suite,
        role,
        version,
        ..
    } = kernel.origin()
    else {
        panic!("{:?}", kernel.origin())
    };
    assert_eq!(role, "stable-backports");
    assert!(suite.ends_with("-backports"), "{suite}");
    assert_eq!(
        kernel.source(),
        format!("Debian {suite} linux-image-{} {version}", kernel.release())
    );
    assert_usable(&kernel);
    assert!(kernel.boot_modules().unwrap().is_empty());
    assert_module_order(&kernel, "virtio_blk", &[]);
    assert_module_order(&kernel, "kvm_amd", &["irqbypass", "kvm"]);
    let error = kernel
        .modules_for(&["no_such_thing"])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!("kernel {} has no module `no_such_thing`", kernel.release())
    );
}

#[test]
fn the_stable_suite_has_its_own_kernel_in_one_package() {
    let cache = shared_cache();
    let kernel = get(&cache, "debian/trixie");
    assert!(
        kernel.release().starts_with("6.12."),
        "{}",
        kernel.release()
    );
    assert_usable(&kernel);
    assert_module_order(&kernel, "virtio_blk", &[]);
    // Built in, so there is nothing to load.
    assert!(kernel.modules_for(&["virtio_pci"]).unwrap().is_empty());
}

#[test]
fn a_kernel_by_version_comes_from_whichever_suite_has_it() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = Cache::open(scratch.path()).unwrap();
    // A version that no suite has: all of them are asked, nothing is fetched.
    let spec: KernelSpec = "debian/1.2.3".parse().unwrap();
    let error = resolve(Some(&spec), &cache, &ResolveOptions::default(), &Quiet).unwrap_err();
    let ResolveError::Debian(DebianError::NoKernel {
        suites, available, ..
    }) = &error
    else {
        panic!("{error}")
    };
    assert!(suites.iter().any(|suite| suite == "sid"), "{suites:?}");
    assert!(
        suites.iter().any(|suite| suite.ends_with("-backports")),
        "{suites:?}"
    );
    assert!(
        available.iter().any(|version| version.starts_with("6.12")),
        "{available:?}"
    );
    assert!(cache.list().unwrap().is_empty());

    // One that the cache has is found by the start of its version.
    let shared = shared_cache();
    let newest = get(&shared, "debian");
    let Origin::Debian { version, .. } = newest.origin() else {
        panic!("{:?}", newest.origin())
    };
    let series = version.split('.').take(2).collect::<Vec<_>>().join(".");
    assert_eq!(
        get(&shared, &format!("debian/{series}")).key(),
        newest.key()
    );
}

#[test]
fn a_suite_that_does_not_exist_is_named_with_those_that_do() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = Cache::open(scratch.path()).unwrap();
    let spec: KernelSpec = "debian/no-such-suite".parse().unwrap();
    let error = resolve(Some(&spec), &cache, &ResolveOptions::default(), &Quiet).unwrap_err();
    let ResolveError::Debian(DebianError::NoSuchSuite {
        suite, existing, ..
    }) = &error
    else {
        panic!("{error}")
    };
    assert_eq!(suite, "no-such-suite");
    assert!(existing.iter().any(|suite| suite == "sid"), "{existing:?}");
    assert!(
        existing.iter().any(|suite| suite.ends_with("-backports")),
        "{existing:?}"
    );
    assert!(
        error
            .to_string()
            .contains("there is no Debian suite `no-such-suite`"),
        "{error}"
    );
}

#[test]
fn a_mirror_that_is_away_is_told_from_a_missing_suite() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = Cache::open(&scratch.path().join("cache")).unwrap();
    let machine_root = scratch.path().join("machine");
    std::fs::create_dir_all(machine_root.join("etc/apt")).unwrap();
    // The top-level name is reserved to never exist (RFC 6761).
    let line = "deb http://mirror.invalid/debian stable main\n";
    std::fs::write(machine_root.join("etc/apt/sources.list"), line).unwrap();
    let options = ResolveOptions {
        machine_root,
        ..ResolveOptions::default()
    };
    let spec: KernelSpec = "debian/sid".parse().unwrap();
    let error = resolve(Some(&spec), &cache, &options, &Quiet).unwrap_err();
    assert!(
        matches!(error, ResolveError::Debian(DebianError::Apt { .. })),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(
        message.contains("mirror.invalid") && message.contains("kernel list"),
        "{message}"
    );
}

/// A mirror on this machine that answers every request with `answer`, then a byte each `pace`, without an end.
fn slow_mirror(answer: &'static [u8], pace: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        // Both end with this process.
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut open = stream.write_all(answer).is_ok();
                while open {
                    thread::sleep(pace);
                    open = answer.is_empty() || stream.write_all(b"x").is_ok();
                }
            });
        }
    });
    format!("http://{address}/debian")
}

/// Keeps what a person hears of a slow mirror.
#[derive(Default)]
struct Slow(Mutex<Vec<String>>);

impl Progress for Slow {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().extend(event.slow_text());
    }
}

/// The error of a fetch from there, and what was said before it.
fn give_up_on(mirror: &str) -> (String, Vec<String>) {
    let scratch = tempfile::tempdir().unwrap();
    let cache = Cache::open(&scratch.path().join("cache")).unwrap();
    let machine_root = scratch.path().join("machine");
    std::fs::create_dir_all(machine_root.join("etc/apt")).unwrap();
    let line = format!("deb {mirror} stable main\n");
    std::fs::write(machine_root.join("etc/apt/sources.list"), line).unwrap();
    let options = ResolveOptions {
        machine_root,
        mirror_patience: Duration::from_secs(4),
        ..ResolveOptions::default()
    };
    let spec: KernelSpec = "debian/sid".parse().unwrap();
    let slow = Slow::default();
    let error = resolve(Some(&spec), &cache, &options, &slow).unwrap_err();
    assert!(
        matches!(error, ResolveError::Debian(DebianError::Stalled { .. })),
        "{error:?}"
    );
    let told = slow.0.into_inner().unwrap();
    (
        error.to_string().replace(mirror, "MIRROR"),
        told.iter()
            .map(|line| line.replace(mirror, "MIRROR"))
            .collect(),
    )
}

#[test]
fn fault_f12_a_mirror_that_stays_silent_is_given_up() {
    let (error, told) = give_up_on(&slow_mirror(b"", Duration::from_secs(1)));
    insta::assert_snapshot!(error, @"MIRROR sent nothing in 4 s, so it was given up; try again later, name another mirror in the apt sources, or use a kernel that is here: one of `cargo ktstr kernel list`, or a path (--kernel PATH)");
    assert!(
        told.iter()
            .any(|line| line.starts_with("waiting for MIRROR: nothing in ")),
        "{told:?}"
    );
}

#[test]
fn fault_f12_a_mirror_that_sends_a_few_bytes_a_second_is_given_up() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\n";
    let (error, told) = give_up_on(&slow_mirror(head, Duration::from_millis(100)));
    // How many bytes came is a matter of how soon apt asked.
    assert!(
        error.starts_with("MIRROR sent ") && error.contains(" in 4 s, so it was given up"),
        "{error}"
    );
    assert!(!told.is_empty());
}

#[test]
fn a_cached_kernel_is_used_without_asking_anybody() {
    let cache = shared_cache();
    let newest = get(&cache, "debian");
    let stable = get(&cache, "debian/trixie");
    // A machine without any apt sources can't ask.
    let nowhere = tempfile::tempdir().unwrap();
    let options = ResolveOptions {
        machine_root: nowhere.path().to_owned(),
        ..ResolveOptions::default()
    };
    let find = |spec: &str| {
        let spec: KernelSpec = spec.parse().unwrap();
        let start = Instant::now();
        let kernel = resolve(Some(&spec), &cache, &options, &Quiet).unwrap();
        (kernel.key().to_owned(), start.elapsed())
    };
    assert_eq!(find("debian").0, newest.key());
    let Origin::Debian { role, .. } = stable.origin() else {
        panic!("{:?}", stable.origin())
    };
    assert_eq!(find(&format!("debian/{role}")).0, stable.key());
    assert_eq!(find(newest.key()).0, newest.key());
    let best = (0..10).map(|_| find("debian").1).min().unwrap();
    assert!(best < Duration::from_millis(10), "{best:?}");

    let refresh = ResolveOptions {
        refresh: true,
        ..options.clone()
    };
    let spec: KernelSpec = "debian".parse().unwrap();
    let error = resolve(Some(&spec), &cache, &refresh, &Quiet).unwrap_err();
    assert!(
        matches!(error, ResolveError::Debian(DebianError::NoMirror { .. })),
        "{error}"
    );
}

#[test]
fn the_machines_own_apt_state_is_not_touched() {
    let stamp = |path: &str| {
        std::fs::metadata(path)
            .and_then(|found| found.modified())
            .ok()
    };
    let state = || {
        [
            "/var/lib/apt/lists",
            "/var/cache/apt/archives",
            "/var/cache/apt",
        ]
        .map(stamp)
    };
    let before = state();
    let scratch = tempfile::tempdir().unwrap();
    let cache = Cache::open(scratch.path()).unwrap();
    let spec: KernelSpec = "debian/1.2.3".parse().unwrap();
    resolve(Some(&spec), &cache, &ResolveOptions::default(), &Quiet).unwrap_err();
    assert!(scratch.path().join("apt").is_dir());
    assert_eq!(state(), before);
}

/// Set in the processes that [`two_processes_fetch_one_kernel_once`] starts of its own program.
const CHILD: &str = "KTSTR_TEST_FETCH_CHILD";

#[test]
fn two_processes_fetch_one_kernel_once() {
    if let Some(root) = std::env::var_os(CHILD) {
        let kernel = get(&Cache::open(Path::new(&root)).unwrap(), "debian");
        println!("RESULT {}", kernel.key());
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "two_processes_fetch_one_kernel_once",
                "--exact",
                "--nocapture",
            ])
            .env(CHILD, scratch.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let outputs = [start(), start()].map(|child| child.wait_with_output().unwrap());
    let mut keys = Vec::new();
    let mut told = String::new();
    for output in outputs {
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{stdout}{stderr}");
        keys.extend(
            stdout
                .lines()
                .filter_map(|line| Some(line.split_once("RESULT ")?.1.to_owned())),
        );
        told.push_str(&stderr);
    }
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_eq!(keys[0], keys[1]);
    assert_eq!(told.matches("downloading linux-").count(), 1, "{told}");
    let entry = Cache::open(scratch.path())
        .unwrap()
        .require(&keys[0])
        .unwrap();
    entry.verify().unwrap();
}

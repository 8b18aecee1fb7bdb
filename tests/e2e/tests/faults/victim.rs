//! Running one of the victims in a process of its own.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_report::{RunStore, Sidecar};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// Longer than any victim needs on a busy host, also one with others inside of it.
const DEADLINE: Duration = Duration::from_secs(460);

/// A victim that runs, with folders of its own for results and temporary files.
pub(crate) struct Victim {
    pub(crate) child: Child,
    runs: TempDir,
    pub(crate) temporary: TempDir,
}

/// What a victim came to.
pub(crate) struct Reported {
    pub(crate) success: bool,
    pub(crate) text: String,
    /// None if it never got to write one.
    pub(crate) sidecar: Option<Sidecar>,
    /// Files that it has left in its folder for temporary ones.
    pub(crate) left_in_temporary: Vec<String>,
    /// Largest resident size of the process, without its children.
    pub(crate) peak_rss_mib: u64,
}

impl Victim {
    /// Starts one of the victims.
    pub(crate) fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        Self::of(&format!("victims::{name}"), environment)
    }

    /// Starts any test of this binary, by its path.
    pub(crate) fn of(test: &str, environment: &[(&str, &str)]) -> Self {
        let runs = tempfile::tempdir().expect("a folder for results");
        let temporary = tempfile::tempdir().expect("a folder for temporary files");
        let child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
            .arg(test)
            .env("KTSTR_RUNS_DIR", runs.path())
            .env("TMPDIR", temporary.path())
            .env_remove("KTSTR_RUN_ID")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this binary runs");
        Self {
            child,
            runs,
            temporary,
        }
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Reported {
        let stdout = read_in_background(self.child.stdout.take().expect("piped"));
        let stderr = read_in_background(self.child.stderr.take().expect("piped"));
        let mut peak_rss_mib = 0;
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            peak_rss_mib = rss_peak_mib(self.child.id()).unwrap_or(0).max(peak_rss_mib);
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            if Instant::now() > deadline {
                kill(self.child.id());
            }
            thread::sleep(Duration::from_millis(20));
        };
        let text = stdout.join().expect("no panic") + &stderr.join().expect("no panic");
        Reported {
            success: status.success(),
            sidecar: only_sidecar(self.runs.path()),
            left_in_temporary: crate::entries(self.temporary.path()),
            text,
            peak_rss_mib,
        }
    }

    /// The QEMU that it has started, once the guest's kernel runs.
    pub(crate) fn qemu(&self) -> u32 {
        wait_until("the victim starts QEMU", || qemu_of(self.child.id()))
    }
}

fn read_in_background(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

pub(crate) fn kill(pid: u32) {
    send(pid, Signal::SIGKILL);
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("a process of ours");
}

/// Waits for a condition, looking more and more rarely.
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}");
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// A child process of any thread of `pid` that runs QEMU.
fn qemu_of(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|child| child.parse().ok())
        .find(|child| is_qemu(*child))
}

pub(crate) fn is_qemu(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split(|&byte| byte == 0);
    let program = words.next().unwrap_or_default();
    // Asked for its version only, it is no machine.
    String::from_utf8_lossy(program).contains("qemu-system") && words.any(|word| word == b"-M")
}

/// CPU time of a process in user mode, in the kernel's 10 ms ticks (field 14 of /proc/PID/stat).
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind_name = stat.rsplit(") ").next().unwrap_or_default();
    behind_name
        .split(' ')
        .nth(11)
        .and_then(|ticks| ticks.parse().ok())
        .unwrap_or(0)
}

fn only_sidecar(runs: &Path) -> Option<Sidecar> {
    let store = RunStore::new(runs);
    let run = store.list_runs().expect("a readable store").pop()?;
    let mut run = store.load_run(&run).expect("a readable run");
    assert!(run.unreadable.is_empty(), "{:?}", run.unreadable);
    assert_eq!(run.sidecars.len(), 1);
    run.sidecars.pop().map(|stored| stored.sidecar)
}

/// Largest resident size so far.
fn rss_peak_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

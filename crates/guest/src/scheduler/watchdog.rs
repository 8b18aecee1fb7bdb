//! Sets how long the kernel's watchdog lets the scheduler's tasks wait.
//!
//! The kernel takes that from `timeout_ms` of the ops that a scheduler loads, and from nowhere else. So the
//! program is traced until it hands its ops to the kernel, as the value of a BPF map, and the number in them is
//! replaced just before the kernel reads it. From then on it is traced no more, and runs as it would have by itself.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ktstr_declaration::Check;
use ktstr_report::CheckResult;
use ktstr_scenario::sched_ext;
use ktstr_sys::trace_from_exec;
use ktstr_wire::{OpsField, WatchdogJob};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::process::Process;
use crate::link::Link;

// include/uapi/linux/bpf.h
const BPF_MAP_UPDATE_ELEM: u64 = 2;
const BPF_MAP_TYPE_STRUCT_OPS: u64 = 26;

/// Most system calls are over sooner, and are waited for without sleeping.
const SHORT: Duration = Duration::from_millis(2);

/// How often the process is looked at in a longer one.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Why the scheduler's own limit stands.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSet {
    #[error("where this kernel takes it from is not known: {0}")]
    NoField(String),
    #[error("the scheduler is part of the kernel")]
    NoProgram,
    #[error("the main thread of its program loaded no ops of sched_ext")]
    NoOps,
    #[error("the kernel refused the ops with it: {0}")]
    Refused(Errno),
    #[error("its program can't be traced: {0}")]
    Trace(#[from] io::Error),
}

impl From<Errno> for NotSet {
    fn from(errno: Errno) -> Self {
        Self::Trace(errno.into())
    }
}

/// Starts the scheduler's program, and returns once it has loaded its ops with the limit, or won't by `deadline`.
pub(super) fn spawn_limited(
    argv: &[String],
    link: &Arc<Link>,
    job: &WatchdogJob,
    deadline: Instant,
) -> io::Result<(Process, Result<(), NotSet>)> {
    let field = match &job.field {
        Ok(field) => *field,
        Err(why) => {
            let not_set = NotSet::NoField(why.clone());
            return Ok((Process::spawn(argv, link)?, Err(not_set)));
        }
    };
    // The kernel refuses what is too long.
    let timeout_ms = u32::try_from(job.timeout_ms).unwrap_or(u32::MAX);
    thread::scope(|scope| {
        // A process is traced by the thread that started it, and by nobody once that has ended.
        let tracer = thread::Builder::new().name("ktstr-tracer".to_owned());
        let tracer = tracer.spawn_scoped(scope, || {
            let process = Process::spawn_prepared(argv, link, trace_from_exec)?;
            let pid = process.pid()?;
            let set = set_in(pid, timeout_ms, field, deadline);
            Ok((process, set))
        })?;
        tracer
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// What the test is told of its limit.
pub(super) fn check(job: &WatchdogJob, set: &Result<(), NotSet>) -> CheckResult {
    let ms = job.timeout_ms;
    match set {
        Ok(()) => {
            let detail = format!("the scheduler was loaded with a timeout_ms of {ms}");
            CheckResult::pass(Check::WatchdogTimeout, detail)
        }
        Err(why) => {
            let detail =
                format!("a timeout_ms of {ms} was not set, the scheduler's own stands: {why}");
            CheckResult::inconclusive(Check::WatchdogTimeout, detail)
        }
    }
}

/// Lets a process run that has just been started, from system call to system call, until it has loaded its ops.
fn set_in(pid: Pid, timeout_ms: u32, field: OpsField, deadline: Instant) -> Result<(), NotSet> {
    let mut refused = None;
    // Whether it is in the system call that loads them.
    let mut loads = false;
    let mut has_options = false;
    while let Some(stop) = next_stop(pid, deadline)? {
        if !has_options {
            ptrace::setoptions(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
            has_options = true;
        }
        let signal = match stop {
            WaitStatus::PtraceSyscall(_) => {
                let registers = ptrace::getregs(pid)?;
                let returned = registers.rax.cast_signed();
                if loads && returned == 0 {
                    ptrace::detach(pid, None)?;
                    return Ok(());
                }
                if loads {
                    let errno = i32::try_from(-returned).unwrap_or(0);
                    refused = Some(Errno::from_raw(errno));
                }
                loads = !loads
                    && is_map_update(&registers)
                    && replace(pid, registers.rsi, timeout_ms, field)?;
                None
            }
            // A program that is begun stops by this one.
            WaitStatus::PtraceEvent(_, Signal::SIGTRAP, _) => None,
            WaitStatus::PtraceEvent(_, signal, _) | WaitStatus::Stopped(_, signal) => Some(signal),
            _ => break,
        };
        match ptrace::syscall(pid, signal) {
            // It was killed meanwhile.
            Err(Errno::ESRCH) => break,
            resumed => resumed?,
        }
    }
    Err(refused.map_or(NotSet::NoOps, NotSet::Refused))
}

/// Where the process stops next, or how it has ended; nothing once a scheduler is attached or the time is over.
fn next_stop(pid: Pid, deadline: Instant) -> Result<Option<WaitStatus>, NotSet> {
    // Its end is left to be asked for by whoever has started it.
    let flags = [
        WaitPidFlag::WEXITED,
        WaitPidFlag::WSTOPPED,
        WaitPidFlag::WNOWAIT,
        WaitPidFlag::WNOHANG,
    ];
    let flags = WaitPidFlag::from_iter(flags);
    let resumed = Instant::now();
    loop {
        match waitid(Id::Pid(pid), flags) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            stop => return Ok(Some(stop?)),
        }
        if resumed.elapsed() < SHORT {
            thread::yield_now();
        } else if sched_ext::attached().is_some() || Instant::now() >= deadline {
            return Ok(None);
        } else {
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// Whether the process is about to have the kernel set a value of a BPF map.
fn is_map_update(registers: &libc::user_regs_struct) -> bool {
    let enters = registers.rax.cast_signed() == -i64::from(libc::ENOSYS);
    enters
        && registers.orig_rax.cast_signed() == libc::SYS_bpf
        // A C `int`: the upper half of its register may hold anything.
        && registers.rdi & u64::from(u32::MAX) == BPF_MAP_UPDATE_ELEM
}

/// Puts `timeout_ms` into the value that is to be set, if that is ops of sched_ext. `attr` is the address of the
/// call's `union bpf_attr` in the process.
fn replace(pid: Pid, attr: u64, timeout_ms: u32, field: OpsField) -> io::Result<bool> {
    let memory = format!("/proc/{pid}/mem");
    let memory = File::options().read(true).write(true).open(memory)?;
    // map_fd, padding, key, value
    let mut words = [0; 3 * size_of::<u64>()];
    memory.read_exact_at(&mut words, attr)?;
    let [map_fd, _, value] = [0, 8, 16].map(|at| {
        let word = words[at..].first_chunk();
        word.map_or(0, |word| u64::from_le_bytes(*word))
    });
    let map_fd = map_fd & u64::from(u32::MAX);
    let map = fs::read_to_string(format!("/proc/{pid}/fdinfo/{map_fd}"))?;
    if !holds_ops(&map, field.value_bytes) {
        return Ok(false);
    }
    let at = value.wrapping_add(field.offset_bytes);
    memory.write_all_at(&timeout_ms.to_le_bytes(), at)?;
    Ok(true)
}

/// Whether a map holds ops whose value is so big, by what procfs says of it. Ops of other kinds are other sizes.
fn holds_ops(fdinfo: &str, value_bytes: u64) -> bool {
    let number = |name: &str| {
        let mut lines = fdinfo.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))?;
        value.parse::<u64>().ok()
    };
    number("map_type") == Some(BPF_MAP_TYPE_STRUCT_OPS) && number("value_size") == Some(value_bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use ktstr_report::Outcome;

    use super::*;

    const FIELD: OpsField = OpsField {
        offset_bytes: 64,
        value_bytes: 512,
    };

    #[test]
    fn ops_are_known_by_their_type_and_size() {
        let map =
            |kind, size| format!("pos:\t0\nmap_type:\t{kind}\nkey_size:\t4\nvalue_size:\t{size}\n");
        assert!(holds_ops(&map(26, 512), 512));
        assert!(!holds_ops(&map(26, 64), 512));
        assert!(!holds_ops(&map(2, 512), 512));
        assert!(!holds_ops("pos:\t0\n", 512));
    }

    /// Starts a program that loads no ops, and returns what came of it and its exit status.
    fn traced(script: &'static str) -> (NotSet, Option<i32>) {
        let tracer = thread::spawn(move || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            trace_from_exec(&mut command);
            let child = command.spawn().unwrap();
            let pid = Pid::from_raw(child.id().cast_signed());
            let deadline = Instant::now() + Duration::from_secs(60);
            (set_in(pid, 5000, FIELD, deadline).unwrap_err(), child)
        });
        let (why, mut child) = tracer.join().unwrap();
        let status = child.wait().unwrap();
        (why, status.code())
    }

    #[test]
    fn a_program_without_ops_runs_to_its_end() {
        let (why, code) = traced("exit 7");
        assert!(matches!(why, NotSet::NoOps), "{why}");
        assert_eq!(code, Some(7));
    }

    #[test]
    fn its_signals_reach_it() {
        let (why, code) = traced("trap 'exit 3' USR1; kill -USR1 $$; exit 1");
        assert!(matches!(why, NotSet::NoOps), "{why}");
        assert_eq!(code, Some(3));
    }

    #[test]
    fn it_runs_on_when_the_time_for_it_is_over() {
        let tracer = thread::spawn(|| {
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", "read line; exit $line"])
                .stdin(std::process::Stdio::piped());
            trace_from_exec(&mut command);
            let child = command.spawn().unwrap();
            let pid = Pid::from_raw(child.id().cast_signed());
            let deadline = Instant::now() + Duration::from_millis(50);
            (set_in(pid, 5000, FIELD, deadline).unwrap_err(), child)
        });
        let (why, mut child) = tracer.join().unwrap();
        assert!(matches!(why, NotSet::NoOps), "{why}");
        let mut stdin = child.stdin.take().unwrap();
        io::Write::write_all(&mut stdin, b"5\n").unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(5));
    }

    #[test]
    fn a_limit_that_is_not_set_is_no_pass() {
        let job = WatchdogJob {
            timeout_ms: 5000,
            field: Ok(FIELD),
        };
        assert_eq!(check(&job, &Ok(())).outcome, Outcome::Pass);
        let not_set = check(&job, &Err(NotSet::Refused(Errno::E2BIG)));
        assert_eq!(not_set.outcome, Outcome::Inconclusive);
        assert_eq!(
            not_set.detail,
            "a timeout_ms of 5000 was not set, the scheduler's own stands: the kernel refused the ops with it: E2BIG: \
             Argument list too long"
        );
    }
}

//! System calls that have no safe wrapper among the dependencies.
#![expect(
    unsafe_code,
    reason = "futex, fork, sched_setattr, sched_getattr, setpriority, move_pages and sched_setaffinity beyond \
              1024 CPUs are raw calls"
)]

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU32};

use ktstr_topology::CpuSet;
use libc::{c_int, c_long};
use nix::unistd::{ForkResult, Pid};

fn check(result: c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sleeps until `word` no longer holds `expected` and someone wakes it, or until `deadline_ns` of
/// CLOCK_MONOTONIC. Whether it was woken: false for a timeout, a signal, or a word that had changed
/// before.
pub(super) fn futex_wait(word: &AtomicU32, expected: u32, deadline_ns: u64) -> bool {
    const NS_PER_S: u64 = 1_000_000_000;
    let deadline = libc::timespec {
        tv_sec: i64::try_from(deadline_ns / NS_PER_S).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(deadline_ns % NS_PER_S).unwrap_or(0),
    };
    // SAFETY: `word` and `deadline` live through the call; the kernel only reads both. Not the private
    // variant, since the word may be shared between processes. The bitset variant takes an absolute time.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            &raw const deadline,
            ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    result == 0
}

/// Wakes all who sleep on `word`.
pub(super) fn futex_wake_all(word: &AtomicU32) {
    // SAFETY: `word` lives through the call, and the kernel uses only its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, c_int::MAX) };
}

/// Parameters of sched_setattr(2), in the kernel's units.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SchedAttr {
    pub(super) policy: u32,
    pub(super) nice: i32,
    pub(super) priority: u32,
    pub(super) runtime_ns: u64,
    pub(super) deadline_ns: u64,
    pub(super) period_ns: u64,
}

/// Sets policy and parameters of task `tid`.
pub(super) fn sched_setattr(tid: i32, attr: SchedAttr) -> io::Result<()> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(u32::MAX);
    let attr = libc::sched_attr {
        size,
        sched_policy: attr.policy,
        sched_flags: 0,
        sched_nice: attr.nice,
        sched_priority: attr.priority,
        sched_runtime: attr.runtime_ns,
        sched_deadline: attr.deadline_ns,
        sched_period: attr.period_ns,
    };
    // SAFETY: `attr` is the kernel's structure, its size field says how large it is, and it lives through
    // the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, tid, &raw const attr, 0_u32) })
}

/// Policy and parameters of the calling thread (sched_getattr(2)).
pub(super) fn sched_getattr() -> io::Result<SchedAttr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(u32::MAX);
    let mut attr = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `attr` has the size that is passed and lives through the call; the kernel writes no more.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0_u32) })?;
    Ok(SchedAttr {
        policy: attr.sched_policy,
        nice: attr.sched_nice,
        priority: attr.sched_priority,
        runtime_ns: attr.sched_runtime,
        deadline_ns: attr.sched_deadline,
        period_ns: attr.sched_period,
    })
}

/// Sets the niceness of task `tid` (setpriority(2) takes thread ids on Linux).
pub(super) fn set_nice(tid: i32, nice: i32) -> io::Result<()> {
    let who = libc::id_t::try_from(tid).map_err(io::Error::other)?;
    // SAFETY: the call takes no pointers.
    check(c_long::from(unsafe {
        libc::setpriority(libc::PRIO_PROCESS, who, nice)
    }))
}

/// The NUMA node of each page of `memory` (move_pages(2) without nodes to move to); `None` for a page that is
/// not there.
pub(super) fn page_nodes(memory: &[AtomicU8], page_bytes: usize) -> io::Result<Vec<Option<u32>>> {
    let pages: Vec<*const AtomicU8> = memory.chunks(page_bytes).map(<[_]>::as_ptr).collect();
    let mut nodes: Vec<c_int> = vec![-1; pages.len()];
    // SAFETY: `pages` and `nodes` have as many elements as are passed and live through the call, which reads
    // the one and writes the other. Without a list of nodes nothing is moved.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0,
            pages.len(),
            pages.as_ptr(),
            ptr::null::<c_int>(),
            nodes.as_mut_ptr(),
            0,
        )
    })?;
    Ok(nodes
        .into_iter()
        .map(|node| u32::try_from(node).ok())
        .collect())
}

/// Sets the CPUs that task `tid` may use. nix's set ends at CPU 1023; this one at the machine's.
pub(super) fn sched_setaffinity(tid: i32, cpus: &CpuSet) -> io::Result<()> {
    let mut mask = vec![0_u64; cpus.iter().max().map_or(1, |last| last as usize / 64 + 1)];
    for cpu in cpus.iter() {
        mask[cpu as usize / 64] |= 1 << (cpu % 64);
    }
    // SAFETY: pointer and length describe `mask`, which the kernel only reads.
    check(unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            tid,
            size_of_val(mask.as_slice()),
            mask.as_ptr(),
        )
    })
}

/// Makes a process that runs `child` and leaves by `_exit`, without destructors or exit handlers: those
/// belong to the parent.
///
/// The parent may have other threads, whose locks the child finds as they were. `child` must therefore
/// stay away from whatever another thread can hold: the standard streams, loggers, shared mutexes.
/// Memory allocation is fine: glibc brings its locks through a fork.
pub(super) fn fork(child: impl FnOnce()) -> nix::Result<Pid> {
    // SAFETY: the child runs only `child`, which is bound as said above, and never returns from here.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: _exit takes no pointers and does not return.
            unsafe { libc::_exit(c_int::from(ended.is_err())) }
        }
    }
}

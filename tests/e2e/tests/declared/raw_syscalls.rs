//! Changing a worker behind the harness's back.
#![expect(
    unsafe_code,
    reason = "sched_setscheduler(2) and migrate_pages(2) have no wrapper"
)]

use std::io;

use ktstr::prelude::*;

/// Gives task `tid` the policy SCHED_BATCH.
pub(crate) fn make_batch(tid: i32) -> Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `param` lives through the call, which only reads it.
    let set = unsafe { libc::sched_setscheduler(tid, libc::SCHED_BATCH, &raw const param) };
    ensure!(
        set == 0,
        "sched_setscheduler: {}",
        io::Error::last_os_error()
    );
    Ok(())
}

/// Moves the memory of process `pid` from NUMA node `from` to `to`, both below 64.
pub(crate) fn migrate_pages(pid: i32, from: u32, to: u32) -> Result<()> {
    const MAX_NODE: libc::c_ulong = 64;
    let (from, to): (libc::c_ulong, libc::c_ulong) = (1 << from, 1 << to);
    // SAFETY: both masks have as many bits as are passed and live through the call, which only reads them.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_migrate_pages,
            pid,
            MAX_NODE,
            &raw const from,
            &raw const to,
        )
    };
    ensure!(moved >= 0, "migrate_pages: {}", io::Error::last_os_error());
    Ok(())
}

//! I/O ports of the machine, for a process that runs as root. Only x86 has them.

#![cfg(target_arch = "x86_64")]
#![expect(
    unsafe_code,
    reason = "I/O ports are reached by instructions of their own"
)]

use std::arch::asm;
use std::ops::RangeInclusive;

use ktstr_wire::PAUSE_PORT;
use nix::errno::Errno;

/// The data port of counter 0 of the programmable interval timer (Intel 8254), the only one with an interrupt.
const COUNTER_0: u16 = 0x40;

const TIMER_COMMAND: u16 = 0x43;

/// Counter 0, low byte then high byte, mode 2 (rate generator), binary (8254 datasheet, "Control Word Format").
const COUNTER_0_AS_RATE_GENERATOR: u8 = 0b0011_0100;

/// Has the interval timer interrupt the guest 18.2 times a second from now on: 1.193182 MHz / 65536.
///
/// QEMU's emulation of AMD-V clears and sets bits of a CPU's pending interrupts at each entry to and exit from
/// an inner guest, without the lock that devices take to set theirs (`target/i386/tcg/sysemu/svm_helper.c`): what
/// arrives in that moment is forgotten, though the local APIC has it as pending. Where that was the timer that
/// Linux arms again in its handler, nothing takes the CPU from the inner guest again, and it spins forever. Any
/// later interrupt has the local APIC look at all that are pending. Linux has no other use for this one once
/// its local timer runs, and a handler that ignores it.
pub(crate) fn interrupt_steadily() -> Result<(), Errno> {
    with_ports(COUNTER_0..=TIMER_COMMAND, || {
        out(TIMER_COMMAND, COUNTER_0_AS_RATE_GENERATOR);
        // The count 0 stands for 65536, the longest period.
        out(COUNTER_0, 0);
        out(COUNTER_0, 0);
    })
}

/// Pauses the whole machine, until the host releases it.
///
/// The second byte is for `tcg`: QEMU tells the host of the first one, and waits with the second. They follow each other
/// within 16 bytes of code, so that QEMU translates them together and nothing runs between them.
pub(crate) fn pause_machine() -> Result<(), Errno> {
    with_ports(PAUSE_PORT..=PAUSE_PORT + 1, || {
        // SAFETY: the ports are the harness's, which reach no memory, and this thread may use them.
        unsafe {
            asm!(
                ".p2align 4",
                "out dx, al",
                "inc edx",
                "out dx, al",
                inout("edx") u32::from(PAUSE_PORT) => _,
                in("al") 0_u8,
                options(nomem, nostack)
            );
        }
    })
}

/// Calls `use_them` while this thread may use `ports`.
fn with_ports(ports: RangeInclusive<u16>, use_them: impl FnOnce()) -> Result<(), Errno> {
    let allow = |allowed: bool| {
        let count = ports.end() - ports.start() + 1;
        // SAFETY: ioperm(2) takes no pointers.
        let status = unsafe { libc::ioperm((*ports.start()).into(), count.into(), allowed.into()) };
        Errno::result(status).map(drop)
    };
    allow(true)?;
    use_them();
    allow(false)
}

fn out(port: u16, value: u8) {
    // SAFETY: the ports are the interval timer's, which reaches no memory, and this thread may use them.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags));
    }
}

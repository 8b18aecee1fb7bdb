//! A guest that runs a few instructions of ours in ring 0, by the way that the kernel has for it: kexec.

use ktstr::prelude::*;
use nix::sys::reboot::{RebootMode, reboot};

use crate::raw_syscalls::kexec_load;

/// Where the code runs: in the RAM of any machine.
pub(crate) const ENTRY: u32 = 0x0200_0000;

/// Neither RAM nor a device of a machine with 512 MiB.
pub(crate) const NOTHING: u32 = 0x3000_0000;

const PAGE_BYTES: usize = 4096;

/// Replaces the kernel by `code`, with the page tables of [`page_tables`] behind it.
fn run_in_ring_0(code: &[u8]) -> Result<AssertResult> {
    let mut image = code.to_vec();
    image.resize(PAGE_BYTES, 0);
    image.extend(page_tables());
    kexec_load(usize::try_from(ENTRY)?, &image).context("kexec_load")?;
    match reboot(RebootMode::RB_KEXEC).context("running what kexec has loaded")? {}
}

/// Three pages: the first GiB is mapped where it is, be it RAM or not.
fn page_tables() -> Vec<u8> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let page = |number: u64| u64::from(ENTRY) + number * 4096;
    let mut words = vec![0; 3 * 512];
    words[0] = page(2) | PRESENT_WRITABLE;
    words[512] = page(3) | PRESENT_WRITABLE;
    for (at, word) in (0_u64..).zip(&mut words[1024..]) {
        *word = at << 21 | LARGE | PRESENT_WRITABLE;
    }
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[ktstr_test(timeout_s = 8)]
#[ignore = "goes wrong on purpose"]
fn spins_with_interrupts_off(_: &Ctx) -> Result<AssertResult> {
    // cli; jmp .
    run_in_ring_0(&[0xfa, 0xeb, 0xfe])
}

#[ktstr_test]
#[ignore = "goes wrong on purpose"]
fn faults_three_times(_: &Ctx) -> Result<AssertResult> {
    // lidt [rip + 1]; int3; and a table of no entries
    let code = [0x0f, 0x01, 0x1d, 1, 0, 0, 0, 0xcc];
    run_in_ring_0(&[&code[..], &[0; 10]].concat())
}

/// Writes and reads where nothing is; spins if it reads anything but ones; then goes on there.
#[ktstr_test(memory_mib = 512)]
#[ignore = "goes wrong on purpose"]
fn runs_into_nothing(_: &Ctx) -> Result<AssertResult> {
    let mov_eax = |value: u32| [&[0xb8][..], &value.to_le_bytes()].concat();
    let code = [
        mov_eax(ENTRY + 4096),
        vec![0x0f, 0x22, 0xd8], // mov cr3, rax
        mov_eax(NOTHING),
        vec![0x89, 0x00, 0x8b, 0x18], // mov [rax], eax; mov ebx, [rax]
        vec![0xff, 0xc3, 0x75, 0x02], // inc ebx; jnz +2
        vec![0xff, 0xe0, 0xeb, 0xfe], // jmp rax; jmp .
    ];
    run_in_ring_0(&code.concat())
}

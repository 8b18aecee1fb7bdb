//! The guest of the probe: its code, its memory, and how far it came.

use std::fmt;

use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use super::layout::COM1_IRQ;
use super::layout::probe::{CODE, IDT, MAILBOX, SECOND_CPU, STACK_END};
use super::{paging, regs};

pub(crate) use super::layout::probe::RAM_BYTES;

/// An interrupt line that it has, as a microVM's serial port.
pub(crate) const LINE: u32 = COM1_IRQ;

/// Port to which the guest writes its verdict: 0 is good.
pub(crate) const VERDICT_PORT: u16 = 0x80;

/// How far the guest came: the first byte of the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbeStage {
    /// It did not run its first instruction.
    Entry,
    /// An `int3`, taken through its own interrupt table. Kernels patch their code with it.
    Breakpoint,
    /// A `cmpxchg16b`, with which kernels manage memory.
    CompareExchange,
    /// A loop, at the speed of the host's CPU.
    Loop,
    /// A second CPU, started by INIT and SIPI.
    SecondCpu,
}

impl fmt::Display for ProbeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "entering 64-bit mode",
            Self::Breakpoint => "`int3` in ring 0",
            Self::CompareExchange => "`cmpxchg16b` in ring 0",
            Self::Loop => "a counted loop in ring 0",
            Self::SecondCpu => "starting a second CPU",
        })
    }
}

/// The boot CPU, in 64-bit mode, with the address of the mailbox in R15. Its loop is timed in pieces and the
/// shortest time is kept: a host that takes the CPU away at times does not spoil it.
#[rustfmt::skip]
const BOOT_CPU: [u8; 0xa9] = [
    0x41, 0xc6, 0x07, 0x01,             //       mov byte ptr [r15], 1
    0xcc,                               //       int3
    0x41, 0x80, 0x7f, 0x01, 0x01,       //       cmp byte ptr [r15 + 1], 1
    0x0f, 0x85, 0x8a, 0x00, 0x00, 0x00, //       jne fail
    0x41, 0xc6, 0x07, 0x02,             //       mov byte ptr [r15], 2
    0x31, 0xc0,                         //       xor eax, eax
    0x31, 0xd2,                         //       xor edx, edx
    0x31, 0xc9,                         //       xor ecx, ecx
    0xbb, 0x5a, 0x00, 0x00, 0x00,       //       mov ebx, 0x5a
    0x49, 0x0f, 0xc7, 0x4f, 0x10,       //       cmpxchg16b [r15 + 16]
    0x75, 0x74,                         //       jne fail
    0x41, 0x80, 0x7f, 0x10, 0x5a,       //       cmp byte ptr [r15 + 16], 0x5a
    0x75, 0x6d,                         //       jne fail
    0x41, 0xc6, 0x07, 0x03,             //       mov byte ptr [r15], 3
    0x45, 0x31, 0xc0,                   //       xor r8d, r8d
    0x49, 0xff, 0xc8,                   //       dec r8
    0x41, 0xb9, 0x0a, 0x00, 0x00, 0x00, //       mov r9d, 10
    0x0f, 0x31,                         // 1:    rdtsc
    0x48, 0xc1, 0xe2, 0x20,             //       shl rdx, 32
    0x48, 0x8d, 0x34, 0x10,             //       lea rsi, [rax + rdx]
    0xb9, 0x20, 0x4e, 0x00, 0x00,       //       mov ecx, 20000        (PIECE_ROUNDS)
    0xff, 0xc9,                         // 2:    dec ecx
    0x75, 0xfc,                         //       jne 2b
    0x0f, 0x31,                         //       rdtsc
    0x48, 0xc1, 0xe2, 0x20,             //       shl rdx, 32
    0x48, 0x01, 0xd0,                   //       add rax, rdx
    0x48, 0x29, 0xf0,                   //       sub rax, rsi
    0x4c, 0x39, 0xc0,                   //       cmp rax, r8
    0x4c, 0x0f, 0x42, 0xc0,             //       cmovb r8, rax
    0x4d, 0x89, 0x47, 0x20,             //       mov [r15 + 32], r8
    0x41, 0xff, 0xc9,                   //       dec r9d
    0x75, 0xd1,                         //       jne 1b
    0x41, 0xc6, 0x07, 0x04,             //       mov byte ptr [r15], 4
    0xb9, 0x30, 0x08, 0x00, 0x00,       //       mov ecx, 0x830        (x2APIC interrupt command)
    0xba, 0x01, 0x00, 0x00, 0x00,       //       mov edx, 1            (to APIC id 1)
    0xb8, 0x00, 0x45, 0x00, 0x00,       //       mov eax, 0x4500       (INIT)
    0x0f, 0x30,                         //       wrmsr
    0xb8, 0x08, 0x46, 0x00, 0x00,       //       mov eax, 0x4608       (SIPI, vector 8)
    0x0f, 0x30,                         //       wrmsr
    0xb9, 0x00, 0xe1, 0xf5, 0x05,       //       mov ecx, 100000000
    0x41, 0x80, 0x7f, 0x02, 0x01,       // 3:    cmp byte ptr [r15 + 2], 1
    0x74, 0x0a,                         //       je 4f
    0xf3, 0x90,                         //       pause
    0xff, 0xc9,                         //       dec ecx
    0x75, 0xf3,                         //       jne 3b
    0xb0, 0x01,                         // fail: mov al, 1
    0xeb, 0x02,                         //       jmp 5f
    0x31, 0xc0,                         // 4:    xor eax, eax
    0xba, 0x80, 0x00, 0x00, 0x00,       // 5:    mov edx, 0x80         (VERDICT_PORT)
    0xee,                               //       out dx, al
    0xf4,                               // 6:    hlt
    0xeb, 0xfd,                         //       jmp 6b
];

/// Rounds of the loop in each of its ten pieces.
pub(crate) const PIECE_ROUNDS: u32 = 20_000;

/// Where in the mailbox the time of the fastest piece is, in ticks of the guest's TSC.
const PIECE_TICKS: u64 = MAILBOX + 32;

/// The handler of `int3`.
#[rustfmt::skip]
const BREAKPOINT: [u8; 7] = [
    0x41, 0xc6, 0x47, 0x01, 0x01,       //       mov byte ptr [r15 + 1], 1
    0x48, 0xcf,                         //       iretq
];

/// The second CPU, in real mode: sets byte 2 of the mailbox.
#[rustfmt::skip]
const SECOND: [u8; 12] = [
    0x31, 0xc0,                         //       xor ax, ax
    0x8e, 0xd8,                         //       mov ds, ax
    0xc6, 0x06, 0x02, 0x60, 0x01,       //       mov byte ptr [0x6002], 1
    0xf4,                               // 1:    hlt
    0xeb, 0xfd,                         //       jmp 1b
];

/// Vector of `int3`.
const BREAKPOINT_VECTOR: u64 = 3;
/// Size of a descriptor in long mode.
const GATE_BYTES: u64 = 16;
/// Where the handler is.
const HANDLER: u64 = CODE + 0x100;

/// Limit of the interrupt table: it ends with the breakpoint's descriptor.
#[expect(clippy::cast_possible_truncation, reason = "63")]
const IDT_LIMIT: u16 = ((BREAKPOINT_VECTOR + 1) * GATE_BYTES - 1) as u16;

pub(crate) fn write(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    /// Present, ring 0, 64-bit interrupt gate (Intel SDM volume 3, section 6.14.1).
    const INTERRUPT_GATE: u64 = 0x8e00;
    paging::write_identity_map(memory)?;
    regs::write_gdt(memory)?;
    let gate = HANDLER & 0xffff
        | u64::from(regs::BOOT_CS) << 16
        | INTERRUPT_GATE << 32
        | (HANDLER >> 16) << 48;
    memory.write_obj(gate, GuestAddress(IDT + BREAKPOINT_VECTOR * GATE_BYTES))?;
    memory.write_slice(&BOOT_CPU, GuestAddress(CODE))?;
    memory.write_slice(&BREAKPOINT, GuestAddress(HANDLER))?;
    memory.write_slice(&SECOND, GuestAddress(SECOND_CPU))
}

/// Has the boot CPU start with the guest's code, in 64-bit mode, with x2APIC mode on.
pub(crate) fn enter(boot_cpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = boot_cpu.get_sregs()?;
    regs::long_mode(&mut sregs);
    sregs.idt.base = IDT;
    sregs.idt.limit = IDT_LIMIT;
    sregs.apic_base |= regs::APIC_BASE_X2APIC;
    boot_cpu.set_sregs(&sregs)?;
    boot_cpu.set_regs(&kvm_regs {
        rsp: STACK_END,
        r15: MAILBOX,
        ..regs::entry(CODE, 0)
    })
}

pub(crate) fn stage(memory: &GuestMemoryMmap) -> ProbeStage {
    match memory.read_obj::<u8>(GuestAddress(MAILBOX)) {
        Ok(1) => ProbeStage::Breakpoint,
        Ok(2) => ProbeStage::CompareExchange,
        Ok(3) => ProbeStage::Loop,
        Ok(4) => ProbeStage::SecondCpu,
        _ => ProbeStage::Entry,
    }
}

/// Ticks of the guest's TSC that the fastest piece of the loop took, once there is one.
pub(crate) fn piece_ticks(memory: &GuestMemoryMmap) -> Option<u64> {
    let ticks = memory.read_obj::<u64>(GuestAddress(PIECE_TICKS)).ok();
    ticks.filter(|&ticks| ticks != 0)
}

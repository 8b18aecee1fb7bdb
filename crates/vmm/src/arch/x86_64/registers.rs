//! Registers that tell where a vCPU is.

use kvm_bindings::KVM_MP_STATE_HALTED;
use kvm_ioctls::VcpuFd;

/// The registers of one vCPU that tell where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuRegisters {
    /// Instruction pointer.
    pub rip: u64,
    pub rflags: u64,
    /// Root of the page tables, with the PCID bits.
    pub cr3: u64,
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15.
    pub gprs: [u64; 16],
    /// Whether the vCPU sleeps in `hlt`.
    pub halted: bool,
}

impl VcpuRegisters {
    /// The stack pointer.
    pub const fn rsp(&self) -> u64 {
        /// Place of RSP in [`VcpuRegisters::gprs`].
        const RSP: usize = 7;
        self.gprs[RSP]
    }

    /// Those of a vCPU that does not run.
    pub(crate) fn read(fd: &VcpuFd) -> Result<Self, kvm_ioctls::Error> {
        let regs = fd.get_regs()?;
        let sregs = fd.get_sregs()?;
        let state = fd.get_mp_state()?;
        Ok(Self {
            rip: regs.rip,
            rflags: regs.rflags,
            cr3: sregs.cr3,
            gprs: [
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
                regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            halted: state.mp_state == KVM_MP_STATE_HALTED,
        })
    }
}

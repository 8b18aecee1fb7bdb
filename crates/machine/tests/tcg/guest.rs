//! Guests of a few instructions: an ELF kernel with a PVH entry, in 32-bit protected mode.

use std::path::Path;

use ktstr_machine::{BootKernel, MachineSpec};
use ktstr_topology::Topology;

/// Where the program is loaded and entered.
const LOAD_ADDRESS: u32 = 0x10_0000;

pub(crate) const COM1: u16 = 0x3f8;
pub(crate) const COM2: u16 = 0x2f8;

/// Where [`Program::count_on_the_other_cpu`] counts.
pub(crate) const COUNTER: u32 = 0x9000;
/// Where [`Program::pause_and_see`] leaves what it saw, before and after.
pub(crate) const SEEN: u32 = 0x9100;

/// Machine code, put together piece by piece.
#[derive(Default)]
pub(crate) struct Program {
    code: Vec<u8>,
}

impl Program {
    pub(crate) fn new() -> Self {
        // mov esp, 0x200000
        Self::default().bytes(&[0xbc, 0, 0, 0x20, 0])
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.code.extend_from_slice(bytes);
        self
    }

    /// Sends `text` to a serial port, each byte when the port is ready for it.
    pub(crate) fn print(self, port: u16, text: &str) -> Self {
        let len = u32::try_from(text.len() + 1).unwrap();
        let [data_low, data_high] = port.to_le_bytes();
        let [status_low, status_high] = (port + 5).to_le_bytes();
        self.bytes(&[0xe8]) // call over the text, which leaves its address on the stack
            .bytes(&len.to_le_bytes())
            .bytes(text.as_bytes())
            .bytes(&[0, 0x5e]) // end of text; pop esi
            .bytes(&[0xac, 0x84, 0xc0, 0x74, 0x14]) // next: lodsb; test al, al; jz done
            .bytes(&[0x88, 0xc4]) // mov ah, al
            .bytes(&[0x66, 0xba, status_low, status_high]) // mov dx, line status
            .bytes(&[0xec, 0xa8, 0x20, 0x74, 0xfb]) // busy: in al, dx; test al, 0x20; jz busy
            .bytes(&[0x88, 0xe0]) // mov al, ah
            .bytes(&[0x66, 0xba, data_low, data_high, 0xee]) // mov dx, port; out dx, al
            .bytes(&[0xeb, 0xe7]) // jmp next; done:
    }

    /// Writes `text` to a serial port without asking whether it is ready, as a kernel does that has asked
    /// for long enough (wait_for_lsr in drivers/tty/serial/8250/8250_port.c).
    pub(crate) fn print_regardless(self, port: u16, text: &str) -> Self {
        let len = u32::try_from(text.len() + 1).unwrap();
        let [data_low, data_high] = port.to_le_bytes();
        self.bytes(&[0xe8]) // call over the text, which leaves its address on the stack
            .bytes(&len.to_le_bytes())
            .bytes(text.as_bytes())
            .bytes(&[0, 0x5e]) // end of text; pop esi
            .bytes(&[0xac, 0x84, 0xc0, 0x74, 0x07]) // next: lodsb; test al, al; jz done
            .bytes(&[0x66, 0xba, data_low, data_high, 0xee]) // mov dx, port; out dx, al
            .bytes(&[0xeb, 0xf4]) // jmp next; done:
    }

    /// Stores `value` at a guest-physical address.
    pub(crate) fn store(self, address: u32, value: u32) -> Self {
        self.bytes(&[0xc7, 0x05]) // mov dword [address], value
            .bytes(&address.to_le_bytes())
            .bytes(&value.to_le_bytes())
    }

    /// Has the other CPU count in memory, and waits until it does.
    pub(crate) fn count_on_the_other_cpu(self) -> Self {
        // The local APIC's interrupt command register (SDM volume 3, section 11.6.1).
        const COMMAND: u32 = 0xfee0_0300;
        const INIT_ALL_OTHERS: u32 = 0xc_4500;
        const START_ALL_OTHERS_AT_0X8000: u32 = 0xc_4608;
        // xor ax, ax; mov ds, ax; again: inc dword [0x9000]; jmp again
        self.store(0x8000, u32::from_le_bytes([0x31, 0xc0, 0x8e, 0xd8]))
            .store(0x8004, u32::from_le_bytes([0x66, 0xff, 0x06, 0x00]))
            .store(0x8008, u32::from_le_bytes([0x90, 0xeb, 0xf9, 0x90]))
            .store(COUNTER, 0)
            .store(COMMAND, INIT_ALL_OTHERS)
            .bytes(&[0xb9, 0, 0, 0x10, 0, 0x49, 0x75, 0xfd]) // mov ecx, 0x100000; dec ecx; jnz -3
            .store(COMMAND, START_ALL_OTHERS_AT_0X8000) // again:
            .bytes(&[0xb9, 0, 0, 0x10, 0, 0x49, 0x75, 0xfd])
            .bytes(&[0x83, 0x3d, 0x00, 0x90, 0x00, 0x00, 0x00]) // cmp dword [0x9000], 0
            .bytes(&[0x74, 0xe5]) // je again
    }

    /// Pauses the machine, and reads the counter just before and just after.
    pub(crate) fn pause_and_see(self, port: u8) -> Self {
        self.bytes(&[0x8b, 0x1d, 0x00, 0x90, 0x00, 0x00]) // mov ebx, [0x9000]
            .bytes(&[0xe6, port, 0xe6, port + 1]) // out port, al; out port + 1, al
            .bytes(&[0x8b, 0x0d, 0x00, 0x90, 0x00, 0x00]) // mov ecx, [0x9000]
            .bytes(&[0x89, 0x1d, 0x00, 0x91, 0x00, 0x00]) // mov [0x9100], ebx
            .bytes(&[0x89, 0x0d, 0x04, 0x91, 0x00, 0x00]) // mov [0x9104], ecx
    }

    /// Puts `value` into EBX.
    pub(crate) fn load_ebx(self, value: u32) -> Self {
        self.bytes(&[0xbb]).bytes(&value.to_le_bytes())
    }

    /// ACPI S5 by the PM1a control register, which SeaBIOS puts at 0x604 on q35.
    pub(crate) fn power_off(self) -> Self {
        self.bytes(&[0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef])
            .spin()
    }

    /// A triple fault: an empty IDT, then `int3`.
    pub(crate) fn reset(self) -> Self {
        // push 0; push 0; lidt [esp]; int3
        self.bytes(&[0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc])
    }

    /// Runs forever.
    pub(crate) fn spin(self) -> Self {
        self.bytes(&[0xeb, 0xfe])
    }

    /// Writes to COM1 forever.
    pub(crate) fn flood(self) -> Self {
        self.bytes(&[0x66, 0xba, 0xf8, 0x03]) // mov dx, COM1
            .bytes(&[0xb0, b'x', 0xee, 0xeb, 0xfd]) // mov al, 'x'; again: out dx, al; jmp again
    }

    /// The program as an ELF file with one segment for the code and one for the note with its entry.
    fn elf(&self) -> Vec<u8> {
        const HEADER: u16 = 64;
        const PROGRAM_HEADER: u16 = 56;
        const NOTE: u16 = 20;
        let note_at = HEADER + 2 * PROGRAM_HEADER;
        let code_at = note_at + NOTE;
        let code_len = u64::try_from(self.code.len()).unwrap();
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
        put(&2u16.to_le_bytes()); // ET_EXEC
        put(&62u16.to_le_bytes()); // EM_X86_64
        put(&1u32.to_le_bytes());
        put(&u64::from(LOAD_ADDRESS).to_le_bytes());
        put(&u64::from(HEADER).to_le_bytes());
        put(&0u64.to_le_bytes());
        put(&0u32.to_le_bytes());
        for half in [HEADER, PROGRAM_HEADER, 2, 64, 0, 0] {
            put(&half.to_le_bytes());
        }
        // PT_LOAD, readable and executable; PT_NOTE, readable.
        for (kind, flags, offset, len) in [
            (1u32, 5u32, code_at, code_len),
            (4, 4, note_at, NOTE.into()),
        ] {
            put(&kind.to_le_bytes());
            put(&flags.to_le_bytes());
            for wide in [
                offset.into(),
                u64::from(LOAD_ADDRESS),
                u64::from(LOAD_ADDRESS),
                len,
                len,
                4,
            ] {
                put(&wide.to_le_bytes());
            }
        }
        // XEN_ELFNOTE_PHYS32_ENTRY is note 18 of the name `Xen`.
        for word in [4, 4, 18, u32::from_le_bytes(*b"Xen\0"), LOAD_ADDRESS] {
            put(&word.to_le_bytes());
        }
        put(&self.code);
        elf
    }

    /// Writes the program to `dir` and gives a machine that runs it.
    pub(crate) fn machine(&self, dir: &Path, topology: Topology, memory_mib: u64) -> MachineSpec {
        let path = dir.join("guest.elf");
        std::fs::write(&path, self.elf()).unwrap();
        let kernel = BootKernel {
            bzimage: None,
            vmlinux: Some(path),
            pvh: true,
        };
        MachineSpec::new(topology, memory_mib, kernel)
    }
}

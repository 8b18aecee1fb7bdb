//! The smallest `/init` there can be: it powers off or reboots.

/// `LINUX_REBOOT_CMD_POWER_OFF` and `LINUX_REBOOT_CMD_RESTART` (include/uapi/linux/reboot.h).
#[derive(Clone, Copy)]
pub(crate) enum Finish {
    PowerOff = 0x4321_fedc,
    Reboot = 0x0123_4567,
}

/// Where [`CODE`] has the command.
const COMMAND_AT: usize = 11;

/// reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, command), then stand still.
const CODE: [u8; 27] = [
    0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, 0xfee1dead
    0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, 672274793
    0xba, 0x00, 0x00, 0x00, 0x00, // mov edx, command
    0x45, 0x31, 0xd2, // xor r10d, r10d
    0xb8, 0xa9, 0x00, 0x00, 0x00, // mov eax, 169
    0x0f, 0x05, // syscall
    0xeb, 0xfe, // jmp $
];

const LOAD_ADDRESS: u64 = 0x40_0000;
const HEADERS_BYTES: u64 = 64 + 56;

/// A static ELF executable with [`CODE`] as its only segment.
fn elf(finish: Finish) -> Vec<u8> {
    let size = HEADERS_BYTES + CODE.len() as u64;
    let mut elf = Vec::new();
    elf.extend(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend([2u16, 62].map(u16::to_le_bytes).concat()); // ET_EXEC, x86-64
    elf.extend(1u32.to_le_bytes());
    elf.extend(
        [LOAD_ADDRESS + HEADERS_BYTES, 64, 0]
            .map(u64::to_le_bytes)
            .concat(),
    );
    elf.extend(0u32.to_le_bytes());
    elf.extend([64u16, 56, 1, 64, 0, 0].map(u16::to_le_bytes).concat());
    elf.extend([1u32, 5].map(u32::to_le_bytes).concat()); // PT_LOAD, readable and executable
    elf.extend(
        [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000]
            .map(u64::to_le_bytes)
            .concat(),
    );
    let mut code = CODE;
    code[COMMAND_AT..COMMAND_AT + 4].copy_from_slice(&(finish as u32).to_le_bytes());
    elf.extend(code);
    elf
}

/// An initramfs with nothing but it.
pub(crate) fn initramfs(finish: Finish) -> std::io::Result<Vec<u8>> {
    let init = elf(finish);
    let size = u32::try_from(init.len()).map_err(std::io::Error::other)?;
    let mut writer = cpio::newc::Builder::new("init")
        .mode(0o100_755)
        .nlink(1)
        .write(Vec::new(), size);
    std::io::Write::write_all(&mut writer, &init)?;
    let mut archive = cpio::newc::trailer(writer.finish()?)?;
    archive.resize(archive.len().next_multiple_of(4), 0);
    Ok(archive)
}

//! Files that are often given as an x86 kernel and are not one: the message says what they are.

use super::Format;

/// Magic of an arm64 `Image`, at 56 (Documentation/arch/arm64/booting.rst).
const ARM64: &[u8] = b"ARM\x64";
/// `magic2` of a RISC-V `Image`, at 56 (Documentation/arch/riscv/boot-image-header.rst).
const RISCV: &[u8] = b"RSC\x05";
const IMAGE_MAGIC: usize = 56;
/// `IH_MAGIC` of U-Boot's legacy images.
const UIMAGE: &[u8] = &[0x27, 0x05, 0x19, 0x56];
/// An EFI zboot image: the magic at 4, the compression as text at 0x18 (include/linux/pe.h).
const ZBOOT: &[u8] = b"zimg";
const ZBOOT_MAGIC: usize = 4;
/// Where a file of MS-DOS says that its PE header is, and that header's magic.
const PE_POINTER: usize = 0x3c;
const PE: &[u8] = b"PE\0\0";

/// `IMAGE_FILE_MACHINE_*` (include/linux/pe.h).
const PE_MACHINES: [(u16, &str); 7] = [
    (0x014c, "32-bit x86"),
    (0x01c0, "32-bit Arm"),
    (0x01c2, "32-bit Arm"),
    (0x5064, "riscv64"),
    (0x6264, "loongarch64"),
    (0x8664, "x86-64"),
    (0xaa64, "arm64"),
];
/// `EM_*` (include/uapi/linux/elf-em.h).
const ELF_MACHINES: [(u16, &str); 12] = [
    (2, "sparc"),
    (3, "32-bit x86"),
    (8, "mips"),
    (15, "parisc"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "32-bit Arm"),
    (43, "sparc64"),
    (183, "arm64"),
    (243, "riscv"),
    (258, "loongarch64"),
];
const EM_X86_64: u16 = 62;

/// Says what the bytes are, as `a kernel for arm64 (Image)`, if they are a known thing that can't be booted
/// here. Nothing for an x86-64 ELF file, and for what is not known. A bzImage begins as a PE file does: ask
/// [`super::BzImage::is`] first.
pub fn identify(bytes: &[u8]) -> Option<String> {
    let at = |offset: usize, magic: &[u8]| {
        bytes
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if bytes.is_empty() {
        return Some("an empty file".to_owned());
    }
    if at(0, b"\x7fELF") {
        return elf(bytes);
    }
    if at(IMAGE_MAGIC, ARM64) {
        return Some("a kernel for arm64 (Image)".to_owned());
    }
    if at(IMAGE_MAGIC, RISCV) {
        return Some("a kernel for riscv (Image)".to_owned());
    }
    if at(0, b"MZ") {
        return efi(bytes, at(ZBOOT_MAGIC, ZBOOT));
    }
    if at(0, UIMAGE) {
        return Some("a kernel for U-Boot (uImage)".to_owned());
    }
    if at(0, b"!<arch>\n") {
        return Some("an archive; a Debian package must have a name that ends in .deb".to_owned());
    }
    if at(0, b"\xed\xab\xee\xdb") {
        return Some(
            "an RPM package; unpack it (rpm2cpio), then give the vmlinuz in it".to_owned(),
        );
    }
    match Format::detect(bytes)? {
        Format::Uncompressed => None,
        format => Some(format!(
            "a {format} file; decompress it first, if a kernel is in it"
        )),
    }
}

fn elf(bytes: &[u8]) -> Option<String> {
    // `EI_CLASS` 2 and `EI_DATA` 1: 64 bits, little-endian.
    let is_big_endian = bytes.get(5) == Some(&2);
    let word: [u8; 2] = bytes.get(18..20)?.try_into().ok()?;
    let machine = if is_big_endian {
        u16::from_be_bytes(word)
    } else {
        u16::from_le_bytes(word)
    };
    if machine == EM_X86_64 {
        return (bytes.get(4) != Some(&2)).then(|| "an x32 ELF file".to_owned());
    }
    Some(match name(&ELF_MACHINES, machine) {
        Some(name) => format!("an ELF file for {name}"),
        None => format!("an ELF file for another architecture (machine {machine})"),
    })
}

fn efi(bytes: &[u8], is_zboot: bool) -> Option<String> {
    let word = |offset: usize| -> Option<u16> {
        let end = offset.checked_add(2)?;
        Some(u16::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
    };
    let high = word(PE_POINTER + 2)?;
    let header = usize::from(word(PE_POINTER)?) | usize::from(high) << 16;
    if !bytes.get(header..)?.starts_with(PE) {
        return None;
    }
    let machine = word(header.checked_add(PE.len())?)?;
    let architecture =
        name(&PE_MACHINES, machine).map_or_else(|| format!("machine {machine:#x}"), str::to_owned);
    Some(if is_zboot {
        format!("a kernel for {architecture} that unpacks itself under EFI (zboot)")
    } else {
        format!(
            "an EFI program for {architecture}; of a unified kernel image, the bzImage is the section .linux \
             (objcopy -O binary -j .linux)"
        )
    })
}

fn name(machines: &[(u16, &'static str)], machine: u16) -> Option<&'static str> {
    let found = machines.iter().find(|(number, _)| *number == machine);
    found.map(|&(_, name)| name)
}

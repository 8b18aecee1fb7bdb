//! The x86 boot image: a real-mode setup part, then the protected-mode part with the compressed kernel.
//!
//! Layout: Documentation/arch/x86/boot.rst in the kernel's sources, "The Real-Mode Kernel Header".

use super::ImageError;
use super::release::release_of;

/// Offset of `setup_sects`: how many 512-byte sectors the setup part has.
const SETUP_SECTS: usize = 0x1f1;
/// Offset of `boot_flag`, always 0xAA55.
const BOOT_FLAG: usize = 0x1fe;
/// Offset of `header`, the magic `HdrS`.
const HEADER: usize = 0x202;
/// Offset of `version`, the boot protocol.
const VERSION: usize = 0x206;
/// Offset of `kernel_version`: where the release text is, minus 0x200.
const KERNEL_VERSION: usize = 0x20e;
/// Offset of `payload_offset`, from the start of the protected-mode part.
const PAYLOAD_OFFSET: usize = 0x248;
/// Offset of `payload_length`.
const PAYLOAD_LENGTH: usize = 0x24c;
/// First protocol with the payload fields.
const MIN_PROTOCOL: u16 = 0x0208;
/// `setup_sects` of 0 means this many, for historical reasons.
const DEFAULT_SETUP_SECTS: u8 = 4;
const SECTOR_BYTES: usize = 512;
/// Bound on the release text; `UTS_RELEASE` is at most 64 bytes, build host and date follow it.
const MAX_VERSION_BYTES: usize = 512;

/// A boot image whose header has been checked.
#[derive(Clone, Copy, Debug)]
pub struct BzImage<'a> {
    version: Option<&'a [u8]>,
    payload: &'a [u8],
}

impl<'a> BzImage<'a> {
    /// Whether the bytes carry the boot image's two magics.
    pub fn is(bytes: &[u8]) -> bool {
        read_u16(bytes, BOOT_FLAG) == Some(0xaa55) && bytes.get(HEADER..HEADER + 4) == Some(b"HdrS")
    }

    /// Checks the header and finds the parts.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        if !Self::is(bytes) {
            return Err(ImageError::NotAKernel {
                why: "it has no x86 boot header".to_owned(),
            });
        }
        let protocol = read_u16(bytes, VERSION).unwrap_or(0);
        if protocol < MIN_PROTOCOL {
            let [minor, major] = protocol.to_le_bytes();
            return Err(ImageError::OldBootProtocol { major, minor });
        }
        let header_end = |what| ImageError::Truncated {
            what,
            end: 0x250,
            len: bytes.len() as u64,
        };
        let setup_sects = match bytes.get(SETUP_SECTS).copied() {
            None | Some(0) => DEFAULT_SETUP_SECTS,
            Some(sectors) => sectors,
        };
        let protected_mode = (usize::from(setup_sects) + 1) * SECTOR_BYTES;
        let offset =
            read_u32(bytes, PAYLOAD_OFFSET).ok_or_else(|| header_end("the setup header"))?;
        let length =
            read_u32(bytes, PAYLOAD_LENGTH).ok_or_else(|| header_end("the setup header"))?;
        let start = protected_mode as u64 + u64::from(offset);
        let end = start + u64::from(length);
        let payload = usize::try_from(start)
            .ok()
            .zip(usize::try_from(end).ok())
            .and_then(|(start, end)| bytes.get(start..end))
            .ok_or(ImageError::Truncated {
                what: "the compressed kernel",
                end,
                len: bytes.len() as u64,
            })?;
        if payload.is_empty() {
            return Err(ImageError::NotAKernel {
                why: "its boot header announces no compressed kernel".to_owned(),
            });
        }
        Ok(Self {
            version: version_text(bytes),
            payload,
        })
    }

    /// The kernel's release (`uname -r`), when the header points to it.
    pub fn release(&self) -> Option<&'a str> {
        release_of(self.version?)
    }

    /// The compressed kernel, with whatever trails it.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// The text that `kernel_version` points to: release, builder and date, NUL-terminated.
fn version_text(bytes: &[u8]) -> Option<&[u8]> {
    let offset = usize::from(read_u16(bytes, KERNEL_VERSION)?);
    if offset == 0 {
        return None;
    }
    let text = bytes.get(offset + 0x200..)?;
    let text = &text[..text.len().min(MAX_VERSION_BYTES)];
    let end = text.iter().position(|&byte| byte == 0)?;
    Some(&text[..end])
}

fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(offset..offset + 2)?.try_into().ok()?,
    ))
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(offset..offset + 4)?.try_into().ok()?,
    ))
}

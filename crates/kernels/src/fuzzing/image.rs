//! Fuzz target: what must hold of any file that is said to be a kernel.

use super::assert_message;
use crate::image::{self, BzImage, Vmlinux};
use crate::{KernelConfig, check_config};

/// Most bytes that a payload may have here: few, so that a decoder that goes beyond is seen.
const LIMIT_BYTES: usize = 1 << 20;
/// Most bytes that a config is read to, whatever it decompresses to.
const CONFIG_LIMIT_BYTES: usize = 16 << 20;

/// A whole kernel image, a payload, a vmlinux, or a config, as the first byte says. What is found in it lies
/// in it, and decompresses to no more than was allowed.
pub fn image(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    if let Some(what) = image::identify(bytes) {
        assert_message(&what);
    }
    match kind % 4 {
        0 => boot_image(bytes),
        1 => payload(bytes),
        2 => vmlinux(bytes),
        _ => config(&String::from_utf8_lossy(bytes)),
    }
}

fn boot_image(bytes: &[u8]) {
    let Ok(image) = BzImage::parse(bytes) else {
        return;
    };
    assert!(BzImage::is(bytes));
    let inside = bytes.as_ptr_range();
    let found = image.payload().as_ptr_range();
    assert!(inside.start <= found.start && found.end <= inside.end);
    if let Some(release) = image.release() {
        assert_release(release);
    }
    payload(image.payload());
}

fn payload(bytes: &[u8]) {
    match image::decompress(bytes, LIMIT_BYTES) {
        Ok(elf) => {
            assert!(elf.len() <= LIMIT_BYTES);
            vmlinux(&elf);
        }
        Err(error) => assert_message(&error.to_string()),
    }
}

fn vmlinux(bytes: &[u8]) {
    let Ok(kernel) = Vmlinux::parse(bytes) else {
        return;
    };
    if let Some(release) = kernel.release() {
        assert_release(release);
    }
    if let Some(btf) = kernel.btf() {
        let range = btf.as_range();
        assert!(!range.is_empty() && range.end <= bytes.len() as u64);
    }
    let _ = kernel.pvh_entry();
    if let Some(text) = kernel.config() {
        assert!(text.len() <= CONFIG_LIMIT_BYTES);
        config(&text);
    }
}

/// It is shown to people, and names folders.
fn assert_release(release: &str) {
    assert!(!release.is_empty() && release != "." && release != "..");
    assert!(
        release
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/')
    );
}

fn config(text: &str) {
    let options = KernelConfig::parse(text);
    let requirements = check_config(Some(&options), |_| false);
    assert_eq!(requirements.unchecked, options.is_empty());
    assert_eq!(requirements.can_boot(), requirements.missing.is_empty());
    let _ = requirements.to_string();
}

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use ktstr_kernels::image::{
    BzImage, DecompressError, Format, ImageError, MAX_VMLINUX_BYTES, Vmlinux, decompress,
};
use proptest::prelude::*;

use crate::synthetic::{BTF, CONFIG, PAYLOAD_AT, PVH_ENTRY, RELEASE, bzimage, elf, gzip, vmlinux};

/// Large enough for two blocks of lz4's and several of lzop's.
const FILLER: usize = 9 << 20;

fn xz(bytes: &[u8], filters: &liblzma::stream::Filters) -> Vec<u8> {
    let stream =
        liblzma::stream::Stream::new_stream_encoder(filters, liblzma::stream::Check::Crc32)
            .unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lzma(bytes: &[u8]) -> Vec<u8> {
    let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn lz4_legacy(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x02, 0x21, 0x4c, 0x18];
    for block in bytes.chunks(8 << 20) {
        let data = lz4_flex::block::compress(block);
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(data);
    }
    out
}

/// As lzop 1.04 writes it: with Adler-32 over the data, and over the compressed bytes when asked.
fn lzop(bytes: &[u8], checksum_compressed: bool) -> Vec<u8> {
    let mut out = vec![0x89, b'L', b'Z', b'O', 0x00, 0x0d, 0x0a, 0x1a, 0x0a];
    out.extend([0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 3, 9]);
    out.extend((1 | if checksum_compressed { 2_u32 } else { 0 }).to_be_bytes());
    out.extend([0; 12]);
    out.extend([3, b'a', b'b', b'c', 0, 0, 0, 0]);
    for block in bytes.chunks(256 << 10) {
        let data = lzokay::compress::compress(block).unwrap();
        let stored = data.len() >= block.len();
        let data = if stored { block } else { &data };
        out.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        out.extend([0xaa; 4]);
        if checksum_compressed && !stored {
            out.extend([0xbb; 4]);
        }
        out.extend(data);
    }
    out.extend([0; 4]);
    out
}

/// What the kernel's build appends (`size_append`).
fn with_size(mut payload: Vec<u8>, size: usize) -> Vec<u8> {
    payload.extend(u32::try_from(size).unwrap().to_le_bytes());
    payload
}

fn assert_unpacks(payload: &[u8], format: Format, expected: &[u8]) {
    let image = bzimage(payload);
    let image = BzImage::parse(&image).unwrap();
    assert_eq!(image.release(), Some(RELEASE));
    assert_eq!(Format::detect(image.payload()), Some(format));
    let elf = decompress(image.payload(), MAX_VMLINUX_BYTES).unwrap();
    // Not assert_eq: nobody wants megabytes on the screen.
    assert!(
        elf == expected,
        "{format}: {} bytes instead of {}",
        elf.len(),
        expected.len()
    );
}

#[test]
fn every_format_is_unpacked() {
    let elf = vmlinux(FILLER);
    let preset = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    let mut filters = liblzma::stream::Filters::new();
    // As scripts/xz_wrap.sh: the x86 branch filter before LZMA2.
    filters.x86().lzma2(&preset);
    let size = elf.len();
    assert_unpacks(&gzip(&elf), Format::Gzip, &elf);
    assert_unpacks(&with_size(bzip2(&elf), size), Format::Bzip2, &elf);
    assert_unpacks(&with_size(lzma(&elf), size), Format::Lzma, &elf);
    assert_unpacks(&with_size(xz(&elf, &filters), size), Format::Xz, &elf);
    assert_unpacks(&with_size(lz4_legacy(&elf), size), Format::Lz4, &elf);
    assert_unpacks(&with_size(lzop(&elf, false), size), Format::Lzo, &elf);
    assert_unpacks(&with_size(lzop(&elf, true), size), Format::Lzo, &elf);
    assert_unpacks(
        &with_size(zstd::encode_all(&*elf, 3).unwrap(), size),
        Format::Zstd,
        &elf,
    );
    assert_unpacks(&elf, Format::Uncompressed, &elf);
}

#[test]
fn blocks_that_do_not_compress_are_stored_as_they_are() {
    // A xorshift generator: no block of it gets smaller.
    let mut state = 0x9e37_79b9_u32;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    });
    let bytes: Vec<u8> = noise.take(100_000).flatten().collect();
    for checksum_compressed in [false, true] {
        let payload = lzop(&bytes, checksum_compressed);
        assert!(payload.len() > bytes.len());
        assert!(decompress(&payload, 1 << 20).unwrap() == bytes);
    }
}

/// The tools that the kernel's build calls, where this machine has them: an encoder other than our own.
#[test]
fn what_the_builds_own_tools_write_is_unpacked() {
    let elf = vmlinux(1 << 20);
    let tools: [(&[&str], Format); 7] = [
        (&["gzip", "-n", "-9"], Format::Gzip),
        (&["bzip2", "-9"], Format::Bzip2),
        (
            &[
                "xz",
                "--check=crc32",
                "--x86",
                "--lzma2=preset=9,dict=32MiB",
            ],
            Format::Xz,
        ),
        (&["xz", "--format=lzma", "-9"], Format::Lzma),
        (&["lz4", "-l", "-9", "-", "-"], Format::Lz4),
        (&["lzop", "-9"], Format::Lzo),
        (&["zstd", "-19", "-T1"], Format::Zstd),
    ];
    let mut tried = 0;
    for (command, format) in tools {
        let child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else { continue };
        let mut stdin = child.stdin.take().unwrap();
        let input = elf.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{command:?}");
        assert_unpacks(&with_size(output.stdout, elf.len()), format, &elf);
        tried += 1;
    }
    // gzip is part of every Debian system.
    assert!(tried >= 1);
}

#[test]
fn the_facts_of_a_vmlinux() {
    let elf = vmlinux(100);
    let vmlinux = Vmlinux::parse(&elf).unwrap();
    assert_eq!(vmlinux.release(), Some(RELEASE));
    assert_eq!(vmlinux.pvh_entry(), Some(PVH_ENTRY));
    assert_eq!(vmlinux.config().as_deref(), Some(CONFIG));
    let btf = vmlinux.btf().unwrap();
    let start = usize::try_from(btf.offset).unwrap();
    assert_eq!(&elf[start..start + usize::try_from(btf.size).unwrap()], BTF);
}

#[test]
fn a_kernel_without_extras_has_none() {
    let bytes = elf(2, 62, &[(".rodata", b"Linux version 5.0 (a@b)\n\0")]);
    let vmlinux = Vmlinux::parse(&bytes).unwrap();
    assert_eq!(
        (vmlinux.btf(), vmlinux.pvh_entry(), vmlinux.config()),
        (None, None, None)
    );
}

#[test]
fn what_is_wrong_is_said() {
    let message = |error: ImageError| error.to_string();
    let vm = |bytes: &[u8]| message(Vmlinux::parse(bytes).map(drop).unwrap_err());
    insta::assert_snapshot!(vm(b"#!/bin/sh\n"), @"not a kernel image: it is not an ELF file");
    insta::assert_snapshot!(vm(&elf(2, 183, &[])), @"an ELF file for arm64; machines here are x86-64 and boot a bzImage or a vmlinux");
    insta::assert_snapshot!(vm(&elf(2, 62, &[])), @"not a kernel image: it is an ELF executable without a Linux banner");
    insta::assert_snapshot!(vm(&elf(1, 62, &[])), @"not a kernel image: it is an ELF file, but not an executable");

    let bz = |image: &[u8]| message(BzImage::parse(image).map(drop).unwrap_err());
    insta::assert_snapshot!(bz(b""), @"not a kernel image: it has no x86 boot header");
    let mut old = bzimage(b"x");
    old[0x206] = 5;
    insta::assert_snapshot!(bz(&old), @"a kernel image with boot protocol 2.05; 2.08 (Linux 2.6.26) or later is needed to find the kernel in it");
    let cut = &bzimage(&[1; 5000])[..3000];
    insta::assert_snapshot!(bz(cut), @"a truncated kernel image: the compressed kernel ends at byte 6056, but there are only 3000");
    insta::assert_snapshot!(bz(&bzimage(b"")), @"not a kernel image: its boot header announces no compressed kernel");

    let unpack = |payload: &[u8], limit| decompress(payload, limit).unwrap_err().to_string();
    insta::assert_snapshot!(unpack(b"abcdefghijk", 100), @"compressed in an unknown way (it starts with [61, 62, 63, 64, 65, 66, 67, 68])");
    // The rest of the sentence is the decoder's.
    let gzip_cut = unpack(&gzip(&[0; 1000])[..12], 10_000);
    assert!(
        gzip_cut.starts_with("its gzip data does not decompress: "),
        "{gzip_cut}"
    );
    insta::assert_snapshot!(unpack(b"\x02\x21\x4c\x18\xff\xff\0\0ab", 10_000), @"its lz4 data does not decompress: block 0 is truncated");
}

#[test]
fn decompression_is_bounded_in_every_format() {
    let zeros = vec![0; 1 << 20];
    let preset = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&preset);
    let payloads = [
        gzip(&zeros),
        bzip2(&zeros),
        lzma(&zeros),
        xz(&zeros, &filters),
        lz4_legacy(&zeros),
        lzop(&zeros, false),
        zstd::encode_all(&*zeros, 3).unwrap(),
    ];
    for payload in payloads {
        assert_eq!(
            decompress(&payload, zeros.len()).unwrap().len(),
            zeros.len()
        );
        let error = decompress(&payload, zeros.len() - 1).unwrap_err();
        assert!(matches!(error, DecompressError::TooLarge { .. }), "{error}");
    }
}

/// All that the bytes of an image go through.
fn read_everything(bytes: &[u8]) {
    if let Ok(image) = BzImage::parse(bytes) {
        image.release();
        if let Ok(elf) = decompress(image.payload(), 1 << 20) {
            read_elf(&elf);
        }
    }
    // An error is as good as a result; only a panic or endless work is wrong.
    let _ = decompress(bytes, 1 << 20);
    read_elf(bytes);
}

fn read_elf(bytes: &[u8]) {
    if let Ok(vmlinux) = Vmlinux::parse(bytes) {
        vmlinux.release();
        vmlinux.pvh_entry();
        vmlinux.config();
        if let Some(btf) = vmlinux.btf() {
            assert!(btf.as_range().end <= bytes.len() as u64);
        }
    }
}

fn small_images() -> Vec<Vec<u8>> {
    let elf = vmlinux(200);
    let preset = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
    let mut filters = liblzma::stream::Filters::new();
    filters.x86().lzma2(&preset);
    let payloads = [
        gzip(&elf),
        bzip2(&elf),
        lzma(&elf),
        xz(&elf, &filters),
        lz4_legacy(&elf),
        lzop(&elf, true),
        zstd::encode_all(&*elf, 3).unwrap(),
        elf.clone(),
    ];
    payloads
        .iter()
        .map(|payload| bzimage(payload))
        .chain([elf])
        .collect()
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read_everything(&bytes);
    }

    #[test]
    fn no_change_to_an_image_makes_it_panic(
        which in 0..9_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        in_header in any::<bool>(),
        keep in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut image = small_images().swap_remove(which);
        for (at, value) in changes {
            // Half of the runs change what steers the parsing, the rest anything.
            let at = if in_header { at.index(PAYLOAD_AT.min(image.len()) + 64) } else { at.index(image.len()) };
            if let Some(byte) = image.get_mut(at) {
                *byte = value;
            }
        }
        if cut {
            image.truncate(keep.index(image.len()));
        }
        read_everything(&image);
    }
}

/// A file by the tool itself (`seq -f 'line %g' 2000 | lzop -9 -c`): the encoder in these tests may share a
/// misunderstanding with the decoder.
#[test]
fn a_file_written_by_lzop_is_unpacked() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/offline/lines.lzo");
    let expected: String = (1..=2000).map(|n| format!("line {n}\n")).collect();
    let bytes = std::fs::read(path).unwrap();
    assert!(decompress(&bytes, 1 << 20).unwrap() == expected.as_bytes());
}

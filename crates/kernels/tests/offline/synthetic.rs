//! Small files that have the shape of a kernel: just enough for what reads them.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

pub(crate) const RELEASE: &str = "9.9.9-synthetic";
pub(crate) const PVH_ENTRY: u64 = 0x100_0280;
pub(crate) const BTF: &[u8] = b"\x9f\xeb\x01\x00 type information";
pub(crate) const CONFIG: &str = "CONFIG_64BIT=y\n# CONFIG_PSI is not set\nCONFIG_HZ=250\n";

const EHDR_BYTES: usize = 64;
const PHDR_BYTES: usize = 56;
const SHDR_BYTES: usize = 64;

/// An ELF64 file with these sections, and a PT_NOTE segment over one of the name `.notes`.
pub(crate) fn elf(kind: u16, machine: u16, sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut names = vec![0];
    let mut data = Vec::new();
    let mut headers = vec![[0u64; 4]];
    for (name, bytes) in sections {
        headers.push([
            names.len() as u64,
            (EHDR_BYTES + PHDR_BYTES + data.len()) as u64,
            bytes.len() as u64,
            1,
        ]);
        names.extend(name.bytes().chain([0]));
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(8), 0);
    }
    headers.push([
        names.len() as u64,
        (EHDR_BYTES + PHDR_BYTES + data.len()) as u64,
        0,
        3,
    ]);
    names.extend(b".shstrtab\0");
    headers.last_mut().unwrap()[2] = names.len() as u64;
    data.extend(&names);
    data.resize(data.len().next_multiple_of(8), 0);

    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend(kind.to_le_bytes());
    out.extend(machine.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend((EHDR_BYTES as u64).to_le_bytes());
    out.extend(((EHDR_BYTES + PHDR_BYTES + data.len()) as u64).to_le_bytes());
    out.extend(0u32.to_le_bytes());
    let shnum = u16::try_from(headers.len()).unwrap();
    let half = |bytes: usize| u16::try_from(bytes).unwrap();
    for field in [
        half(EHDR_BYTES),
        half(PHDR_BYTES),
        1,
        half(SHDR_BYTES),
        shnum,
        shnum - 1,
    ] {
        out.extend(field.to_le_bytes());
    }
    let note = sections
        .iter()
        .position(|(name, _)| *name == ".notes")
        .map_or([0; 4], |at| headers[at + 1]);
    let note_type = if note[2] == 0 { 0u32 } else { 4 };
    out.extend(note_type.to_le_bytes());
    out.extend(4u32.to_le_bytes());
    for word in [note[1], 0, 0, note[2], note[2], 4] {
        out.extend(word.to_le_bytes());
    }
    out.extend(data);
    for [name, offset, size, kind] in headers {
        out.extend(u32::try_from(name).unwrap().to_le_bytes());
        out.extend(
            u32::try_from(if size == 0 { 0 } else { kind })
                .unwrap()
                .to_le_bytes(),
        );
        for word in [0, 0, offset, size, 0, 1, 0] {
            out.extend(u64::to_le_bytes(word));
        }
    }
    out
}

/// A kernel's ELF file with all the parts that are looked for, and `filler` bytes to give it a size.
pub(crate) fn vmlinux(filler: usize) -> Vec<u8> {
    vmlinux_of(RELEASE, filler)
}

/// The same, of another release.
pub(crate) fn vmlinux_of(release: &str, filler: usize) -> Vec<u8> {
    let mut rodata = b"Linux version %s (%s)\0".to_vec();
    rodata.extend(format!("Linux version {release} (builder@host) #1 SMP\n\0").bytes());
    rodata.extend(b"IKCFG_ST");
    let mut encoder = GzEncoder::new(&mut rodata, Compression::fast());
    encoder.write_all(CONFIG.as_bytes()).unwrap();
    encoder.finish().unwrap();
    rodata.extend(b"IKCFG_ED");
    // Not all zeros, so that compressors have something to do.
    let runs = (0..=250_u8).flat_map(|byte| std::iter::repeat_n(byte, 64));
    rodata.extend(runs.cycle().take(filler));
    elf(
        2,
        62,
        &[
            (".notes", &pvh_note(PVH_ENTRY)),
            (".rodata", &rodata),
            (".BTF", BTF),
        ],
    )
}

/// The note of arch/x86/platform/pvh/head.S.
fn pvh_note(entry: u64) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4u32, 8, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(entry.to_le_bytes());
    note
}

/// Where the compressed kernel starts in [`bzimage`].
pub(crate) const PAYLOAD_AT: usize = 2 * 512 + 0x20;

/// A boot image around a payload.
pub(crate) fn bzimage(payload: &[u8]) -> Vec<u8> {
    bzimage_of(RELEASE, payload)
}

/// The same, of another release.
pub(crate) fn bzimage_of(release: &str, payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; PAYLOAD_AT];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    let version = format!("{release} (builder@host) #1 SMP");
    image[0x300..0x300 + version.len()].copy_from_slice(version.as_bytes());
    image[0x248..0x24c].copy_from_slice(&0x20_u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    image.extend_from_slice(payload);
    image
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A module with these dependencies.
pub(crate) fn module(depends: &str) -> Vec<u8> {
    let modinfo = format!("license=GPL\0depends={depends}\0name=x\0");
    elf(1, 62, &[(".modinfo", modinfo.as_bytes())])
}

/// A Debian package for amd64 with these files.
pub(crate) fn deb(compress: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    deb_for("amd64", compress, files)
}

/// The same for another architecture.
pub(crate) fn deb_for(architecture: &str, compress: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let control = format!("Package: linux-image-9\nArchitecture: {architecture}\nVersion: 9-1\n");
    let name = if compress.is_empty() {
        "data.tar".to_owned()
    } else {
        format!("data.tar.{compress}")
    };
    let data = tar(files);
    let data = match compress {
        "zst" => zstd::encode_all(&*data, 1).unwrap(),
        "gz" => gzip(&data),
        _ => data,
    };
    ar(&[
        ("debian-binary", b"2.0\n"),
        (
            "control.tar.gz",
            &gzip(&tar(&[("./control", control.as_bytes())])),
        ),
        (&name, &data),
    ])
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The archive format around a package (deb(5)).
pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        archive.extend(ar_header(name, &bytes.len().to_string()));
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(2), b'\n');
    }
    archive
}

/// A member's 60 bytes, whatever its name and size.
pub(crate) fn ar_header(name: &str, size: &str) -> Vec<u8> {
    format!(
        "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n",
        0, 0, 0, 100_644
    )
    .into_bytes()
}

/// Makes an entry of the cache one that Debian's archive gave, with these other changes to its metadata.
pub(crate) fn make_fetched(entry: &Path, changes: &[(&str, serde_json::Value)]) {
    let path = entry.join("metadata.json");
    let mut metadata: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    metadata["origin"] = serde_json::json!({
        "debian": { "suite": "s", "role": "r", "version": "9.9.8-1", "flavour": "amd64" }
    });
    for (name, value) in changes {
        metadata[name] = value.clone();
    }
    fs::write(&path, metadata.to_string()).unwrap();
}

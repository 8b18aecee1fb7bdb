//! The base part of the initramfs: what is in it works, and what can't be in it is named.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktstr_host::initramfs::{BaseContents, Include};
use object::{Object as _, ObjectSection as _};
use proptest::prelude::*;

fn contents(init: impl Into<PathBuf>) -> BaseContents {
    BaseContents {
        programs: Vec::new(),
        init: init.into(),
        includes: Vec::new(),
        modules: Vec::new(),
        library_path: None,
    }
}

fn own_binary() -> PathBuf {
    std::env::current_exe().expect("this binary")
}

/// The files of an archive, by path.
fn unpack(mut archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    loop {
        let mut reader = cpio::newc::Reader::new(archive).expect("an entry");
        if reader.entry().is_trailer() {
            return files;
        }
        let name = reader.entry().name().to_owned();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("its content");
        assert!(
            files.insert(name.clone(), content).is_none(),
            "{name} is there twice"
        );
        archive = reader.finish().expect("the next entry");
    }
}

#[test]
fn init_runs_without_its_debug_sections_and_keeps_its_names() {
    let packed = contents(own_binary()).pack().expect("packs");
    let files = unpack(&packed.archive);
    let init = &files["init"];
    let whole = fs::read(own_binary()).expect("readable");
    assert!(
        init.len() < whole.len(),
        "{} of {} bytes",
        init.len(),
        whole.len()
    );

    let elf = object::File::parse(&**init).expect("sound");
    let debug = |section: &object::Section<'_, '_>| {
        let name = section.name().unwrap_or_default().to_owned();
        // Loaded with the program, for a debugger's sake.
        (name.starts_with(".debug_") && name != ".debug_gdb_scripts" && section.size() > 0)
            .then_some(name)
    };
    assert_eq!(elf.sections().find_map(|section| debug(&section)), None);
    assert!(elf.symbols().count() > 100, "the symbol table is gone");

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("init");
    fs::write(&path, init).expect("writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    let listed = |binary: &Path| {
        Command::new(binary)
            .arg("--list")
            .output()
            .expect("runs")
            .stdout
    };
    assert_eq!(listed(&path), listed(&own_binary()));
}

#[test]
fn libraries_and_loader_come_along() {
    let files = unpack(&contents(own_binary()).pack().expect("packs").archive);
    let has = |part: &str| files.keys().any(|name| name.contains(part));
    assert!(
        has("libc.so.6") && has("ld-linux-x86-64.so.2"),
        "{:?}",
        files.keys()
    );
    for folder in ["proc", "sys", "dev", "tmp"] {
        assert!(files.contains_key(folder), "{folder} is missing");
    }
}

#[test]
fn an_included_file_is_where_it_was_asked_for() {
    let mut contents = contents(own_binary());
    contents.includes.push(Include {
        host: "/etc/hostname".into(),
        guest: "/root/deep/down/name".to_owned(),
    });
    let files = unpack(&contents.pack().expect("packs").archive);
    assert_eq!(
        files["root/deep/down/name"],
        fs::read("/etc/hostname").expect("readable")
    );
    assert!(files.contains_key("root/deep/down"));
}

#[test]
fn what_can_not_be_packed_is_named() {
    let mut missing = contents(own_binary());
    missing.includes.push(Include {
        host: "/no/such/file".into(),
        guest: "/root/file".to_owned(),
    });
    let error = missing.pack().expect_err("missing").to_string();
    assert_eq!(error, "reading the included file /no/such/file");

    let mut climbing = contents(own_binary());
    climbing.includes.push(Include {
        host: "/etc/hostname".into(),
        guest: "/root/../../x".to_owned(),
    });
    let error = climbing.pack().expect_err("climbs").to_string();
    assert!(
        error.contains("/root/../../x") && error.contains("without `..`"),
        "{error}"
    );

    let error = contents("/etc/hostname")
        .pack()
        .expect_err("text")
        .to_string();
    assert!(
        error.starts_with("/etc/hostname is not a sound ELF file"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_binary_is_an_error_not_a_panic(
        flips in prop::collection::vec((0usize..4096, any::<u8>()), 1..24), cut in 0usize..200_000,
    ) {
        let mut bytes = fs::read("/bin/true").expect("readable");
        bytes.truncate(cut.max(1));
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("binary");
        fs::write(&path, bytes).expect("writable");
        let _ = contents(path).pack();
    }
}

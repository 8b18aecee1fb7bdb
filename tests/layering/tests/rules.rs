//! The repository keeps its rules, and each rule can be broken.

use std::fs;
use std::path::PathBuf;

use layering::{
    Dependency, Package, SourceFile, banned_names, forbidden_arrows, library_crates, mirror_hosts,
    overlong, own_policy, packages, source_files, unsafe_outside,
};

/// Files that may hold unsafe code.
const UNSAFE_FILES: &[&str] = &[
    "crates/cargo-ktstr/src/signals.rs",
    "crates/cargo-ktstr/src/terminal.rs",
    "crates/guest/src/command.rs",
    "crates/guest/src/crash.rs",
    "crates/guest/src/init.rs",
    "crates/guest/src/pit.rs",
    "crates/guest/src/scheduler/held_maps.rs",
    "crates/guest/src/scheduler/watchdog.rs",
    "crates/machine/src/tcg/process.rs",
    "crates/machine/src/tcg/tsc.rs",
    "crates/scenario/src/workload/shared.rs",
    "crates/scenario/src/workload/syscalls.rs",
    "crates/vmm/src/kvm_run.rs",
    "crates/vmm/src/memory.rs",
    "crates/vmm/src/realtime.rs",
    "schedulers/scx-ktstr/src/skeleton.rs",
    "tests/e2e/tests/declared/raw_syscalls.rs",
    "tests/e2e/tests/faults/raw_syscalls.rs",
    "tests/e2e/tests/faults/victims.rs",
    "tests/e2e/tests/faults/victims/virtio.rs",
    "tests/e2e/tests/witness/bpf_syscalls.rs",
];

/// What users depend on, and how many crates that may cost them.
const LIBRARY: &str = "ktstr";
const MOST_LIBRARY_CRATES: usize = 150;

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn arrows_go_down_only() {
    let packages = packages().unwrap();
    assert!(packages.len() > 1, "the workspace was not read");
    assert_none(&forbidden_arrows(&packages));
}

#[test]
fn unsafe_code_lives_in_the_listed_files() {
    assert_none(&unsafe_outside(&source_files().unwrap(), UNSAFE_FILES));
}

#[test]
fn files_are_short() {
    assert_none(&overlong(&source_files().unwrap()));
}

#[test]
fn names_say_what_is_inside() {
    assert_none(&banned_names(&source_files().unwrap()));
}

#[test]
fn no_mirror_is_named() {
    assert_none(&mirror_hosts(&source_files().unwrap()));
}

#[test]
fn every_crate_takes_its_policy_from_the_workspace() {
    let manifests: Vec<SourceFile> = packages()
        .unwrap()
        .into_iter()
        .map(|package| SourceFile {
            text: fs::read_to_string(&package.manifest).unwrap(),
            path: package.manifest,
        })
        .collect();
    assert_none(&own_policy(&manifests));
}

#[test]
fn the_library_is_light() {
    let crates = library_crates(LIBRARY).unwrap();
    assert!(
        crates.len() > 1 && crates.len() < MOST_LIBRARY_CRATES,
        "{LIBRARY} brings {} crates, fewer than {MOST_LIBRARY_CRATES} are allowed:\n{}",
        crates.len(),
        crates.join("\n")
    );
}

#[test]
fn an_arrow_that_goes_up_is_named() {
    let package = |name: &str, uses: &[(&str, bool)]| Package {
        name: name.to_owned(),
        manifest: PathBuf::new(),
        dependencies: uses
            .iter()
            .map(|&(name, is_dev)| Dependency {
                name: name.to_owned(),
                is_dev,
            })
            .collect(),
    };
    let faults = forbidden_arrows(&[
        package("ktstr-topology", &[("serde", false), ("ktstr-wire", true)]),
        package("ktstr-wire", &[("ktstr-topology", false)]),
        package(
            "ktstr-guest",
            &[("ktstr-host", false), ("ktstr-wire", false)],
        ),
        package("ktstr-host", &[("ktstr-wire", false)]),
        package("ktstr-kernels", &[]),
        package("e2e", &[("ktstr-kernels", true), ("ktstr-topology", false)]),
        package("newcomer", &[]),
    ]);
    let starts: Vec<&str> = faults
        .iter()
        .map(|fault| {
            fault
                .split_once(" is not")
                .map_or(&fault[..], |(arrow, _)| arrow)
        })
        .map(|fault| fault.split_once(" yet").map_or(fault, |(start, _)| start))
        .collect();
    assert_eq!(
        starts,
        [
            "ktstr-topology → ktstr-wire (in tests)",
            "ktstr-guest → ktstr-host",
            "`newcomer` has no place",
        ]
    );
    assert!(
        faults[1].contains("ktstr-wire, ktstr-scenario"),
        "{}",
        faults[1]
    );
    assert!(faults[0].contains("nothing of ours"), "{}", faults[0]);
}

#[test]
fn every_rule_on_files_can_be_broken() {
    let file = |path: &str, text: &str| SourceFile {
        path: path.into(),
        text: text.to_owned(),
    };
    let lint = concat!("unsafe", "_code");
    let files = [
        file(
            "a/boot.rs",
            &format!("#![expect(\n    {lint},\n    reason = \"x\"\n)]"),
        ),
        file("a/listed.rs", &format!("#[allow({lint})]")),
        file("a/long.rs", &"\n".repeat(801)),
        file(
            "a/utils/x.rs",
            "pub(crate) mod common;\nmod commonly;\n// mod imp",
        ),
        file("notes.md", concat!("http://deb", ".debian.org/debian")),
        file("Cargo.lock", concat!("index", ".crates.io")),
    ];
    let starts = |faults: Vec<String>| -> Vec<String> {
        let path = |fault: String| fault.split([' ', ':']).next().unwrap().to_owned();
        faults.into_iter().map(path).collect()
    };
    let unsafe_faults = unsafe_outside(&files, &["a/listed.rs", "a/gone.rs"]);
    assert_eq!(starts(unsafe_faults), ["a/boot.rs", "a/gone.rs"]);
    assert_eq!(starts(overlong(&files)), ["a/long.rs"]);
    assert_eq!(starts(banned_names(&files)), ["a/utils/x.rs"; 2]);
    assert_eq!(starts(mirror_hosts(&files)), ["notes.md"]);

    let manifest = "[package]\nedition.workspace = true\nlicense.workspace = true\n\
                    rust-version.workspace = true\n[lints]\nworkspace = true\n";
    let own_edition = manifest.replace("edition.workspace = true", "edition = \"2021\"");
    let own_lints = manifest.replace("[lints]\nworkspace = true\n", "");
    assert_eq!(own_policy(&[file("x", manifest)]), [""; 0]);
    assert_eq!(own_policy(&[file("x", &own_edition)]).len(), 1);
    assert_eq!(own_policy(&[file("x", &own_lints)]).len(), 1);
}

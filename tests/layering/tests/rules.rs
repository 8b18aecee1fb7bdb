//! The repository keeps its rules, and each rule can be broken.

use std::fs;
use std::path::PathBuf;

use layering::{
    Dependency, Package, SourceFile, banned_names, environment_readers, forbidden_arrows,
    forbidden_reexports, library_crates, mirror_hosts, module_circles, overlong,
    overlong_functions, own_policy, packages, source_files, unsafe_outside, unused_dependencies,
};

/// Files that may hold unsafe code.
const UNSAFE_FILES: &[&str] = &[
    "crates/guest/src/crash.rs",
    "crates/guest/src/init.rs",
    "crates/guest/src/io_ports.rs",
    "crates/guest/src/scheduler/held_maps.rs",
    "crates/scenario/src/workload/shared.rs",
    "crates/scenario/src/workload/syscalls.rs",
    "crates/sys/src/lib.rs",
    "crates/vmm/src/kvm_run.rs",
    "crates/vmm/src/memory.rs",
    "schedulers/scx-ktstr/src/skeleton.rs",
    "tests/e2e/tests/declared/raw_syscalls.rs",
    "tests/e2e/tests/faults/raw_syscalls.rs",
    "tests/e2e/tests/faults/victims.rs",
    "tests/e2e/tests/faults/victims/virtio.rs",
    "tests/e2e/tests/witness/bpf_syscalls.rs",
];

/// Files that may read the environment: for the host and guest of tests, and for the command.
const ENVIRONMENT_FILES: &[&str] = &[
    "crates/cargo-ktstr/src/environment.rs",
    "crates/ktstr/src/environment.rs",
];

/// What users depend on, and how many crates that may cost them.
const LIBRARY: &str = "ktstr";
const MAX_LIBRARY_CRATES: usize = 100;

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
fn no_reexport_walks_around_the_arrows() {
    let packages = packages().unwrap();
    assert_none(&forbidden_reexports(&packages, &source_files().unwrap()));
}

#[test]
fn every_dependency_is_used() {
    let files = source_files().unwrap();
    let workspace = files
        .iter()
        .find(|file| file.path.as_os_str() == "Cargo.toml")
        .unwrap();
    let packages = packages().unwrap();
    assert_none(&unused_dependencies(workspace, &packages, &files));
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
fn functions_fit_a_screen() {
    assert_none(&overlong_functions(&source_files().unwrap()));
}

#[test]
fn the_environment_is_read_in_one_file_a_side() {
    assert_none(&environment_readers(
        &source_files().unwrap(),
        ENVIRONMENT_FILES,
    ));
}

#[test]
fn modules_of_a_crate_use_each_other_in_no_circle() {
    assert_none(&module_circles(&source_files().unwrap()));
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
        crates.len() > 1 && crates.len() <= MAX_LIBRARY_CRATES,
        "{LIBRARY} brings {} crates, at most {MAX_LIBRARY_CRATES} are allowed:\n{}",
        crates.len(),
        crates.join("\n")
    );
}

fn package(name: &str, uses: &[(&str, bool)]) -> Package {
    Package {
        name: name.to_owned(),
        manifest: PathBuf::from(format!("crates/{name}/Cargo.toml")),
        dependencies: uses
            .iter()
            .map(|&(name, is_dev)| Dependency {
                name: name.to_owned(),
                is_dev,
            })
            .collect(),
    }
}

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile {
        path: path.into(),
        text: text.to_owned(),
    }
}

#[test]
fn an_arrow_that_goes_up_is_named() {
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

#[test]
fn a_function_of_more_than_a_screen_is_named() {
    let function = |lines: usize| format!("impl X {{ fn f() {{{}}} }}", "\n".repeat(lines - 1));
    let files = [
        file("a/short.rs", &function(80)),
        file("a/long.rs", &function(81)),
    ];
    let faults = overlong_functions(&files);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].starts_with("a/long.rs:1: `f` has 81 lines"),
        "{faults:?}"
    );
}

#[test]
fn whoever_reads_the_environment_is_named() {
    let files = [
        file(
            "crates/a/src/path.rs",
            "fn f() { g(std::env::var_os(\"X\")); }",
        ),
        file("crates/a/src/import.rs", "use std::env::{self, vars};"),
        file(
            "crates/a/src/in_macro.rs",
            "fn f() { println!(\"{:?}\", env::var(\"X\")); }",
        ),
        file("crates/a/src/as_value.rs", "fn f() { g(env::var_os); }"),
        file(
            "crates/a/src/other.rs",
            "fn f() { env::current_dir(); set::var(); }",
        ),
        file(
            "crates/a/src/tests.rs",
            "#[cfg(test)] mod tests { fn f() { env::var(\"X\"); } }",
        ),
        file("crates/a/tests/all.rs", "fn f() { env::var(\"X\"); }"),
        file("crates/a/build.rs", "fn f() { env::var(\"X\"); }"),
        file("crates/a/src/listed.rs", "fn f() { env::var(\"X\"); }"),
    ];
    let allowed = ["crates/a/src/listed.rs", "crates/a/src/idle.rs"];
    let faults = environment_readers(&files, &allowed);
    let names: Vec<&str> = faults
        .iter()
        .filter_map(|fault| fault.split(' ').next())
        .collect();
    assert_eq!(
        names,
        ["path", "import", "in_macro", "as_value", "idle"]
            .map(|name| format!("crates/a/src/{name}.rs"))
    );
}

#[test]
fn modules_that_use_each_other_are_named_whoever_passes_the_names_on() {
    let circles = |files: &[(&str, &str)]| {
        let files: Vec<SourceFile> = files
            .iter()
            .map(|(path, text)| file(&format!("crates/x/src/{path}"), text))
            .collect();
        module_circles(&files)
    };
    let root = ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;");
    let faults = circles(&[
        root,
        ("a.rs", "use crate::B; pub struct A(B);"),
        ("b.rs", "pub struct B; fn f() { g!(super::a::A) }"),
    ]);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].contains("a → b → a"), "{faults:?}");
    // Through what lies in a module, and through its glob.
    let faults = circles(&[
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod inner; pub use inner::*;"),
        ("a/inner.rs", "use crate::b; pub fn f() { b::g(); }"),
        ("b.rs", "pub fn g() { crate::a::f(); }"),
    ]);
    assert_eq!(faults.len(), 1, "{faults:?}");

    // One way only; in tests; and a module with those inside it.
    for other in [
        "pub struct B;",
        "pub struct B; #[cfg(test)] mod tests { use crate::A; }",
        "mod inside; pub struct B; use inside::C;",
    ] {
        let faults = circles(&[
            root,
            ("a.rs", "use crate::B; pub struct A(B);"),
            ("b.rs", other),
            ("b/inside.rs", "use super::B; pub struct C(B);"),
        ]);
        assert_eq!(faults, [""; 0], "{other}");
    }
}

#[test]
fn a_dependency_that_nothing_names_is_named() {
    let workspace = file(
        "Cargo.toml",
        "[workspace.dependencies]\nserde = \"1\"\nidle = \"1\"\n\n[profile.dev]\ndebug = false\n",
    );
    let files = [
        file("crates/a/src/lib.rs", "use serde::Serialize; // ktstr_b"),
        file("crates/ab/src/lib.rs", "use ktstr_b::X;"),
    ];
    let packages = [package("a", &[("serde", false), ("ktstr-b", true)])];
    assert_eq!(
        unused_dependencies(&workspace, &packages, &files),
        [
            "no crate depends on `idle`: take it out of the workspace's Cargo.toml",
            "a depends on `ktstr-b` and names it nowhere: take it out"
        ]
    );
}

#[test]
fn a_reexport_that_walks_around_the_arrows_is_named() {
    let files = [
        file(
            "crates/ktstr-host/src/lib.rs",
            "pub use ktstr_monitor as monitor; use ktstr_wire::X;",
        ),
        file(
            "crates/ktstr-host/src/link.rs",
            "pub(crate) use ktstr_wire::X; pub use serde::Y;",
        ),
        file(
            "crates/ktstr-machine/src/lib.rs",
            "pub use ktstr_vmm::{A, B}; pub use ktstr_monitor::C;",
        ),
    ];
    let packages = [
        "ktstr-host",
        "ktstr-machine",
        "ktstr-monitor",
        "ktstr-vmm",
        "ktstr-wire",
    ]
    .map(|name| package(name, &[]));
    let faults = forbidden_reexports(&packages, &files);
    let starts: Vec<&str> = faults
        .iter()
        .filter_map(|fault| fault.split(',').next())
        .collect();
    assert_eq!(
        starts,
        [
            "crates/ktstr-host/src/lib.rs passes on items of ktstr-monitor",
            "crates/ktstr-machine/src/lib.rs passes on items of ktstr-monitor"
        ]
    );
}

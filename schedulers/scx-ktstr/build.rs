//! Compiles the BPF part with clang and makes its skeleton.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "src/bpf/main.bpf.c";

/// Names that distributions give it; the plain one last, which may be too old.
const CLANGS: [&str; 6] = [
    "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang",
];

fn main() {
    println!("cargo::rerun-if-changed=src/bpf");
    println!("cargo::rerun-if-env-changed=BPF_CLANG");
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        return fail("cargo did not say where to put the skeleton (OUT_DIR)");
    };
    let Some(clang) = clang() else {
        return fail(
            "scx-ktstr needs clang to compile BPF, and there is none on PATH. `cargo xtask setup` installs it \
             (Debian: apt-get install clang-19 libelf-dev zlib1g-dev pkg-config); BPF_CLANG names another one",
        );
    };
    let built = SkeletonBuilder::new()
        .source(SOURCE)
        .clang(&clang)
        .clang_args(["-Wall", "-Werror", "-O2"])
        .build_and_generate(Path::new(&out).join("main.skel.rs"));
    if let Err(error) = built {
        fail(&format!("compiling {SOURCE} with {clang}: {error:#}"));
    }
}

fn clang() -> Option<String> {
    if let Ok(told) = env::var("BPF_CLANG")
        && !told.is_empty()
    {
        return Some(told);
    }
    let runs = |name: &&str| {
        let mut version = Command::new(name);
        let silent = version
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        silent.status().is_ok_and(|status| status.success())
    };
    CLANGS.into_iter().find(runs).map(str::to_owned)
}

/// Fails the build with these words alone.
fn fail(message: &str) {
    for line in message.lines() {
        println!("cargo::error={line}");
    }
}

//! The programs that the project needs.

use ktstr_kernels::tools;

/// A program that the project needs beside Rust itself. (A C compiler is one too, as Rust's linker, but
/// without it this program could not have been built.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Boots the virtual machines.
    Qemu,
    /// The shell of `cargo ktstr shell`.
    Busybox,
    /// Compiles the BPF part of schedulers/scx-ktstr, with what libbpf needs beside it.
    BpfToolchain,
    /// Judges ACPI tables, in tests of the microVM.
    Iasl,
    /// Runs the tests.
    Nextest,
    /// Checks the dependencies.
    CargoDeny,
    /// Builds the fuzz targets.
    CargoFuzz,
    /// Compiles libFuzzer.
    CxxCompiler,
}

/// How a tool is installed.
pub(super) enum Source {
    /// Packages of Debian and its relatives.
    Apt { packages: &'static [&'static str] },
    /// A crate. Pinned, so that it builds with the project's own Rust; raise it with the toolchain.
    Cargo {
        krate: &'static str,
        version: &'static str,
    },
}

/// What shows that a tool is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Evidence {
    /// One that ktstr itself looks for, in the cache too.
    Tool(tools::Tool),
    /// A program on PATH.
    Program(&'static str),
    /// A file in the system's folder of headers.
    Header(&'static str),
}

use Evidence::{Header, Program};

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system-x86_64",
            Self::Busybox => "busybox",
            Self::BpfToolchain => "the BPF toolchain",
            Self::Iasl => "iasl",
            Self::Nextest => "cargo-nextest",
            Self::CargoDeny => "cargo-deny",
            Self::CargoFuzz => "cargo-fuzz",
            Self::CxxCompiler => "c++",
        }
    }

    /// It is there if all of these are.
    pub(super) fn evidence(self) -> &'static [Evidence] {
        match self {
            Self::Qemu => &[Evidence::Tool(tools::Tool::Qemu)],
            Self::Busybox => &[Evidence::Tool(tools::Tool::Busybox)],
            Self::BpfToolchain => &[
                Program("clang-19"),
                Program("pkg-config"),
                Header("libelf.h"),
                Header("zlib.h"),
            ],
            Self::Iasl => &[Program("iasl")],
            Self::Nextest => &[Program("cargo-nextest")],
            Self::CargoDeny => &[Program("cargo-deny")],
            Self::CargoFuzz => &[Program("cargo-fuzz")],
            Self::CxxCompiler => &[Program("c++")],
        }
    }

    /// Which it is of those that can be fetched into the cache.
    pub(super) fn fetchable(self) -> Option<tools::Tool> {
        match self {
            Self::Qemu => Some(tools::Tool::Qemu),
            Self::Busybox => Some(tools::Tool::Busybox),
            _ => None,
        }
    }

    /// Its packages of Debian and its relatives, if it is had so.
    pub(super) fn packages(self) -> &'static [&'static str] {
        match self.source() {
            Source::Apt { packages } => packages,
            Source::Cargo { .. } => &[],
        }
    }

    pub(super) fn source(self) -> Source {
        match self {
            Self::Qemu => Source::Apt {
                packages: &["qemu-system-x86"],
            },
            // The one without libraries: it runs in a guest that has nothing else.
            Self::Busybox => Source::Apt {
                packages: &["busybox-static"],
            },
            Self::BpfToolchain => Source::Apt {
                packages: &["clang-19", "libelf-dev", "zlib1g-dev", "pkg-config"],
            },
            Self::Iasl => Source::Apt {
                packages: &["acpica-tools"],
            },
            Self::Nextest => Source::Cargo {
                krate: "cargo-nextest",
                version: "0.9.143",
            },
            Self::CargoDeny => Source::Cargo {
                krate: "cargo-deny",
                version: "0.20.2",
            },
            Self::CargoFuzz => Source::Cargo {
                krate: "cargo-fuzz",
                version: "0.13.2",
            },
            Self::CxxCompiler => Source::Apt { packages: &["g++"] },
        }
    }

    pub(super) fn purpose(self) -> &'static str {
        match self {
            Self::Qemu => "boots the virtual machines",
            Self::Busybox => "the shell in a virtual machine",
            Self::BpfToolchain => "builds schedulers/scx-ktstr",
            Self::Iasl => "judges ACPI tables",
            Self::Nextest => "runs the tests",
            Self::CargoDeny => "checks the dependencies",
            Self::CargoFuzz => "builds the fuzz targets",
            Self::CxxCompiler => "compiles libFuzzer",
        }
    }
}

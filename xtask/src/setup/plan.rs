//! What to install, and how: a pure function of what the machine has.

use std::fmt;

use super::{Tool, facts::Facts};

/// How a tool is come by.
enum Source {
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
    /// A program on PATH.
    Program(&'static str),
    /// A file in the system's folder of headers.
    Header(&'static str),
}

use Evidence::{Header, Program};

impl Tool {
    /// Its name.
    fn name(self) -> &'static str {
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
            Self::Qemu => &[Program("qemu-system-x86_64")],
            Self::Busybox => &[Program("busybox")],
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

    fn source(self) -> Source {
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

    fn purpose(self) -> &'static str {
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

/// One thing to install. Its text says what it is for and the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Install {
    Apt {
        tools: Vec<Tool>,
        packages: Vec<&'static str>,
    },
    Cargo {
        tool: Tool,
        krate: &'static str,
        version: &'static str,
    },
}

/// Something is missing that can't be installed from here. Nothing was installed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CannotInstall {
    #[error(
        "{} missing, and installing packages needs root. As root, run\n\n    {}\n\nthen run this again",
        are(tools),
        apt_command(packages)
    )]
    NotRoot {
        tools: Vec<Tool>,
        packages: Vec<&'static str>,
    },
    #[error(
        "{} missing, and this machine has no apt to install from. Install it with the package manager of \
         this system (QEMU's system emulator for x86-64; a static busybox; clang-19, pkg-config and the headers of \
         libelf and zlib; ACPICA's tools; a C++ compiler), then run this again",
        are(tools)
    )]
    NoApt { tools: Vec<Tool> },
}

/// What to install, distribution packages first: they may be refused, and then nothing has been done yet.
pub(super) fn plan(facts: &Facts) -> Result<Vec<Install>, CannotInstall> {
    let mut tools = Vec::new();
    let mut packages = Vec::new();
    let mut installs = Vec::new();
    for &tool in &facts.missing {
        match tool.source() {
            Source::Apt { packages: needed } => {
                tools.push(tool);
                packages.extend_from_slice(needed);
            }
            Source::Cargo { krate, version } => installs.push(Install::Cargo {
                tool,
                krate,
                version,
            }),
        }
    }
    if tools.is_empty() {
        return Ok(installs);
    }
    match (facts.has_apt, facts.is_root) {
        (true, true) => {
            installs.insert(0, Install::Apt { tools, packages });
            Ok(installs)
        }
        (true, false) => Err(CannotInstall::NotRoot { tools, packages }),
        (false, _) => Err(CannotInstall::NoApt { tools }),
    }
}

/// A debug build: it takes a third of the time to make, and both tools wait for others most of theirs.
pub(super) fn cargo_install_args<'a>(krate: &'a str, version: &'a str) -> [&'a str; 6] {
    [
        "install",
        krate,
        "--version",
        version,
        "--locked",
        "--debug",
    ]
}

fn apt_command(packages: &[&str]) -> String {
    format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// `x and y are`, `x is`.
fn are(tools: &[Tool]) -> String {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(" and "))
}

impl fmt::Display for Install {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tools, command) = match self {
            Self::Apt { tools, packages } => (tools.as_slice(), apt_command(packages)),
            Self::Cargo {
                tool,
                krate,
                version,
            } => {
                let args = cargo_install_args(krate, version);
                (
                    std::slice::from_ref(tool),
                    format!("cargo {}", args.join(" ")),
                )
            }
        };
        let purposes: Vec<&str> = tools.iter().map(|tool| tool.purpose()).collect();
        let purposes = purposes.join(", ");
        write!(
            f,
            "{} missing ({purposes}); installing: {command}",
            are(tools)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(missing: &[Tool], has_apt: bool, is_root: bool) -> Facts {
        Facts {
            missing: missing.to_vec(),
            has_apt,
            is_root,
        }
    }

    fn said(facts: &Facts) -> String {
        match plan(facts) {
            Ok(installs) => installs
                .iter()
                .map(|install| format!("{install}\n"))
                .collect(),
            Err(refusal) => format!("error: {refusal}"),
        }
    }

    #[test]
    fn with_everything_there_nothing_is_done_and_no_rights_are_needed() {
        for (has_apt, is_root) in [(true, true), (true, false), (false, false)] {
            assert_eq!(plan(&facts(&[], has_apt, is_root)), Ok(vec![]));
        }
    }

    #[test]
    fn what_is_missing_is_said_with_its_command_packages_first() {
        let every = [
            Tool::CargoDeny,
            Tool::Nextest,
            Tool::Qemu,
            Tool::Busybox,
            Tool::BpfToolchain,
            Tool::Iasl,
        ];
        let all = facts(&every, true, true);
        insta::assert_snapshot!(said(&all), @r"
        qemu-system-x86_64 and busybox and the BPF toolchain and iasl are missing (boots the virtual machines, the shell in a virtual machine, builds schedulers/scx-ktstr, judges ACPI tables); installing: apt-get install -y --no-install-recommends qemu-system-x86 busybox-static clang-19 libelf-dev zlib1g-dev pkg-config acpica-tools
        cargo-deny is missing (checks the dependencies); installing: cargo install cargo-deny --version 0.20.2 --locked --debug
        cargo-nextest is missing (runs the tests); installing: cargo install cargo-nextest --version 0.9.143 --locked --debug
        ");
    }

    #[test]
    fn without_root_the_command_for_root_is_given_and_nothing_is_installed() {
        insta::assert_snapshot!(said(&facts(&[Tool::Nextest, Tool::Qemu], true, false)), @r"
        error: qemu-system-x86_64 is missing, and installing packages needs root. As root, run

            apt-get install -y --no-install-recommends qemu-system-x86

        then run this again
        ");
    }

    #[test]
    fn without_apt_it_says_what_to_look_for() {
        insta::assert_snapshot!(said(&facts(&[Tool::Qemu], false, true)), @"error: qemu-system-x86_64 is missing, and this machine has no apt to install from. Install it with the package manager of this system (QEMU's system emulator for x86-64; a static busybox; clang-19, pkg-config and the headers of \
         libelf and zlib; ACPICA's tools; a C++ compiler), then run this again");
    }

    #[test]
    fn crates_need_neither_apt_nor_root() {
        let installs = plan(&facts(&[Tool::Nextest], false, false)).unwrap();
        assert!(matches!(
            installs[..],
            [Install::Cargo {
                krate: "cargo-nextest",
                ..
            }]
        ));
    }
}

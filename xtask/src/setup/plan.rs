//! What to install, and how: a pure function of what the machine has.

use std::fmt;

use ktstr_kernels::tools;

use super::facts::{Effect, Facts};
use super::tool::{Source, Tool};

/// How the command is called that fetches into the cache.
const FETCH_COMMAND: &str = "cargo ktstr setup";

/// One thing to install. Its text says what it is for and the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Install {
    Apt {
        tools: Vec<Tool>,
        packages: Vec<&'static str>,
    },
    /// Into the cache, by the private apt root of ktstr.
    Fetch {
        tool: tools::Tool,
        purpose: &'static str,
        /// Why it isn't installed.
        why: String,
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
        "{} missing, and to install {packages} apt would {}. Nothing was changed. If that is what you want, run\n\n    \
         {}\n\nthen run this again",
        are(&[*tool]),
        changes.join(", "),
        by_hand_command(tool.packages()),
        packages = tool.packages().join(", ")
    )]
    WouldChange { tool: Tool, changes: Vec<String> },
    #[error(
        "{} missing, and this machine has no apt to install from. Install it with the package manager of \
         this system (QEMU's system emulator for x86-64; a static busybox; clang-19, pkg-config and the headers of \
         libelf and zlib; ACPICA's tools; a C++ compiler), then run this again",
        are(tools)
    )]
    NoApt { tools: Vec<Tool> },
}

/// What to install: distribution packages first, then what is fetched. Those may be refused, and then nothing has been
/// done yet.
pub(super) fn plan(facts: &Facts) -> Result<Vec<Install>, CannotInstall> {
    let (crates, distributed): (Vec<Tool>, Vec<Tool>) = facts
        .missing
        .iter()
        .partition(|tool| tool.packages().is_empty());
    if !distributed.is_empty() && !facts.has_apt {
        return Err(CannotInstall::NoApt { tools: distributed });
    }
    let (mut by_apt, mut fetched, mut for_root) = (Vec::new(), Vec::new(), Vec::new());
    for tool in distributed {
        let effect = facts.effects.iter().find(|(of, _)| *of == tool);
        let effect = facts.is_root.then(|| effect.map(|(_, effect)| effect));
        match (effect, tool.fetchable()) {
            (Some(Some(Effect::Adds)), _) => by_apt.push(tool),
            (effect, Some(fetchable)) => fetched.push(Install::Fetch {
                tool: fetchable,
                purpose: tool.purpose(),
                why: why_not_installed(effect.flatten()),
            }),
            (Some(Some(Effect::Changes(changes))), None) => {
                let changes = changes.clone();
                return Err(CannotInstall::WouldChange { tool, changes });
            }
            // apt says best itself what it doesn't like.
            (Some(_), None) => by_apt.push(tool),
            (None, None) => for_root.push(tool),
        }
    }
    if !for_root.is_empty() {
        let packages = packages_of(&for_root);
        let tools = for_root;
        return Err(CannotInstall::NotRoot { tools, packages });
    }
    let mut installs = Vec::new();
    if !by_apt.is_empty() {
        let packages = packages_of(&by_apt);
        let tools = by_apt;
        installs.push(Install::Apt { tools, packages });
    }
    installs.extend(fetched);
    for tool in crates {
        if let Source::Cargo { krate, version } = tool.source() {
            installs.push(Install::Cargo {
                tool,
                krate,
                version,
            });
        }
    }
    Ok(installs)
}

fn packages_of(tools: &[Tool]) -> Vec<&'static str> {
    tools
        .iter()
        .flat_map(|tool| tool.packages())
        .copied()
        .collect()
}

/// `effect`: that of installing it, which only root was told.
fn why_not_installed(effect: Option<&Effect>) -> String {
    match effect {
        None | Some(Effect::Adds) => "installing packages needs root".to_owned(),
        Some(Effect::Changes(changes)) => format!("to install it apt would {}", changes.join(", ")),
        Some(Effect::Refuses(said)) => format!("apt can't install it ({said})"),
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

/// Never to the harm of a package that is there.
pub(super) const APT_INSTALL: [&str; 4] =
    ["install", "-y", "--no-remove", "--no-install-recommends"];

fn apt_command(packages: &[&str]) -> String {
    format!("apt-get {} {}", APT_INSTALL.join(" "), packages.join(" "))
}

/// For a person, whom apt asks first.
fn by_hand_command(packages: &[&str]) -> String {
    format!(
        "apt-get install --no-install-recommends {}",
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
            Self::Fetch { tool, purpose, why } => {
                let name = tool.program();
                return write!(
                    f,
                    "{name} is missing ({purpose}); {why}, so it is fetched into the cache: {FETCH_COMMAND}"
                );
            }
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
        let effects = missing.iter().filter(|_| is_root && has_apt);
        Facts {
            missing: missing.to_vec(),
            has_apt,
            is_root,
            effects: effects.map(|&tool| (tool, Effect::Adds)).collect(),
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
        qemu-system-x86_64 and busybox and the BPF toolchain and iasl are missing (boots the virtual machines, the shell in a virtual machine, builds schedulers/scx-ktstr, judges ACPI tables); installing: apt-get install -y --no-remove --no-install-recommends qemu-system-x86 busybox-static clang-19 libelf-dev zlib1g-dev pkg-config acpica-tools
        cargo-deny is missing (checks the dependencies); installing: cargo install cargo-deny --version 0.20.2 --locked --debug
        cargo-nextest is missing (runs the tests); installing: cargo install cargo-nextest --version 0.9.143 --locked --debug
        ");
    }

    #[test]
    fn fault_f9_where_apt_would_remove_a_package_the_tool_is_fetched_into_the_cache() {
        let mut here = facts(&[Tool::Qemu, Tool::Busybox, Tool::Iasl], true, true);
        here.effects[0].1 = Effect::Changes(vec!["remove qemu-utils".to_owned()]);
        insta::assert_snapshot!(said(&here), @r"
        busybox and iasl are missing (the shell in a virtual machine, judges ACPI tables); installing: apt-get install -y --no-remove --no-install-recommends busybox-static acpica-tools
        qemu-system-x86_64 is missing (boots the virtual machines); to install it apt would remove qemu-utils, so it is fetched into the cache: cargo ktstr setup
        ");
        here.effects[0].1 = Effect::Refuses("E: Unable to locate package".to_owned());
        insta::assert_snapshot!(said(&here).lines().last().unwrap_or_default(), @"qemu-system-x86_64 is missing (boots the virtual machines); apt can't install it (E: Unable to locate package), so it is fetched into the cache: cargo ktstr setup");
    }

    #[test]
    fn fault_f9_what_can_not_be_fetched_is_not_installed_at_the_cost_of_other_packages() {
        let mut here = facts(&[Tool::BpfToolchain, Tool::Nextest], true, true);
        here.effects[0].1 = Effect::Changes(vec![
            "remove pkgconf".to_owned(),
            "replace libelf1 0.192-4 by 0.188-2.1".to_owned(),
        ]);
        insta::assert_snapshot!(said(&here), @r"
        error: the BPF toolchain is missing, and to install clang-19, libelf-dev, zlib1g-dev, pkg-config apt would remove pkgconf, replace libelf1 0.192-4 by 0.188-2.1. Nothing was changed. If that is what you want, run

            apt-get install --no-install-recommends clang-19 libelf-dev zlib1g-dev pkg-config

        then run this again
        ");
    }

    #[test]
    fn fault_f9_without_root_the_tools_of_the_demo_are_fetched_into_the_cache() {
        insta::assert_snapshot!(said(&facts(&[Tool::Nextest, Tool::Qemu, Tool::Busybox], true, false)), @r"
        qemu-system-x86_64 is missing (boots the virtual machines); installing packages needs root, so it is fetched into the cache: cargo ktstr setup
        busybox is missing (the shell in a virtual machine); installing packages needs root, so it is fetched into the cache: cargo ktstr setup
        cargo-nextest is missing (runs the tests); installing: cargo install cargo-nextest --version 0.9.143 --locked --debug
        ");
    }

    #[test]
    fn without_root_the_command_for_root_is_given_and_nothing_is_installed() {
        insta::assert_snapshot!(said(&facts(&[Tool::Nextest, Tool::Qemu, Tool::Iasl], true, false)), @r"
        error: iasl is missing, and installing packages needs root. As root, run

            apt-get install -y --no-remove --no-install-recommends acpica-tools

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

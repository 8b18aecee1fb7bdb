//! `cargo ktstr setup`: fetches what tests need beside a kernel, where this machine has none.

use std::path::Path;
use std::process::ExitCode;

use ktstr_host::look_in_cache;
use ktstr_kernels::Cache;
use ktstr_kernels::tools::{self, Fetched, Offer, Tool};
use ktstr_machine::{EngineError, EngineKind};
use ktstr_report::ExitCode as Code;

use crate::edge::{OrExit as _, Refusal};
use crate::progress::Talk;
use crate::{environment, format, output, progress, test};

/// How a program is that tests or shells need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It can be used: which it is.
    There(String),
    /// It can't.
    Lacking {
        /// Why.
        why: String,
        /// What helps.
        remedy: Remedy,
    },
}

/// How a program can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// By this command.
    Fetch(Tool),
    /// By the user.
    ByHand(&'static str),
}

impl Remedy {
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Fetch(tool) => format!(
                "`cargo ktstr setup` fetches {} into the cache, and installs nothing",
                tool.package()
            ),
            Self::ByHand(advice) => (*advice).to_owned(),
        }
    }
}

/// The QEMU that the `tcg` engine takes: that of `KTSTR_QEMU`, else one on `PATH`, else one in the cache.
pub(crate) fn qemu(cache: Option<&Cache>) -> State {
    let mut options = environment::engine_options();
    let by_system = ktstr_machine::choose(EngineKind::Tcg, &options);
    let error = match by_system {
        Ok(chosen) => return State::There(chosen.engine.describe()),
        Err(error) => error,
    };
    if options.qemu.is_some() {
        return lacking_qemu(
            &error,
            Remedy::ByHand("set KTSTR_QEMU to a working qemu-system-x86_64, or unset it"),
        );
    }
    let remedy = remedy(
        Tool::Qemu,
        "install the system emulator for x86-64 with this system's package manager, or set KTSTR_QEMU",
    );
    let Some((cache, fetched)) =
        cache.and_then(|cache| Some((cache, tools::find(cache, Tool::Qemu)?)))
    else {
        return lacking_qemu(&error, remedy);
    };
    if let Err(error) = fetched.try_out() {
        let why = error.to_string();
        return State::Lacking { why, remedy };
    }
    look_in_cache(&mut options, cache);
    match ktstr_machine::choose(EngineKind::Tcg, &options) {
        Ok(chosen) => State::There(format!(
            "{}, from {}",
            chosen.engine.describe(),
            fetched.source()
        )),
        Err(error) => lacking_qemu(&error, remedy),
    }
}

fn lacking_qemu(error: &EngineError, remedy: Remedy) -> State {
    let why = match error {
        // The error's own text has advice too.
        EngineError::QemuMissing { qemu } => format!("`{}` was not found", qemu.display()),
        EngineError::QemuBroken { qemu, said } => format!("`{} --version`: {said}", qemu.display()),
        EngineError::QemuTooOld { qemu, version } => format!(
            "`{}` is QEMU {version}, and 7.2 or newer is needed",
            qemu.display()
        ),
        other => other.to_string(),
    };
    State::Lacking { why, remedy }
}

/// The busybox of shells.
pub(crate) fn busybox(cache: Option<&Cache>) -> State {
    let found =
        cache.and_then(|cache| tools::static_busybox(cache, environment::search_path().as_deref()));
    match found {
        Some(path) => State::There(format!("{} is static", path.display())),
        None => State::Lacking {
            why: "there is no static busybox".to_owned(),
            remedy: remedy(
                Tool::Busybox,
                "install a static busybox with this system's package manager",
            ),
        },
    }
}

fn remedy(tool: Tool, by_hand: &'static str) -> Remedy {
    match environment::on_path("apt-get") {
        Some(_) => Remedy::Fetch(tool),
        None => Remedy::ByHand(by_hand),
    }
}

/// Says what there is and what is missing, and fetches that.
pub(crate) fn run(dry_run: bool) -> Result<ExitCode, Refusal> {
    let cache = environment::cache().or_exit(Code::HostUnfit)?;
    let mut is_fit = true;
    for tool in [Tool::Qemu, Tool::Busybox] {
        let state = look(tool, &cache);
        output::say(&announcement(tool, &state, cache.root()));
        let State::Lacking { remedy, .. } = state else {
            continue;
        };
        match remedy {
            Remedy::Fetch(tool) if dry_run => output::say(&offered(&offer(tool, &cache)?)),
            Remedy::Fetch(tool) => {
                let fetched = fetch(tool, &cache)?;
                output::say(&settled(&fetched, look(tool, &cache))?);
            }
            Remedy::ByHand(_) => is_fit &= tool == Tool::Busybox,
        }
    }
    if let Ok(None) = test::nextest_version(&environment::cargo()) {
        let advice = test::NEXTEST_ADVICE;
        output::say(&format!("cargo-nextest: not installed; {advice}"));
    }
    Ok(if is_fit { Code::Ok } else { Code::HostUnfit }.into())
}

fn look(tool: Tool, cache: &Cache) -> State {
    match tool {
        Tool::Qemu => qemu(Some(cache)),
        Tool::Busybox => busybox(Some(cache)),
    }
}

fn offer(tool: Tool, cache: &Cache) -> Result<Offer, Refusal> {
    let progress = progress::for_stderr(Talk::All);
    tools::offer(cache, tool, Path::new("/"), progress.as_ref()).or_exit(Code::HostUnfit)
}

fn fetch(tool: Tool, cache: &Cache) -> Result<Fetched, Refusal> {
    let progress = progress::for_stderr(Talk::All);
    tools::fetch(cache, tool, Path::new("/"), progress.as_ref()).or_exit(Code::HostUnfit)
}

/// What there is, or what is missing and what is done about it.
fn announcement(tool: Tool, state: &State, cache: &Path) -> String {
    let what = tool.program();
    match state {
        State::There(found) => format!("{what}: {found}"),
        State::Lacking {
            why,
            remedy: Remedy::Fetch(tool),
        } => format!(
            "{what}: {why}; to fetch {}{} into {}: no package of the machine is installed, removed or exchanged",
            tool.package(),
            match tool {
                Tool::Qemu => ", with the libraries that are missing here,",
                Tool::Busybox => "",
            },
            cache.display()
        ),
        State::Lacking { why, remedy } => format!("{what}: {why}; {}", remedy.advice()),
    }
}

fn offered(offer: &Offer) -> String {
    let names: Vec<&str> = offer
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    format!(
        "{}: would fetch {}, {} to download: {}",
        offer.tool.program(),
        offer.source(),
        format::size(offer.download_bytes),
        names.join(" ")
    )
}

/// What was fetched runs; whether it is what the engine takes is another question.
fn settled(fetched: &Fetched, state: State) -> Result<String, Refusal> {
    match state {
        State::There(found) => Ok(format!("{}: {found}", fetched.tool().program())),
        State::Lacking { why, .. } => Err(Refusal::message(
            Code::HostUnfit,
            format!("{} was fetched, but can't be used: {why}", fetched.source()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ktstr_kernels::tools::ExactPackage;

    use super::*;

    fn said(tool: Tool, state: &State) -> String {
        announcement(tool, state, Path::new("/home/u/.cache/ktstr"))
    }

    #[test]
    fn what_is_missing_is_said_with_what_is_done_about_it() {
        let missing = EngineError::QemuMissing {
            qemu: PathBuf::from("qemu-system-x86_64"),
        };
        let old = EngineError::QemuTooOld {
            qemu: PathBuf::from("qemu-system-x86_64"),
            version: "5.2.0".to_owned(),
        };
        let there = State::There("QEMU 7.2.22 on PATH, one emulation thread".to_owned());
        let none = State::Lacking {
            why: "there is no static busybox".to_owned(),
            remedy: Remedy::Fetch(Tool::Busybox),
        };
        let lines = [
            said(Tool::Qemu, &there),
            said(
                Tool::Qemu,
                &lacking_qemu(&missing, Remedy::Fetch(Tool::Qemu)),
            ),
            said(
                Tool::Qemu,
                &lacking_qemu(&old, Remedy::ByHand("install it")),
            ),
            said(Tool::Busybox, &none),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        qemu-system-x86_64: QEMU 7.2.22 on PATH, one emulation thread
        qemu-system-x86_64: `qemu-system-x86_64` was not found; to fetch qemu-system-x86, with the libraries that are missing here, into /home/u/.cache/ktstr: no package of the machine is installed, removed or exchanged
        qemu-system-x86_64: `qemu-system-x86_64` is QEMU 5.2.0, and 7.2 or newer is needed; install it
        busybox: there is no static busybox; to fetch busybox-static into /home/u/.cache/ktstr: no package of the machine is installed, removed or exchanged
        ");
    }

    #[test]
    fn an_offer_names_every_package() {
        let package = |name: &str, version: &str| ExactPackage {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        let offer = Offer {
            tool: Tool::Qemu,
            packages: vec![
                package("qemu-system-x86", "1:7.2+dfsg-7"),
                package("libslirp0", "4.7.0-1"),
            ],
            download_bytes: 17_052_936,
        };
        insta::assert_snapshot!(offered(&offer), @"qemu-system-x86_64: would fetch qemu-system-x86 1:7.2+dfsg-7 and 1 package more, 17.0 MB to download: qemu-system-x86 libslirp0");
    }
}

//! What a shell's machine is to have and to run.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ktstr_host::initramfs::Include;
use ktstr_host::{MemoryPlan, ShellPlan};
use ktstr_kernels::Cache;
use ktstr_kernels::tools;

use crate::args::{IncludeArg, ShellArgs};
use crate::terminal::WindowSize;

const BUSYBOX: &str = "/bin/busybox";

/// Where the shell starts and included files are put.
const HOME: &str = "/root";

/// Gives every applet its usual name, for scripts that ask for /bin/sh and the like, and goes where the
/// included files are. What busybox can't link is there already.
const PREPARE: &str = "/bin/busybox --install -s /bin 2>/dev/null; cd /root";

/// Environment of the shell.
pub(crate) fn environment(terminal_kind: Option<String>) -> Vec<(String, String)> {
    let path = format!("/bin:/sbin:/usr/bin:/usr/sbin:{HOME}");
    let pairs = [
        ("PATH", path),
        ("HOME", HOME.to_owned()),
        ("PS1", "ktstr:\\w\\$ ".to_owned()),
    ];
    let terminal = terminal_kind.map(|kind| ("TERM", kind));
    pairs
        .into_iter()
        .chain(terminal)
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The user's files, each checked.
pub(crate) fn includes(args: &[IncludeArg]) -> anyhow::Result<Vec<Include>> {
    let mut includes = Vec::new();
    for arg in args {
        includes.push(include(arg, &includes)?);
    }
    Ok(includes)
}

/// The plan. `window` is the size of the user's terminal, if the shell is interactive.
pub(crate) fn plan(
    args: &ShellArgs,
    memory: MemoryPlan,
    mut includes: Vec<Include>,
    busybox: PathBuf,
    window: Option<WindowSize>,
) -> ShellPlan {
    includes.push(Include {
        host: busybox,
        guest: BUSYBOX.to_owned(),
    });
    ShellPlan {
        topology: args.topology.0,
        memory,
        argv: argv(args.exec.as_deref(), window),
        interactive: args.exec.is_none(),
        includes,
        modules: args.module.clone(),
        own_kvm: args.own_kvm,
        timeout: args.time_limit(),
    }
}

/// The user's command is an argument of its own, so that nothing in it is read twice.
fn argv(exec: Option<&str>, window: Option<WindowSize>) -> Vec<String> {
    let script = match exec {
        Some(_) => format!("{PREPARE}; exec /bin/busybox sh -c \"$1\""),
        None => {
            let size = window
                .map(|WindowSize { rows, columns }| format!("stty rows {rows} cols {columns}; "));
            format!(
                "{PREPARE}; {}exec /bin/busybox sh",
                size.unwrap_or_default()
            )
        }
    };
    let fixed = [BUSYBOX, "sh", "-c", &script, "sh"].map(str::to_owned);
    fixed.into_iter().chain(exec.map(str::to_owned)).collect()
}

/// Checks that the file is there and can be read, long before it is packed.
fn include(arg: &IncludeArg, taken: &[Include]) -> anyhow::Result<Include> {
    let host = &arg.host;
    let describe = || format!("can't include {}", host.display());
    // Looked at before it is opened: a FIFO would hold the command up.
    if !host.metadata().with_context(describe)?.is_file() {
        bail!(
            "can't include {}: it is not a file; include the files in it one by one",
            host.display()
        );
    }
    File::open(host).with_context(describe)?;
    let guest = match &arg.guest {
        Some(guest) => guest.clone(),
        None => {
            let name = host.file_name().and_then(|name| name.to_str());
            let name = name
                .with_context(|| format!("{}: give it a path, FILE:/PATH/IN/GUEST", describe()))?;
            format!("{HOME}/{name}")
        }
    };
    let at_same_place = taken
        .iter()
        .find(|other| Path::new(&other.guest) == Path::new(&guest));
    let other = match at_same_place {
        Some(other) => Some(other.host.display().to_string()),
        None => (Path::new(&guest) == Path::new(BUSYBOX)).then(|| "the shell itself".to_owned()),
    };
    if let Some(other) = other {
        bail!(
            "can't include {}: {other} is to be at {guest}; write FILE:/OTHER/PATH",
            host.display()
        );
    }
    let host = std::path::absolute(host).with_context(describe)?;
    Ok(Include { host, guest })
}

/// The busybox to take.
pub(crate) fn busybox(cache: &Cache, search_path: Option<&OsStr>) -> anyhow::Result<PathBuf> {
    tools::static_busybox(cache, search_path).context(
        "the shell needs a statically linked busybox, and there is none in /bin, in /usr/bin, on PATH or in the \
         cache: `cargo ktstr setup` fetches one where there is apt",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn included(args: &[&str]) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let args: Result<Vec<_>, _> = args
            .iter()
            .map(|arg| arg.parse().map_err(anyhow::Error::msg))
            .collect();
        let found = includes(&args?)?;
        Ok(found
            .into_iter()
            .map(|include| (include.host, include.guest))
            .collect())
    }

    #[test]
    fn files_go_home_unless_a_path_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("tool");
        fs::write(&tool, "").unwrap();
        let path = tool.to_str().unwrap();
        let elsewhere = format!("{path}:/usr/bin/other");
        let found = included(&[path, &elsewhere]).unwrap();
        assert_eq!(
            found,
            [
                (tool.clone(), "/root/tool".to_owned()),
                (tool.clone(), "/usr/bin/other".to_owned())
            ]
        );
        let twice = included(&[path, path]).unwrap_err().to_string();
        assert!(twice.contains("is to be at /root/tool"), "{twice}");
        let over_busybox = included(&[&format!("{path}:/bin/busybox")])
            .unwrap_err()
            .to_string();
        assert!(over_busybox.contains("the shell itself"), "{over_busybox}");
    }

    #[test]
    fn what_can_not_be_included_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert!(
            included(&[path])
                .unwrap_err()
                .to_string()
                .contains("not a file")
        );
        let missing = format!("{path}/missing");
        assert!(
            included(&[&missing])
                .unwrap_err()
                .to_string()
                .contains(&missing)
        );
    }

    #[test]
    fn a_command_is_handed_over_as_it_is() {
        let command = "echo \"$HOME\" 'a b'; exit 7";
        let argv = argv(Some(command), None);
        assert_eq!(argv.last().unwrap(), command);
        assert!(!argv[3].contains("echo"));
    }

    #[test]
    fn a_person_gets_a_shell_of_the_size_of_the_window() {
        let window = WindowSize {
            rows: 50,
            columns: 120,
        };
        let argv = argv(None, Some(window));
        assert!(argv[3].contains("stty rows 50 cols 120; exec"), "{argv:?}");
    }
}

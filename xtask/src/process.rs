//! Running other programs.

use std::env;
use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ktstr_kernels::Cache;

/// Folder of the repository.
pub(crate) fn root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_owned()
}

/// The project's cache folder, found as the library finds it.
pub(crate) fn cache() -> Result<PathBuf> {
    Ok(Cache::open_default(env::var_os)?.root().to_owned())
}

/// The cargo that runs this program, in the repository's root.
pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(args).current_dir(root());
    command
}

/// The command as a person would type it.
pub(crate) fn display(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut text = name.to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        let plain = !arg.is_empty() && !arg.contains(|c: char| " '\"()&|*$".contains(c));
        _ = if plain {
            write!(text, " {arg}")
        } else {
            write!(text, " '{}'", arg.replace('\'', r"'\''"))
        };
    }
    text
}

/// Runs the command with this program's own input and output.
pub(crate) fn run(command: &mut Command) -> Result<ExitStatus> {
    let text = display(command);
    command
        .status()
        .with_context(|| format!("can't run `{text}`"))
}

/// Runs the command with its output thrown away. `None` if it had to be ended at the deadline.
pub(crate) fn run_silently(command: &mut Command, within: Duration) -> Result<Option<ExitStatus>> {
    run_within(command.stdout(Stdio::null()).stderr(Stdio::null()), within)
}

/// Runs the command without input. `None` if it had to be ended at the deadline.
pub(crate) fn run_within(command: &mut Command, within: Duration) -> Result<Option<ExitStatus>> {
    const POLL: Duration = Duration::from_millis(20);

    let text = display(command);
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("can't run `{text}`"))?;
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["nextest", "-E", "not test(a)", "it's", ""]);
        assert_eq!(
            display(&command),
            r"cargo nextest -E 'not test(a)' 'it'\''s' ''"
        );
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let started = Instant::now();
        let end = run_silently(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap();
        assert_eq!(end, None);
        assert!(started.elapsed() < Duration::from_secs(30));
        let end = run_silently(&mut Command::new("false"), Duration::from_secs(30)).unwrap();
        assert!(end.is_some_and(|status| !status.success()));
    }
}

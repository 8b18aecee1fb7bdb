//! Whether a fetched program runs here, and which libraries it lacks if not.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Tool;
use crate::sources::debian::apt::{Running, read_text};

/// How long a trial may take. It needs a second on a quiet machine.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A machine like those of tests, with the firmware that QEMU loads for it, which is told to quit before it runs.
const QEMU_TRIAL: [&str; 9] = [
    "-M",
    "q35",
    "-accel",
    "tcg",
    "-nodefaults",
    "-display",
    "none",
    "-S",
    "-monitor",
];

/// Starts the program once. The error says why it can't be used.
pub(super) fn try_out(tool: Tool, dir: &Path, program: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    let input = match tool {
        Tool::Qemu => {
            command.args(QEMU_TRIAL).arg("stdio");
            "quit\n"
        }
        Tool::Busybox => {
            if !super::is_static(program).unwrap_or(false) {
                return Err("it needs libraries, which a guest doesn't have".to_owned());
            }
            command.arg("true");
            ""
        }
    };
    let ended = run(command, input).map_err(|error| error.to_string())?;
    match ended.status {
        Some(status) if status.success() => Ok(()),
        status => {
            let missing = missing_libraries(dir);
            if !missing.is_empty() {
                return Err(format!("it lacks {}", missing.join(", ")));
            }
            let how = match status {
                Some(status) => status.to_string(),
                None => format!("it did not end within {} s", LIMIT.as_secs()),
            };
            let words = ended.stderr.lines().last().unwrap_or_default().trim();
            Err(if words.is_empty() {
                how
            } else {
                format!("{how}: {words}")
            })
        }
    }
}

struct Ended {
    /// Nothing if it had to be ended.
    status: Option<ExitStatus>,
    stdout: String,
    stderr: String,
}

fn run(mut command: Command, input: &str) -> io::Result<Ended> {
    let mut child = Running(
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?,
    );
    if let Some(mut stdin) = child.0.stdin.take() {
        // A program that reads nothing is none the worse.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
    let stdout = thread::spawn(move || stdout.map_or_else(String::new, read_text));
    let stderr = thread::spawn(move || stderr.map_or_else(String::new, read_text));
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.0.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() >= deadline => break None,
            None => thread::sleep(POLL),
        }
    };
    // Ended, if it has not by itself, so that its streams end too.
    drop(child);
    Ok(Ended {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

/// Libraries that the loader doesn't find for the programs and modules of an entry.
fn missing_libraries(dir: &Path) -> Vec<String> {
    let folders = library_folders(dir);
    let mut files = files_of(&dir.join("usr/bin"));
    for folder in &folders {
        files.extend(files_of(&folder.join("qemu")));
    }
    if files.is_empty() {
        return Vec::new();
    }
    let mut ldd = Command::new("ldd");
    ldd.args(&files)
        .env("LD_LIBRARY_PATH", search_path(&folders));
    let printed = run(ldd, "").map_or_else(|_| String::new(), |ended| ended.stdout);
    not_found(&printed)
}

/// `libx.so.1 => not found`, which ldd(1) prints for each file that needs it.
fn not_found(printed: &str) -> Vec<String> {
    let mut names: Vec<String> = printed
        .lines()
        .filter_map(|line| line.trim().strip_suffix("=> not found"))
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.map(|entry| entry.path()).collect()
}

/// The folders below `dir` that have shared libraries, the shortest path first.
pub(super) fn library_folders(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.join("usr/lib")];
    while let Some(folder) = left.pop() {
        let mut has_library = false;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            } else if let Some(name) = entry.file_name().to_str() {
                has_library |= name.starts_with("lib") && name.contains(".so");
            }
        }
        if has_library {
            found.push(folder);
        }
    }
    found.sort_by_key(|folder| (folder.components().count(), folder.clone()));
    found
}

/// The value of `LD_LIBRARY_PATH` for these folders.
pub(super) fn search_path(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    folders.join(":")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn libraries_that_are_not_found_are_named_once() {
        let printed = "/x/usr/bin/qemu:\n\tlinux-vdso.so.1 (0x00007ffc)\n\tlibpng16.so.16 => not found\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x1)\n/x/m.so:\n\tlibpng16.so.16 => not found\n";
        assert_eq!(not_found(printed), ["libpng16.so.16"]);
    }

    #[test]
    fn folders_with_libraries_are_found_at_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "usr/lib/x/blas/libblas.so.3",
            "usr/lib/x/libslirp.so.0",
            "usr/lib/x/qemu/ui-curses.so",
            "usr/share/libno.so",
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let folders = library_folders(dir.path());
        let expected = ["usr/lib/x", "usr/lib/x/blas"].map(|folder| dir.path().join(folder));
        assert_eq!(folders, expected);
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("qemu");
        fs::write(&program, "#!/bin/sh\necho no such machine >&2\nexit 3\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let why = try_out(Tool::Qemu, dir.path(), &program).unwrap_err();
        assert_eq!(why, "exit status: 3: no such machine");
        let why = try_out(Tool::Busybox, dir.path(), &program).unwrap_err();
        assert!(why.contains("needs libraries"), "{why}");
    }
}

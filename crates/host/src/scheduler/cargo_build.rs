//! Building a scheduler with cargo.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

/// The cargo that builds schedulers, and how it is run.
#[derive(Clone, Debug, Default)]
pub struct CargoSettings {
    /// The program, instead of `cargo` on `PATH`.
    pub program: Option<PathBuf>,
    /// Build profile of schedulers, instead of cargo's default.
    pub profile: Option<String>,
    /// Variables that a build doesn't get: what cargo told this process of its own crate.
    pub hidden_variables: Vec<OsString>,
}

/// Lines of cargo's own output that an error quotes.
const QUOTED_LINES: usize = 40;

/// A scheduler can't be built. There is no falling back to one that was built before.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No cargo.
    #[error("running {} to build scheduler `{binary}`", cargo.display())]
    Run {
        /// The program.
        binary: String,
        /// The cargo that was to be run.
        cargo: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The workspace is not there.
    #[error(
        "scheduler `{binary}` is built in {}, which is not there: the workspace has moved, or the tests were built \
         elsewhere. KTSTR_SCHEDULER names a program that is built already",
        folder.display()
    )]
    NoWorkspace {
        /// The program.
        binary: String,
        /// Folder of the crate that declares the scheduler.
        folder: PathBuf,
    },
    /// Cargo failed.
    #[error("`cargo {command}` in {} failed:\n{output}", folder.display())]
    Failed {
        /// Its arguments.
        command: String,
        /// Where it ran.
        folder: PathBuf,
        /// The end of what it printed.
        output: String,
    },
    /// No crate of the workspace has such a program.
    #[error(
        "no crate in the workspace of {} has a binary `{binary}`; it has: {}. KTSTR_SCHEDULER names a program \
         from elsewhere",
        folder.display(),
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    )]
    NoSuchBinary {
        /// The program.
        binary: String,
        /// Folder of the crate that declares the scheduler.
        folder: PathBuf,
        /// The workspace's programs.
        known: Vec<String>,
    },
    /// Cargo said something else than expected.
    #[error("cargo did not say where it put `{binary}`")]
    NoExecutable {
        /// The program.
        binary: String,
    },
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// A line of `--message-format=json`, as far as it matters.
#[derive(Deserialize)]
struct BuildMessage {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

/// Builds the program `binary` in the workspace of the crate in `manifest_dir`, and says where it is.
pub(crate) fn build(
    binary: &str,
    manifest_dir: &Path,
    settings: &CargoSettings,
) -> Result<PathBuf, BuildError> {
    if !manifest_dir.is_dir() {
        return Err(BuildError::NoWorkspace {
            binary: binary.to_owned(),
            folder: manifest_dir.to_owned(),
        });
    }
    let metadata = ["metadata", "--no-deps", "--format-version=1"].map(str::to_owned);
    let output = cargo(settings, binary, manifest_dir, &metadata)?;
    let package = package_of(binary, manifest_dir, &output.stdout)?;
    let mut arguments = vec![
        "build".to_owned(),
        "--package".to_owned(),
        package,
        "--bin".to_owned(),
        binary.to_owned(),
        "--message-format=json-render-diagnostics".to_owned(),
    ];
    if let Some(profile) = &settings.profile {
        arguments.push(format!("--profile={profile}"));
    }
    let output = cargo(settings, binary, manifest_dir, &arguments)?;
    executable(binary, &String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        BuildError::NoExecutable {
            binary: binary.to_owned(),
        }
    })
}

fn package_of(binary: &str, folder: &Path, metadata: &[u8]) -> Result<String, BuildError> {
    let metadata: Metadata =
        serde_json::from_slice(metadata).map_err(|_| BuildError::NoExecutable {
            binary: binary.to_owned(),
        })?;
    let is_program = |target: &&Target| target.kind.iter().any(|kind| kind == "bin");
    let mut known = Vec::new();
    for package in metadata.packages {
        for target in package.targets.iter().filter(is_program) {
            if target.name == binary {
                return Ok(package.id);
            }
            known.push(target.name.clone());
        }
    }
    Err(BuildError::NoSuchBinary {
        binary: binary.to_owned(),
        folder: folder.to_owned(),
        known,
    })
}

fn executable(binary: &str, messages: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: BuildMessage = serde_json::from_str(line).ok()?;
        let is_it = message.reason == "compiler-artifact"
            && message.target.is_some_and(|target| target.name == binary);
        is_it.then_some(message.executable).flatten()
    })
}

fn cargo(
    settings: &CargoSettings,
    binary: &str,
    folder: &Path,
    arguments: &[String],
) -> Result<Output, BuildError> {
    let program = settings
        .program
        .clone()
        .unwrap_or_else(|| PathBuf::from("cargo"));
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null());
    for name in &settings.hidden_variables {
        command.env_remove(name);
    }
    let output = command.output().map_err(|source| BuildError::Run {
        binary: binary.to_owned(),
        cargo: program,
        source,
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = printed.lines().collect();
    Err(BuildError::Failed {
        command: arguments.join(" "),
        folder: folder.to_owned(),
        output: lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages":[
        {"id":"path+file:///w/a#0.1.0","targets":[{"name":"a","kind":["lib"]}]},
        {"id":"path+file:///w/b#0.1.0","targets":[{"name":"scx_b","kind":["bin"]}]}]}"#;

    #[test]
    fn the_package_with_the_program_is_found() {
        let folder = Path::new("/w/a");
        let package = package_of("scx_b", folder, METADATA.as_bytes()).expect("there");
        assert_eq!(package, "path+file:///w/b#0.1.0");
        let error = package_of("a", folder, METADATA.as_bytes()).expect_err("a library");
        assert_eq!(
            error.to_string(),
            "no crate in the workspace of /w/a has a binary `a`; it has: scx_b. \
             KTSTR_SCHEDULER names a program from elsewhere"
        );
    }

    #[test]
    fn fault_f7_a_workspace_that_moved_is_named_with_the_way_out() {
        let error = build(
            "scx_b",
            Path::new("/no/such/workspace/b"),
            &CargoSettings::default(),
        )
        .expect_err("gone");
        let text = error.to_string();
        assert!(
            text.contains("built in /no/such/workspace/b, which is not there"),
            "{text}"
        );
        assert!(text.contains("KTSTR_SCHEDULER"), "{text}");
    }

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"libbpf_rs","kind":["lib"]},"executable":null}
            {"reason":"build-script-executed"}
            {"reason":"compiler-artifact","target":{"name":"scx_b","kind":["bin"]},"executable":"/w/target/debug/scx_b"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable("scx_b", messages),
            Some("/w/target/debug/scx_b".into())
        );
        assert_eq!(executable("scx_c", messages), None);
    }
}

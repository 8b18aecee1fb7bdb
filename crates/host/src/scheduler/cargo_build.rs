//! Building a scheduler with cargo.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cargo_metadata::{Message, MetadataCommand, TargetKind};

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

/// A scheduler can't be built. One that was built earlier is not used instead.
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
    /// Cargo's description of the workspace has another form than is known.
    #[error("can't read what `cargo metadata` says of the workspace of {}", folder.display())]
    Metadata {
        /// Folder of the crate that declares the scheduler.
        folder: PathBuf,
        /// The cause.
        source: cargo_metadata::Error,
    },
    /// Cargo built it, and named no executable.
    #[error("cargo did not say where it put `{binary}`")]
    NoExecutable {
        /// The program.
        binary: String,
    },
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
    executable(binary, &output.stdout).ok_or_else(|| BuildError::NoExecutable {
        binary: binary.to_owned(),
    })
}

fn package_of(binary: &str, folder: &Path, metadata: &[u8]) -> Result<String, BuildError> {
    let metadata = MetadataCommand::parse(String::from_utf8_lossy(metadata)).map_err(|source| {
        BuildError::Metadata {
            folder: folder.to_owned(),
            source,
        }
    })?;
    let mut known = Vec::new();
    for package in metadata.packages {
        let targets = package.targets.iter();
        for target in targets.filter(|target| target.kind.contains(&TargetKind::Bin)) {
            if target.name == binary {
                return Ok(package.id.to_string());
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

fn executable(binary: &str, messages: &[u8]) -> Option<PathBuf> {
    Message::parse_stream(messages).find_map(|message| match message.ok()? {
        Message::CompilerArtifact(artifact) if artifact.target.name == binary => {
            artifact.executable.map(PathBuf::from)
        }
        _ => None,
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

    /// What cargo 1.95 prints, with the fields that are always there.
    const METADATA: &str = r#"{"version":1,"resolve":null,"workspace_root":"/w","target_directory":"/w/target",
        "workspace_members":[],"packages":[
        {"name":"a","version":"0.1.0","id":"path+file:///w/a#0.1.0","dependencies":[],"features":{},
         "manifest_path":"/w/a/Cargo.toml","targets":[{"name":"a","kind":["lib"],"src_path":"/w/a/src/lib.rs"}]},
        {"name":"b","version":"0.1.0","id":"path+file:///w/b#0.1.0","dependencies":[],"features":{},
         "manifest_path":"/w/b/Cargo.toml","targets":[{"name":"scx_b","kind":["bin"],"src_path":"/w/b/src/main.rs"}]}]}"#;

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
        let artifact = |name: &str, kind: &str, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"x","manifest_path":"/w/Cargo.toml",
                "target":{{"name":"{name}","kind":["{kind}"],"src_path":"/w/x.rs"}},
                "profile":{{"opt_level":"0","debuginfo":0,"debug_assertions":true,"overflow_checks":true,"test":false}},
                "features":[],"filenames":[],"executable":{executable},"fresh":true}}"#
            )
            .replace('\n', "")
        };
        let messages = [
            artifact("libbpf_rs", "lib", "null"),
            r#"{"reason":"of-a-later-cargo"}"#.to_owned(),
            artifact("scx_b", "bin", r#""/w/target/debug/scx_b""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let messages = messages.join("\n").into_bytes();
        assert_eq!(
            executable("scx_b", &messages),
            Some("/w/target/debug/scx_b".into())
        );
        assert_eq!(executable("scx_c", &messages), None);
    }
}

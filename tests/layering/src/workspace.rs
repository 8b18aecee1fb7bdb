//! What is in the repository.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::SourceFile;

/// Folders that hold nothing of the repository itself.
const NOT_OURS: [&str; 2] = ["target", ".git"];

/// A crate of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its Cargo.toml.
    pub manifest: PathBuf,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

impl Package {
    /// Its folder, from the root.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = self.manifest.parent().unwrap_or(&self.manifest);
        let root = root().canonicalize().unwrap_or_default();
        folder.strip_prefix(&root).unwrap_or(folder).to_owned()
    }
}

/// A dependency as Cargo.toml declares it.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The package depended on.
    pub name: String,
    /// Whether it is for tests, benches and examples only.
    pub is_dev: bool,
}

/// The workspace can't be read.
#[derive(Debug)]
pub struct WorkspaceError(String);

impl std::fmt::Display for WorkspaceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WorkspaceError {}

/// Folder of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All crates of the workspace.
pub fn packages() -> Result<Vec<Package>, WorkspaceError> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata =
        MetadataCommand::parse(text).map_err(|error| WorkspaceError(error.to_string()))?;
    let packages = metadata.packages.into_iter().map(|package| Package {
        name: package.name.to_string(),
        manifest: package.manifest_path.into(),
        dependencies: package
            .dependencies
            .into_iter()
            .map(|dependency| Dependency {
                name: dependency.name,
                is_dev: dependency.kind == DependencyKind::Development,
            })
            .collect(),
    });
    Ok(packages.collect())
}

/// Name and version of every crate in the normal dependency tree of `package`, itself included.
pub fn library_crates(package: &str) -> Result<Vec<String>, WorkspaceError> {
    let tree = cargo(&[
        "tree",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--package",
        package,
    ])?;
    let mut crates: Vec<String> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        })
        .collect();
    crates.sort_unstable();
    crates.dedup();
    Ok(crates)
}

/// Every text file of the repository, by its path from the root.
pub fn source_files() -> io::Result<Vec<SourceFile>> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let kind = entry.file_type()?;
            if kind.is_dir() && !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(text) = String::from_utf8(fs::read(&path)?)
            {
                let path = path.strip_prefix(&root).unwrap_or(&path).to_owned();
                files.push(SourceFile { path, text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn cargo(args: &[&str]) -> Result<String, WorkspaceError> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .args(args)
        // The test was just built: all that is needed is here.
        .arg("--offline")
        .current_dir(root())
        .output()
        .map_err(|error| WorkspaceError(format!("can't run cargo: {error}")))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(WorkspaceError(format!(
            "`cargo {}` failed: {stderr}",
            args.join(" ")
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

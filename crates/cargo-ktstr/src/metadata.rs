//! What cargo says of the workspace that the command is run in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use cargo_metadata::MetadataCommand;

/// The part of `cargo metadata --no-deps` that matters here.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    /// Folder of the workspace.
    pub(crate) workspace_root: PathBuf,
    /// Where cargo builds.
    pub(crate) target_directory: PathBuf,
    /// The packages of the workspace.
    pub(crate) packages: Vec<Package>,
}

/// A package of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Whether cargo takes it when it is run at the root of the workspace.
    pub(crate) is_default: bool,
    /// The packages it depends on directly, whatever for.
    pub(crate) dependencies: Vec<Dependency>,
    /// Its features, each with what it switches on: other features, `dep:name`, `name/feature`.
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

/// A package that another one depends on.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    /// Its name.
    pub(crate) name: String,
    /// The name that features have for it.
    pub(crate) key: String,
    /// Whether a feature must switch it on.
    pub(crate) is_optional: bool,
}

impl Metadata {
    /// Asks `cargo` (its program) about the workspace of `manifest`, or of the working folder.
    pub(crate) fn ask(cargo: &Path, manifest: Option<&str>) -> anyhow::Result<Self> {
        let output = Command::new(cargo)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .args(manifest.map(|path| format!("--manifest-path={path}")))
            .output()
            .with_context(|| format!("can't run `{} metadata`", cargo.display()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let words = words.trim().trim_start_matches("error: ");
            bail!("cargo can't say what this workspace is: {words}");
        }
        Self::read(&String::from_utf8_lossy(&output.stdout))
    }

    /// Reads the JSON that cargo prints.
    pub(crate) fn read(json: &str) -> anyhow::Result<Self> {
        let metadata =
            MetadataCommand::parse(json).context("can't read what `cargo metadata` printed")?;
        // Since cargo 1.71; all members are the default before.
        let default = if metadata.workspace_default_members.is_available() {
            &*metadata.workspace_default_members
        } else {
            &metadata.workspace_members
        };
        let packages = metadata.packages.iter();
        Ok(Self {
            packages: packages
                .map(|package| Package::new(package, default.contains(&package.id)))
                .collect(),
            workspace_root: metadata.workspace_root.into(),
            target_directory: metadata.target_directory.into(),
        })
    }
}

impl Package {
    fn new(package: &cargo_metadata::Package, is_default: bool) -> Self {
        let manifest = package.manifest_path.as_std_path();
        let dependencies = package.dependencies.iter();
        Self {
            name: package.name.to_string(),
            dir: manifest.parent().unwrap_or(manifest).to_owned(),
            is_default,
            dependencies: dependencies.map(Dependency::new).collect(),
            features: package.features.clone(),
        }
    }
}

impl Dependency {
    fn new(dependency: &cargo_metadata::Dependency) -> Self {
        let key = dependency.rename.as_ref().unwrap_or(&dependency.name);
        Self {
            name: dependency.name.clone(),
            key: key.clone(),
            is_optional: dependency.optional,
        }
    }
}

//! What cargo says of the workspace that the command is run in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

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
    /// Names of the packages it depends on directly, whatever for.
    pub(crate) depends_on: Vec<String>,
}

impl Metadata {
    /// Asks `cargo` (its program) about the workspace of the working folder.
    pub(crate) fn ask(cargo: &Path) -> anyhow::Result<Self> {
        let output = Command::new(cargo)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .with_context(|| format!("can't run `{} metadata`", cargo.display()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let words = words.trim().trim_start_matches("error: ");
            bail!("cargo can't say what this workspace is: {words}");
        }
        let json: Value =
            serde_json::from_slice(&output.stdout).context("`cargo metadata` printed no JSON")?;
        Self::read(&json).context("`cargo metadata` printed something unexpected")
    }

    /// Reads the JSON that cargo prints.
    pub(crate) fn read(json: &Value) -> anyhow::Result<Self> {
        // Since cargo 1.71; all members are the default before.
        let default = json
            .get("workspace_default_members")
            .or_else(|| json.get("workspace_members"));
        let default = default
            .and_then(Value::as_array)
            .context("it has no `workspace_members`")?;
        let packages = json
            .get("packages")
            .and_then(Value::as_array)
            .context("it has no `packages`")?;
        Ok(Self {
            workspace_root: text(json, "workspace_root")?.into(),
            target_directory: text(json, "target_directory")?.into(),
            packages: packages
                .iter()
                .map(|package| Package::read(package, default))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl Package {
    fn read(json: &Value, default_members: &[Value]) -> anyhow::Result<Self> {
        let manifest = Path::new(text(json, "manifest_path")?);
        let dependencies = json.get("dependencies").and_then(Value::as_array);
        Ok(Self {
            name: text(json, "name")?.to_owned(),
            dir: manifest
                .parent()
                .context("a manifest is in no folder")?
                .to_owned(),
            is_default: json
                .get("id")
                .is_some_and(|id| default_members.contains(id)),
            depends_on: dependencies
                .into_iter()
                .flatten()
                .map(|dependency| Ok(text(dependency, "name")?.to_owned()))
                .collect::<anyhow::Result<_>>()?,
        })
    }
}

fn text<'a>(json: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    json.get(key)
        .and_then(Value::as_str)
        .with_context(|| format!("it has no `{key}`"))
}

//! What cargo says of the workspace that the command is run in.

use std::collections::BTreeMap;
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
        let features = json.get("features").and_then(Value::as_object);
        Ok(Self {
            name: text(json, "name")?.to_owned(),
            dir: manifest
                .parent()
                .context("a manifest is in no folder")?
                .to_owned(),
            is_default: json
                .get("id")
                .is_some_and(|id| default_members.contains(id)),
            dependencies: dependencies
                .into_iter()
                .flatten()
                .map(Dependency::read)
                .collect::<anyhow::Result<_>>()?,
            features: features
                .into_iter()
                .flatten()
                .map(|(name, parts)| (name.clone(), texts(parts)))
                .collect(),
        })
    }
}

impl Dependency {
    fn read(json: &Value) -> anyhow::Result<Self> {
        let name = text(json, "name")?;
        let renamed = json.get("rename").and_then(Value::as_str);
        Ok(Self {
            name: name.to_owned(),
            key: renamed.unwrap_or(name).to_owned(),
            is_optional: json.get("optional").and_then(Value::as_bool) == Some(true),
        })
    }
}

fn texts(json: &Value) -> Vec<String> {
    let parts = json.as_array().into_iter().flatten();
    parts
        .filter_map(|part| Some(part.as_str()?.to_owned()))
        .collect()
}

fn text<'a>(json: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    json.get(key)
        .and_then(Value::as_str)
        .with_context(|| format!("it has no `{key}`"))
}

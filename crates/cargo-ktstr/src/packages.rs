//! Which packages have tests that are ours.

use std::ffi::OsString;
use std::path::Path;

use crate::metadata::{Metadata, Package};

/// The library that tests depend on.
const LIBRARY: &str = "ktstr";

/// Arguments of nextest that choose packages.
const CHOOSERS: [&str; 6] = [
    "-p",
    "--package",
    "--workspace",
    "--all",
    "--manifest-path",
    "--exclude",
];

/// No package of the selection can have a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoPackage {
    /// Packages that were looked at.
    pub(crate) looked_at: Vec<String>,
}

/// The packages that cargo would take when run in `folder`, as far as they depend on [`LIBRARY`] themselves.
pub(crate) fn select<'a>(metadata: &'a Metadata, folder: &Path) -> Result<Vec<&'a str>, NoPackage> {
    let current = current_packages(metadata, folder);
    let selected: Vec<&str> = current
        .iter()
        .filter(|package| has_tests(package))
        .map(|package| &*package.name)
        .collect();
    if selected.is_empty() {
        let looked_at = current.iter().map(|package| package.name.clone()).collect();
        return Err(NoPackage { looked_at });
    }
    Ok(selected)
}

/// As cargo does it: the package whose folder this is or is in, and the default members at the root.
fn current_packages<'a>(metadata: &'a Metadata, folder: &Path) -> Vec<&'a Package> {
    let around = metadata
        .packages
        .iter()
        .filter(|package| folder.starts_with(&package.dir));
    let nearest = around.max_by_key(|package| package.dir.components().count());
    match nearest {
        Some(package) if package.dir != metadata.workspace_root => vec![package],
        _ => metadata
            .packages
            .iter()
            .filter(|package| package.is_default)
            .collect(),
    }
}

fn has_tests(package: &Package) -> bool {
    // This command links the library as the init of its shell's machine, not for tests.
    package.name != env!("CARGO_PKG_NAME") && package.depends_on.iter().any(|name| name == LIBRARY)
}

/// Whether arguments for nextest choose packages, so that nothing must be added to them.
pub(crate) fn are_chosen_by(nextest_args: &[OsString]) -> bool {
    let own = nextest_args
        .iter()
        .take_while(|arg| *arg != "--")
        .filter_map(|arg| arg.to_str());
    own.into_iter().any(|arg| {
        CHOOSERS
            .iter()
            .any(|chooser| match arg.strip_prefix(chooser) {
                Some(rest) => rest.is_empty() || rest.starts_with('=') || *chooser == "-p",
                None => false,
            })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn package(name: &str, dir: &str, dependencies: &[&str]) -> Value {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|name| json!({"name": name, "kind": "dev"}))
            .collect();
        json!({
            "name": name,
            "id": format!("path+file://{dir}#{name}@0.1.0"),
            "manifest_path": format!("{dir}/Cargo.toml"),
            "dependencies": dependencies,
        })
    }

    fn workspace(packages: &[Value], default: &[usize]) -> Metadata {
        let ids = |numbers: &[usize]| {
            numbers
                .iter()
                .map(|&number| packages[number]["id"].clone())
                .collect::<Vec<_>>()
        };
        Metadata::read(&json!({
            "workspace_root": "/w",
            "target_directory": "/w/target",
            "workspace_members": ids(&(0..packages.len()).collect::<Vec<_>>()),
            "workspace_default_members": ids(default),
            "packages": packages,
        }))
        .unwrap()
    }

    fn virtual_workspace() -> Metadata {
        let packages = [
            package("ktstr", "/w/crates/ktstr", &["anyhow"]),
            package("cargo-ktstr", "/w/crates/cargo-ktstr", &["ktstr", "clap"]),
            package("first-tests", "/w/examples/first-tests", &["ktstr"]),
            package("e2e", "/w/tests/e2e", &["ktstr"]),
            package("near-miss", "/w/crates/near-miss", &["ktstr-report"]),
        ];
        workspace(&packages, &[0, 1, 2, 4])
    }

    fn names(metadata: &Metadata, folder: &str) -> Vec<String> {
        match select(metadata, Path::new(folder)) {
            Ok(selected) => selected.into_iter().map(str::to_owned).collect(),
            Err(NoPackage { looked_at }) => vec![format!("none of {}", looked_at.join(" "))],
        }
    }

    #[test]
    fn at_the_root_the_default_members_that_use_the_library() {
        let metadata = virtual_workspace();
        assert_eq!(names(&metadata, "/w"), ["first-tests"]);
        assert_eq!(names(&metadata, "/w/crates"), ["first-tests"]);
    }

    #[test]
    fn in_a_package_that_package_alone() {
        let metadata = virtual_workspace();
        assert_eq!(names(&metadata, "/w/tests/e2e/src"), ["e2e"]);
        assert_eq!(
            names(&metadata, "/w/crates/near-miss"),
            ["none of near-miss"]
        );
    }

    #[test]
    fn a_package_inside_another_is_its_own() {
        let packages = [
            package("root", "/w", &["ktstr"]),
            package("inner", "/w/inner", &["ktstr"]),
        ];
        let metadata = workspace(&packages, &[0]);
        assert_eq!(names(&metadata, "/w/src"), ["root"]);
        assert_eq!(names(&metadata, "/w/inner/src"), ["inner"]);
    }

    #[test]
    fn a_choice_among_the_arguments_of_nextest_is_seen() {
        let chosen = |line: &str| {
            are_chosen_by(
                &line
                    .split_whitespace()
                    .map(OsString::from)
                    .collect::<Vec<_>>(),
            )
        };
        for line in [
            "-p a",
            "-pa",
            "--package=a",
            "--package a",
            "--workspace",
            "--all",
            "--manifest-path=x",
        ] {
            assert!(chosen(line), "{line}");
        }
        for line in [
            "",
            "--profile ci",
            "--all-features",
            "--all-targets",
            "-- -p a",
            "--packages",
        ] {
            assert!(!chosen(line), "{line}");
        }
    }

    #[test]
    fn what_is_not_metadata_is_refused() {
        for json in [
            json!({}),
            json!([]),
            json!({"workspace_members": [], "packages": [{}]}),
        ] {
            assert!(Metadata::read(&json).is_err());
        }
    }
}

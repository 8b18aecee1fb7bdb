//! Which packages have tests that are ours, and which features they need for that.

use std::collections::BTreeSet;
use std::path::Path;

use crate::metadata::{Metadata, Package};
use crate::nextest_args::NextestArgs;

/// The library that tests depend on.
const LIBRARY: &str = "ktstr";

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
    package.name != env!("CARGO_PKG_NAME")
        && package.dependencies.iter().any(|on| on.name == LIBRARY)
}

/// The features, each as `package/feature`, that must be switched on beyond those of `args` so that the packages of
/// a run have the library: where it is an optional dependency. `selected` are the packages by default.
pub(crate) fn features(
    metadata: &Metadata,
    folder: &Path,
    args: NextestArgs<'_>,
    selected: &[&str],
) -> Vec<String> {
    if args.are_built_elsewhere() || args.has_all_features() {
        return Vec::new();
    }
    let chosen = |package: &&Package| {
        let is = |spec: &str| is_named(package, spec);
        if args.is_workspace() {
            !args.excluded().into_iter().any(is)
        } else if args.packages().is_empty() {
            selected.contains(&package.name.as_str())
        } else {
            args.packages().into_iter().any(is)
        }
    };
    let current = current_packages(metadata, folder);
    let packages: Vec<&Package> =
        if args.choose_packages() && !args.is_workspace() && args.packages().is_empty() {
            current
        } else {
            metadata.packages.iter().filter(chosen).collect()
        };
    packages
        .into_iter()
        .filter_map(|package| {
            let feature = missing_feature(package, args)?;
            Some(format!("{}/{feature}", package.name))
        })
        .collect()
}

/// Whether a package id specification (cargo-pkgid(1)) means this package: `name`, `name@1.0`, `url#name@1.0`,
/// `url/name#1.0`.
fn is_named(package: &Package, spec: &str) -> bool {
    let (url, tail) = spec.rsplit_once('#').unwrap_or(("", spec));
    let name = if tail.starts_with(|first: char| first.is_ascii_digit()) && !url.is_empty() {
        url.rsplit('/').next().unwrap_or_default()
    } else {
        tail.split('@').next().unwrap_or_default()
    };
    package.name == name
}

/// The feature by which `package` takes the library, unless it has it already.
fn missing_feature<'a>(package: &'a Package, args: NextestArgs<'_>) -> Option<&'a str> {
    let library = || package.dependencies.iter().filter(|on| on.name == LIBRARY);
    if library().any(|on| !on.is_optional) {
        return None;
    }
    let key = &library().next()?.key;
    let enabling = |parts: &[String]| {
        let (dep, with_feature) = (format!("dep:{key}"), format!("{key}/"));
        parts
            .iter()
            .any(|part| *part == dep || part.starts_with(&with_feature))
    };
    let is_on = features_on(package, args).into_iter().any(|name| {
        package
            .features
            .get(name)
            .is_some_and(|parts| enabling(parts))
    });
    if is_on {
        return None;
    }
    let found = package.features.iter().find(|(_, parts)| enabling(parts));
    found.map(|(name, _)| name.as_str())
}

/// The features of `package` that are on: by default, by `args`, and by others.
fn features_on<'a>(package: &'a Package, args: NextestArgs<'_>) -> BTreeSet<&'a str> {
    let mut names: Vec<&str> = args
        .features()
        .into_iter()
        .filter_map(|feature| match feature.split_once('/') {
            Some((of, feature)) => (of == package.name).then_some(feature),
            None => Some(feature),
        })
        .collect();
    if !args.has_no_default_features() {
        names.push("default");
    }
    let mut on = BTreeSet::new();
    while let Some(name) = names.pop() {
        if let Some((known, parts)) = package.features.get_key_value(name)
            && on.insert(known.as_str())
        {
            names.extend(parts.iter().map(String::as_str));
        }
    }
    on
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use serde_json::{Value, json};

    use super::*;

    fn package(name: &str, dir: &str, dependencies: &[&str]) -> Value {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|name| {
                json!({
                    "name": name, "kind": "dev", "req": "*", "optional": false, "uses_default_features": true,
                    "features": [], "source": null, "target": null, "rename": null,
                })
            })
            .collect();
        json!({
            "name": name,
            "version": "0.1.0",
            "targets": [],
            "features": {},
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
        let metadata = json!({
            "version": 1,
            "resolve": null,
            "workspace_root": "/w",
            "target_directory": "/w/target",
            "workspace_members": ids(&(0..packages.len()).collect::<Vec<_>>()),
            "workspace_default_members": ids(default),
            "packages": packages,
        });
        Metadata::read(&metadata.to_string()).unwrap()
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
    fn fault_f5_the_feature_that_brings_the_library_is_found_unless_it_is_on() {
        let mut optional = package("a", "/w/a", &["ktstr"]);
        optional["dependencies"][0]["optional"] = json!(true);
        optional["features"] = json!({
            "default": ["std"],
            "std": [],
            "full": ["vm-tests"],
            "vm-tests": ["dep:ktstr"],
        });
        let plain = package("b", "/w/b", &["ktstr"]);
        let metadata = workspace(&[optional, plain], &[0, 1]);
        let needed = |line: &str| {
            let line: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            features(&metadata, Path::new("/w"), NextestArgs(&line), &["a", "b"]).join(" ")
        };
        for line in [
            "",
            "-p a",
            "--workspace",
            "-p path+file:///w/a#a@0.1.0",
            "-F b/vm-tests",
            "--manifest-path x",
        ] {
            assert_eq!(needed(line), "a/vm-tests", "{line}");
        }
        for line in [
            "-p b",
            "--all-features",
            "-F vm-tests",
            "--features a/full",
            "--workspace --exclude a",
            "--archive-file x",
        ] {
            assert_eq!(needed(line), "", "{line}");
        }
    }

    #[test]
    fn what_is_not_metadata_is_refused() {
        for json in [
            json!({}),
            json!([]),
            json!({"workspace_members": [], "packages": [{}]}),
        ] {
            assert!(Metadata::read(&json.to_string()).is_err());
        }
    }
}

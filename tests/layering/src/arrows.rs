//! Which crate may use which.

use crate::syntax::{parsed, product_items};
use crate::{Package, SourceFile};

/// Every crate of the workspace with the crates of ours that it may depend on. A crate that is not here
/// is a fault, so that a new one is given its place on purpose; a line for a crate that does not exist
/// yet does no harm.
pub const ARROWS: &[(&str, &[&str])] = &[
    // Both sides of a test.
    ("ktstr-topology", &[]),
    ("ktstr-sys", &[]),
    ("ktstr-declaration", &["ktstr-topology"]),
    ("ktstr-report", &["ktstr-declaration", "ktstr-topology"]),
    ("ktstr-wire", &["ktstr-topology", "ktstr-report"]),
    // The host's side. machine and introspect never meet: host joins them.
    ("ktstr-vmm", &["ktstr-sys", "ktstr-topology"]),
    (
        "ktstr-machine",
        &[
            "ktstr-declaration",
            "ktstr-report",
            "ktstr-sys",
            "ktstr-topology",
            "ktstr-vmm",
        ],
    ),
    ("ktstr-introspect", &[]),
    (
        "ktstr-monitor",
        &["ktstr-declaration", "ktstr-introspect", "ktstr-report"],
    ),
    ("ktstr-kernels", &[]),
    (
        "ktstr-host",
        &[
            "ktstr-declaration",
            "ktstr-machine",
            "ktstr-monitor",
            "ktstr-introspect",
            "ktstr-kernels",
            "ktstr-wire",
            "ktstr-report",
            "ktstr-topology",
        ],
    ),
    // The guest's side. It never meets the host: ktstr joins them.
    (
        "ktstr-scenario",
        &["ktstr-declaration", "ktstr-topology", "ktstr-report"],
    ),
    (
        "ktstr-guest",
        &[
            "ktstr-declaration",
            "ktstr-wire",
            "ktstr-scenario",
            "ktstr-sys",
            "ktstr-topology",
            "ktstr-report",
        ],
    ),
    // What users see.
    ("ktstr-macros", &["ktstr-declaration", "ktstr-topology"]),
    (
        "ktstr",
        &[
            "ktstr-declaration",
            "ktstr-host",
            "ktstr-guest",
            "ktstr-scenario",
            "ktstr-macros",
            "ktstr-kernels",
            "ktstr-machine",
            "ktstr-monitor",
            "ktstr-wire",
            "ktstr-report",
            "ktstr-topology",
        ],
    ),
    (
        "cargo-ktstr",
        &[
            "ktstr",
            "ktstr-kernels",
            "ktstr-report",
            "ktstr-machine",
            "ktstr-topology",
            "ktstr-host",
            "ktstr-wire",
        ],
    ),
    // Beside the product.
    ("first-tests", &["ktstr"]),
    ("scheduler-tests", &["ktstr"]),
    (
        "boot-bench",
        &[
            "ktstr",
            "ktstr-host",
            "ktstr-kernels",
            "ktstr-machine",
            "ktstr-topology",
        ],
    ),
    ("monitor-bench", &["ktstr"]),
    ("e2e", &["ktstr", "ktstr-report", "ktstr-topology"]),
    ("layering", &[]),
    ("scx-ktstr", &[]),
    ("xtask", &["ktstr-kernels"]),
];

/// What a crate's tests may use beyond [`ARROWS`].
const TEST_ARROWS: &[(&str, &[&str])] = &[
    (
        "e2e",
        &[
            "ktstr-host",
            "ktstr-introspect",
            "ktstr-machine",
            "ktstr-kernels",
            "ktstr-vmm",
            "ktstr-wire",
        ],
    ),
    // QEMU may be one that was fetched.
    ("ktstr-machine", &["ktstr-kernels"]),
    // Its readers are tried on images of real kernels.
    ("ktstr-introspect", &["ktstr-kernels"]),
];

/// Crates of ours that a crate passes on as part of its own public face. Who uses the one has the other's items without
/// an arrow to it, so each has a reason.
const REEXPORTS: &[(&str, &[&str])] = &[
    // What users see is one crate.
    (
        "ktstr",
        &[
            "ktstr-host",
            "ktstr-macros",
            "ktstr-monitor",
            "ktstr-report",
            "ktstr-scenario",
            "ktstr-topology",
        ],
    ),
    // A test's body speaks of checks, shapes and results.
    (
        "ktstr-scenario",
        &["ktstr-declaration", "ktstr-topology", "ktstr-report"],
    ),
    // Guest memory is the same type for every engine.
    ("ktstr-machine", &["ktstr-vmm"]),
    // A series over time is of values that were read.
    ("ktstr-monitor", &["ktstr-introspect"]),
];

/// Re-exports of crates of the workspace that `REEXPORTS` does not allow: they walk around the arrows.
pub fn forbidden_reexports(packages: &[Package], files: &[SourceFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let allowed = allowed(REEXPORTS, &package.name).unwrap_or_default();
        let source = package.folder().join("src");
        for file in parsed(files.iter().filter(|file| file.path.starts_with(&source))) {
            for item in product_items(file.syntax.items) {
                let Some(origin) = reexported(&item) else {
                    continue;
                };
                let is_ours = packages.iter().any(|package| package.name == origin);
                if is_ours && !allowed.contains(&origin.as_str()) {
                    let path = file.path.display();
                    faults.push(format!(
                        "{path} passes on items of {origin}, which walks around the arrows: let who needs them \
                         depend on {origin}"
                    ));
                }
            }
        }
    }
    faults
}

/// The crate whose items this makes public.
fn reexported(item: &syn::Item) -> Option<String> {
    let syn::Item::Use(item) = item else {
        return None;
    };
    let name = match &item.tree {
        syn::UseTree::Path(path) => &path.ident,
        syn::UseTree::Name(name) => &name.ident,
        syn::UseTree::Rename(rename) => &rename.ident,
        _ => return None,
    };
    let is_public = matches!(item.vis, syn::Visibility::Public(_));
    is_public.then(|| name.to_string().replace('_', "-"))
}

/// Dependencies between crates of the workspace that [`ARROWS`] does not allow.
pub fn forbidden_arrows(packages: &[Package]) -> Vec<String> {
    let is_ours = |name: &str| packages.iter().any(|package| package.name == name);
    let mut faults = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        let Some(allowed) = allowed(ARROWS, name) else {
            faults.push(format!(
                "`{name}` has no place yet: give it one in ARROWS (tests/layering/src/arrows.rs) and in \
                 ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| is_ours(&d.name)) {
            let target = dependency.name.as_str();
            let for_tests = dependency.is_dev
                && allowed_in_tests(name).is_some_and(|more| more.contains(&target));
            if !allowed.contains(&target) && !for_tests {
                let kind = if dependency.is_dev { " (in tests)" } else { "" };
                faults.push(format!(
                    "{name} → {target}{kind} is not allowed. {name} may use: {}. Arrows go down only, see \
                     ARCHITECTURE.md; move the code to where both can use it",
                    list(allowed),
                ));
            }
        }
    }
    faults
}

fn allowed(
    table: &[(&str, &'static [&'static str])],
    name: &str,
) -> Option<&'static [&'static str]> {
    table
        .iter()
        .find(|(from, _)| *from == name)
        .map(|(_, to)| *to)
}

fn allowed_in_tests(name: &str) -> Option<&'static [&'static str]> {
    allowed(TEST_ARROWS, name)
}

fn list(names: &[&str]) -> String {
    match names {
        [] => "nothing of ours".to_owned(),
        _ => names.join(", "),
    }
}

//! Dependencies that nothing uses.

use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;

use crate::syntax::parsed;
use crate::{Package, SourceFile};

/// Dependencies that the workspace names and no crate takes, and those that a crate takes and names nowhere.
pub fn unused_dependencies(
    workspace: &SourceFile,
    packages: &[Package],
    files: &[SourceFile],
) -> Vec<String> {
    let taken = |key: &str| {
        let of = |package: &Package| package.dependencies.iter().any(|d| d.name == key);
        packages.iter().any(of)
    };
    let mut faults: Vec<String> = declared(&workspace.text)
        .filter(|key| !taken(key))
        .map(|key| {
            format!("no crate depends on `{key}`: take it out of the workspace's Cargo.toml")
        })
        .collect();
    for package in packages {
        let folder = package.folder();
        let own = with_borrowed(files, &folder);
        for dependency in &package.dependencies {
            let name = dependency.name.replace('-', "_");
            // Most files don't hold the word, and parsing takes its time.
            let suspects = own.iter().copied().filter(|file| file.text.contains(&name));
            let is_named = parsed(suspects).any(|file| names(file.syntax.to_token_stream(), &name));
            if !is_named {
                faults.push(format!(
                    "{} depends on `{}` and names it nowhere: take it out",
                    package.name, dependency.name
                ));
            }
        }
    }
    faults
}

/// The files in `folder`, and those of others that their `#[path]` attributes take.
fn with_borrowed<'a>(files: &'a [SourceFile], folder: &Path) -> Vec<&'a SourceFile> {
    let (mut own, others): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| file.path.starts_with(folder));
    let borrowed: Vec<PathBuf> = own.iter().flat_map(|file| borrowed_by(file)).collect();
    own.extend(
        others
            .into_iter()
            .filter(|file| borrowed.contains(&file.path)),
    );
    own
}

fn borrowed_by(file: &SourceFile) -> impl Iterator<Item = PathBuf> {
    let mut attributes = file.text.split("#[path = \"../");
    attributes.next();
    attributes.filter_map(|rest| {
        let mut path = file.path.parent()?.parent()?.to_owned();
        for part in Path::new(rest.split_once('"')?.0) {
            if part == ".." {
                path.pop();
            } else {
                path.push(part);
            }
        }
        Some(path)
    })
}

/// The keys of `[workspace.dependencies]`.
fn declared(manifest: &str) -> impl Iterator<Item = &str> {
    let section = manifest.split("[workspace.dependencies]").nth(1);
    let section = section.unwrap_or_default().split("\n[").next();
    section
        .unwrap_or_default()
        .lines()
        .filter_map(|line| Some(line.split_once(" = ")?.0))
}

fn names(tokens: TokenStream, wanted: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(name) => name == wanted,
        TokenTree::Group(group) => names(group.stream(), wanted),
        _ => false,
    })
}

//! Circles between the modules of a crate.
//!
//! A module is a file with what lies in the folder of its name. It uses another one of the same folder if one of its
//! files names an item that is defined in a file of the other, whoever passed the name on. Passing a name on is not a
//! use; nor is what a module and those inside it are to each other, for they are one. Methods are not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;

use crate::SourceFile;
use crate::syntax::{RustFile, parsed, product_items};

/// Re-exports that are followed from a name to its definition.
const MAX_HOPS: usize = 8;

/// Modules of one folder that use each other in a circle.
pub fn module_circles(files: &[SourceFile]) -> Vec<String> {
    let mut crates: BTreeMap<PathBuf, Vec<&SourceFile>> = BTreeMap::new();
    for file in files {
        if let Some(folder) = crate_folder(&file.path) {
            crates.entry(folder).or_default().push(file);
        }
    }
    let mut faults = Vec::new();
    for (folder, files) in crates {
        let source = folder.join("src");
        let modules = Modules::read(&source, parsed(files));
        for (parent, uses) in modules.by_folder() {
            for circle in circles(&uses) {
                let parent = if parent.is_empty() {
                    "crate".to_owned()
                } else {
                    parent.join("::")
                };
                let examples: Vec<String> = circle
                    .windows(2)
                    .filter_map(|pair| uses.get(&pair[0])?.get(&pair[1]).cloned())
                    .collect();
                faults.push(format!(
                    "{}: in {parent}, {} use each other in a circle ({}): move what they share below both",
                    folder.display(),
                    circle.join(" → "),
                    examples.join(", "),
                ));
            }
        }
    }
    faults
}

/// The folder with the `src` that the file is in.
fn crate_folder(path: &Path) -> Option<PathBuf> {
    let source = path.ancestors().find(|folder| folder.ends_with("src"))?;
    Some(source.parent()?.to_owned())
}

/// Names from the crate's root, such as `["devices", "pci"]`.
type ModulePath = Vec<String>;

/// From a module to those that it uses, each with a place where it does.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Default)]
struct Module {
    /// What is defined here.
    items: BTreeSet<String>,
    children: BTreeSet<String>,
    /// Names that other modules are imported under, and where they come from.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths of `use path::*`.
    globs: Vec<Vec<String>>,
    /// Which of the imports only pass a name on.
    reexports: BTreeSet<String>,
    /// All else.
    body: TokenStream,
}

struct Modules(BTreeMap<ModulePath, Module>);

impl Modules {
    fn read(source: &Path, files: impl Iterator<Item = RustFile>) -> Self {
        let mut modules = Self(BTreeMap::new());
        for file in files {
            let path = module_path(file.path.strip_prefix(source).unwrap_or(&file.path));
            modules.add(path, file.syntax.items);
        }
        modules
    }

    fn add(&mut self, path: ModulePath, items: Vec<syn::Item>) {
        let mut module = Module::default();
        for item in product_items(items) {
            match item {
                syn::Item::Use(item) => {
                    let passes_on = !matches!(item.vis, syn::Visibility::Inherited);
                    module.import(&mut Vec::new(), &item.tree, passes_on);
                }
                syn::Item::Mod(item) => {
                    module.children.insert(item.ident.to_string());
                    if let Some((_, inner)) = item.content {
                        let mut inside = path.clone();
                        inside.push(item.ident.to_string());
                        self.add(inside, inner);
                    }
                }
                other => {
                    module.items.extend(defined(&other));
                    other.to_tokens(&mut module.body);
                }
            }
        }
        self.0.insert(path, module);
    }

    /// Which module of a folder uses which, with a place where it does; by the folder.
    fn by_folder(&self) -> BTreeMap<ModulePath, Uses> {
        let mut folders: BTreeMap<ModulePath, Uses> = BTreeMap::new();
        for (user, module) in &self.0 {
            for (name, used) in self.used_by(user, module) {
                let common = user.iter().zip(used).take_while(|(a, b)| a == b).count();
                let (Some(from), Some(to)) = (user.get(common), used.get(common)) else {
                    continue;
                };
                let uses = folders.entry(user[..common].to_vec()).or_default();
                let place = format!("{} names {name}", user.join("::"));
                let targets = uses.entry(from.clone()).or_default();
                targets.entry(to.clone()).or_insert(place);
            }
        }
        folders
    }

    /// What a module names, and the modules that define it.
    fn used_by(&self, path: &ModulePath, module: &Module) -> Vec<(String, &ModulePath)> {
        let imports = module.imports.iter();
        let own = imports.filter(|(name, _)| !module.reexports.contains(*name));
        let mut named: Vec<Vec<String>> = own.map(|(_, from)| from.clone()).collect();
        named.extend(module.globs.iter().cloned());
        paths_in(module.body.clone(), &mut named);
        let defined = named.into_iter().filter_map(|named| {
            let definition = self.definition(path, &named, MAX_HOPS)?;
            Some((named.join("::"), definition))
        });
        defined.collect()
    }

    /// The module that defines what `named` means in the module at `from`; nothing for a module itself, and for what is
    /// not of this crate.
    fn definition(&self, from: &ModulePath, named: &[String], hops: usize) -> Option<&ModulePath> {
        let hops = hops.checked_sub(1)?;
        let mut at: ModulePath = match named.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from.get(..from.len().checked_sub(1)?)?.to_vec(),
            _ => return self.relative(from, named, hops),
        };
        let mut rest = &named[1..];
        while rest.first().is_some_and(|next| next == "super") {
            at.pop()?;
            rest = &rest[1..];
        }
        self.relative(&at, rest, hops)
    }

    /// The same, of a path that starts with a name in the module at `from`.
    fn relative(&self, from: &ModulePath, named: &[String], hops: usize) -> Option<&ModulePath> {
        let (first, rest) = named.split_first()?;
        let (here, module) = self.0.get_key_value(from)?;
        if module.children.contains(first) {
            let mut child = from.clone();
            child.push(first.clone());
            return self.relative(&child, rest, hops);
        }
        if module.items.contains(first) {
            return Some(here);
        }
        if let Some(origin) = module.imports.get(first) {
            // A name that is imported under itself, from another crate.
            if origin.first() == Some(first) && !module.children.contains(first) {
                return None;
            }
            let full: Vec<String> = origin.iter().chain(rest).cloned().collect();
            return self.definition(from, &full, hops);
        }
        let mut globs = module.globs.iter();
        globs.find_map(|glob| {
            let full: Vec<String> = glob.iter().chain(named).cloned().collect();
            self.definition(from, &full, hops)
        })
    }
}

impl Module {
    fn import(&mut self, prefix: &mut Vec<String>, tree: &syn::UseTree, passes_on: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(prefix, &path.tree, passes_on);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(prefix, tree, passes_on);
                }
            }
            syn::UseTree::Glob(_) => self.globs.push(prefix.clone()),
            syn::UseTree::Name(name) => {
                self.import_name(prefix, &name.ident, &name.ident, passes_on);
            }
            syn::UseTree::Rename(rename) => {
                self.import_name(prefix, &rename.ident, &rename.rename, passes_on);
            }
        }
    }

    fn import_name(
        &mut self,
        prefix: &[String],
        name: &syn::Ident,
        alias: &syn::Ident,
        passes_on: bool,
    ) {
        let mut from = prefix.to_vec();
        let mut alias = alias.to_string();
        if name != "self" {
            from.push(name.to_string());
        } else if alias == "self" {
            alias = prefix.last().cloned().unwrap_or_default();
        }
        if passes_on {
            self.reexports.insert(alias.clone());
        }
        self.imports.insert(alias, from);
    }
}

/// `devices/pci.rs` and `devices/pci/mod.rs` are both `devices::pci`.
fn module_path(file: &Path) -> ModulePath {
    let mut path: ModulePath = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let is_root = path.len() == 1 && ["lib", "main"].contains(&path[0].as_str());
    if is_root || path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

fn defined(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Macro(item) => item.ident.as_ref()?,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// Every name and path in the tokens.
fn paths_in(tokens: TokenStream, paths: &mut Vec<Vec<String>>) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                if colons != 2 {
                    paths.push(std::mem::take(&mut path));
                }
                path.push(name.to_string());
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            other => {
                paths.push(std::mem::take(&mut path));
                colons = 0;
                if let TokenTree::Group(group) = other {
                    paths_in(group.stream(), paths);
                }
            }
        }
    }
    paths.push(path);
}

/// The circles among modules, each as one way round it.
fn circles(uses: &Uses) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for start in uses.keys() {
        let is_known = found.iter().any(|circle| circle.contains(start));
        if !is_known && let Some(circle) = way_back(uses, start) {
            found.push(circle);
        }
    }
    found
}

/// The shortest way from `start` back to it.
fn way_back(uses: &Uses, start: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in uses.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
                let mut further = way.clone();
                further.push(next.clone());
                if next == start {
                    return Some(further);
                }
                if seen.insert(next) {
                    longer.push(further);
                }
            }
        }
        ways = longer;
    }
    None
}

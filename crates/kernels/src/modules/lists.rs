//! What modules say about themselves: `.modinfo` in a module's file, and the lists that depmod(8) and the kernel's
//! build write.

use std::collections::{HashMap, HashSet};

use object::read::{Object, ObjectSection};

/// Whether a path is that of a module's file.
pub(crate) fn is_module(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .any(|suffix| file.ends_with(suffix))
}

/// The kernel's own name for a module: the file's, up to `.ko`, with underscores, and without what a terminal would
/// act on.
pub(crate) fn module_name(path: &str) -> String {
    let path = path.trim();
    let file = path.rsplit('/').next().unwrap_or(path);
    let name = file.split_once(".ko").map_or(file, |(name, _)| name);
    name.replace('-', "_").replace(char::is_control, "?")
}

/// modules.dep: lines of `path: path path`, all relative to the tree.
pub(crate) fn parse_dep(text: &str) -> HashMap<String, Vec<String>> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, depends)| {
            let depends = depends.split_ascii_whitespace().map(module_name).collect();
            (module_name(module), depends)
        })
        .collect()
}

/// modules.builtin: a path a line.
pub(crate) fn parse_builtin(text: &str) -> HashSet<String> {
    let names = text.lines().map(module_name);
    names.filter(|name| !name.is_empty()).collect()
}

/// What `.modinfo` lists in `depends=`.
pub(crate) fn modinfo_depends(module: &[u8]) -> Result<Vec<String>, String> {
    let elf = object::File::parse(module).map_err(|error| error.to_string())?;
    let section = elf
        .section_by_name(".modinfo")
        .ok_or_else(|| "it has no .modinfo".to_owned())?;
    let data = section.data().map_err(|error| error.to_string())?;
    let depends = data
        .split(|&byte| byte == 0)
        .find_map(|field| field.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(depends.unwrap_or_default());
    Ok(names
        .split(',')
        .map(module_name)
        .filter(|name| !name.is_empty())
        .collect())
}

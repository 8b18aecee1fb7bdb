//! Kernel modules: which file has which, what it depends on, and in what order they load.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use object::read::{Object, ObjectSection};

use crate::cache::{CacheError, Damage, Entry, FileStamp, MODULES_DIR};
use crate::image::{self, ImageError};

/// Most bytes that a module may decompress to; the largest distribution modules with debug information are
/// well below.
const MAX_MODULE_BYTES: usize = 512 << 20;

/// Why modules can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The kernel has neither a file nor a built-in part of this name.
    #[error("kernel {release} has no module `{name}`{}", needed_by(wanted_by.as_deref()))]
    Unknown {
        /// The module.
        name: String,
        /// The module whose dependency it is, unless it was asked for by name.
        wanted_by: Option<String>,
        /// The kernel.
        release: String,
    },
    /// There are no modules at all, as with a kernel given as a single file.
    #[error(
        "kernel {release} was given without its modules, so `{name}` can't be loaded; give a folder that has \
         the kernel and its modules, such as /lib/modules/{release}"
    )]
    NoModules {
        /// The module that was asked for.
        name: String,
        /// The kernel.
        release: String,
    },
    /// A module file does not decompress.
    #[error("module {}: {source}", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ImageError,
    },
    /// A module file is not an ELF file.
    #[error("module {}: it is not a kernel module: {why}", path.display())]
    NotAModule {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

fn needed_by(wanted_by: Option<&str>) -> String {
    wanted_by.map_or_else(String::new, |module| {
        format!(", which `{module}` depends on")
    })
}

/// One module's file.
#[derive(Clone, Debug)]
pub struct ModuleFile {
    /// Its name as `lsmod` shows it: underscores, no suffix.
    pub name: String,
    /// Its file, as it came: `.ko`, or compressed.
    pub path: PathBuf,
    /// The path within the tree, for messages.
    relative: String,
    stamp: FileStamp,
    entry: Entry,
}

impl ModuleFile {
    /// The module's ELF bytes, decompressed, after a check that the file is as it was stored.
    pub fn read(&self) -> Result<Vec<u8>, ModuleError> {
        let file = format!("{MODULES_DIR}/{}", self.relative);
        let bytes = fs::read(&self.path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => self.entry.damaged(Damage::Missing(file.clone())),
            _ => CacheError::Read {
                path: self.path.clone(),
                source,
            },
        })?;
        if bytes.len() as u64 != self.stamp.size_bytes
            || crc32fast::hash(&bytes) != self.stamp.crc32
        {
            return Err(self.entry.damaged(Damage::Contents(file)).into());
        }
        image::decompress(&bytes, MAX_MODULE_BYTES).map_err(|source| ModuleError::Compressed {
            path: self.path.clone(),
            source,
        })
    }

    /// What `.modinfo` lists in `depends=`.
    fn depends(&self) -> Result<Vec<String>, ModuleError> {
        let bytes = self.read()?;
        let not_a_module = |why: String| ModuleError::NotAModule {
            path: self.path.clone(),
            why,
        };
        let elf = object::File::parse(&*bytes).map_err(|error| not_a_module(error.to_string()))?;
        let section = elf
            .section_by_name(".modinfo")
            .ok_or_else(|| not_a_module("it has no .modinfo".to_owned()))?;
        let data = section
            .data()
            .map_err(|error| not_a_module(error.to_string()))?;
        let depends = data
            .split(|&byte| byte == 0)
            .find_map(|field| field.strip_prefix(b"depends="));
        let names = String::from_utf8_lossy(depends.unwrap_or_default());
        Ok(names
            .split(',')
            .filter(|name| !name.is_empty())
            .map(module_name)
            .collect())
    }
}

/// The modules of one kernel.
#[derive(Debug, Default)]
pub(crate) struct ModuleTree {
    files: HashMap<String, ModuleFile>,
    built_in: HashSet<String>,
    /// What modules.dep says, where there is one. Debian's packages have none: it is made when they are
    /// installed.
    depends: HashMap<String, Vec<String>>,
}

impl ModuleTree {
    /// Reads what the tree has in lists; module files themselves are not opened.
    pub(crate) fn read(entry: &Entry) -> Result<Self, CacheError> {
        let root = entry.dir().join(MODULES_DIR);
        let mut tree = Self::default();
        for line in entry.manifest()?.lines {
            let stamp = FileStamp {
                size_bytes: line.size_bytes,
                crc32: line.crc32,
            };
            match line.path.as_str() {
                "modules.dep" => tree.depends = parse_dep(&read_text(&root.join(&line.path))?),
                "modules.builtin" => {
                    let text = read_text(&root.join(&line.path))?;
                    tree.built_in = text.lines().map(module_name).collect();
                }
                path if is_module(path) => {
                    let name = module_name(path);
                    let file = ModuleFile {
                        name: name.clone(),
                        path: root.join(path),
                        relative: line.path.clone(),
                        stamp,
                        entry: entry.clone(),
                    };
                    tree.files.insert(name, file);
                }
                _ => {}
            }
        }
        Ok(tree)
    }

    /// Whether there is a file for this module.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.files.contains_key(&module_name(name))
    }

    /// The files for `names` and all they depend on, each after its dependencies.
    pub(crate) fn load_order(
        &self,
        names: &[&str],
        release: &str,
    ) -> Result<Vec<ModuleFile>, ModuleError> {
        let mut walk = Walk {
            tree: self,
            release,
            seen: HashSet::new(),
            order: Vec::new(),
        };
        for name in names {
            walk.visit(&module_name(name), None)?;
        }
        Ok(walk.order)
    }
}

/// A depth-first walk over dependencies.
struct Walk<'a> {
    tree: &'a ModuleTree,
    release: &'a str,
    /// Entered already; also what stops a cycle, which no real kernel has.
    seen: HashSet<String>,
    order: Vec<ModuleFile>,
}

impl Walk<'_> {
    /// The depth is bounded by the number of module files, since each is entered once.
    fn visit(&mut self, name: &str, wanted_by: Option<&str>) -> Result<(), ModuleError> {
        if self.tree.built_in.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(file) = self.tree.files.get(name) else {
            let (name, release) = (name.to_owned(), self.release.to_owned());
            return Err(if self.tree.files.is_empty() {
                ModuleError::NoModules { name, release }
            } else {
                let wanted_by = wanted_by.map(str::to_owned);
                ModuleError::Unknown {
                    name,
                    wanted_by,
                    release,
                }
            });
        };
        let depends = match self.tree.depends.get(name) {
            Some(depends) => depends.clone(),
            None => file.depends()?,
        };
        for dependency in depends {
            self.visit(&dependency, Some(name))?;
        }
        self.order.push(file.clone());
        Ok(())
    }
}

fn is_module(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .any(|suffix| file.ends_with(suffix))
}

/// The kernel's own name for a module: the file's, up to `.ko`, with underscores.
fn module_name(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or(path);
    let name = file.split_once(".ko").map_or(file, |(name, _)| name);
    name.replace('-', "_")
}

/// Lines of `path: path path`, all relative to the tree.
fn parse_dep(text: &str) -> HashMap<String, Vec<String>> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, depends)| {
            let depends = depends.split_ascii_whitespace().map(module_name).collect();
            (module_name(module), depends)
        })
        .collect()
}

fn read_text(path: &Path) -> Result<String, CacheError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(source) => Err(CacheError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

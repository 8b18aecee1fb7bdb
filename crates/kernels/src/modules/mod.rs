//! Kernel modules: which file has which, what it depends on, and in what order they load.

mod lists;
mod order;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::{CacheError, Damage, Entry, FileStamp, MODULES_DIR};
use crate::image::{self, DecompressError};
use lists::{is_module, module_name};
pub(crate) use lists::{modinfo_depends, parse_builtin, parse_dep};
pub(crate) use order::{OrderError, load_order};

/// Most bytes that a module may decompress to; the largest distribution modules with debug information are
/// well below.
const MAX_MODULE_BYTES: usize = 512 << 20;

/// Why modules are not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The kernel has neither a file nor a built-in part of this name.
    #[error("kernel {release} has no module `{name}`{}", needed_by(wanted_by.as_deref()))]
    Unknown {
        name: String,
        /// The module whose dependency it is, unless it was asked for by name.
        wanted_by: Option<String>,
        release: String,
    },
    /// There are no modules at all, as with a kernel given as a single file.
    #[error("{}", no_modules(name, release, missing_packages))]
    NoModules {
        /// The module that was asked for.
        name: String,
        release: String,
        /// The packages that it was fetched without, since the archive has them no more.
        missing_packages: Vec<String>,
    },
    /// Modules depend on each other, so that none can be first.
    #[error(
        "the modules of kernel {release} depend on each other in a circle: {}; install its modules again (depmod \
         writes modules.dep)",
        names.join(" needs ")
    )]
    Cycle {
        /// The circle; the first again at its end.
        names: Vec<String>,
        release: String,
    },
    /// A module file does not decompress.
    #[error("module {} is damaged or cut: {source}", path.display())]
    Compressed {
        path: PathBuf,
        source: DecompressError,
    },
    /// A module file is not an ELF file.
    #[error("module {} is damaged, or no kernel module: {why}", path.display())]
    NotAModule { path: PathBuf, why: String },
    #[error(transparent)]
    Cache(#[from] CacheError),
}

fn needed_by(wanted_by: Option<&str>) -> String {
    wanted_by.map_or_else(String::new, |module| {
        format!(", which `{module}` depends on")
    })
}

fn no_modules(name: &str, release: &str, missing_packages: &[String]) -> String {
    if missing_packages.is_empty() {
        format!(
            "kernel {release} was given without its modules, so `{name}` can't be loaded; give a folder that has \
             the kernel and its modules, such as /lib/modules/{release}"
        )
    } else {
        format!(
            "kernel {release} was fetched without its modules, so `{name}` can't be loaded: {} left Debian's archive; \
             take another version",
            missing_packages.join(", ")
        )
    }
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

    fn depends(&self) -> Result<Vec<String>, ModuleError> {
        modinfo_depends(&self.read()?).map_err(|why| ModuleError::NotAModule {
            path: self.path.clone(),
            why,
        })
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
                "modules.dep" => {
                    tree.depends = parse_dep(&read_text(&root.join(&line.path))?);
                }
                "modules.builtin" => {
                    tree.built_in = parse_builtin(&read_text(&root.join(&line.path))?);
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
        missing_packages: &[String],
    ) -> Result<Vec<ModuleFile>, ModuleError> {
        let wanted: Vec<String> = names.iter().map(|name| module_name(name)).collect();
        let order = load_order(&wanted, &self.built_in, |name, wanted_by| {
            let file = self.file(name, wanted_by, release, missing_packages)?;
            match self.depends.get(name) {
                Some(depends) => Ok(depends.clone()),
                None => file.depends(),
            }
        });
        let order = order.map_err(|error| match error {
            OrderError::Depends(error) => error,
            OrderError::Cycle(mut names) => {
                names.extend(names.first().cloned());
                let release = release.to_owned();
                ModuleError::Cycle { names, release }
            }
        })?;
        order
            .iter()
            .map(|name| Ok(self.file(name, None, release, missing_packages)?.clone()))
            .collect()
    }

    fn file(
        &self,
        name: &str,
        wanted_by: Option<&str>,
        release: &str,
        missing_packages: &[String],
    ) -> Result<&ModuleFile, ModuleError> {
        self.files.get(name).ok_or_else(|| {
            let (name, release) = (name.to_owned(), release.to_owned());
            if self.files.is_empty() {
                return ModuleError::NoModules {
                    name,
                    release,
                    missing_packages: missing_packages.to_vec(),
                };
            }
            ModuleError::Unknown {
                name,
                wanted_by: wanted_by.map(str::to_owned),
                release,
            }
        })
    }
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

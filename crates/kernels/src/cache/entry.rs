//! One kernel in the cache.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{self, Manifest};
use super::{Cache, CacheError};
use crate::image::SectionRange;

pub(crate) const METADATA_FILE: &str = "metadata.json";
pub(crate) const VMLINUZ_FILE: &str = "vmlinuz";
pub(crate) const VMLINUX_FILE: &str = "vmlinux";
pub(crate) const CONFIG_FILE: &str = "config";
pub(crate) const MODULES_DIR: &str = "modules";
pub(crate) const MANIFEST_FILE: &str = "modules.manifest";

/// Version of metadata.json. A cache entry of another version is not read.
pub(crate) const METADATA_VERSION: u32 = 1;

/// What metadata.json says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The layout of this file; another version is not read.
    pub version: u32,
    /// `uname -r` of this kernel.
    pub release: String,
    /// Where it came from, for a person.
    pub source: String,
    /// The same, for finding it again.
    pub origin: Origin,
    /// When it was stored, in seconds since 1970.
    pub stored_unix_s: u64,
    /// Where `.BTF` is in the vmlinux.
    pub btf: Option<SectionRange>,
    /// The 32-bit PVH entry point.
    pub pvh_entry: Option<u64>,
    /// Whether there is a folder of modules.
    pub has_modules: bool,
    /// Size and CRC-32 of each file beside metadata.json, by name.
    pub files: BTreeMap<String, FileStamp>,
}

/// Size and checksum of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// In bytes.
    pub size_bytes: u64,
    /// CRC-32 (IEEE) of the contents.
    pub crc32: u32,
}

/// Where a kernel came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A Debian package.
    Debian {
        /// Codename of the suite (`trixie-backports`).
        suite: String,
        /// The suite's role when it was fetched (`stable-backports`).
        role: String,
        /// Version of the package.
        version: String,
        /// `cloud-amd64` or `amd64`.
        flavour: String,
        /// Packages of this kernel that had left the archive when it was fetched.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<String>,
    },
    /// A file or a folder of the user's.
    File {
        /// Its path when it was imported.
        path: PathBuf,
    },
}

/// What is wrong with a cache entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// metadata.json is missing: something other than this program made the folder, or emptied it.
    #[error("{METADATA_FILE} is missing")]
    NoMetadata,
    /// metadata.json can't be understood.
    #[error("{METADATA_FILE} can't be understood: {0}")]
    BadMetadata(String),
    /// A file is gone.
    #[error("{0} is missing")]
    Missing(String),
    /// A file has another size than it had.
    #[error("{file} has {found_bytes} bytes instead of {expected_bytes}")]
    Size {
        file: String,
        /// Size when it was stored.
        expected_bytes: u64,
        /// Size now.
        found_bytes: u64,
    },
    /// A file has other contents than it had.
    #[error("the contents of {0} have changed (its checksum is another)")]
    Contents(String),
}

/// A kernel in the cache whose metadata was read and whose main files have the sizes they should.
#[derive(Clone, Debug)]
pub struct Entry {
    key: String,
    dir: PathBuf,
    metadata: Metadata,
}

impl Entry {
    /// Opens the entry in `dir`; nothing when there is no such folder.
    pub(super) fn open(key: &str, dir: PathBuf) -> Result<Option<Self>, CacheError> {
        let path = dir.join(METADATA_FILE);
        let damaged = |damage| CacheError::Damaged {
            key: key.to_owned(),
            damage,
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if dir.exists() {
                    Err(damaged(Damage::NoMetadata))
                } else {
                    Ok(None)
                };
            }
            Err(source) => return Err(CacheError::Read { path, source }),
        };
        let metadata: Metadata = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(Damage::BadMetadata(error.to_string())))?;
        if metadata.version != METADATA_VERSION {
            let why = format!(
                "it has version {}, this program reads {METADATA_VERSION}",
                metadata.version
            );
            return Err(damaged(Damage::BadMetadata(why)));
        }
        let entry = Self {
            key: key.to_owned(),
            dir,
            metadata,
        };
        entry.check_sizes()?;
        Ok(Some(entry))
    }

    fn check_sizes(&self) -> Result<(), CacheError> {
        for (name, stamp) in &self.metadata.files {
            self.check_size(Path::new(name), stamp.size_bytes)?;
        }
        Ok(())
    }

    fn check_size(&self, name: &Path, expected_bytes: u64) -> Result<(), CacheError> {
        let path = self.dir.join(name);
        let file = name.display().to_string();
        match fs::metadata(&path) {
            Ok(found) if found.is_file() && found.len() == expected_bytes => Ok(()),
            Ok(found) => Err(self.damaged(Damage::Size {
                file,
                expected_bytes,
                found_bytes: found.len(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.damaged(Damage::Missing(file)))
            }
            Err(source) => Err(CacheError::Read { path, source }),
        }
    }

    /// Reads every byte and compares it with what was stored. Takes about a second.
    pub fn verify(&self) -> Result<(), CacheError> {
        for (name, &stamp) in &self.metadata.files {
            self.check_contents(Path::new(name), stamp)?;
        }
        for line in self.manifest()?.lines {
            let stamp = FileStamp {
                size_bytes: line.size_bytes,
                crc32: line.crc32,
            };
            self.check_contents(&Path::new(MODULES_DIR).join(&line.path), stamp)?;
        }
        Ok(())
    }

    fn check_contents(&self, name: &Path, stamp: FileStamp) -> Result<(), CacheError> {
        self.check_size(name, stamp.size_bytes)?;
        let path = self.dir.join(name);
        let (_, crc32) =
            manifest::checksum(&path).map_err(|source| CacheError::Read { path, source })?;
        if crc32 == stamp.crc32 {
            Ok(())
        } else {
            Err(self.damaged(Damage::Contents(name.display().to_string())))
        }
    }

    /// The list of module files; empty for a kernel without modules.
    pub(crate) fn manifest(&self) -> Result<Manifest, CacheError> {
        if !self.metadata.has_modules {
            return Ok(Manifest::default());
        }
        let path = self.dir.join(MANIFEST_FILE);
        let bytes = fs::read(&path).map_err(|source| CacheError::Read { path, source })?;
        let stamp = self.metadata.files.get(MANIFEST_FILE);
        let text = String::from_utf8(bytes).ok();
        text.filter(|text| {
            stamp.is_some_and(|stamp| crc32fast::hash(text.as_bytes()) == stamp.crc32)
        })
        .and_then(|text| Manifest::parse(&text))
        .ok_or_else(|| self.damaged(Damage::Contents(MANIFEST_FILE.to_owned())))
    }

    pub(crate) fn damaged(&self, damage: Damage) -> CacheError {
        CacheError::Damaged {
            key: self.key.clone(),
            damage,
        }
    }

    /// Its cache key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is known of it.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Bytes on disk, modules included.
    pub fn size_bytes(&self) -> Result<u64, CacheError> {
        let files: u64 = self
            .metadata
            .files
            .values()
            .map(|stamp| stamp.size_bytes)
            .sum();
        let modules: u64 = self
            .manifest()?
            .lines
            .iter()
            .map(|line| line.size_bytes)
            .sum();
        Ok(files + modules)
    }

    /// The path of one of its files, when it has it.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        self.metadata
            .files
            .contains_key(name)
            .then(|| self.dir.join(name))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { suite, version, .. } => write!(f, "Debian {suite} {version}"),
            Self::File { path } => path.display().fmt(f),
        }
    }
}

impl Cache {
    /// The usable kernels, the most recently stored first; the damaged ones are left out.
    pub(crate) fn usable(&self) -> Result<Vec<Entry>, CacheError> {
        Ok(self
            .list()?
            .into_iter()
            .filter_map(|listed| listed.entry.ok())
            .collect())
    }
}

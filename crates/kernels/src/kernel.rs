//! A kernel that is ready to be booted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memchr::memmem;

use crate::cache::{CONFIG_FILE, CacheError, Damage, Entry, Origin, VMLINUX_FILE, VMLINUZ_FILE};
use crate::config::KernelConfig;
use crate::modules::{ModuleError, ModuleFile, ModuleTree};
use crate::requirements::{self, Requirements};

/// A kernel in the cache, with everything a test asks of it. Cheap to make; what is read from disk is read
/// when first asked for.
#[derive(Debug)]
pub struct Kernel {
    entry: Entry,
    vmlinux: PathBuf,
    bzimage: Option<PathBuf>,
    config: OnceLock<Option<KernelConfig>>,
    modules: OnceLock<ModuleTree>,
}

impl Kernel {
    /// The kernel of an entry, which does not count as used by that.
    pub fn new(entry: Entry) -> Result<Self, CacheError> {
        let vmlinux = entry
            .file(VMLINUX_FILE)
            .ok_or_else(|| entry.damaged(Damage::Missing(VMLINUX_FILE.to_owned())))?;
        Ok(Self {
            bzimage: entry.file(VMLINUZ_FILE),
            vmlinux,
            entry,
            config: OnceLock::new(),
            modules: OnceLock::new(),
        })
    }

    /// Its key in the cache, which `--kernel` takes.
    pub fn key(&self) -> &str {
        self.entry.key()
    }

    /// What `uname -r` says in it.
    pub fn release(&self) -> &str {
        &self.entry.metadata().release
    }

    /// Where it came from, for a person: `Debian trixie-backports linux-image-… 7.3.4-1~bpo13+1`.
    pub fn source(&self) -> &str {
        &self.entry.metadata().source
    }

    /// Where it came from.
    pub fn origin(&self) -> &Origin {
        &self.entry.metadata().origin
    }

    /// Its folder in the cache.
    pub fn dir(&self) -> &Path {
        self.entry.dir()
    }

    /// The cache entry behind it.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The x86 boot image; nothing for a kernel that was given as a vmlinux.
    pub fn bzimage(&self) -> Option<&Path> {
        self.bzimage.as_deref()
    }

    /// The kernel as an ELF file. Always there: it is taken out of the boot image when the kernel is stored.
    pub fn vmlinux(&self) -> &Path {
        &self.vmlinux
    }

    /// The 32-bit entry point of the PVH boot protocol (physical address), when the kernel has one.
    pub fn pvh_entry(&self) -> Option<u64> {
        self.entry.metadata().pvh_entry
    }

    /// The options it was built with; nothing when they aren't known (a bare image built without
    /// `CONFIG_IKCONFIG`).
    pub fn config(&self) -> Result<Option<&KernelConfig>, CacheError> {
        if self.config.get().is_none() {
            let config = self.config_text()?.map(|text| KernelConfig::parse(&text));
            // Another thread may have been first; both read the same file.
            let _ = self.config.set(config);
        }
        Ok(self.config.get().and_then(Option::as_ref))
    }

    /// The file that they were read from, for the guest's `/boot/config-RELEASE`.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.entry.file(CONFIG_FILE)
    }

    /// The options as the text that they were read from.
    pub fn config_text(&self) -> Result<Option<String>, CacheError> {
        let Some(path) = self.config_file() else {
            return Ok(None);
        };
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(source) => Err(CacheError::Read { path, source }),
        }
    }

    /// Whether it has type information.
    pub fn has_btf(&self) -> bool {
        self.entry.metadata().btf.is_some()
    }

    /// The bytes of `.BTF`; nothing when the kernel has no type information.
    pub fn btf(&self) -> Result<Option<Vec<u8>>, CacheError> {
        let Some(range) = self.entry.metadata().btf else {
            return Ok(None);
        };
        let read = || {
            let file = File::open(&self.vmlinux)?;
            if range.as_range().end > file.metadata()?.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let size = usize::try_from(range.size).map_err(io::Error::other)?;
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, range.offset)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(source) => Err(CacheError::Read {
                path: self.vmlinux.clone(),
                source,
            }),
        }
    }

    /// Checks before a boot what it can't do without, and what tests will miss.
    pub fn requirements(&self) -> Result<Requirements, CacheError> {
        let modules = self.modules()?;
        let has_module = |name: &str| modules.contains(name);
        match self.config()? {
            Some(config) if !config.is_empty() => Ok(requirements::check(Some(config), has_module)),
            _ => {
                let path = &self.vmlinux;
                let image = std::fs::read(path).map_err(|source| CacheError::Read {
                    path: path.clone(),
                    source,
                })?;
                let in_image = |text: &[u8]| memmem::find(&image, text).is_some();
                Ok(requirements::check_image(in_image, has_module))
            }
        }
    }

    /// The module files to load, in this order, for these modules: each after those it depends on. Modules
    /// that are built into the kernel are left out.
    pub fn modules_for(&self, names: &[&str]) -> Result<Vec<ModuleFile>, ModuleError> {
        let modules = self.modules()?;
        modules.load_order(names, self.release(), self.entry.missing_packages())
    }

    /// The names of the modules that must be loaded before the console works; empty when it is built in. Of a
    /// kernel whose options aren't known, those that it has files of.
    pub fn boot_modules(&self) -> Result<Vec<&'static str>, CacheError> {
        let modules = self.modules()?;
        let has_module = |name: &str| modules.contains(name);
        let config = self.config()?.filter(|config| !config.is_empty());
        Ok(requirements::boot_modules(config, has_module))
    }

    fn modules(&self) -> Result<&ModuleTree, CacheError> {
        if self.modules.get().is_none() {
            let _ = self.modules.set(ModuleTree::read(&self.entry)?);
        }
        // Set above, by this thread or another.
        Ok(self.modules.get_or_init(ModuleTree::default))
    }
}

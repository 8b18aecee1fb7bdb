//! What an initramfs is to hold, file by file: found once, then hashed for the cache, and packed if it isn't there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ktstr_wire::Modules;

use super::archive::Archive;
use super::elf::{self, dynamic_needs};
use super::libraries::{Closure, Finder, LOADER_FILES, Program};
use super::{BaseContents, FOLDERS, INIT, InitramfsError, read};

/// Says what an initramfs holds: a hash over the path, the treatment and the content of every file. It is never made
/// of a file's size and times: `install -p`, `cp -p` and reproducible builds give a changed file the old ones.
pub(super) type Key = blake3::Hash;

/// Everything that goes into a base part.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    contents: &'a BaseContents,
    files: Vec<Listed>,
    folders: BTreeSet<PathBuf>,
    /// Value of `LD_LIBRARY_PATH` that the guest needs, if any.
    pub(super) library_path: Option<String>,
}

/// A file of the host.
#[derive(Debug)]
struct Listed {
    what: &'static str,
    host: PathBuf,
    guest: String,
    /// Whether it is packed without its debug sections.
    slim: bool,
    /// Of the whole file, as it was when it was listed.
    digest: blake3::Hash,
}

impl Listed {
    fn read(
        what: &'static str,
        host: &Path,
        guest: &str,
        slim: bool,
    ) -> Result<(Self, Vec<u8>), InitramfsError> {
        let bytes = read(what, host)?;
        let listed = Self {
            what,
            host: host.to_owned(),
            guest: guest.to_owned(),
            slim,
            digest: blake3::hash(&bytes),
        };
        Ok((listed, bytes))
    }
}

impl<'a> Listing<'a> {
    /// Finds all files, and the libraries of the programs among them.
    pub(super) fn of(contents: &'a BaseContents) -> Result<Self, InitramfsError> {
        let init = ("the running binary", contents.init.as_path(), INIT, true);
        let program = |include: &'a super::Include| {
            let guest = include.guest.as_str();
            ("the program", include.host.as_path(), guest, true)
        };
        let include = |include: &'a super::Include| {
            let guest = include.guest.as_str();
            ("the included file", include.host.as_path(), guest, false)
        };
        let programs = contents.programs.iter().map(program);
        let includes = contents.includes.iter().map(include);
        let mut listing = Self {
            contents,
            files: Vec::new(),
            folders: BTreeSet::new(),
            library_path: None,
        };
        let mut found = Closure::default();
        let mut finder = None;
        for (what, host, guest, slim) in [init].into_iter().chain(programs).chain(includes) {
            let (listed, bytes) = Listed::read(what, host, guest, slim)?;
            listing.add(listed)?;
            let Some(needs) = dynamic_needs(host, &bytes)? else {
                continue;
            };
            // The first is that of /init.
            let finder = finder.get_or_insert_with(|| {
                Finder::new(contents.library_path.as_deref(), needs.loader.clone())
            });
            let needs = &needs;
            finder.add(Program { host, guest, needs }, &mut found)?;
        }
        if let Some(finder) = finder {
            listing.add_libraries(&finder, found)?;
        }
        Ok(listing)
    }

    fn add(&mut self, listed: Listed) -> Result<(), InitramfsError> {
        let same_place = |other: &&Listed| Path::new(&other.guest) == Path::new(&listed.guest);
        if let Some(other) = self.files.iter().find(same_place) {
            return Err(InitramfsError::SamePlace {
                guest: listed.guest,
                one: other.host.clone(),
                other: listed.host,
            });
        }
        self.files.push(listed);
        Ok(())
    }

    fn add_libraries(&mut self, finder: &Finder, found: Closure) -> Result<(), InitramfsError> {
        self.library_path = finder.guest_library_path(&found)?;
        if found.files.is_empty() {
            return Ok(());
        }
        let loader_files = LOADER_FILES.iter().map(PathBuf::from);
        let loader_files = loader_files
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), path, false));
        let libraries = found.files.into_iter();
        let libraries = libraries.map(|(guest, host)| (guest, host, true));
        for (guest, host, slim) in libraries.chain(loader_files) {
            // A file that the user wants there goes before one that was found.
            if !self
                .files
                .iter()
                .any(|file| Path::new(&file.guest) == guest)
            {
                let guest = guest.to_string_lossy();
                let (listed, _) = Listed::read("the shared library", &host, &guest, slim)?;
                self.files.push(listed);
            }
        }
        self.folders = found.folders;
        Ok(())
    }

    /// The number of files and folders in it, at most.
    pub(super) fn count(&self) -> u64 {
        let above = |path: &str| Path::new(path).ancestors().count();
        let files = self.files.iter().map(|file| above(&file.guest));
        let others = self.folders.len() + 1 + self.contents.modules.len() + FOLDERS.len();
        (files.sum::<usize>() + others) as u64
    }

    /// The key of what is listed.
    pub(super) fn key(&self) -> Result<Key, InitramfsError> {
        self.key_of(self.files.iter().map(|file| file.digest))
    }

    fn key_of(&self, digests: impl Iterator<Item = Key>) -> Result<Key, InitramfsError> {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (file, digest) in self.files.iter().zip(digests) {
            part(file.guest.as_bytes());
            part(&[u8::from(file.slim)]);
            part(digest.as_bytes());
        }
        // Between the lists, so that no entry of one is taken for one of the other.
        part(b"folders");
        for folder in &self.folders {
            part(folder.as_os_str().as_encoded_bytes());
        }
        part(b"modules");
        for module in &self.contents.modules {
            part(Modules::path(&module.name).as_bytes());
            part(blake3::hash(&read("the kernel module", &module.path)?).as_bytes());
        }
        Ok(hasher.finalize())
    }

    /// Packs everything, and gives the key of what was packed: a file may have changed since it was listed.
    pub(super) fn pack(&self) -> Result<(Key, Vec<u8>), InitramfsError> {
        let mut archive = Archive::default();
        for folder in FOLDERS {
            archive.directory(folder)?;
        }
        for folder in &self.folders {
            archive.directory(&folder.to_string_lossy())?;
        }
        let mut digests = Vec::new();
        for file in &self.files {
            let mut bytes = read(file.what, &file.host)?;
            digests.push(blake3::hash(&bytes));
            if file.slim {
                bytes = elf::without_debug_sections(&file.host, &bytes)?;
            }
            archive.file(&file.guest, &bytes)?;
        }
        archive.file(Modules::LIST, self.contents.module_list().as_bytes())?;
        for module in &self.contents.modules {
            let bytes = module.read().map_err(|source| InitramfsError::Module {
                name: module.name.clone(),
                source,
            })?;
            archive.file(&Modules::path(&module.name), &bytes)?;
        }
        Ok((self.key_of(digests.into_iter())?, archive.finish()?))
    }
}

//! Debian packages: an `ar` archive with the files in a compressed tar inside. Taken apart here, so that
//! no dpkg is needed and nothing of the package is run.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use crate::cache::{CacheError, MODULES_DIR, Partial};

/// Most bytes that a kernel or a config in a package may have.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Why a package can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebError {
    /// It isn't a package, or is damaged.
    #[error("{} is not a usable Debian package: {why}", path.display())]
    Malformed {
        /// The package.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Its files can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The package.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What one or more packages of a kernel had.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) vmlinuz: Option<Vec<u8>>,
    pub(crate) config: Option<Vec<u8>>,
}

/// What a file in a package is to us.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    Vmlinuz,
    Config,
    /// A file of the module tree, by its path in it.
    Module(PathBuf),
    Other,
}

/// Takes a package apart: modules go into the entry, the rest into memory.
pub(crate) fn unpack(
    path: &Path,
    partial: &Partial<'_>,
    into: &mut Unpacked,
) -> Result<(), DebError> {
    let file = File::open(path).map_err(|source| DebError::Read {
        path: path.to_owned(),
        source,
    })?;
    let malformed = |why: String| DebError::Malformed {
        path: path.to_owned(),
        why,
    };
    let mut archive = ar::Archive::new(BufReader::new(file));
    while let Some(member) = archive.next_entry() {
        let member = member.map_err(|error| malformed(error.to_string()))?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        if !name.starts_with("data.tar") {
            continue;
        }
        let data = decoder(&name, member).map_err(&malformed)?;
        return unpack_tar(data, path, partial, into);
    }
    Err(malformed("it has no data.tar".to_owned()))
}

fn decoder<'a>(name: &str, member: impl Read + 'a) -> Result<Box<dyn Read + 'a>, String> {
    Ok(match name.trim_end_matches('/') {
        "data.tar.xz" => Box::new(liblzma::read::XzDecoder::new_multi_decoder(member)),
        "data.tar.zst" => {
            Box::new(zstd::stream::read::Decoder::new(member).map_err(|e| e.to_string())?)
        }
        "data.tar.gz" => Box::new(flate2::read::MultiGzDecoder::new(member)),
        "data.tar" => Box::new(member),
        other => return Err(format!("its {other} is compressed in an unknown way")),
    })
}

fn unpack_tar(
    data: impl Read,
    package: &Path,
    partial: &Partial<'_>,
    into: &mut Unpacked,
) -> Result<(), DebError> {
    let malformed = |error: io::Error| DebError::Malformed {
        path: package.to_owned(),
        why: error.to_string(),
    };
    let mut archive = tar::Archive::new(data);
    for entry in archive.entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        // Links, devices and folders are not needed; leaving them out also leaves nothing to escape by.
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(malformed)?.into_owned();
        match role(&path) {
            Role::Vmlinuz => into.vmlinuz = Some(read_bounded(&mut entry).map_err(malformed)?),
            Role::Config => into.config = Some(read_bounded(&mut entry).map_err(malformed)?),
            Role::Module(relative) => {
                let bytes = read_bounded(&mut entry).map_err(malformed)?;
                let target = partial.dir().join(MODULES_DIR).join(relative);
                write_file(&target, &bytes).map_err(|source| partial.write_error(source))?;
            }
            Role::Other => {}
        }
    }
    Ok(())
}

pub(super) fn write_file(target: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(target, bytes)
}

fn read_bounded(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("a file in it has more than 1 GiB"));
    }
    Ok(bytes)
}

/// Finds a file's role by its path: `boot/vmlinuz-R`, `boot/config-R`, `[usr/]lib/modules/R/…`.
fn role(path: &Path) -> Role {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => match part.to_str() {
                Some(part) => parts.push(part),
                None => return Role::Other,
            },
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Role::Other,
        }
    }
    let parts = parts.strip_prefix(&["usr"]).unwrap_or(&parts);
    match parts {
        ["boot", name] if name.starts_with("vmlinuz-") => Role::Vmlinuz,
        ["boot", name] if name.starts_with("config-") => Role::Config,
        ["lib", "modules", _release, "vmlinuz"] => Role::Vmlinuz,
        ["lib", "modules", _release, "config"] => Role::Config,
        ["lib", "modules", _release, "System.map"] => Role::Other,
        ["lib", "modules", _release, rest @ ..] if !rest.is_empty() => {
            Role::Module(rest.iter().collect())
        }
        _ => Role::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_both_package_layouts() {
        assert_eq!(
            role(Path::new("./boot/vmlinuz-6.12.1-cloud-amd64")),
            Role::Vmlinuz
        );
        assert_eq!(
            role(Path::new("./boot/config-6.12.1-cloud-amd64")),
            Role::Config
        );
        assert_eq!(
            role(Path::new("./usr/lib/modules/7.3.4/vmlinuz")),
            Role::Vmlinuz
        );
        assert_eq!(
            role(Path::new("usr/lib/modules/7.3.4/config")),
            Role::Config
        );
        assert_eq!(
            role(Path::new("./lib/modules/6.12/kernel/fs/fuse/fuse.ko.xz")),
            Role::Module(PathBuf::from("kernel/fs/fuse/fuse.ko.xz"))
        );
    }

    #[test]
    fn nothing_leaves_the_tree() {
        assert_eq!(
            role(Path::new("./usr/lib/modules/7.3.4/../../../../etc/passwd")),
            Role::Other
        );
        assert_eq!(role(Path::new("./etc/passwd")), Role::Other);
    }
}

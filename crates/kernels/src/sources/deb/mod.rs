//! Debian packages: an `ar` archive with the files in a compressed tar inside. Taken apart here, so that
//! no dpkg is needed and nothing of the package is run.
//!
//! Anybody may have written one: sizes in it are believed only within [`Limits`].

mod ar;
mod tree;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path, PathBuf};

pub(crate) use tree::Entry;

use crate::cache::{CacheError, MODULES_DIR, Partial};
use crate::image::{LZMA_MEMORY_BYTES, MAX_VMLINUX_BYTES};

/// What a package may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of one file that is kept.
    pub(crate) file_bytes: u64,
    /// Of all that is in it, decompressed.
    pub(crate) unpacked_bytes: u64,
    /// Regular files.
    pub(crate) files: u32,
}

/// Far above the largest kernel with debug information in its modules.
const LIMITS: Limits = Limits {
    file_bytes: MAX_VMLINUX_BYTES as u64,
    unpacked_bytes: 8 << 30,
    files: 200_000,
};
/// Most bytes of the control file; those of kernels have 2 kB.
const MAX_CONTROL_BYTES: u64 = 1 << 20;
/// What a package is named for that runs here, or anywhere.
const ARCHITECTURES: [&str; 2] = ["amd64", "all"];

/// Why a package can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebError {
    /// It isn't a package, or is damaged.
    #[error("{} is not a usable Debian package: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
    /// It is for another processor.
    #[error(
        "{} is a package for {architecture}; machines here are x86-64, so give the package for amd64",
        path.display()
    )]
    OtherArchitecture {
        path: PathBuf,
        /// Its `Architecture`.
        architecture: String,
    },
    /// Packages of two kernels, or two packages of one image.
    #[error(
        "there are two kernels: {} has {}, {} has {}; give the package of one, or a folder with the packages of \
         one kernel in it",
        packages[0].0.display(), packages[0].1, packages[1].0.display(), packages[1].1
    )]
    TwoKernels {
        /// The packages, each with the release in it.
        packages: [(PathBuf, String); 2],
    },
    /// Its files can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What one or more packages of a kernel had.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) vmlinuz: Option<Vec<u8>>,
    pub(crate) config: Option<Vec<u8>>,
    /// The release that all of them are of, and the package that said so first.
    release: Option<(PathBuf, String)>,
    /// The package that had the image.
    image_from: Option<PathBuf>,
}

impl Unpacked {
    /// Refuses a part of another kernel than the parts before.
    fn claim(&mut self, package: &Path, part: &Part) -> Result<(), DebError> {
        let two = |first: &(PathBuf, String)| DebError::TwoKernels {
            packages: [first.clone(), (package.to_owned(), part.release.clone())],
        };
        match &self.release {
            Some(first) if first.1 != part.release => return Err(two(first)),
            Some(_) => {}
            None => self.release = Some((package.to_owned(), part.release.clone())),
        }
        if part.role == Role::Vmlinuz {
            match &self.image_from {
                Some(first) if first != package => {
                    return Err(two(&(first.clone(), part.release.clone())));
                }
                _ => self.image_from = Some(package.to_owned()),
            }
        }
        Ok(())
    }
}

/// What a file in a package is to us.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Vmlinuz,
    Config,
    /// A file of the module tree, by its path in it.
    Module(PathBuf),
}

/// A file of a kernel.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) role: Role,
    /// The kernel's release, by the file's path.
    pub(crate) release: String,
    pub(crate) bytes: Vec<u8>,
}

/// Why [`read`] stopped.
#[derive(Debug)]
pub(crate) enum Stop<E> {
    Malformed(String),
    OtherArchitecture(String),
    /// Whoever took the parts.
    Taker(E),
}

impl Stop<DebError> {
    /// The error for the package at `path`.
    fn at(self, path: &Path) -> DebError {
        match self {
            Self::Malformed(why) => DebError::Malformed {
                path: path.to_owned(),
                why,
            },
            Self::OtherArchitecture(architecture) => DebError::OtherArchitecture {
                path: path.to_owned(),
                architecture,
            },
            Self::Taker(error) => error,
        }
    }
}

impl<E> From<io::Error> for Stop<E> {
    /// The text may have a name out of the package in it: what a terminal would act on is replaced.
    fn from(error: io::Error) -> Self {
        let visible = |c: char| if c.is_control() { '?' } else { c };
        Self::Malformed(error.to_string().chars().map(visible).collect())
    }
}

/// Takes a package apart: modules go into the entry, the rest into memory.
pub(crate) fn unpack(
    path: &Path,
    partial: &Partial<'_>,
    into: &mut Unpacked,
) -> Result<(), DebError> {
    let failed = |source| DebError::Read {
        path: path.to_owned(),
        source,
    };
    unpack_file(&mut File::open(path).map_err(failed)?, path, partial, into)
}

/// The same for a file that is open.
pub(crate) fn unpack_file(
    file: &mut File,
    path: &Path,
    partial: &Partial<'_>,
    into: &mut Unpacked,
) -> Result<(), DebError> {
    file.rewind().map_err(|source| DebError::Read {
        path: path.to_owned(),
        source,
    })?;
    let take = |part: Part| {
        into.claim(path, &part)?;
        match part.role {
            Role::Vmlinuz => into.vmlinuz = Some(part.bytes),
            Role::Config => into.config = Some(part.bytes),
            Role::Module(relative) => {
                let target = partial.dir().join(MODULES_DIR).join(&relative);
                write_file(&target, &part.bytes).map_err(|source| match source.kind() {
                    // What the package has at that path, or above it, is of another kind.
                    io::ErrorKind::NotADirectory
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::InvalidFilename => DebError::Malformed {
                        path: path.to_owned(),
                        why: format!("its file {} can't be written: {source}", relative.display()),
                    },
                    _ => partial.write_error(source).into(),
                })?;
            }
        }
        Ok(())
    };
    read(BufReader::new(file), LIMITS, take).map_err(|stop| stop.at(path))
}

/// Hands out the files of a kernel that are in a package.
pub(crate) fn read<E>(
    package: impl Read,
    limits: Limits,
    mut take: impl FnMut(Part) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    each_entry(package, limits, |path, entry| {
        hand_out(path, entry, &mut take)
    })
}

fn hand_out<E>(
    path: &Path,
    entry: Entry<'_>,
    take: &mut impl FnMut(Part) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let Entry::File(file) = entry else {
        return Ok(());
    };
    let Some((role, release)) = role(path) else {
        return Ok(());
    };
    let bytes = file.bytes()?;
    let part = Part {
        role,
        release,
        bytes,
    };
    take(part).map_err(Stop::Taker)
}

/// Hands out the regular files and symbolic links of the package at `path`.
pub(crate) fn each_entry_of(
    path: &Path,
    mut take: impl FnMut(&Path, Entry<'_>) -> Result<(), Stop<DebError>>,
) -> Result<(), DebError> {
    let file = File::open(path).map_err(|source| DebError::Read {
        path: path.to_owned(),
        source,
    })?;
    each_entry(BufReader::new(file), LIMITS, &mut take).map_err(|stop| stop.at(path))
}

fn each_entry<E>(
    package: impl Read,
    limits: Limits,
    each: impl FnMut(&Path, Entry<'_>) -> Result<(), Stop<E>>,
) -> Result<(), Stop<E>> {
    let mut archive = ar::Archive::open(package).map_err(Stop::Malformed)?;
    let mut is_first = true;
    while let Some(name) = archive.next_member().map_err(Stop::Malformed)? {
        let name = name.to_owned();
        if is_first && name != "debian-binary" {
            let why = format!("its first member is `{name}` instead of debian-binary");
            return Err(Stop::Malformed(why));
        }
        is_first = false;
        if let Some(suffix) = name.strip_prefix("control.tar") {
            check_architecture(decoder(&name, suffix, &mut archive)?, limits)?;
        } else if let Some(suffix) = name.strip_prefix("data.tar") {
            let data = decoder(&name, suffix, &mut archive)?;
            return tree::each_entry(data, limits, each);
        }
    }
    Err(Stop::Malformed("it has no data.tar".to_owned()))
}

/// [`read`] for the tar in a package.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_tree<E>(
    data: impl Read,
    limits: Limits,
    mut take: impl FnMut(Part) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    tree::each_entry(data, limits, |path, entry| hand_out(path, entry, &mut take))
}

fn decoder<'a, E>(
    name: &str,
    suffix: &str,
    member: impl Read + 'a,
) -> Result<Box<dyn Read + 'a>, Stop<E>> {
    Ok(match suffix {
        ".xz" => {
            let flags = liblzma::stream::CONCATENATED;
            let stream = liblzma::stream::Stream::new_stream_decoder(LZMA_MEMORY_BYTES, flags)
                .map_err(|error| Stop::Malformed(error.to_string()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(member, stream))
        }
        ".zst" => Box::new(zstd::stream::read::Decoder::new(member)?),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(member)),
        "" => Box::new(member),
        _ => {
            let why = format!("its {name} is compressed in an unknown way");
            return Err(Stop::Malformed(why));
        }
    })
}

/// Looks up the architecture in a control.tar. One that doesn't say it is believed to fit.
fn check_architecture<E>(control: impl Read, limits: Limits) -> Result<(), Stop<E>> {
    let limits = Limits {
        file_bytes: limits.file_bytes.min(MAX_CONTROL_BYTES),
        ..limits
    };
    tree::each_file(control, limits, |path, file| {
        if path.file_name() != Some("control".as_ref()) {
            return Ok(());
        }
        let text = file.bytes()?;
        match architecture(&String::from_utf8_lossy(&text)) {
            Some(name) if !ARCHITECTURES.contains(&&*name) => Err(Stop::OtherArchitecture(name)),
            _ => Ok(()),
        }
    })
}

/// Debian's names have letters, digits and `-`. Anything else is not repeated.
fn architecture(control: &str) -> Option<String> {
    let value = control
        .lines()
        .find_map(|line| line.strip_prefix("Architecture:"))?
        .trim();
    let is_name = value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_name && !value.is_empty()).then(|| value.to_owned())
}

pub(super) fn write_file(target: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(target, bytes)
}

/// Names are in messages and in a list with a file on each line.
fn is_visible(name: &str) -> bool {
    !name.contains(char::is_control)
}

/// Finds a file's role and its kernel by its path: `boot/vmlinuz-R`, `boot/config-R`, `[usr/]lib/modules/R/…`.
/// Nothing for all other files, and for a path that leads out of the package.
fn role(path: &Path) -> Option<(Role, String)> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().filter(|part| is_visible(part))?),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    let parts = parts.strip_prefix(&["usr"]).unwrap_or(&parts);
    let (role, release) = match parts {
        ["boot", name] => match name.split_once('-')? {
            ("vmlinuz", release) => (Role::Vmlinuz, release),
            ("config", release) => (Role::Config, release),
            _ => return None,
        },
        ["lib", "modules", release, "vmlinuz"] => (Role::Vmlinuz, *release),
        ["lib", "modules", release, "config"] => (Role::Config, *release),
        ["lib", "modules", _release, "System.map"] => return None,
        ["lib", "modules", release, rest @ ..] if !rest.is_empty() => {
            (Role::Module(rest.iter().collect()), *release)
        }
        _ => return None,
    };
    let is_word = release.bytes().all(|byte| byte.is_ascii_graphic());
    (is_word && !release.is_empty()).then(|| (role, release.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role_of(path: &str) -> Option<(Role, String)> {
        role(Path::new(path))
    }

    #[test]
    fn roles_of_both_package_layouts() {
        let is = |role, release: &str| Some((role, release.to_owned()));
        let cloud = "6.12.1-cloud-amd64";
        assert_eq!(
            role_of("./boot/vmlinuz-6.12.1-cloud-amd64"),
            is(Role::Vmlinuz, cloud)
        );
        assert_eq!(
            role_of("./boot/config-6.12.1-cloud-amd64"),
            is(Role::Config, cloud)
        );
        assert_eq!(
            role_of("./usr/lib/modules/7.3.4/vmlinuz"),
            is(Role::Vmlinuz, "7.3.4")
        );
        assert_eq!(
            role_of("usr/lib/modules/7.3.4/config"),
            is(Role::Config, "7.3.4")
        );
        assert_eq!(
            role_of("./lib/modules/6.12/kernel/fs/fuse/fuse.ko.xz"),
            is(
                Role::Module(PathBuf::from("kernel/fs/fuse/fuse.ko.xz")),
                "6.12"
            )
        );
    }

    #[test]
    fn nothing_leaves_the_tree() {
        assert_eq!(
            role_of("./usr/lib/modules/7.3.4/../../../../etc/passwd"),
            None
        );
        assert_eq!(role_of("./etc/passwd"), None);
        assert_eq!(role_of("./boot/vmlinuz-6\x1b[2J"), None);
        assert_eq!(role_of("./lib/modules/6/a.ko\n1 0 b.ko"), None);
    }

    /// Modules of these sizes, compressed in no way.
    fn tree(sizes: &[usize]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (index, size) in sizes.iter().enumerate() {
            let mut header = tar::Header::new_gnu();
            header.set_size(*size as u64);
            let path = format!("./lib/modules/9/kernel/{index}.ko");
            let bytes = vec![b'm'; *size];
            tar.append_data(&mut header, path, &*bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn fault_e1_what_a_package_unpacks_to_is_bounded() {
        let limits = Limits {
            file_bytes: 1000,
            unpacked_bytes: 10_000,
            files: 4,
        };
        let read = |sizes: &[usize]| {
            let mut taken = 0;
            let take = |_| {
                taken += 1;
                Ok::<_, std::convert::Infallible>(())
            };
            match read_tree(&*tree(sizes), limits, take) {
                Ok(()) => format!("{taken} taken"),
                Err(Stop::Malformed(why)) => why,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(read(&[1000, 1, 0, 1]), "4 taken");
        insta::assert_snapshot!(read(&[1001]), @"a file in it has more than 1000 bytes");
        insta::assert_snapshot!(read(&[1; 5]), @"it has more than 4 files");
        let more = Limits {
            files: 40,
            ..limits
        };
        let bomb = tree(&[900; 40]);
        let stop = read_tree(&*bomb, more, |_| Ok::<_, ()>(())).unwrap_err();
        insta::assert_snapshot!(format!("{stop:?}"), @r#"Malformed("it unpacks to more than 10000 bytes, which no kernel's package does")"#);
    }
}

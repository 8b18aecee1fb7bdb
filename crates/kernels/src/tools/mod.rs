//! Programs that tests need beside a kernel: QEMU, and a busybox for shells. Where the system has none, they are
//! fetched as kernels are, by the machine's own apt with a private root, and unpacked into the cache. Nothing is
//! installed, removed or exchanged, and no root is needed.
//!
//! ```text
//! <root>/tools/<key>/tool.json           what it is, and the packages it came from
//! <root>/tools/<key>/usr/                files of these packages: the program, libraries that the machine lacks, data
//! <root>/tools/<key>/qemu-system-x86_64  starts QEMU with these libraries
//! ```

mod busybox;
mod fetch;
mod installed;
mod simulation;
mod trial;
mod unpack;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use busybox::{is_static, static_busybox};
pub use fetch::{Offer, fetch, offer};
pub use simulation::{Install, Simulation};

use crate::cache::{Cache, CacheError};
use crate::sources::{DebError, DebianError};

const METADATA_FILE: &str = "tool.json";
const METADATA_VERSION: u32 = 1;
/// Prefix of folders that are not entries.
const PARTIAL_PREFIX: &str = ".partial-";

/// A program that can be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// QEMU's system emulator for x86-64: it boots machines where no KVM is usable.
    Qemu,
    /// A busybox without libraries: the shell in a machine.
    Busybox,
}

impl Tool {
    /// The name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system-x86_64",
            Self::Busybox => "busybox",
        }
    }

    /// The package of Debian and its relatives that has it.
    pub const fn package(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-system-x86",
            Self::Busybox => "busybox-static",
        }
    }

    /// Prefixes of the packages that make it up. They are fetched even if the machine has some of them: they must be
    /// of one version, and lie where the program looks for its data.
    const fn own_packages(self) -> &'static [&'static str] {
        match self {
            Self::Qemu => &["qemu", "seabios", "ipxe"],
            Self::Busybox => &["busybox"],
        }
    }

    const fn key_prefix(self) -> &'static str {
        match self {
            Self::Qemu => "qemu-",
            Self::Busybox => "busybox-",
        }
    }
}

/// Why a tool is not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// No apt on this machine.
    #[error(
        "there is no apt-get on this machine, so {} can't be fetched; install it with this system's package manager",
        .0.program()
    )]
    NoApt(Tool),
    /// None of the machine's apt sources is its own release's.
    #[error(
        "none of the apt sources in {} is for the release that this machine runs (VERSION_CODENAME in \
         /etc/os-release), so programs that run with its libraries can't be fetched; add one (deb URI CODENAME main)",
        etc_apt.display()
    )]
    NoSources {
        /// Where they were looked for.
        etc_apt: PathBuf,
    },
    #[error("{what} failed for {mirror}: {message}")]
    Apt {
        what: &'static str,
        mirror: String,
        message: String,
    },
    /// Some other step of fetching packages failed.
    #[error(transparent)]
    Packages(DebianError),
    /// The packages need another C library than the machine's, which all that runs here shares.
    #[error(
        "{package} needs {libc} {version}, another C library than this machine has: upgrade the machine, or install \
         {package} from where its own libraries come from"
    )]
    OtherLibc {
        /// What was to be fetched.
        package: &'static str,
        libc: String,
        version: String,
    },
    /// apt finds no set of packages.
    #[error("apt finds no way to have {package} that leaves other packages out of it: {}", left.join(", "))]
    Unresolvable {
        /// What was to be fetched.
        package: &'static str,
        /// What it would still remove.
        left: Vec<String>,
    },
    /// What was fetched doesn't run here.
    #[error("{program}, from {packages}, doesn't run on this machine: {why}")]
    DoesNotRun {
        program: &'static str,
        packages: String,
        /// What it lacks, or its own words.
        why: String,
    },
    /// A file of the machine can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A fetched package can't be used.
    #[error(transparent)]
    Deb(#[from] DebError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl ToolError {
    /// The error of the Debian source, in the words of tools.
    fn from_debian(error: DebianError, tool: Tool, cache: &Cache) -> Self {
        match error {
            DebianError::NoApt => Self::NoApt(tool),
            DebianError::NoMirror { etc_apt } => Self::NoSources { etc_apt },
            DebianError::Apt {
                what,
                mirror,
                message,
            } => Self::Apt {
                what,
                mirror,
                message,
            },
            DebianError::Root(source) => cache.write_error(source).into(),
            DebianError::Deb(error) => error.into(),
            DebianError::Cache(error) => error.into(),
            other => Self::Packages(other),
        }
    }
}

/// One package, as apt names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExactPackage {
    pub name: String,
    pub version: String,
}

impl ExactPackage {
    fn for_apt(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// What an entry says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Metadata {
    version: u32,
    tool: Tool,
    /// What is run, below the entry's folder.
    program: PathBuf,
    packages: Vec<ExactPackage>,
    stored_unix_s: u64,
}

/// A tool in the cache.
#[derive(Clone, Debug)]
pub struct Fetched {
    dir: PathBuf,
    metadata: Metadata,
}

impl Fetched {
    /// Reads an entry; nothing if there is none, or none that this version understands.
    fn open(dir: PathBuf) -> Option<Self> {
        let metadata: Metadata =
            serde_json::from_slice(&fs::read(dir.join(METADATA_FILE)).ok()?).ok()?;
        let fetched = Self { dir, metadata };
        let usable = fetched.metadata.version == METADATA_VERSION && is_program(&fetched.program());
        usable.then_some(fetched)
    }

    /// Which tool it is.
    pub fn tool(&self) -> Tool {
        self.metadata.tool
    }

    pub fn program(&self) -> PathBuf {
        self.dir.join(&self.metadata.program)
    }

    /// The folder of its files, laid out as in the packages: `usr/share/qemu`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folders of its libraries.
    pub fn library_folders(&self) -> Vec<PathBuf> {
        trial::library_folders(&self.dir)
    }

    /// The packages that it was made of, the tool's own first.
    pub fn packages(&self) -> &[ExactPackage] {
        &self.metadata.packages
    }

    /// Where it came from: `qemu-system-x86 1:7.2+dfsg-7 and 26 packages more`.
    pub fn source(&self) -> String {
        source_of(self.packages())
    }

    /// Starts it once, as it will be used.
    pub fn try_out(&self) -> Result<(), ToolError> {
        trial::try_out(self.tool(), &self.dir, &self.program()).map_err(|why| {
            ToolError::DoesNotRun {
                program: self.tool().program(),
                packages: self.source(),
                why,
            }
        })
    }
}

/// A tool that was fetched before: the one stored last.
pub fn find(cache: &Cache, tool: Tool) -> Option<Fetched> {
    let entries = fs::read_dir(folder(cache)).ok()?;
    let prefixed = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with(tool.key_prefix()))
    });
    prefixed
        .filter_map(|entry| Fetched::open(entry.path()))
        .filter(|fetched| fetched.tool() == tool)
        .max_by_key(|fetched| fetched.metadata.stored_unix_s)
}

fn folder(cache: &Cache) -> PathBuf {
    cache.root().join("tools")
}

/// `a 1.0`, `a 1.0 and 2 packages more`.
fn source_of(packages: &[ExactPackage]) -> String {
    let Some((first, rest)) = packages.split_first() else {
        return "no package".to_owned();
    };
    let own = format!("{} {}", first.name, first.version);
    match rest.len() {
        0 => own,
        1 => format!("{own} and 1 package more"),
        count => format!("{own} and {count} packages more"),
    }
}

/// Whether it is a file that may be executed.
fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

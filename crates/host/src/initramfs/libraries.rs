//! The shared libraries of a program: those that the host's own loader takes for it.
//!
//! The loader is asked (`ld.so --list FILE`, as ldd(1) does), since it alone knows its cache, its folders and the
//! variants for this CPU. It maps what it finds and runs none of it. Each library lies in the guest where it lies on the
//! host, beside the loader's cache, so that the guest's loader takes the same ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal;
use nix::unistd::Pid;

use super::elf::{DynamicNeeds, dynamic_needs};

/// Loaders of libraries that name none, in the order in which they are tried.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"];

/// Where glibc's and musl's loaders look up libraries and folders.
pub(super) const LOADER_FILES: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld-musl-x86_64.path"];

/// Folder of a library's variants for newer CPUs (ld.so(8)).
const VARIANTS: &str = "glibc-hwcaps";

/// The file that this process runs, whatever has become of its path.
pub const OWN_BINARY: &str = "/proc/self/exe";

/// How long a loader may take; it takes milliseconds.
const LOADER_LIMIT: Duration = Duration::from_secs(60);

/// A program's libraries can't be gathered.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A library is nowhere the loader would look.
    #[error(
        "{needed_by} needs the shared library {name}, which this host's loader does not find: install it, or name its \
         folder in LD_LIBRARY_PATH"
    )]
    NotFound {
        /// The library's name.
        name: String,
        /// The program that needs it, itself or through another library.
        needed_by: PathBuf,
    },
    /// A program names something as its loader that is none.
    #[error("{program} names {loader} as its loader, which is not one of ld-linux or ld-musl")]
    NotALoader {
        /// The program.
        program: PathBuf,
        /// What it names in `PT_INTERP`.
        loader: PathBuf,
    },
    /// A library that nothing here can load.
    #[error("{library} needs shared libraries, and this host has no loader to look for them: {}", LOADERS.join(", "))]
    NoLoader {
        /// The library.
        library: PathBuf,
    },
    /// The loader can't be run.
    #[error("running the loader {loader} of {program}")]
    Run {
        /// The program.
        program: PathBuf,
        /// Its loader.
        loader: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The loader can't load the program, so it runs on this host no more than in the guest.
    #[error("the loader {loader} can't load {program}: {said}")]
    Refused {
        /// The program.
        program: PathBuf,
        /// Its loader.
        loader: PathBuf,
        /// The loader's own words.
        said: String,
    },
    /// Two programs need different libraries of one name, and the guest's loader would mix them up.
    #[error(
        "{one} and {other} have the same name, and programs that lie elsewhere in the guest than on the host need both: \
         include such a program at its own path (FILE:/SAME/PATH), or link it without $ORIGIN"
    )]
    SameName {
        /// One of them.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// The kernel hands the variable to PID 1 from its command line, in quotes.
    #[error(
        "the guest's LD_LIBRARY_PATH would be {path}, and a kernel option can't have a quote in it: rename the folder"
    )]
    Quote {
        /// The variable's value.
        path: String,
    },
}

/// The files that programs need in the guest besides themselves.
#[derive(Debug, Default)]
pub(super) struct Closure {
    /// By their path in the guest.
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
    /// Folders that the loader passes through on its way (`/opt/bin` of `/opt/bin/../lib`).
    pub(super) folders: BTreeSet<PathBuf>,
    /// Folders of `$ORIGIN` of programs that lie elsewhere in the guest, in the loader's order.
    moved: Vec<PathBuf>,
}

/// A program, or a library, of which the libraries are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program<'a> {
    pub(super) host: &'a Path,
    pub(super) guest: &'a str,
    pub(super) needs: &'a DynamicNeeds,
}

/// The loader's view from this process: its working folder, and this `LD_LIBRARY_PATH`.
#[derive(Debug)]
pub(super) struct Finder {
    library_path: Option<String>,
    working_folder: PathBuf,
    /// For libraries, which name no loader.
    loader: Option<PathBuf>,
}

impl Finder {
    /// `loader` is that of the guest's `/init`, if it has one.
    pub(super) fn new(library_path: Option<&str>, loader: Option<PathBuf>) -> Self {
        let known = || LOADERS.iter().map(PathBuf::from).find(|path| path.exists());
        Self {
            library_path: library_path.map(str::to_owned),
            // Without one, relative folders are nowhere for the loader either.
            working_folder: env::current_dir().unwrap_or_else(|_| "/".into()),
            loader: loader.or_else(known),
        }
    }

    /// Adds the loader and all libraries of `program` to `found`.
    pub(super) fn add(
        &self,
        program: Program<'_>,
        found: &mut Closure,
    ) -> Result<(), LibraryError> {
        let Program { host, guest, needs } = program;
        let loader = match &needs.loader {
            Some(loader) if is_loader(loader) => loader.clone(),
            Some(loader) => {
                return Err(LibraryError::NotALoader {
                    program: host.to_owned(),
                    loader: loader.clone(),
                });
            }
            None if !needs.has_libraries => return Ok(()),
            None => self.loader.clone().ok_or_else(|| LibraryError::NoLoader {
                library: host.to_owned(),
            })?,
        };
        found.files.insert(loader.clone(), loader.clone());
        let location = Location::of(host);
        let folders = self.origin_folders(&location.origin, needs);
        let mut library_path = self.library_path.clone();
        if location.is_gone {
            // The loader can't tell where the program was.
            let folders = folders.iter().map(|folder| folder.to_string_lossy());
            let parts = library_path.iter().map(|path| path.as_str().into());
            library_path = Some(parts.chain(folders).collect::<Vec<_>>().join(":"));
        }
        let mut libraries = VecDeque::new();
        let ask =
            |file: &Path, more: &[&str]| list(&loader, file, library_path.as_deref(), host, more);
        libraries.extend(ask(&location.path, &[])?);
        if libraries.iter().any(|path| variants_of(path).is_some()) {
            // The guest's CPU may be an older one.
            let none = ["--glibc-hwcaps-mask", "none"];
            libraries.extend(ask(&location.path, &none)?);
        }
        let mut seen = BTreeSet::new();
        while let Some(library) = libraries.pop_front() {
            let library = self.working_folder.join(library);
            let (in_guest, passed) = normalised(&library);
            if !seen.insert(in_guest.clone()) {
                continue;
            }
            for variant in other_variants(&library) {
                libraries.extend(ask(&variant, &[])?);
                libraries.push_back(variant);
            }
            found.folders.extend(passed);
            found.files.insert(in_guest, library);
        }
        if Path::new(guest) != location.path {
            for folder in folders {
                if seen.iter().any(|library| is_in(library, &folder))
                    && !found.moved.contains(&folder)
                {
                    found.moved.push(folder);
                }
            }
        }
        Ok(())
    }

    /// The folders that `$ORIGIN` stands in.
    fn origin_folders(&self, origin: &Path, needs: &DynamicNeeds) -> Vec<PathBuf> {
        let origin = origin.to_string_lossy();
        let told = self.told();
        let all = needs.search.iter().map(String::as_str).chain(told);
        all.filter(|folder| folder.contains("$ORIGIN") || folder.contains("${ORIGIN}"))
            .map(|folder| {
                let folder = folder.replace("${ORIGIN}", &origin);
                let folder = folder.replace("$ORIGIN", &origin);
                normalised(&self.working_folder.join(folder)).0
            })
            .collect()
    }

    /// The parts of `LD_LIBRARY_PATH` (ld.so(8)).
    fn told(&self) -> impl Iterator<Item = &str> {
        let path = self.library_path.as_deref().filter(|path| !path.is_empty());
        path.into_iter().flat_map(|path| path.split([':', ';']))
    }

    /// The `LD_LIBRARY_PATH` that the guest needs: the parts of ours with libraries of the guest in them, absolute, and
    /// what `$ORIGIN` meant for programs that lie elsewhere there.
    pub(super) fn guest_library_path(
        &self,
        found: &Closure,
    ) -> Result<Option<String>, LibraryError> {
        same_names(found)?;
        let told = self.told().filter_map(|part| {
            if part.contains('$') {
                // The guest's loader knows what it stands for.
                let is_origin = part.contains("ORIGIN");
                return (!is_origin).then(|| PathBuf::from(part));
            }
            let folder = normalised(&self.working_folder.join(part)).0;
            let is_used = found.files.keys().any(|library| is_in(library, &folder));
            is_used.then_some(folder)
        });
        let mut folders: Vec<PathBuf> = Vec::new();
        for folder in told.chain(found.moved.iter().cloned()) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        let folders: Vec<_> = folders.iter().map(|path| path.to_string_lossy()).collect();
        let path = folders.join(":");
        if path.contains('"') {
            return Err(LibraryError::Quote { path });
        }
        Ok((!path.is_empty()).then_some(path))
    }
}

/// Refuses what `LD_LIBRARY_PATH` would mix up: it comes before the loader's cache and folders, for all programs.
fn same_names(found: &Closure) -> Result<(), LibraryError> {
    for folder in &found.moved {
        let inside = found.files.keys().filter(|library| is_in(library, folder));
        for one in inside {
            let mut others = found.files.keys();
            let other =
                others.find(|other| other.file_name() == one.file_name() && !is_in(other, folder));
            if let Some(other) = other {
                return Err(LibraryError::SameName {
                    one: one.clone(),
                    other: other.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Where the loader finds a program, and what it takes for `$ORIGIN`.
struct Location {
    path: PathBuf,
    origin: PathBuf,
    /// Whether the program is no longer at its path.
    is_gone: bool,
}

impl Location {
    fn of(host: &Path) -> Self {
        let folder = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        if host != Path::new(OWN_BINARY) {
            // The loader's own link is to the file itself.
            let path = host.canonicalize().unwrap_or_else(|_| host.to_owned());
            return Self {
                origin: folder(&path),
                path,
                is_gone: false,
            };
        }
        let link = fs::read_link(OWN_BINARY).unwrap_or_default();
        let id = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
        let is_gone = id(&link).is_none_or(|found| Some(found) != id(Path::new(OWN_BINARY)));
        let path = if is_gone {
            // `self` would be the loader.
            format!("/proc/{}/exe", std::process::id()).into()
        } else {
            link.clone()
        };
        Self {
            path,
            // The kernel adds ` (deleted)` to the name, not to the folder.
            origin: folder(&link),
            is_gone,
        }
    }
}

fn is_loader(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    path.is_absolute() && (name.starts_with("ld-linux") || name.starts_with("ld-musl"))
}

/// What the loader takes for `file`, as it says itself.
fn list(
    loader: &Path,
    file: &Path,
    library_path: Option<&str>,
    program: &Path,
    more: &[&str],
) -> Result<Vec<PathBuf>, LibraryError> {
    let mut command = Command::new(loader);
    command.env_clear();
    if let Some(path) = library_path.filter(|path| !path.is_empty()) {
        command.env("LD_LIBRARY_PATH", path);
    }
    let output = output_of(command.args(more).arg("--list").arg(file));
    let output = output.map_err(|source| LibraryError::Run {
        program: program.to_owned(),
        loader: loader.to_owned(),
        source,
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| line.strip_prefix('\t'));
    let listed: Vec<Listed> = lines.map(listed).collect();
    let missing = listed.iter().find_map(|line| match line {
        Listed::Missing(name) => Some(name.as_str()),
        _ => None,
    });
    if let Some(name) = missing.or_else(|| missing_library(&said)) {
        return Err(LibraryError::NotFound {
            name: name.to_owned(),
            needed_by: program.to_owned(),
        });
    }
    if !output.status.success() {
        return Err(LibraryError::Refused {
            program: program.to_owned(),
            loader: loader.to_owned(),
            said: match said.trim() {
                "" => output.status.to_string(),
                said => said.to_owned(),
            },
        });
    }
    let libraries = listed.into_iter().filter_map(|line| match line {
        Listed::Library(path) => Some(path),
        _ => None,
    });
    Ok(libraries.collect())
}

/// The library of glibc's `error while loading shared libraries: NAME: cannot open …` or of musl's `Error loading shared
/// library NAME: No such file …`.
fn missing_library(said: &str) -> Option<&str> {
    let find = |before: &str, after: &str| {
        let (_, rest) = said.split_once(before)?;
        rest.split_once(after).map(|(name, _)| name)
    };
    find("loading shared libraries: ", ": cannot open")
        .or_else(|| find("Error loading shared library ", ": No such"))
}

/// What the command prints, if it ends within [`LOADER_LIMIT`]. Nobody knows what a damaged file makes a loader do.
fn output_of(command: &mut Command) -> io::Result<Output> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || sender.send(child.wait_with_output()));
    let in_time = receiver.recv_timeout(LOADER_LIMIT);
    if in_time.is_err() {
        // It is not reaped yet, so the id is its own.
        let _ = signal::kill(pid, signal::Signal::SIGKILL);
    }
    let _ = waiter.join();
    in_time.unwrap_or_else(|_| {
        let said = format!("it did not end within {} s", LOADER_LIMIT.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, said))
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Listed {
    Library(PathBuf),
    Missing(String),
    Nothing,
}

/// One line: `libc.so.6 => /lib/libc.so.6 (0x00007f…)`, `/lib64/ld.so (0x…)`, `libx.so => not found`, `libx.so (0x…)` for
/// one in the working folder, `linux-vdso.so.1 (0x…)`, which is the kernel's own, or `statically linked`.
fn listed(line: &str) -> Listed {
    let (place, address) = line.rsplit_once(" (0x").unwrap_or((line, ""));
    match place.split_once(" => ") {
        Some((name, "not found")) => Listed::Missing(name.to_owned()),
        Some((_, path)) if !path.is_empty() => Listed::Library(path.into()),
        None if !address.is_empty() && !place.starts_with("linux-vdso") => {
            Listed::Library(place.into())
        }
        _ => Listed::Nothing,
    }
}

/// The folder and the name of a library that is a variant for newer CPUs.
fn variants_of(library: &Path) -> Option<(&Path, &OsStr)> {
    let all = library.parent()?.parent()?;
    let is_variant = all.file_name()? == VARIANTS;
    is_variant.then_some((all.parent()?, library.file_name()?))
}

/// The same library for other CPUs than this host's.
fn other_variants(library: &Path) -> Vec<PathBuf> {
    let own = || Some((library.parent()?, library.file_name()?));
    let Some((folder, name)) = variants_of(library).or_else(own) else {
        return Vec::new();
    };
    let levels = fs::read_dir(folder.join(VARIANTS)).into_iter().flatten();
    let levels = levels.flatten().map(|level| level.path().join(name));
    let mut variants: Vec<PathBuf> = levels
        .chain([folder.join(name)])
        .filter(|variant| variant != library && loadable(variant))
        .collect();
    variants.sort();
    variants
}

fn loadable(path: &Path) -> bool {
    path.is_file()
        && fs::read(path)
            .is_ok_and(|bytes| dynamic_needs(path, &bytes).is_ok_and(|needs| needs.is_some()))
}

/// Whether the loader finds the library by looking in `folder`.
fn is_in(library: &Path, folder: &Path) -> bool {
    library.parent() == Some(folder)
        || variants_of(library).is_some_and(|(parent, _)| parent == folder)
}

/// An absolute path without `.` and `..`, and the folders that a `..` left.
fn normalised(path: &Path) -> (PathBuf, Vec<PathBuf>) {
    let mut plain = PathBuf::from("/");
    let mut passed = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                passed.push(plain.clone());
                plain.pop();
            }
            _ => {}
        }
    }
    passed.retain(|folder| folder != Path::new("/"));
    (plain, passed)
}

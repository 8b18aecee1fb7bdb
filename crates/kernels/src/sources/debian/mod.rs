//! Prebuilt Debian kernels.

pub(crate) mod apt;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub(crate) mod mirror;
mod packages;
pub(crate) mod release_sources;
mod version;

pub(crate) use version::compare as compare_versions;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::apt::{Apt, Release};
use self::mirror::Mirror;
use self::packages::Choice;
use super::deb::{self, DebError, Unpacked};
use super::import::{ImageFile, ImportError, Provenance, import};
use crate::cache::{Begin, Cache, CacheError, Entry, Origin, Partial};
use crate::kernel::Kernel;
use crate::options::ResolveOptions;
use crate::progress::{Event, Progress};
use crate::spec::DebianSpec;

/// The role of the suite that `debian` means.
const NEWEST_ROLE: &str = "stable-backports";

/// Why a Debian kernel is not available.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebianError {
    /// No apt on this machine.
    #[error(
        "there is no apt-get on this machine, so Debian kernels can't be fetched; give a path to a bzImage, a \
         .deb, or a folder with vmlinuz and modules instead (--kernel PATH)"
    )]
    NoApt,
    /// None of the machine's apt sources is Debian's.
    #[error(
        "there is no Debian mirror among the apt sources in {}, so Debian kernels can't be fetched; add one \
         (deb URI stable main), or give a path to a kernel instead (--kernel PATH)",
        etc_apt.display()
    )]
    NoMirror {
        /// Where they were looked for.
        etc_apt: PathBuf,
    },
    /// An apt sources file can't be read.
    #[error("can't read {}: {source}", path.display())]
    Sources { path: PathBuf, source: io::Error },
    /// The mirror has no such suite.
    #[error("there is no Debian suite `{suite}` on {mirror}; there are: {}", existing.join(", "))]
    NoSuchSuite {
        suite: String,
        mirror: String,
        /// Suites that it has.
        existing: Vec<String>,
    },
    /// A suite's Release file doesn't say what it is.
    #[error("the Release file of Debian suite `{suite}` is missing or has no codename")]
    NoRelease { suite: String },
    /// No suite has what was asked for.
    #[error(
        "{spec}: no kernel for amd64 that can be fetched in Debian {}{}",
        suites.join(", "),
        if available.is_empty() { String::new() } else { format!("; there are: {}", available.join(", ")) }
    )]
    NoKernel {
        spec: String,
        /// Where it was looked for.
        suites: Vec<String>,
        /// Versions that there are.
        available: Vec<String>,
    },
    #[error(
        "{what} failed for {mirror}: {message}\nKernels that are in the cache already can be used without a \
         network: see `cargo ktstr kernel list`"
    )]
    Apt {
        what: &'static str,
        mirror: String,
        message: String,
    },
    #[error("can't run apt-get: {source}")]
    Spawn { source: io::Error },
    /// Nothing arrives any more, or next to nothing.
    #[error(
        "{mirror} sent {} in {limit_s} s, so it was given up; try again later, name another mirror in the apt sources, \
         or use a kernel that is here: one of `cargo ktstr kernel list`, or a path (--kernel PATH)",
        if *arrived_bytes == 0 { "nothing".to_owned() } else { format!("{arrived_bytes} bytes") }
    )]
    Stalled {
        mirror: String,
        /// How long it was waited for.
        limit_s: u64,
        /// What arrived in that time.
        arrived_bytes: u64,
    },
    /// The private apt root can't be written; callers of [`crate::resolve`] get [`CacheError::Write`] for it.
    #[error("can't use the private apt root: {0}")]
    Root(io::Error),
    /// A fetched package can't be used.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The packages have no kernel image.
    #[error("the packages {} have no kernel image in them", packages.join(", "))]
    NoImage { packages: Vec<String> },
    /// Packages are gone from the archive, and what is left of the kernel can't run a test.
    #[error(
        "{} left Debian's archive, and no test can run on kernel {version} without: {lacks}; take another version",
        missing.join(", ")
    )]
    Incomplete {
        version: String,
        /// The packages that are gone.
        missing: Vec<String>,
        /// What it lacks because of that.
        lacks: String,
    },
    /// The kernel in the packages can't be used.
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// The newest cached kernel that a spec means, as far as can be told without asking the mirror.
pub(crate) fn cached(cache: &Cache, spec: &DebianSpec) -> Result<Option<Entry>, CacheError> {
    let matching = cache.usable()?.into_iter().filter_map(|entry| {
        let Origin::Debian {
            suite,
            role,
            version,
            missing,
            ..
        } = &entry.metadata().origin
        else {
            return None;
        };
        let matches = match spec {
            // Only a complete one is taken unasked.
            DebianSpec::Newest => role == NEWEST_ROLE && missing.is_empty(),
            DebianSpec::Suite(name) => (name == suite || name == role) && missing.is_empty(),
            DebianSpec::Version(prefix) => {
                packages::starts_with(version::upstream(version), prefix)
            }
        };
        let version = version.clone();
        matches.then_some((version, entry))
    });
    Ok(matching
        .max_by(|(a, _), (b, _)| version::compare(a, b))
        .map(|(_, entry)| entry))
}

/// Asks the mirror for the kernel and stores it. With `refresh` it is asked even when another process, which had to
/// be waited for, has just fetched one that fits.
pub(crate) fn fetch(
    cache: &Cache,
    spec: &DebianSpec,
    options: &ResolveOptions,
    progress: &dyn Progress,
) -> Result<Entry, DebianError> {
    let mirror = Mirror::of_machine(&options.machine_root)?;
    let base = cache.root().join("apt");
    fs::create_dir_all(&base).map_err(|source| cache.write_error(source))?;
    let lock = cache.lock("apt", "fetching a Debian kernel", progress)?;
    if lock.waited
        && !options.refresh
        && let Some(entry) = cached(cache, spec)?
    {
        return Ok(entry);
    }
    let work = || {
        let apt = Apt::prepare(&base, &mirror, &lock, options.mirror_patience, progress)
            .map_err(DebianError::Root)?;
        let (suite, choice) = choose(&apt, spec, &mirror)?;
        store(cache, &apt, &suite, &choice, progress)
    };
    work().map_err(|error| match error {
        DebianError::Root(source) => cache.write_error(source).into(),
        other => other,
    })
}

/// Finds the newest kernel that fits, and the suite it is in.
fn choose(
    apt: &Apt<'_>,
    spec: &DebianSpec,
    mirror: &Mirror,
) -> Result<(Release, Choice), DebianError> {
    let prefix = match spec {
        DebianSpec::Version(prefix) => Some(prefix.as_str()),
        _ => None,
    };
    let mut looked_in = Vec::new();
    let mut available = Vec::new();
    for suites in suites_of(apt, spec)? {
        let missing = apt.update_packages(&suites)?;
        if let (DebianSpec::Suite(suite), false) = (spec, missing.is_empty()) {
            return Err(DebianError::NoSuchSuite {
                suite: suite.clone(),
                mirror: mirror.uri.clone(),
                existing: existing_suites(apt)?,
            });
        }
        let mut best: Option<(Release, Choice)> = None;
        for suite in suites.into_iter().filter(|suite| !missing.contains(suite)) {
            let index = apt.index(&suite)?;
            if let Some(choice) = index.newest(prefix)
                && best
                    .as_ref()
                    .is_none_or(|(_, best)| choice.is_better_than(best))
            {
                best = Some((apt.release(&suite)?, choice));
            }
            available.extend(index.series());
            looked_in.push(suite);
        }
        if let Some(best) = best {
            return Ok(best);
        }
    }
    available.sort_by(|a, b| version::compare(b, a));
    available.dedup();
    Err(DebianError::NoKernel {
        spec: spec.to_string(),
        suites: looked_in,
        available,
    })
}

/// The suites to look in: groups in order of preference, each asked for at once.
///
/// The stable release's own name is asked of the mirror. The other suites are then asked for by name, since
/// mirrors and the caches before them may be weeks behind in the aliases (`stable-backports`).
fn suites_of(apt: &Apt<'_>, spec: &DebianSpec) -> Result<Vec<Vec<String>>, DebianError> {
    match spec {
        DebianSpec::Suite(suite) => Ok(vec![vec![suite.clone()]]),
        DebianSpec::Newest => {
            apt.update_releases(&["stable".to_owned()])?;
            let stable = apt.release("stable")?.codename;
            Ok(vec![vec![format!("{stable}-backports")], vec![stable]])
        }
        DebianSpec::Version(_) => {
            apt.update_releases(&["stable".to_owned(), "oldstable".to_owned()])?;
            let stable = apt.release("stable")?.codename;
            let mut suites = vec![format!("{stable}-backports"), stable, "sid".to_owned()];
            // Its backports move to the archive some time after the next release.
            if let Ok(oldstable) = apt.release("oldstable") {
                suites.push(format!("{}-backports", oldstable.codename));
            }
            Ok(vec![suites])
        }
    }
}

/// The suites that a mirror has, by codename, for a message.
fn existing_suites(apt: &Apt<'_>) -> Result<Vec<String>, DebianError> {
    let roles = ["oldstable", "stable", "testing", "unstable", "experimental"].map(str::to_owned);
    let missing = apt.update_releases(&roles)?;
    let there = roles.iter().filter(|role| !missing.contains(role));
    let mut suites: Vec<String> = there
        .filter_map(|role| Some(apt.release(role).ok()?.codename))
        .collect();
    let backports: Vec<String> = suites
        .iter()
        .take(2)
        .map(|suite| format!("{suite}-backports"))
        .collect();
    let missing = apt.update_releases(&backports)?;
    suites.extend(
        backports
            .into_iter()
            .filter(|suite| !missing.contains(suite)),
    );
    Ok(suites)
}

/// Downloads, takes apart and stores a kernel, unless it is in the cache already.
fn store(
    cache: &Cache,
    apt: &Apt<'_>,
    suite: &Release,
    choice: &Choice,
    progress: &dyn Progress,
) -> Result<Entry, DebianError> {
    let key = format!(
        "debian-{}-{}",
        choice.version.replace(':', "_"),
        choice.flavour
    );
    let partial = match cache.begin(&key, progress)? {
        Begin::Present(entry) => {
            progress.event(&Event::Note(format!(
                "kernel {key} is the newest that fits and is in the cache already"
            )));
            return Ok(*entry);
        }
        Begin::Absent(partial) => partial,
    };
    let debs = partial.dir().join("debs");
    fs::create_dir(&debs).map_err(|source| cache.write_error(source))?;
    apt.download(&choice.packages, &debs)?;
    let unpacked = unpack_all(&debs, &partial, progress)?;
    fs::remove_dir_all(&debs).map_err(|source| cache.write_error(source))?;
    let image = unpacked.vmlinuz.ok_or_else(|| DebianError::NoImage {
        packages: choice
            .packages
            .iter()
            .map(|package| package.name.clone())
            .collect(),
    })?;
    let name = choice.packages.first().map_or("", |package| &package.name);
    let image = ImageFile {
        path: PathBuf::from(format!("the vmlinuz of {name}")),
        bytes: image,
    };
    let without = match &*choice.missing {
        [] => String::new(),
        missing => format!(" without {}", missing.join(", ")),
    };
    let provenance = Provenance {
        source: format!(
            "Debian {} {name} {}{without}",
            suite.codename, choice.version
        ),
        origin: Origin::Debian {
            suite: suite.codename.clone(),
            role: suite.role.clone(),
            version: choice.version.clone(),
            flavour: choice.flavour.to_owned(),
            missing: choice.missing.clone(),
        },
    };
    let entry = import(partial, &image, unpacked.config, provenance, progress)?;
    if choice.missing.is_empty() {
        return Ok(entry);
    }
    check_incomplete(cache, entry, choice, progress)
}

/// Whether a kernel that lacks packages can run tests. If it can, a person is told what is gone.
fn check_incomplete(
    cache: &Cache,
    entry: Entry,
    choice: &Choice,
    progress: &dyn Progress,
) -> Result<Entry, DebianError> {
    let kernel = Kernel::new(entry.clone())?;
    let requirements = kernel.requirements()?;
    if !requirements.can_boot() {
        let lacks: Vec<String> = requirements
            .missing
            .iter()
            .map(ToString::to_string)
            .collect();
        cache.remove(entry.key())?;
        return Err(DebianError::Incomplete {
            version: choice.version.clone(),
            missing: choice.missing.clone(),
            lacks: lacks.join("; "),
        });
    }
    let mut lost = Vec::new();
    if !entry.metadata().has_modules {
        lost.push("it has no modules to load");
    }
    if requirements.unchecked {
        lost.push("its options are not known");
    }
    let lost = match &*lost {
        [] => "tests need nothing of them".to_owned(),
        lost => lost.join(", and "),
    };
    progress.event(&Event::Warning(format!(
        "kernel {} is without {}, which left Debian's archive: {lost}",
        kernel.release(),
        choice.missing.join(", ")
    )));
    Ok(entry)
}

fn unpack_all(
    debs: &Path,
    partial: &Partial<'_>,
    progress: &dyn Progress,
) -> Result<Unpacked, DebianError> {
    let mut unpacked = Unpacked::default();
    for entry in fs::read_dir(debs).map_err(|source| partial.write_error(source))? {
        let path = entry.map_err(|source| partial.write_error(source))?.path();
        let name = path
            .file_name()
            .map(|name| name.display().to_string())
            .unwrap_or_default();
        progress.event(&Event::Unpack { name });
        deb::unpack(&path, partial, &mut unpacked)?;
    }
    Ok(unpacked)
}

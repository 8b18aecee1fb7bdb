//! From what a person wrote, or didn't write, to a kernel.

use std::path::Path;

use crate::cache::{Cache, CacheError, Entry};
use crate::kernel::Kernel;
use crate::options::ResolveOptions;
use crate::progress::{Event, Progress};
use crate::sources::{DebianError, PathError, debian, path};
use crate::spec::{DebianSpec, KernelSpec};

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// It is neither a cache key nor a file.
    #[error(
        "`{name}` is neither a key in the kernel cache nor a file here{}",
        known_keys(known)
    )]
    NoSuchKeyOrFile {
        name: String,
        /// Keys that there are.
        known: Vec<String>,
    },
    /// The Debian source failed.
    #[error(transparent)]
    Debian(#[from] DebianError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

fn known_keys(known: &[String]) -> String {
    if known.is_empty() {
        "; the cache is empty (--kernel debian fetches a kernel)".to_owned()
    } else {
        format!("; the cache has: {}", known.join(", "))
    }
}

/// Finds the kernel that `spec` means and makes sure that it is in the cache.
///
/// Without a spec: the kernel with the newest release among those in the cache
/// that were fetched (of equal ones the last stored), else `debian`. A kernel that was given as a file is used when
/// it is named, and never by default. A Debian kernel that fits and is in the cache is used without asking the
/// network, unless [`ResolveOptions::refresh`] is set.
pub fn resolve(
    spec: Option<&KernelSpec>,
    cache: &Cache,
    options: &ResolveOptions,
    progress: &dyn Progress,
) -> Result<Kernel, ResolveError> {
    let entry = match spec {
        Some(spec) => find(spec, cache, options, progress)?,
        None => implicit(cache, options, progress)?,
    };
    progress.event(&Event::Done {
        key: entry.key().to_owned(),
        source: entry.metadata().source.clone(),
        dir: entry.dir().to_owned(),
    });
    Ok(Kernel::new(entry)?)
}

/// The usable kernel with the newest release that a source gave. By release, not by time, so that fetching an old
/// kernel for one run does not change what the next runs on; and without kernels given as files, for the same
/// reason.
fn newest(cache: &Cache, progress: &dyn Progress) -> Result<Option<Entry>, CacheError> {
    let mut newest: Option<Entry> = None;
    let mut given = Vec::new();
    for listed in cache.list()? {
        match listed.entry {
            Ok(entry) if entry.is_given() => given.push(listed.key),
            Ok(entry) if !entry.missing_packages().is_empty() => {}
            Ok(entry) => {
                let newer = newest.as_ref().is_none_or(|newest| {
                    debian::compare_versions(&entry.metadata().release, &newest.metadata().release)
                        .is_gt()
                });
                if newer {
                    newest = Some(entry);
                }
            }
            Err(error) => progress.event(&Event::Note(error.to_string())),
        }
    }
    if newest.is_none() && !given.is_empty() {
        progress.event(&Event::Note(format!(
            "the kernels in the cache were given as files, and are used when they are named (--kernel): {}",
            given.join(", ")
        )));
    }
    Ok(newest)
}

fn implicit(
    cache: &Cache,
    options: &ResolveOptions,
    progress: &dyn Progress,
) -> Result<Entry, ResolveError> {
    if let Some(entry) = newest(cache, progress)? {
        let key = entry.key();
        progress.event(&Event::Note(format!(
            "using kernel {key}, the newest that was fetched"
        )));
        return Ok(entry);
    }
    progress.event(&Event::Note(
        "the cache has no usable kernel that was fetched: fetching one from Debian".to_owned(),
    ));
    find(
        &KernelSpec::Debian(DebianSpec::Newest),
        cache,
        options,
        progress,
    )
}

fn find(
    spec: &KernelSpec,
    cache: &Cache,
    options: &ResolveOptions,
    progress: &dyn Progress,
) -> Result<Entry, ResolveError> {
    match spec {
        KernelSpec::Debian(debian) => {
            if !options.refresh
                && let Some(entry) = debian::cached(cache, debian)?
            {
                progress.event(&Event::Note(format!(
                    "using kernel {} from the cache for {debian}",
                    entry.key()
                )));
                return Ok(entry);
            }
            Ok(debian::fetch(cache, debian, options, progress)?)
        }
        KernelSpec::Path(file) => Ok(path::fetch(cache, file, progress)?),
        KernelSpec::Key(key) => match cache.get(key)? {
            Some(entry) => {
                entry.mark_used();
                Ok(entry)
            }
            None if Path::new(key).exists() => Ok(path::fetch(cache, Path::new(key), progress)?),
            None => Err(ResolveError::NoSuchKeyOrFile {
                name: key.clone(),
                known: cache.list()?.into_iter().map(|listed| listed.key).collect(),
            }),
        },
    }
}

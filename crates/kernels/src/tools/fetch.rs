//! Choosing, fetching and storing the packages of a tool.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::installed::Installed;
use super::simulation::Simulation;
use super::unpack::{make_links, unpack};
use super::{
    ExactPackage, Fetched, METADATA_FILE, METADATA_VERSION, Metadata, PARTIAL_PREFIX, Tool,
    ToolError, find, folder, source_of, trial,
};
use crate::cache::{Cache, FileLock};
use crate::progress::{Event, Progress};
use crate::sources::debian::apt::Apt;
use crate::sources::debian::release_sources::ReleaseSources;

/// The C library, which is one with the loader of the machine, so that it can't come from elsewhere.
const LIBC: &str = "libc6";

/// How often apt may name packages that stand in the way. Each time there are fewer.
const MAX_ROUNDS: usize = 8;

/// What would be fetched for a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub tool: Tool,
    /// The packages, the tool's own first.
    pub packages: Vec<ExactPackage>,
    /// Bytes to download.
    pub download_bytes: u64,
}

impl Offer {
    /// Where it comes from, in short.
    pub fn source(&self) -> String {
        source_of(&self.packages)
    }

    fn key(&self) -> String {
        let all: Vec<String> = self.packages.iter().map(ExactPackage::for_apt).collect();
        let version = self
            .packages
            .first()
            .map_or("", |package| &package.version)
            .replace(':', "_");
        let sum = crc32fast::hash(all.join("\n").as_bytes());
        format!("{}{version}-{sum:08x}", self.tool.key_prefix())
    }
}

/// Finds out what [`fetch`] would fetch. `machine_root` is the root folder of the machine whose apt sources and
/// installed packages are read: `/`.
pub fn offer(
    cache: &Cache,
    tool: Tool,
    machine_root: &Path,
    progress: &dyn Progress,
) -> Result<Offer, ToolError> {
    let lock = lock(cache, tool, progress)?;
    with_apt(cache, tool, machine_root, &lock, progress, |apt| {
        choose(apt, tool, machine_root, cache)
    })
}

/// Fetches a tool into the cache, with the libraries that the machine lacks, and tries it out. One that is the same as
/// what can be had is taken as it is, if it runs.
pub fn fetch(
    cache: &Cache,
    tool: Tool,
    machine_root: &Path,
    progress: &dyn Progress,
) -> Result<Fetched, ToolError> {
    let lock = lock(cache, tool, progress)?;
    // The process that was waited for may have fetched it.
    if lock.waited
        && let Some(fetched) = find(cache, tool)
        && fetched.try_out().is_ok()
    {
        return Ok(fetched);
    }
    with_apt(cache, tool, machine_root, &lock, progress, |apt| {
        let offer = choose(apt, tool, machine_root, cache)?;
        store(cache, apt, &offer, progress)
    })
}

/// The lock of all who run apt, which is that of all who write tools too.
fn lock(cache: &Cache, tool: Tool, progress: &dyn Progress) -> Result<FileLock, ToolError> {
    let what = format!("fetching {}", tool.program());
    Ok(cache.lock("apt", &what, progress)?)
}

/// Prepares the private apt root of tools, and updates its package lists.
fn with_apt<T>(
    cache: &Cache,
    tool: Tool,
    machine_root: &Path,
    lock: &FileLock,
    progress: &dyn Progress,
    work: impl FnOnce(&Apt<'_>) -> Result<T, ToolError>,
) -> Result<T, ToolError> {
    let in_own_words = |error| ToolError::from_debian(error, tool, cache);
    let sources = ReleaseSources::of_machine(machine_root).map_err(in_own_words)?;
    let root = cache.root().join("apt/tools");
    let suites = sources.suites().join(", ");
    progress.event(&Event::Resolving(format!("{} in {suites}", tool.package())));
    let mirror = sources.mirror();
    let apt = Apt::prepare_at(root, &mirror, "", lock, progress)
        .map_err(|source| cache.write_error(source))?;
    apt.update_from(&sources.file(), &suites)
        .map_err(in_own_words)?;
    work(&apt)
}

/// The packages that a tool needs and that the machine lacks, its own first.
fn choose(
    apt: &Apt<'_>,
    tool: Tool,
    machine_root: &Path,
    cache: &Cache,
) -> Result<Offer, ToolError> {
    let in_own_words = |error| ToolError::from_debian(error, tool, cache);
    let mut installed = read_installed(machine_root, tool)?;
    let mut left = Vec::new();
    for _ in 0..MAX_ROUNDS {
        apt.set_installed(&installed.status())
            .map_err(|source| cache.write_error(source))?;
        let printed = apt.simulate_install(tool.package()).map_err(in_own_words)?;
        let simulation = Simulation::parse(&printed);
        if simulation.removes.is_empty() {
            let packages = packages_of(simulation, tool)?;
            let files = apt.files_to_fetch(tool.package()).map_err(in_own_words)?;
            return Ok(Offer {
                tool,
                packages,
                download_bytes: total_bytes(&files),
            });
        }
        installed.forget(&simulation.removes);
        left = simulation.removes;
    }
    Err(ToolError::Unresolvable {
        package: tool.package(),
        left,
    })
}

fn read_installed(machine_root: &Path, tool: Tool) -> Result<Installed, ToolError> {
    let path = machine_root.join("var/lib/dpkg/status");
    let bytes = fs::read(&path).map_err(|source| ToolError::Read { path, source })?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(Installed::read(&text, tool.own_packages()))
}

fn packages_of(simulation: Simulation, tool: Tool) -> Result<Vec<ExactPackage>, ToolError> {
    let mut packages: Vec<ExactPackage> = simulation
        .installs
        .into_iter()
        .map(|install| ExactPackage {
            name: install.name,
            version: install.version,
        })
        .collect();
    if let Some(libc) = packages.iter().find(|package| package.name == LIBC) {
        return Err(ToolError::OtherLibc {
            package: tool.package(),
            libc: libc.name.clone(),
            version: libc.version.clone(),
        });
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    packages.sort_by_key(|package| package.name != tool.package());
    Ok(packages)
}

/// Sums up the third column.
fn total_bytes(files: &str) -> u64 {
    let sizes = files
        .lines()
        .filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok());
    sizes.sum()
}

/// An entry that is being written; removed unless it gets its name.
struct Partial<'a> {
    dir: PathBuf,
    cache: &'a Cache,
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        // Gone already if it has its name. What can't be removed is swept by the next writer.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Downloads, unpacks, tries out, and gives the folder its name by one rename. The caller holds the lock of all
/// writers.
fn store(
    cache: &Cache,
    apt: &Apt<'_>,
    offer: &Offer,
    progress: &dyn Progress,
) -> Result<Fetched, ToolError> {
    let key = offer.key();
    let dir = folder(cache).join(&key);
    let present = Fetched::open(dir.clone()).filter(|fetched| fetched.try_out().is_ok());
    if let Some(fetched) = present {
        return Ok(fetched);
    }
    sweep(cache);
    let partial = Partial {
        dir: folder(cache).join(format!("{PARTIAL_PREFIX}{key}")),
        cache,
    };
    let program = partial.fill(apt, offer, progress)?;
    let metadata = Metadata {
        version: METADATA_VERSION,
        tool: offer.tool,
        program,
        packages: offer.packages.clone(),
        stored_unix_s: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_secs()),
    };
    let trial = Fetched {
        dir: partial.dir.clone(),
        metadata,
    };
    trial.try_out()?;
    partial
        .give_name(&dir, &trial.metadata)
        .map_err(|source| cache.write_error(source))?;
    remove_others(cache, offer.tool, &dir);
    Ok(Fetched {
        dir,
        metadata: trial.metadata.clone(),
    })
}

impl Partial<'_> {
    /// Downloads and unpacks; returns what is to be run, below the folder.
    fn fill(
        &self,
        apt: &Apt<'_>,
        offer: &Offer,
        progress: &dyn Progress,
    ) -> Result<PathBuf, ToolError> {
        let failed = |source| self.cache.write_error(source);
        let debs = self.dir.join("debs");
        fs::create_dir_all(&debs).map_err(failed)?;
        let tool = offer.tool;
        let exact: Vec<String> = offer.packages.iter().map(ExactPackage::for_apt).collect();
        apt.download_exactly(&offer.source(), &exact, offer.download_bytes, &debs)
            .map_err(|error| ToolError::from_debian(error, tool, self.cache))?;
        progress.event(&Event::Unpack {
            name: offer.source(),
        });
        let mut links = Vec::new();
        for entry in fs::read_dir(&debs).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            links.extend(unpack(&path, &self.dir, self.cache)?);
        }
        make_links(&links, &self.dir).map_err(failed)?;
        fs::remove_dir_all(&debs).map_err(failed)?;
        match tool {
            Tool::Busybox => Ok(PathBuf::from("usr/bin/busybox")),
            Tool::Qemu => self
                .write_starter(tool)
                .map_err(|error| failed(error).into()),
        }
    }

    /// A script that starts the program with the libraries beside it, wherever the folder is: they are for the program
    /// alone, and whoever starts it needs to know nothing of them.
    fn write_starter(&self, tool: Tool) -> io::Result<PathBuf> {
        let folders: Vec<PathBuf> = trial::library_folders(&self.dir)
            .iter()
            .filter_map(|folder| {
                Some(Path::new("$here").join(folder.strip_prefix(&self.dir).ok()?))
            })
            .collect();
        let path = self.dir.join(tool.program());
        fs::write(
            &path,
            starter(tool.program(), &trial::search_path(&folders)),
        )?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(PathBuf::from(tool.program()))
    }

    /// Adds the metadata, makes all durable, and renames.
    fn give_name(&self, dir: &Path, metadata: &Metadata) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(metadata).map_err(io::Error::other)?;
        fs::write(self.dir.join(METADATA_FILE), json)?;
        nix::unistd::syncfs(File::open(&self.dir)?)?;
        // One that is there doesn't run, or this one would not have been made.
        remove_tree(dir)?;
        fs::rename(&self.dir, dir)?;
        File::open(folder(self.cache))?.sync_all()
    }
}

/// `folders`: values for `LD_LIBRARY_PATH`, below `$here`.
fn starter(program: &str, folders: &str) -> String {
    let mut script = format!(
        "#!/bin/sh\n\
         # Starts {program} with the libraries beside it, which this machine lacks.\n\
         # Written by `cargo ktstr setup`.\n\
         here=${{0%/*}}\n"
    );
    if !folders.is_empty() {
        script += &format!(
            "LD_LIBRARY_PATH=\"{folders}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
             export LD_LIBRARY_PATH\n"
        );
    }
    script + &format!("exec \"$here/usr/bin/{program}\" \"$@\"\n")
}

/// Removes what dead processes left behind.
fn sweep(cache: &Cache) {
    remove_if(cache, |name| name.starts_with(PARTIAL_PREFIX));
}

/// Removes the other entries of a tool: this one is taken from now on. A machine that runs keeps the files that it has
/// open.
fn remove_others(cache: &Cache, tool: Tool, kept: &Path) {
    let kept = kept.file_name().and_then(|name| name.to_str());
    remove_if(cache, |name| {
        name.starts_with(tool.key_prefix()) && Some(name) != kept
    });
}

fn remove_if(cache: &Cache, condition: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(folder(cache)).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(&condition) {
            // Not worth failing for: it is tried again by the next writer.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> ExactPackage {
        ExactPackage {
            name: name.to_owned(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn the_key_changes_with_any_package() {
        let offer = |library_version| Offer {
            tool: Tool::Qemu,
            packages: vec![
                package("qemu-system-x86", "1:7.2+dfsg-7"),
                package("liba", library_version),
            ],
            download_bytes: 0,
        };
        assert!(offer("1").key().starts_with("qemu-1_7.2+dfsg-7-"));
        assert_eq!(offer("1").key(), offer("1").key());
        assert_ne!(offer("1").key(), offer("2").key());
        assert_eq!(
            offer("1").source(),
            "qemu-system-x86 1:7.2+dfsg-7 and 1 package more"
        );
    }

    #[test]
    fn the_tools_own_package_comes_first_and_another_libc_is_refused() {
        let simulate = |text| packages_of(Simulation::parse(text), Tool::Qemu);
        let packages = simulate(
            "Inst b (1 D [all])\nInst qemu-system-x86 (2 D [amd64])\nInst a [0] (3 D [all])\n",
        );
        let names: Vec<String> = packages
            .unwrap()
            .iter()
            .map(ExactPackage::for_apt)
            .collect();
        assert_eq!(names, ["qemu-system-x86=2", "a=3", "b=1"]);
        let error = simulate("Inst libc6 [2.36-9] (2.41-12 D [amd64])\n").unwrap_err();
        insta::assert_snapshot!(error, @r"
        qemu-system-x86 needs libc6 2.41-12, another C library than this machine has: upgrade the machine, or install qemu-system-x86 from where its own libraries come from
        ");
    }

    #[test]
    fn sizes_are_summed_up() {
        let files = "'http://m/a_1_all.deb' a_1_all.deb 100 SHA256:00\n'http://m/b.deb' b.deb 20 SHA256:00\nnonsense\n";
        assert_eq!(total_bytes(files), 120);
    }

    #[test]
    fn the_starter_finds_its_files_by_its_own_place() {
        insta::assert_snapshot!(starter("qemu", "$here/usr/lib:$here/usr/lib/x"), @r#"
        #!/bin/sh
        # Starts qemu with the libraries beside it, which this machine lacks.
        # Written by `cargo ktstr setup`.
        here=${0%/*}
        LD_LIBRARY_PATH="$here/usr/lib:$here/usr/lib/x${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
        export LD_LIBRARY_PATH
        exec "$here/usr/bin/qemu" "$@"

        "#);
        assert!(!starter("qemu", "").contains("LD_LIBRARY_PATH"));
    }
}

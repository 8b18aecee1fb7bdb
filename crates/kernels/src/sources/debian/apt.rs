//! The machine's own apt, run with a root of its own: sources, lists, cache and state under the kernel
//! cache. Proxies, certificates and keys stay the machine's; hooks don't run; the user's apt state isn't
//! touched.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::DebianError;
use super::mirror::Mirror;
use super::packages::{Index, Package};
use crate::cache::{CacheError, FileLock};
use crate::options::MIRROR_PATIENCE;
use crate::progress::{Event, Progress};

/// Settings that a command line can't make: lists are cleared, not set.
const CONFIG: &str = r#"// Written for each run.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Update::Error-Mode "any";
APT::Get::List-Cleanup "false";
APT::Get::AllowUnauthenticated "false";
APT::Architecture "amd64";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::GzipIndexes "false";
Acquire::Retries "1";
Acquire::http::Proxy::127.0.0.1 "DIRECT";
"#;

/// Index files of a suite: none (its signed Release file alone), or the list of packages.
const NO_TARGETS: &str = "None";
const PACKAGES: &str = "Packages";

/// How often a running apt is looked at.
const POLL: Duration = Duration::from_millis(50);
/// A mirror that sends less is given up: a kernel would take a day.
const MIN_BYTES_PER_S: u64 = 1 << 10;
/// How long a mirror may be slow before a person is told.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// Most bytes of a Release file that are read; the names are at its head.
const MAX_RELEASE_BYTES: u64 = 16 << 20;
/// Most of apt's messages that are kept.
const MAX_OUTPUT_BYTES: u64 = 64 << 10;

/// apt with its private root.
pub(crate) struct Apt<'a> {
    root: PathBuf,
    mirror: &'a Mirror,
    /// Held while apt runs; apt gets a handle to it as its stdin, so that it stays locked for as long as an
    /// apt lives whose parent was killed.
    lock: &'a FileLock,
    patience: Duration,
    progress: &'a dyn Progress,
}

/// What a suite's Release file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    pub(crate) codename: String,
    /// `Suite`: the role, such as `stable-backports`.
    pub(crate) role: String,
}

impl Release {
    /// The names in a Release file. One with a space in it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?
                .trim();
            let is_name = !value.is_empty() && !value.contains(char::is_whitespace);
            is_name.then(|| value.to_owned())
        };
        let codename = field("Codename")?;
        Some(Self {
            role: field("Suite").unwrap_or_else(|| codename.clone()),
            codename,
        })
    }
}

impl<'a> Apt<'a> {
    /// Makes the private root under `base`. Mirrors have a root each: file names in it don't tell them
    /// apart.
    pub(crate) fn prepare(
        base: &Path,
        mirror: &'a Mirror,
        lock: &'a FileLock,
        patience: Duration,
        progress: &'a dyn Progress,
    ) -> io::Result<Self> {
        let root = base.join(format!("{:08x}", crc32fast::hash(mirror.uri.as_bytes())));
        // What is installed on the machine does not matter here.
        let apt = Self::prepare_at(root, mirror, "", lock, progress)?;
        Ok(Self { patience, ..apt })
    }

    /// Makes the private root `root`, in which the packages of `installed` (the text of a dpkg status file) count as
    /// installed.
    pub(crate) fn prepare_at(
        root: PathBuf,
        mirror: &'a Mirror,
        installed: &str,
        lock: &'a FileLock,
        progress: &'a dyn Progress,
    ) -> io::Result<Self> {
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(dir))?;
        }
        fs::write(root.join("apt.conf"), CONFIG)?;
        let apt = Self {
            root,
            mirror,
            lock,
            patience: MIRROR_PATIENCE,
            progress,
        };
        apt.set_installed(installed)?;
        Ok(apt)
    }

    /// Replaces what counts as installed.
    pub(crate) fn set_installed(&self, status: &str) -> io::Result<()> {
        fs::write(self.root.join("status"), status)
    }

    /// Fetches the Release files alone.
    pub(crate) fn update_releases(&self, suites: &[String]) -> Result<Vec<String>, DebianError> {
        self.update(suites, NO_TARGETS)
    }

    /// Fetches the package lists too.
    pub(crate) fn update_packages(&self, suites: &[String]) -> Result<Vec<String>, DebianError> {
        self.update(suites, PACKAGES)
    }

    /// Asks the mirror for suites; answers which of them it doesn't have.
    fn update(&self, suites: &[String], targets: &str) -> Result<Vec<String>, DebianError> {
        let names = suites.join(", ");
        self.progress
            .event(&Event::Resolving(format!("kernels in Debian {names}")));
        self.update_from(
            &self.mirror.stanza(suites, targets),
            &format!("Debian {names}"),
        )
    }

    /// Fetches what a sources file names, the lists of `whose`; answers which suites are not there.
    pub(crate) fn update_from(
        &self,
        sources: &str,
        whose: &str,
    ) -> Result<Vec<String>, DebianError> {
        fs::write(self.sources(), sources).map_err(DebianError::Root)?;
        let mut command = self.command();
        command.arg("update");
        let name = format!("package lists of {whose}");
        let watch = Watch {
            dir: self.root.join("lists/partial"),
            name: &name,
            total_bytes: None,
        };
        let output = self.run(command, &watch)?;
        if output.success {
            return Ok(Vec::new());
        }
        let errors: Vec<&str> = output
            .stderr
            .lines()
            .filter(|line| line.starts_with("E:"))
            .collect();
        let missing: Vec<String> = errors
            .iter()
            .filter_map(|line| missing_suite(line))
            .collect();
        if missing.is_empty() || missing.len() != errors.len() {
            return Err(output.error("apt-get update", &self.mirror.uri));
        }
        Ok(missing)
    }

    /// What the Release file of a fetched suite says.
    pub(crate) fn release(&self, suite: &str) -> Result<Release, DebianError> {
        let none = || DebianError::NoRelease {
            suite: suite.to_owned(),
        };
        let path = ["InRelease", "Release"]
            .into_iter()
            .find_map(|name| self.list_file(&format!("_dists_{suite}_{name}")))
            .ok_or_else(none)?;
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_RELEASE_BYTES).read_to_end(&mut text))
            .map_err(|source| unreadable(path, source))?;
        Release::parse(&String::from_utf8_lossy(&text)).ok_or_else(none)
    }

    /// The kernels of a fetched suite.
    pub(crate) fn index(&self, suite: &str) -> Result<Index, DebianError> {
        let Some(path) = self.list_file(&format!("_dists_{suite}_main_binary-amd64_Packages"))
        else {
            return Ok(Index::default());
        };
        let read = || Index::read(BufReader::with_capacity(1 << 20, File::open(&path)?));
        read().map_err(|source| unreadable(path, source))
    }

    /// What installing a package would change, in the words of `apt-get --simulate`.
    pub(crate) fn simulate_install(&self, package: &str) -> Result<String, DebianError> {
        self.ask(&["--simulate"], package)
    }

    /// The files that installing a package would fetch, one a line: address, name, size, checksum.
    pub(crate) fn files_to_fetch(&self, package: &str) -> Result<String, DebianError> {
        self.ask(&["--print-uris", "--yes"], package)
    }

    fn ask(&self, how: &[&str], package: &str) -> Result<String, DebianError> {
        let mut command = self.command();
        command.args(["-qq", "install", "--no-install-recommends"]);
        command.args(how).arg(package);
        let watch = Watch {
            dir: self.root.join("lists/partial"),
            name: package,
            total_bytes: None,
        };
        let output = self.run(command, &watch)?;
        if output.success {
            Ok(output.stdout)
        } else {
            Err(output.error("apt-get install --simulate", &self.mirror.uri))
        }
    }

    /// Downloads packages into `dir`; their checksums are checked by apt against the signed lists.
    pub(crate) fn download(&self, packages: &[Package], dir: &Path) -> Result<(), DebianError> {
        let name = packages.first().map_or("", |package| &package.name);
        let exact: Vec<String> = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        let total_bytes = packages.iter().map(|package| package.size_bytes).sum();
        self.download_exactly(name, &exact, total_bytes, dir)
    }

    /// [`Apt::download`] for packages as apt writes them, `name=version`. `name` is what is told of.
    pub(crate) fn download_exactly(
        &self,
        name: &str,
        packages: &[String],
        total_bytes: u64,
        dir: &Path,
    ) -> Result<(), DebianError> {
        let mut command = self.command();
        command.current_dir(dir).arg("download").args(packages);
        let watch = Watch {
            dir: dir.to_owned(),
            name,
            total_bytes: Some(total_bytes),
        };
        let output = self.run(command, &watch)?;
        if output.success {
            Ok(())
        } else {
            Err(output.error("apt-get download", &self.mirror.uri))
        }
    }

    fn sources(&self) -> PathBuf {
        // The suffix tells apt which form it has.
        self.root.join("mirror.sources")
    }

    fn list_file(&self, suffix: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(self.root.join("lists")).ok()?;
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| path.to_str().is_some_and(|path| path.ends_with(suffix)))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .env("LC_ALL", "C")
            .arg("-q")
            .arg("-c")
            .arg(self.root.join("apt.conf"));
        let mut option = |name: &str, value: &Path| {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        };
        option("Dir::Etc::sourcelist", &self.sources());
        for name in [
            "Dir::Etc::sourceparts",
            "Dir::Etc::preferences",
            "Dir::Etc::preferencesparts",
        ] {
            option(name, Path::new("/dev/null"));
        }
        option("Dir::State::Lists", &self.root.join("lists"));
        option("Dir::State::status", &self.root.join("status"));
        option("Dir::Cache", &self.root.join("cache"));
        command
    }

    /// Runs apt to its end, telling of the bytes that arrive.
    fn run(&self, mut command: Command, watch: &Watch<'_>) -> Result<Output, DebianError> {
        let stdin = self.lock.share().map_err(DebianError::Root)?;
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = Running(command.spawn().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DebianError::NoApt,
            _ => DebianError::Spawn { source },
        })?);
        let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
        let stdout = thread::spawn(move || stdout.map_or_else(String::new, read_text));
        let stderr = thread::spawn(move || stderr.map_or_else(String::new, read_text));
        let status = self.wait(&mut child, watch)?;
        Ok(Output {
            success: status.success(),
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        })
    }

    fn wait(
        &self,
        child: &mut Running,
        watch: &Watch<'_>,
    ) -> Result<std::process::ExitStatus, DebianError> {
        let mut seen_bytes = 0;
        let mut window = Window::new();
        loop {
            let status = child
                .0
                .try_wait()
                .map_err(|source| DebianError::Spawn { source })?;
            let done_bytes = watch.done_bytes();
            // It falls when a file that is whole is moved away.
            if done_bytes != seen_bytes {
                window.add(done_bytes.saturating_sub(seen_bytes), self.patience);
                seen_bytes = done_bytes;
                self.progress.event(&Event::Download {
                    name: watch.name.to_owned(),
                    done_bytes,
                    total_bytes: watch.total_bytes,
                });
            }
            if let Some(status) = status {
                return Ok(status);
            }
            self.judge(&mut window)?;
            thread::sleep(POLL);
        }
    }

    /// Tells of a mirror that is slow, and gives it up when it has been for too long.
    fn judge(&self, window: &mut Window) -> Result<(), DebianError> {
        let waited = window.since.elapsed();
        if waited > self.patience {
            return Err(DebianError::Stalled {
                mirror: self.mirror.uri.clone(),
                limit_s: self.patience.as_secs(),
                arrived_bytes: window.arrived_bytes,
            });
        }
        if waited > TELL_AFTER && window.told_s != waited.as_secs() {
            window.told_s = waited.as_secs();
            self.progress.event(&Event::Slow {
                mirror: self.mirror.uri.clone(),
                waited_s: window.told_s,
                arrived_bytes: window.arrived_bytes,
                limit_s: self.patience.as_secs(),
            });
        }
        Ok(())
    }
}

/// What arrived since the mirror was fast enough last.
struct Window {
    since: Instant,
    arrived_bytes: u64,
    told_s: u64,
}

impl Window {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            arrived_bytes: 0,
            told_s: 0,
        }
    }

    /// Begins again once what a whole window must have has arrived.
    fn add(&mut self, bytes: u64, patience: Duration) {
        self.arrived_bytes += bytes;
        if self.arrived_bytes >= MIN_BYTES_PER_S * patience.as_secs() {
            *self = Self::new();
        }
    }
}

fn unreadable(path: PathBuf, source: io::Error) -> DebianError {
    CacheError::Read { path, source }.into()
}

/// A child that doesn't outlive its owner.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a child that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The folder whose growth is the progress.
struct Watch<'a> {
    dir: PathBuf,
    name: &'a str,
    total_bytes: Option<u64>,
}

impl Watch<'_> {
    fn done_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return 0;
        };
        entries
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|found| found.len())
            .sum()
    }
}

/// How a run ended.
struct Output {
    success: bool,
    stdout: String,
    stderr: String,
}

impl Output {
    fn error(&self, what: &'static str, mirror: &str) -> DebianError {
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("E:"))
            .collect();
        let message = if lines.is_empty() {
            self.stderr.trim().to_owned()
        } else {
            lines.join("\n")
        };
        if message.contains("No space left on device") {
            return DebianError::Root(io::ErrorKind::StorageFull.into());
        }
        DebianError::Apt {
            what,
            mirror: mirror.to_owned(),
            message,
        }
    }
}

/// Reads to the end, so that apt never blocks, but keeps only so much.
pub(crate) fn read_text(pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let mut pipe = BufReader::new(pipe);
    // What can't be read is missing from a message, no more.
    let _ = pipe.by_ref().take(MAX_OUTPUT_BYTES).read_to_end(&mut kept);
    while let Ok(bytes) = pipe.fill_buf() {
        let count = bytes.len();
        if count == 0 {
            break;
        }
        pipe.consume(count);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// `E: The repository 'URI SUITE Release' does not have a Release file.`
pub(super) fn missing_suite(line: &str) -> Option<String> {
    let quoted = line
        .strip_suffix("does not have a Release file.")?
        .trim_end();
    let quoted = quoted
        .split_once('\'')?
        .1
        .strip_suffix('\'')?
        .strip_suffix(" Release")?;
    quoted.rsplit(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_suite_is_told_from_other_errors() {
        let line = "E: The repository 'http://mirror.example/debian nosuch Release' does not have a Release file.";
        assert_eq!(missing_suite(line).as_deref(), Some("nosuch"));
        let line = "E: Failed to fetch http://mirror.example/debian/dists/trixie/InRelease  Could not resolve 'mirror.example'";
        assert_eq!(missing_suite(line), None);
    }
}

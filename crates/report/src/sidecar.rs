//! The sidecar: one JSON file a test, with everything that its report needs.

use std::path::{Path, PathBuf};

use ktstr_topology::{NumaMemory, Topology};
use serde::{Deserialize, Serialize};

use crate::file_names;
use crate::{AssertResult, Expected, Outcome, SchedulerReport};

/// Version of the sidecar's layout. A reader refuses a larger one; fields are only ever added under the
/// same number.
pub const SCHEMA_VERSION: u32 = 1;

/// The kernel that a test ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// `uname -r`.
    pub release: String,
    /// Key in the kernel cache.
    pub key: String,
    /// Where it came from, for a person: `Debian trixie-backports 7.3.4-1`, or a path.
    pub source: String,
}

/// The engine that ran the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// The name of the engine or of the runner: `tcg`, `kvm`.
    pub name: String,
    /// What it is, with its version: `QEMU 7.2.22, one emulation thread`.
    pub detail: String,
}

impl EngineInfo {
    /// The name for a test without a machine.
    pub const HOST: &str = "host";
}

/// A boot that failed before the guest spoke by a fault of the emulator, and was tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootAttempt {
    /// How the machine ended.
    pub end: String,
    /// The end of its console.
    pub console_tail: String,
    /// The emulator's fault, as a clause: `a vCPU met a breakpoint that the kernel had patched away`.
    #[serde(default)]
    pub fault: String,
}

/// Where the time went, in host wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// Kernel resolved, initramfs packed.
    pub prepare_ms: u64,
    /// Waited for host CPUs, before the machine was started.
    #[serde(default)]
    pub queued_ms: u64,
    /// From starting the machine to the guest's first frame.
    pub boot_ms: u64,
    /// From there to the result.
    pub test_ms: u64,
    /// From the result to the machine being gone.
    pub teardown_ms: u64,
    /// The whole test.
    pub total_ms: u64,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The test's body returned an error or panicked, or a check did not hold.
    Test,
    /// The guest died: kernel panic, reset, or the watchdog ended it.
    Guest,
    /// The harness could not run the test.
    Harness,
    /// This host lacks what the test needs.
    Host,
}

/// Why a test failed otherwise than by a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// One line: what failed.
    pub summary: String,
    /// The rest: the chain of causes, a backtrace.
    pub detail: String,
}

/// Everything about one run of one test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// The run that this test belongs to; unique, and later runs sort later.
    pub run_id: String,
    /// Path of the test in Rust, `crate::module::test`.
    pub test: String,
    /// What it came to.
    pub outcome: Outcome,
    /// Why, when it was not a check that decided.
    pub failure: Option<Failure>,
    /// Checks and worker reports.
    pub result: AssertResult,
    /// What became of the scheduler under test, if the test has one. Of a scheduler that the test has attached more than
    /// once, the first life that did not end well; if all did, the last.
    #[serde(default)]
    pub scheduler: Option<SchedulerReport>,
    /// Its other lives, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_lives: Vec<SchedulerReport>,
    /// What was expected to go wrong, if anything.
    #[serde(default)]
    pub expected: Option<Expected>,
    /// The kernel, once resolved.
    pub kernel: Option<KernelInfo>,
    /// The engine, once chosen.
    pub engine: Option<EngineInfo>,
    /// Declared shape of the machine.
    pub topology: Topology,
    /// Memory of the machine.
    pub memory_mib: u64,
    /// Memory of its NUMA nodes, where something other than its size was declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa: Option<NumaMemory>,
    /// Whether the test asked for a kernel that chooses its own addresses (KASLR).
    #[serde(default)]
    pub kaslr: bool,
    /// Start of the test, in milliseconds since 1970-01-01 UTC.
    pub started_unix_ms: u64,
    /// Where the time went.
    pub timings: Timings,
    /// Memory of the engine's process beyond guest RAM when the result came, where it can be told.
    #[serde(default)]
    pub engine_memory_bytes: Option<u64>,
    /// Boots that failed before the guest spoke, by a fault of the emulator.
    pub boot_retries: Vec<BootAttempt>,
    /// The end of the guest's console (COM1).
    pub console_tail: String,
    /// What the test printed in the guest, standard output and error in order of arrival.
    pub output: String,
    /// Why the scheduler under test failed, in one line: what happened, to whom, because of what. Empty for a test
    /// that is green, and where the scheduler is not what failed.
    #[serde(default)]
    pub cause: String,
    /// What the kernel looked like when it failed, in lines for a person: sched_ext, and the CPUs with who ran and
    /// who waited. The whole of it is beside the sidecar, in [`Self::dump_path`]. Empty for a test that is green.
    #[serde(default)]
    pub failure_dump: String,
    /// The BPF maps at that moment, in lines for a person, without constants of the build.
    #[serde(default)]
    pub failure_maps: String,
    /// Remarks of the harness: frames that failed their checksum, output that was cut.
    pub remarks: Vec<String>,
}

impl Sidecar {
    /// Where the failure dump of the test is whose sidecar is at `path`.
    pub fn dump_path(path: &Path) -> PathBuf {
        file_names::dump(path)
    }

    /// Where process `pid` logs what it does for a test (`KTSTR_LOG`), in the folder of its run.
    pub fn log_path(run: &Path, test: &str, pid: u32) -> PathBuf {
        file_names::log(run, test, pid)
    }

    /// The command that runs only this test again, on the same kernel and engine.
    pub fn rerun_command(&self) -> String {
        let mut command = "cargo ktstr test".to_owned();
        // A test for the host only has no kernel of its own, and no engine.
        if let Some(kernel) = self.kernel.as_ref().filter(|kernel| !kernel.key.is_empty()) {
            command.push_str(" --kernel ");
            command.push_str(&shell_word(&kernel.key));
        }
        let is_host = |engine: &&EngineInfo| engine.name == EngineInfo::HOST;
        if let Some(engine) = self.engine.as_ref().filter(|engine| !is_host(engine)) {
            command.push_str(" --engine ");
            command.push_str(&shell_word(&engine.name));
        }
        let filter = match self.test.split_once("::") {
            // The crate's name has `_` where its binary's may have `-`.
            Some((krate, test)) if krate.contains('_') => {
                let binary = krate.replace('_', "[-_]");
                format!("binary(/^{binary}$/) & test(={test})")
            }
            Some((krate, test)) => format!("binary(={krate}) & test(={test})"),
            None => format!("test(={})", self.test),
        };
        command.push_str(" -E ");
        command.push_str(&shell_word(&filter));
        command
    }
}

/// `text` as one word of a POSIX shell: in quotes if it needs them.
pub fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:,+@%=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

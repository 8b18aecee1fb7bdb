//! What the guest is told to do.

use ktstr_topology::{NumaMemory, Topology};
use serde::{Deserialize, Serialize};

/// The virtio-console port that carries an interactive shell: port 0, which the kernel shows as this tty.
pub const SHELL_PORT: &str = "/dev/hvc0";

/// How much the engine itself may stretch the guest's time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimingSlack {
    /// Added to every bound on a gap.
    pub gap_ms: u64,
    /// Added to every bound on the spread within a cgroup, in percentage points.
    pub spread_pct: f64,
    /// Where it comes from, for the report.
    pub why: String,
}

/// A kernel module to load before anything else runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name, for messages.
    pub name: String,
    /// Its file in the guest, uncompressed.
    pub path: String,
}

/// A test to be run by the guest as a host, in a machine of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NestedTest {
    /// Its full name in the binary's own registry.
    pub name: String,
    /// Key of the kernel in the cache at [`NestedTest::CACHE`].
    pub kernel: String,
    /// The run that it belongs to.
    pub run_id: String,
    /// How far the guest's own timing can be trusted.
    pub slack: TimingSlack,
}

impl NestedTest {
    /// Where the guest finds the kernel cache.
    pub const CACHE: &'static str = "/ktstr/cache";
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// A test in a machine inside this one.
    Nested(NestedTest),
    /// The test of this name in the binary's own registry.
    Test {
        /// Its full name.
        name: String,
        /// How far its timing can be trusted.
        slack: TimingSlack,
    },
    /// A shell on [`SHELL_PORT`], or one command with its output in frames.
    Shell {
        /// Program and arguments of the shell.
        argv: Vec<String>,
        /// Whether the shell talks to a person on [`SHELL_PORT`].
        interactive: bool,
    },
}

/// The whole of what a guest is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Declared shape of the machine.
    pub topology: Topology,
    /// Memory of its NUMA nodes.
    pub numa: NumaMemory,
    /// Modules, in load order.
    pub modules: Vec<Module>,
    /// Environment of the test, beyond the kernel's own.
    pub environment: Vec<(String, String)>,
    /// What to run.
    pub task: Task,
}

/// The job can't be read: it was not written by this build.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the job file can't be read: it was not written by this build of the binary")]
pub struct JobError(#[source] postcard::Error);

impl Job {
    /// Where the guest finds it.
    pub const PATH: &'static str = "/ktstr/job";

    /// Its file form.
    pub fn encode(&self) -> Result<Vec<u8>, JobError> {
        postcard::to_stdvec(self).map_err(JobError)
    }

    /// Reads the file form.
    pub fn decode(bytes: &[u8]) -> Result<Self, JobError> {
        postcard::from_bytes(bytes).map_err(JobError)
    }
}

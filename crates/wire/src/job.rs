//! What the guest is told to do.

use ktstr_report::TimingSlack;
use ktstr_topology::{NumaMemory, Topology};
use serde::{Deserialize, Serialize};

/// The virtio-console port that carries an interactive shell: port 0, which the kernel shows as this tty.
pub const SHELL_PORT: &str = "/dev/hvc0";

/// The kernel modules to load before anything else runs. They are files of the initramfs, like the list that names them:
/// without them there may be no link on which a job could come.
#[derive(Clone, Copy, Debug)]
pub struct Modules;

impl Modules {
    /// The list: names, one a line, in load order. It is there in every guest, if only empty.
    pub const LIST: &'static str = "/ktstr/modules.list";

    /// Where the guest finds a module, uncompressed.
    pub fn path(name: &str) -> String {
        format!("/ktstr/modules/{name}.ko")
    }
}

/// A test to be run by the guest as a host, in a machine of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InnerTest {
    /// Its full name in the binary's own registry.
    pub name: String,
    /// Key of the kernel in the cache at [`InnerTest::CACHE`].
    pub kernel: String,
    /// The run that it belongs to.
    pub run_id: String,
    /// How far the guest's own timing can be trusted.
    pub slack: TimingSlack,
    /// Program of the scheduler under test, in the guest.
    pub scheduler: Option<String>,
}

impl InnerTest {
    /// Where the guest finds the kernel cache.
    pub const CACHE: &'static str = "/ktstr/cache";

    /// What makes this binary, and those that it starts, such a host.
    pub fn environment(&self) -> [(String, String); 3] {
        [
            ("KTSTR_ENGINE", "kvm"),
            ("KTSTR_KERNEL", &self.kernel),
            ("KTSTR_CACHE_DIR", Self::CACHE),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }
}

/// How a scheduler is started in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchedulerStart {
    /// A program that stays for as long as the scheduler is attached: its path and arguments.
    Program(Vec<String>),
    /// One that is part of the kernel: shell commands that switch it on and off.
    Builtin {
        /// Switches it on.
        enable: String,
        /// Switches it off.
        disable: String,
        /// Ends with status 0 while it is on, and with another while it is off.
        is_enabled: Option<String>,
    },
}

/// The scheduler under test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerJob {
    /// Name that the test gave it, for messages.
    pub name: String,
    /// How it is started.
    pub start: SchedulerStart,
    /// Beginning of the name that the kernel has for it.
    pub ops: Option<String>,
    /// How long its tasks may wait until the kernel's watchdog disables it, if the test says.
    pub watchdog: Option<WatchdogJob>,
}

/// The limit of the kernel's watchdog, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogJob {
    /// How long a runnable task may wait.
    pub timeout_ms: u64,
    /// `timeout_ms` among what a scheduler loads as its ops, or why that is not known.
    pub field: Result<OpsField, String>,
}

/// A number of 32 bits in the value of the BPF map that holds a scheduler's ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpsField {
    /// Where in the value it begins.
    pub offset_bytes: u64,
    /// How big the value is.
    pub value_bytes: u64,
}

impl SchedulerJob {
    /// Where the guest finds its program.
    pub const FOLDER: &'static str = "/ktstr/scheduler";
    /// The shell for commands.
    pub const SHELL: &'static str = "/ktstr/scheduler/busybox";
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// A test in a machine inside this one.
    InnerHost(InnerTest),
    /// The test of this name in the binary's own registry.
    Test {
        /// Its full name.
        name: String,
        /// How far its timing can be trusted.
        slack: TimingSlack,
        /// The scheduler that it runs under, if not the kernel's own.
        scheduler: Option<SchedulerJob>,
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
    /// Environment of the test, beyond the kernel's own.
    pub environment: Vec<(String, String)>,
    /// What to run.
    pub task: Task,
}

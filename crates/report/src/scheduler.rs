//! What became of the scheduler under test, and what a test may expect of it.

use std::borrow::Cow;
use std::fmt;

use ktstr_declaration::Check;
use serde::{Deserialize, Serialize};

/// How a scheduler's run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchedulerEnd {
    /// It was never attached: it could not be loaded, ended before, or took too long.
    NeverLoaded,
    /// Attached until the harness ended it, after the test's body.
    Attached,
    /// Attached until the test detached it on purpose.
    Detached,
    /// Its process died while it was attached.
    Died,
    /// Its process exited with status 0 while it was attached.
    Left,
    /// The kernel's watchdog disabled it: a runnable task was not run, or it did not answer.
    Stalled,
    /// The kernel disabled it for an error: its own `scx_bpf_error()`, or one that the kernel found.
    Error,
    /// It was disabled without an error, and its process loaded it again: some of the test ran without it.
    Reloaded,
    /// It is no longer attached, without an error, though its process lives.
    FellBack,
    /// It is switched on by a command, and nothing shows that the command did so.
    Unproven,
    /// The machine ended before it could be told.
    #[default]
    Unknown,
}

impl SchedulerEnd {
    /// Whether it was attached as long as it was meant to be.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Attached | Self::Detached)
    }

    /// As a clause about the scheduler: `was disabled by the kernel's watchdog`.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::NeverLoaded => "was never attached",
            Self::Attached => "was attached to the end of the test",
            Self::Detached => "was attached until the test detached it",
            Self::Died => "died",
            Self::Left => "exited (status 0) before the test ended",
            Self::Stalled => "was disabled by the kernel's watchdog",
            Self::Error => "was disabled by the kernel for an error",
            Self::Reloaded => "was disabled and loaded again",
            Self::FellBack => "is no longer attached, though its process lives",
            Self::Unproven => "was not shown to be attached",
            Self::Unknown => "was still there when the machine ended",
        }
    }
}

/// One time that the kernel disabled a scheduler, and why, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelExit {
    /// `enum scx_exit_kind` in kernel/sched/ext_internal.h: 64 for unregistered from user space, 1024 and more
    /// for an error. Where the kernel's dump doesn't say it, it is that of the reason.
    #[serde(default)]
    pub kind: Option<u32>,
    /// `scx_exit_reason()` in kernel/sched/ext.c: `runnable task stall`, `scx_bpf_error`, `unregistered
    /// from user space`.
    pub reason: String,
    /// What it adds: `worker[123] failed to run for 2.720s`. Empty if it adds nothing.
    pub message: String,
    /// When, in guest time since boot; `None` where the kernel's log has no time.
    #[serde(default)]
    pub uptime_ms: Option<u64>,
}

impl KernelExit {
    /// `SCX_EXIT_ERROR`, the first kind of `enum scx_exit_kind` that is an error.
    const FIRST_ERROR: u32 = 1024;
    /// `SCX_EXIT_ERROR_STALL`.
    const STALL: u32 = 1026;
    /// How `scx_exit_reason()` begins what is no error: unregistered from user space, from BPF, from the main
    /// kernel, or the SysRq key.
    const NO_ERROR: [&str; 2] = ["unregistered from ", "disabled by sysrq-"];

    /// Whether the kernel disabled it for an error. A reason that is not known counts as one.
    pub fn is_error(&self) -> bool {
        let known = |start: &&str| self.reason.starts_with(start);
        match self.kind {
            Some(kind) => kind >= Self::FIRST_ERROR,
            None => !Self::NO_ERROR.iter().any(known),
        }
    }

    /// Whether the kernel's watchdog disabled it.
    pub fn is_stall(&self) -> bool {
        match self.kind {
            Some(kind) => kind == Self::STALL,
            None => self.reason == "runnable task stall",
        }
    }

    /// Whether user space disabled it: its own process, or the harness as it ended that.
    pub fn is_from_user_space(&self) -> bool {
        self.reason == "unregistered from user space"
    }

    /// The exit that decides what became of the scheduler: the first error, else the first that user space did not
    /// cause, else the first.
    pub fn decisive(exits: &[Self]) -> Option<&Self> {
        let error = exits.iter().find(|exit| exit.is_error());
        let not_user_space = || exits.iter().find(|exit| !exit.is_from_user_space());
        error.or_else(not_user_space).or(exits.first())
    }
}

impl fmt::Display for KernelExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.message.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.message)
        }
    }
}

/// What a program did that ended by itself before its scheduler was attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLoad {
    /// How often it had the kernel load or attach something by bpf(2); `None` if its calls could not be traced.
    pub bpf_calls: Option<u64>,
    /// The last of these calls, if the kernel refused it. Earlier ones that were refused are how libbpf finds out what
    /// a kernel can do.
    pub refused: Option<RefusedCall>,
}

/// A call of bpf(2) that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCall {
    /// `BPF_PROG_LOAD` and others of `enum bpf_cmd` (include/uapi/linux/bpf.h).
    pub command: String,
    /// `EACCES`, by the name of errno(3).
    pub errno: String,
}

impl fmt::Display for RefusedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the kernel refused {}: {}", self.command, self.errno)
    }
}

/// Everything about the scheduler of one test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerReport {
    /// Name that the test gave it.
    pub name: String,
    /// Which of the scheduler's lives in this test it is, from 1: a new one begins each time that the test attaches it.
    #[serde(default = "first_life")]
    pub life: u32,
    /// The command that started it in the guest.
    pub command: String,
    /// Name that the kernel has for it (/sys/kernel/sched_ext/root/ops), once it was attached.
    pub ops: Option<String>,
    /// Guest time from its start until it was attached.
    pub attach_ms: Option<u64>,
    /// How it ended.
    pub end: SchedulerEnd,
    /// What was seen of the end, as a clause: `its process was killed by signal 6`.
    pub detail: String,
    /// Why the kernel disabled it: the one of [`exits`](Self::exits) that [decides](KernelExit::decisive).
    pub exit: Option<KernelExit>,
    /// Every time that the kernel disabled it since it was attached, in order. The last may be the harness's
    /// doing, when the test had ended.
    #[serde(default)]
    pub exits: Vec<KernelExit>,
    /// How often the kernel enabled a scheduler from the start of this one to its end
    /// (/sys/kernel/sched_ext/enable_seq); more than once if it was loaded again. `None` if the kernel doesn't
    /// count.
    #[serde(default)]
    pub enables: Option<u64>,
    /// What its program did until it ended, if it ended by itself before it was attached.
    #[serde(default)]
    pub failed_load: Option<FailedLoad>,
    /// The state that the kernel dumped when it disabled it for an error.
    #[serde(default)]
    pub dump: String,
    /// What it printed, standard output and error in order of arrival.
    #[serde(default)]
    pub log: String,
}

const fn first_life() -> u32 {
    1
}

impl SchedulerReport {
    /// Name of the check that it was attached.
    pub const ATTACHED: &str = Check::SchedulerAttached.name();
    /// Name of the check that it stayed so to the end of the test.
    pub const ALIVE: &str = Check::SchedulerAlive.name();

    /// Whether the kernel had it attached at any time.
    pub fn was_attached(&self) -> bool {
        self.attach_ms.is_some()
    }

    /// One sentence: name, end, and what is known of the reason.
    pub fn sentence(&self) -> String {
        let end = match self.end {
            SchedulerEnd::Unknown if !self.was_attached() => "was not seen attached",
            end => end.describe(),
        };
        let mut text = format!("scheduler `{}` {end}", self.name);
        // That the kernel unregistered a scheduler whose process had gone says nothing new.
        let process_went = matches!(self.end, SchedulerEnd::Died | SchedulerEnd::Left);
        let exit = self.exit.as_ref().filter(|_| !process_went);
        let reason = exit.map(ToString::to_string);
        let enables = self.enables.filter(|&enables| enables > 1);
        let enables = enables.map(|enables| format!("the kernel enabled it {enables} times"));
        for part in [
            reason.unwrap_or_default(),
            enables.unwrap_or_default(),
            self.detail.clone(),
        ] {
            if !part.is_empty() && self.end != SchedulerEnd::Attached {
                text.push_str("; ");
                text.push_str(&part);
            }
        }
        text
    }
}

/// What a test expects to go wrong. It passes only if just this does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// The kernel's watchdog disables the scheduler.
    Stall,
    /// The kernel disables the scheduler for an error.
    ScxError {
        /// What its reason or message must contain.
        contains: Option<Cow<'static, str>>,
    },
    /// This check does not hold, while the scheduler stays attached.
    Check(Cow<'static, str>),
    /// The kernel refuses to load the scheduler.
    LoadFailure,
    /// The kernel refuses to load the scheduler, and its reason, or what the program printed, contains this.
    LoadFailureWith(Cow<'static, str>),
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stall => f.write_str("a stall"),
            Self::ScxError { contains: None } => f.write_str("an error of the scheduler"),
            Self::ScxError {
                contains: Some(text),
            } => {
                write!(f, "an error of the scheduler with `{text}`")
            }
            Self::Check(name) => write!(f, "a failure of the check `{name}`"),
            Self::LoadFailure => f.write_str("a scheduler that the kernel refuses to load"),
            Self::LoadFailureWith(text) => {
                write!(
                    f,
                    "a scheduler that the kernel refuses to load, with `{text}`"
                )
            }
        }
    }
}

/// What was expected to go wrong, and whether it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// What the test expects.
    pub what: Expectation,
    /// Whether it came.
    pub met: bool,
    /// What happened, in one sentence.
    pub seen: String,
    /// Checks that did not hold or had no data, and that follow from what was expected.
    #[serde(default)]
    pub excused: Vec<String>,
}

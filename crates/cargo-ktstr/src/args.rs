//! The command line.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, builder::NonEmptyStringValueParser};
use clap_complete::Shell;
use ktstr_host::{MemoryPlan, RunsIn};
use ktstr_kernels::KernelSpec;
use ktstr_machine::MIN_NODE_MEMORY_MIB;
use ktstr_topology::{NumaError, NumaSpec, Topology};

use crate::nextest_args;

/// Name of the file that cargo looks for when it is asked for `cargo ktstr`.
pub(crate) const BINARY: &str = "cargo-ktstr";

const EXIT_CODES: &str = "\
Exit codes:
  0   all is well: every test passed, or some passed and others were skipped
  1   a test failed                  2   a test was inconclusive
  3   a guest died                   4   no test was run
  5   the harness itself failed      6   this host, its disks or its network lack something
  7   every test was skipped         64  the command line, or a path or variable, is wrong
  128 + N when signal N ended it: 130 after ^C";

const KERNELS: &str = "\
Kernels (SPEC):
  debian              the newest Debian kernel for the current stable release
  debian/7.3          the newest Debian kernel matching 7.3.*
  debian/trixie       the kernel of a Debian suite
  ./bzImage           a file: bzImage, vmlinux, .deb; or a folder with vmlinuz and modules
  debian-7.3.4-1…     a key, as `cargo ktstr kernel list` prints it
Without one: KTSTR_KERNEL, else the newest fetched kernel in the cache, else `debian`.";

const TEST_USAGE: &str = "cargo ktstr test [OPTIONS] [FILTER]... [OPTIONS OF NEXTEST]...";

const TEST_EXAMPLES: &str = "\
Examples:
  cargo ktstr test                          all tests that use ktstr
  cargo ktstr test pinned                   those with `pinned` in their name
  cargo ktstr test -p mine --release -E 'test(=pinned)' --no-capture
  cargo ktstr test --kernel debian/trixie   the same tests on another kernel

All other options are those of `cargo nextest run`, cargo's own among them: -p, --workspace,
--exclude, --features, --release, --test, -E, -j, --profile, --run-ignored, --no-fail-fast,
--retries, --no-run and so on. Without one that chooses packages, those of the current workspace
are tested that depend on `ktstr`; where that is an optional dependency, its feature is switched on.

The tests are built and run by cargo-nextest, on one kernel and one engine for all.
Exit codes are those of `cargo ktstr --help`. When cargo or nextest fails before it runs a test,
the code is its own: 101 for a build that fails.";

const SHELL_EXAMPLES: &str = "\
Examples:
  cargo ktstr shell                       a shell on one CPU; `exit` or Ctrl-] ends it
  cargo ktstr shell --topology 2,4,2,2    2 NUMA nodes, 4 LLCs, 8 cores, 16 CPUs
  cargo ktstr shell --exec 'cat /sys/kernel/sched_ext/state'
  cargo ktstr shell --include ./scx_mine --exec './scx_mine & sleep 5'
  cargo ktstr shell --nested-virtualization --exec '/init doctor'   this command, on a KVM of the machine's own

The machine has a Linux kernel and the programs of the host's static busybox. Included files are
put into /root, where the shell starts, unless a path is given; programs bring their libraries.
The exit status of `--exec` is that of the command, 128 + N when signal N ended it. When the
machine does not get as far as that, it is one of those of `cargo ktstr --help`, with an error
message.";

const QUEUE_HELP: &str = "\
The machines that run use at most this host's CPUs together, or KTSTR_CPU_CAP; `off` disables the
limit. They also have no more memory together than the host has available. The queue is first come,
first served. Its files are in /tmp/ktstr-<uid>, or in KTSTR_LOCK_DIR. What a process held is free
once it has died, so nothing needs cleaning.";

const SETUP_HELP: &str = "\
It installs, removes and exchanges no package of this machine, and needs no root: apt, with a folder of
its own in the cache, fetches the packages and those libraries they need that are not installed here,
from this machine's own sources. They are unpacked in the cache. QEMU is looked for in KTSTR_QEMU,
then on PATH, then there.";

const COMPLETIONS_EXAMPLES: &str = "\
It completes the command as `cargo-ktstr`. For bash:
  cargo ktstr completions bash > ~/.local/share/bash-completion/completions/cargo-ktstr";

const GET_EXAMPLES: &str = "\
Examples:
  cargo ktstr kernel get debian
  KTSTR_KERNEL=$(cargo ktstr kernel get debian/trixie) cargo nextest run

Only the key goes to standard output.";

const RUNS_HELP: &str = "\
Runs are in target/ktstr/runs of the workspace, or in KTSTR_RUNS_DIR: a folder for each, whose
name begins with the time in UTC. Nothing removes them but `cargo ktstr runs clean`.";

const CLEAN_EXAMPLES: &str = "\
Examples:
  cargo ktstr kernel clean --keep 2         all but the two that were stored last
  cargo ktstr kernel clean --corrupt-only   those that are not as they were stored
  cargo ktstr kernel clean --given          those that were given as files

It does not ask: it says what it removes. A kernel that is needed again is fetched or read again.";

/// Tests for Linux process schedulers, each in a virtual machine of its own.
#[derive(Debug, Parser)]
#[command(name = BINARY, bin_name = "cargo ktstr", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(propagate_version = false, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run tests, each in a machine of its own, and sum up the outcomes
    #[command(after_help = TEST_EXAMPLES, override_usage = TEST_USAGE)]
    Test(TestArgs),
    /// Fetch, list and remove kernels
    Kernel(KernelArgs),
    /// List and remove the results of earlier runs
    Runs(RunsArgs),
    /// Open a shell in a machine, or run one command there
    #[command(after_help = SHELL_EXAMPLES)]
    Shell(ShellArgs),
    /// List the machines that run and the tests that wait for host CPUs or memory
    #[command(after_help = QUEUE_HELP, visible_alias = "locks")]
    Queue {
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Say whether tests can run here, and what to do if not
    Doctor(DoctorArgs),
    /// Fetch QEMU and busybox into the cache where this machine has none
    #[command(after_help = SETUP_HELP)]
    Setup {
        /// Say what would be fetched, and fetch nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Print a completion script for your shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

/// The kernel and what runs it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Target {
    /// Kernel to boot: `debian`, `debian/7.3`, a path, a key of the cache [env: KTSTR_KERNEL]
    #[arg(long, value_name = "SPEC")]
    pub(crate) kernel: Option<KernelSpec>,
    #[arg(long, value_name = "ENGINE", help = engine_help())]
    pub(crate) engine: Option<RunsIn>,
}

fn engine_help() -> String {
    let names = RunsIn::names();
    format!("What runs the machine: {names} [env: KTSTR_ENGINE]")
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Fail if a test was skipped
    #[arg(long)]
    pub(crate) no_skips: bool,
    /// Filters and options of `cargo nextest run`
    #[arg(last = true, value_name = "NEXTEST_ARGS", hide = true)]
    pub(crate) nextest_args: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct KernelArgs {
    #[command(subcommand)]
    pub(crate) command: KernelCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Fetch a kernel into the cache, and print its key
    #[command(after_help = format!("{KERNELS}\n\n{GET_EXAMPLES}"))]
    Get(GetArgs),
    /// List the kernels in the cache
    List {
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Remove kernels from the cache
    #[command(after_help = CLEAN_EXAMPLES)]
    Clean(CleanArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The kernel
    pub(crate) spec: KernelSpec,
    /// Ask the source again, even if the cache has a kernel that fits
    #[arg(long)]
    pub(crate) refresh: bool,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false)]
pub(crate) struct CleanArgs {
    /// Keys of the kernels to remove
    #[arg(value_name = "KEY", group = "which")]
    pub(crate) keys: Vec<String>,
    /// Remove every kernel
    #[arg(long, group = "which")]
    pub(crate) all: bool,
    /// Remove all but the N that were stored last, and damaged ones
    #[arg(long, value_name = "N", group = "which")]
    pub(crate) keep: Option<usize>,
    /// Remove those whose files are not as they were stored
    #[arg(long, group = "which")]
    pub(crate) corrupt_only: bool,
    /// Remove those that were given as files (--kernel PATH), and damaged ones
    #[arg(long, group = "which")]
    pub(crate) given: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    pub(crate) command: RunsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List the runs, oldest first, with the outcomes of their tests
    #[command(after_help = RUNS_HELP)]
    List {
        /// Print JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Remove all runs but the newest
    #[command(after_help = RUNS_HELP)]
    Clean {
        /// Keep the N newest runs; one that goes on is kept whatever N is
        #[arg(long, value_name = "N")]
        keep: usize,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Shape of the machine: NUMA nodes, LLCs in total, cores in each LLC, threads on each core
    #[arg(long, value_name = "N,L,C,T", default_value = "1,1,1,1")]
    pub(crate) topology: TopologyArg,
    /// Least memory of the machine in MiB; it gets more where its CPUs or files need it
    #[arg(long, value_name = "M", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) memory_mib: u64,
    /// Memory of each NUMA node in MiB, such as 768,256, instead of shares of --memory-mib
    #[arg(long, value_name = "M,M", value_delimiter = ',', conflicts_with = "memory_mib", value_parser = clap::value_parser!(u64).range(MIN_NODE_MEMORY_MIB..))]
    pub(crate) node_memory_mib: Vec<u64>,
    /// NUMA nodes without CPUs after the others: memory of each in MiB
    #[arg(long, value_name = "M,M", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(MIN_NODE_MEMORY_MIB..))]
    pub(crate) memory_only_node_mib: Vec<u64>,
    /// Distances between NUMA nodes, a row from each, such as 10,30/30,10
    #[arg(long, value_name = "ROW/ROW")]
    pub(crate) node_distances: Option<DistancesArg>,
    /// File to have in the machine, at GUEST_PATH or in /root; may be repeated
    #[arg(long, value_name = "FILE[:GUEST_PATH]")]
    pub(crate) include: Vec<IncludeArg>,
    /// Kernel module to load first, with all it depends on; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) module: Vec<String>,
    /// Give the machine AMD-V, and load its own KVM (with the `tcg` engine)
    #[arg(long = "nested-virtualization")]
    pub(crate) own_kvm: bool,
    /// Run this command instead of an interactive shell
    #[arg(long, value_name = "CMD", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) exec: Option<String>,
    /// End the machine after this many seconds [default: 120 with --exec, else never]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
}

impl ShellArgs {
    /// The memory of the machine's NUMA nodes, if they can be so.
    pub(crate) fn memory(&self) -> Result<MemoryPlan, NumaError> {
        let numa = NumaSpec {
            node_memory_mib: self.node_memory_mib.clone(),
            memory_only_node_mib: self.memory_only_node_mib.clone(),
            node_distances: self
                .node_distances
                .as_ref()
                .map(|distances| distances.0.clone())
                .unwrap_or_default(),
            ..NumaSpec::default()
        };
        let memory = MemoryPlan {
            memory_mib: Some(self.memory_mib),
            numa,
        };
        memory.resolve(&self.topology.0).map(|_| memory)
    }

    const EXEC_TIMEOUT_S: u64 = 120;

    /// How long the command or the shell may take once the machine has booted.
    pub(crate) fn time_limit(&self) -> Option<Duration> {
        let default = self.exec.as_ref().map(|_| Self::EXEC_TIMEOUT_S);
        self.timeout.or(default).map(Duration::from_secs)
    }
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// `N,L,C,T`. A type of its own because help texts show defaults the way they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopologyArg(pub(crate) Topology);

impl FromStr for TopologyArg {
    type Err = ktstr_topology::TopologyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// `10,30/30,10`.
#[derive(Clone, Debug)]
pub(crate) struct DistancesArg(pub(crate) Vec<Vec<u8>>);

impl FromStr for DistancesArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let distance = |part: &str| {
            part.trim().parse::<u8>().map_err(|_| {
                format!(
                    "`{part}` is not a distance: write a row for each node, such as 10,30/30,10"
                )
            })
        };
        let rows = text.split('/');
        rows.map(|row| row.split(',').map(distance).collect())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// `FILE[:GUEST_PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IncludeArg {
    /// The file on the host.
    pub(crate) host: PathBuf,
    /// Its path in the guest, if it was given.
    pub(crate) guest: Option<String>,
}

impl FromStr for IncludeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The guest's path is absolute, so only a colon before a slash separates.
        let (host, guest) = match text.rsplit_once(":/") {
            Some((host, guest)) => (host, Some(format!("/{guest}"))),
            None => (text, None),
        };
        if host.is_empty() {
            return Err("it names no file: write FILE or FILE:/PATH/IN/GUEST".to_owned());
        }
        if guest
            .as_ref()
            .is_some_and(|guest| guest.ends_with('/') || guest.split('/').any(|part| part == ".."))
        {
            return Err("the path in the guest must be that of a file, without `..`".to_owned());
        }
        Ok(Self {
            host: PathBuf::from(host),
            guest,
        })
    }
}

/// The arguments of this process. Cargo calls `cargo-ktstr ktstr …` for `cargo ktstr …`.
pub(crate) fn of_this_process() -> Vec<OsString> {
    nextest_args::sorted(without_own_name(env::args_os()))
}

fn without_own_name(args: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut args = args.into_iter();
    let program = args.next();
    let mut args = args.peekable();
    args.next_if(|first| first == "ktstr");
    program.into_iter().chain(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let args = line.split_whitespace().map(OsString::from);
        Cli::try_parse_from(nextest_args::sorted(without_own_name(args))).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn works_as_a_subcommand_of_cargo_and_by_its_own_name() {
        for line in ["cargo-ktstr ktstr doctor", "cargo-ktstr doctor"] {
            assert!(matches!(parse(line), Ok(Command::Doctor(_))), "{line}");
        }
    }

    #[test]
    fn fault_f5_options_of_nextest_need_no_dashes() {
        let line = "cargo-ktstr ktstr test -E test(a) one --no-skips -j 2 --engine tcg -- --no-capture -- --exact";
        let Ok(Command::Test(args)) = parse(line) else {
            panic!("not understood");
        };
        let rest = "-E test(a) one -j 2 --no-capture -- --exact";
        assert_eq!(args.nextest_args, rest.split(' ').collect::<Vec<_>>());
        assert!(args.no_skips);
        assert_eq!(
            args.target.engine,
            Some(ktstr_machine::EngineKind::Tcg.into())
        );
    }

    #[test]
    fn only_commands_have_a_time_limit_by_default() {
        let limit = |line: &str| match parse(line) {
            Ok(Command::Shell(args)) => args.time_limit(),
            other => panic!("{other:?}"),
        };
        assert_eq!(limit("cargo-ktstr shell"), None);
        assert_eq!(
            limit("cargo-ktstr shell --exec true"),
            Some(Duration::from_secs(120))
        );
        assert_eq!(
            limit("cargo-ktstr shell --timeout 5"),
            Some(Duration::from_secs(5))
        );
    }

    #[test]
    fn includes_are_split_at_the_path_in_the_guest() {
        let include = |text: &str| text.parse::<IncludeArg>();
        let made = |host: &str, guest: Option<&str>| {
            Ok(IncludeArg {
                host: host.into(),
                guest: guest.map(str::to_owned),
            })
        };
        assert_eq!(include("./tool"), made("./tool", None));
        assert_eq!(include("a:b"), made("a:b", None));
        assert_eq!(include("/x/a:b:/bin/c"), made("/x/a:b", Some("/bin/c")));
        assert!(include(":/bin/c").is_err());
        assert!(include("a:/bin/").is_err());
        assert!(include("a:/bin/../../x").is_err());
        assert!(include("").is_err());
    }

    #[test]
    fn cleaning_needs_to_know_what() {
        assert!(parse("cargo-ktstr kernel clean").is_err());
        assert!(parse("cargo-ktstr kernel clean --all key").is_err());
        assert!(parse("cargo-ktstr kernel clean a b").is_ok());
    }
}

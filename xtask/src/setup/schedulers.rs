//! Schedulers of others, from the crate registry, to test the harness with.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Tool, is_program, setup, succeed};
use crate::process::{cache, cargo, display};

/// A crate with a program of the same name, and the test of examples/scheduler-tests that is for it.
struct Published {
    krate: &'static str,
    version: &'static str,
    test: &'static str,
}

/// One to be healthy, and what the tests of public bugs need.
const SCHEDULERS: [Published; 4] = [
    Published {
        krate: "scx_bpfland",
        version: "1.1.4",
        test: "--test scx_bpfland --test public_bugs bpfland fifo_hog",
    },
    Published {
        krate: "scx_cosmos",
        version: "1.1.3",
        test: "--test public_bugs cosmos",
    },
    Published {
        krate: "scx_rusty",
        version: "1.1.4",
        test: "--test public_bugs rusty",
    },
    Published {
        krate: "scx_lavd",
        version: "1.1.1",
        test: "--test public_bugs older",
    },
];

/// Where Debian has the libclang that comes with clang-19; bindgen, which these crates use, does not look there.
const LIBCLANG: &str = "/usr/lib/llvm-19/lib";

/// Builds those that are missing, and says where all are. It takes minutes.
pub(crate) fn schedulers() -> Result<()> {
    setup(&[Tool::BpfToolchain, Tool::Nextest])?;
    for scheduler in &SCHEDULERS {
        let root = cache()?.join("schedulers").join(scheduler.folder());
        let program = root.join("bin").join(scheduler.krate);
        if !is_program(&program) {
            let mut install = scheduler.install(&root);
            eprintln!(
                "setup: {} {} is missing (tests of the harness with a scheduler of others); installing: {}",
                scheduler.krate,
                scheduler.version,
                display(&install)
            );
            succeed(&mut install)?;
        }
        println!("{}", scheduler.how_to_test(&program));
    }
    Ok(())
}

impl Published {
    fn folder(&self) -> String {
        format!("{}-{}", self.krate, self.version)
    }

    /// With optimisation: they find out at run time what a debug build takes seconds for.
    fn install(&self, root: &Path) -> Command {
        let mut install = cargo(["install", self.krate, "--version", self.version, "--locked"]);
        install.arg("--root").arg(root).env("BPF_CLANG", "clang-19");
        if env::var_os("LIBCLANG_PATH").is_none() {
            install.env("LIBCLANG_PATH", LIBCLANG);
        }
        install
    }

    fn how_to_test(&self, program: &Path) -> String {
        let Self {
            krate,
            version,
            test,
        } = self;
        let program = program.display();
        format!(
            "{krate} {version} is {program}; to run its tests:\n\n    KTSTR_SCHEDULER={program} cargo nextest run \
             -p scheduler-tests --run-ignored only {test}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn one_is_installed_in_a_folder_of_its_version() {
        let scheduler = Published {
            krate: "scx_some",
            version: "1.2.3",
            test: "--test scx_some",
        };
        let root = PathBuf::from("/cache/schedulers").join(scheduler.folder());
        let install = display(&scheduler.install(&root));
        assert_eq!(
            install,
            "cargo install scx_some --version 1.2.3 --locked --root /cache/schedulers/scx_some-1.2.3"
        );
        let told = scheduler.how_to_test(&root.join("bin/scx_some"));
        let command = "KTSTR_SCHEDULER=/cache/schedulers/scx_some-1.2.3/bin/scx_some cargo nextest run \
                       -p scheduler-tests --run-ignored only --test scx_some";
        assert!(told.contains(command), "{told}");
    }
}

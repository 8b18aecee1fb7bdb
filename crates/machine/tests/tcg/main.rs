//! The `tcg` engine with real QEMU and guests of a few instructions.
#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test fails the test, as the test itself does"
)]

mod ends;
mod guest;
mod pause;
mod refused;
mod running;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use ktstr_kernels::Cache;
use ktstr_kernels::tools::{self, Tool};
use ktstr_machine::{
    End, Engine, EngineKind, EngineOptions, Machine, MachineEvent, MachineSpec, choose,
};
use ktstr_topology::Topology;
use tempfile::TempDir;

use guest::Program;

/// No guest here takes a tenth of this on an idle host.
const DEADLINE: Duration = Duration::from_secs(60);

fn tcg() -> Box<dyn Engine> {
    let chosen = choose(EngineKind::Tcg, &options());
    chosen.expect("`cargo ktstr setup` was run").engine
}

/// With the QEMU that was fetched, as whoever starts tests looks for it.
fn options() -> EngineOptions {
    let fetched = tools::find(&Cache::open_default(std::env::var_os).unwrap(), Tool::Qemu);
    EngineOptions {
        fetched_qemu: fetched.map(|qemu| qemu.program()),
        qemu: std::env::var_os("KTSTR_QEMU").map(Into::into),
        ..EngineOptions::default()
    }
}

/// A running guest, the calls of its `on_end`, and the folder with its program.
struct Guest {
    machine: Box<dyn Machine>,
    ends: Receiver<End>,
    _dir: TempDir,
}

impl Guest {
    fn launch(program: &Program) -> Self {
        Self::launch_with(program, Topology::SINGLE, 64, |_| {})
    }

    fn launch_with(
        program: &Program,
        topology: Topology,
        memory_mib: u64,
        change: impl FnOnce(&mut MachineSpec),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = program.machine(dir.path(), topology, memory_mib);
        change(&mut spec);
        Self::start(dir, &spec, None)
    }

    /// One that may pause its machine by a port, and tells so.
    fn launch_with_pauses(
        program: &Program,
        topology: Topology,
        port: u16,
        pauses: Sender<()>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = program.machine(dir.path(), topology, 64);
        spec.pause_port = Some(port);
        Self::start(dir, &spec, Some(pauses))
    }

    fn start(dir: TempDir, spec: &MachineSpec, pauses: Option<Sender<()>>) -> Self {
        let (sender, ends) = mpsc::channel();
        let on_event = move |event| match event {
            MachineEvent::Ended(end) => sender.send(end).unwrap(),
            MachineEvent::Paused => pauses.as_ref().unwrap().send(()).unwrap(),
        };
        let machine = tcg().launch(spec, Arc::new(on_event)).unwrap();
        Self {
            machine,
            ends,
            _dir: dir,
        }
    }

    /// Waits for the end, and checks that all who are told of it are told the same, once.
    fn end(&mut self) -> End {
        let end = self.machine.wait(DEADLINE).expect("ends in time");
        assert_eq!(self.machine.end().as_ref(), Some(&end));
        assert_eq!(self.ends.recv_timeout(DEADLINE).as_ref(), Ok(&end));
        assert!(self.ends.recv_timeout(DEADLINE).is_err(), "called once");
        assert!(!is_alive(self.machine.pid()), "QEMU is gone and reaped");
        end
    }

    fn wait_for_com1(&self, text: &str) {
        let com1 = self.machine.com1();
        wait_until(&format!("COM1 says {text:?}"), || {
            com1.contents().contains(text)
        });
    }
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What the guest itself said, without the firmware's words before.
fn after<'a>(log: &'a str, mark: &str) -> &'a str {
    log.split_once(mark).map_or("", |(_, rest)| rest)
}

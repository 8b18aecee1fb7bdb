//! The handle of a machine on QEMU.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use ktstr_vmm::{ControlError, GuestRam, VcpuRegisters};

use super::KICK_PERIOD;
use super::control::{Carried, Control, QemuError};
use super::shared::Shared;
use super::{registers, vcpu_threads};
use crate::console::ConsoleLog;
use crate::end_cell::MachineThread;
use crate::footprint;
use crate::machine::{End, Machine, Port, StopReason, Stopper};
use crate::vcpu_clock::VcpuClock;

/// How long the end of a killed process is waited for. Only a host in trouble takes longer.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct TcgMachine {
    pub(super) pid: u32,
    pub(super) memory: GuestRam,
    pub(super) shared: Arc<Shared>,
    pub(super) control: Control,
    pub(super) shell: Option<UnixStream>,
    pub(super) frames: Option<UnixStream>,
    pub(super) cpu_count: u32,
    /// Each vCPU has a thread of its own, which runs on when another one is held.
    pub(super) has_thread_per_vcpu: bool,
    pub(super) pauses: Pauses,
    pub(super) thread: MachineThread,
}

/// Who keeps QEMU from running the vCPUs. A guest that holds it besides, by the pipe, is known there.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    by_host: bool,
    /// The guest held its machine, and QEMU has stopped it since: so QEMU answers, and the guest stands still.
    by_guest: bool,
    /// QEMU was told `stop`, and not `cont` since.
    is_stopped: bool,
}

impl TcgMachine {
    /// Has QEMU stop what its guest holds, so that it answers again. Between the two the vCPUs may run for a moment.
    fn stop_what_is_held(&mut self, action: &'static str) -> Result<(), ControlError> {
        let release = || self.shared.release();
        let stopped = self.control.carry_out(action, "stop", None, release);
        if stopped.is_err() {
            self.control.take_stop_back();
        }
        stopped?;
        self.pauses.by_guest = true;
        self.pauses.is_stopped = true;
        Ok(())
    }

    /// Has QEMU run the vCPUs unless somebody keeps it from it.
    fn run_on(&mut self, action: &'static str) -> Result<(), ControlError> {
        if self.pauses.by_host || self.pauses.by_guest || !self.pauses.is_stopped {
            return match self.end() {
                Some(_) => Err(ControlError::Ended { action }),
                None => Ok(()),
            };
        }
        self.control.carry_out(action, "cont", None, || Ok(()))?;
        self.pauses.is_stopped = false;
        Ok(())
    }
}

impl Machine for TcgMachine {
    fn memory(&self) -> &GuestRam {
        &self.memory
    }

    fn take_port(&mut self, port: Port) -> Option<UnixStream> {
        match port {
            Port::Shell => self.shell.take(),
            Port::Frames => self.frames.take(),
        }
    }

    fn com1(&self) -> &ConsoleLog {
        &self.shared.logs.com1
    }

    fn com2(&self) -> &ConsoleLog {
        &self.shared.logs.com2
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        let action = "pause the machine";
        if !self.pauses.is_stopped {
            match (self.shared.is_held(), self.has_thread_per_vcpu) {
                (true, true) => self.stop_what_is_held(action)?,
                // No vCPU runs.
                (true, false) => {}
                (false, _) => {
                    let stopped = self.control.carry_out(action, "stop", None, || Ok(()));
                    if let Err(ControlError::Timeout { .. } | ControlError::Failed { .. }) = stopped
                    {
                        self.control.take_stop_back();
                    }
                    // One that the guest has held meanwhile stands still already.
                    let (Carried::Out(_) | Carried::Later) = stopped?;
                    self.pauses.is_stopped = true;
                }
            }
        }
        self.pauses.by_host = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.pauses.by_host = false;
        self.run_on("resume the machine")
    }

    fn release(&mut self) -> Result<(), ControlError> {
        let action = "release the guest";
        self.pauses.by_guest = false;
        if self.shared.is_held() {
            self.shared
                .release()
                .map_err(ControlError::failed(action))?;
        }
        self.run_on(action)
    }

    fn vcpu_registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError> {
        let action = "read the vCPUs' registers";
        let answer = match self.shared.last_registers() {
            Some(answer) => answer,
            None => {
                if self.shared.is_held() {
                    self.stop_what_is_held(action)?;
                }
                let (command, arguments) = registers::command();
                self.control.command(action, command, Some(&arguments))?
            }
        };
        let not_understood = |at| ControlError::failed(action)(QemuError::NotUnderstood(at));
        let text = answer.as_str();
        let text = text.ok_or_else(|| not_understood("the type of the answer".to_owned()))?;
        registers::parse(text, self.cpu_count).map_err(not_understood)
    }

    fn vcpu_clock(&mut self) -> Result<VcpuClock, ControlError> {
        let action = "find the vCPUs' threads";
        let answer = self.control.command(action, "query-cpus-fast", None)?;
        let tids = vcpu_threads::parse(&answer, self.cpu_count)
            .map_err(|at| ControlError::failed(action)(QemuError::NotUnderstood(at)))?;
        VcpuClock::open(self.pid, &tids, KICK_PERIOD).map_err(ControlError::failed(action))
    }

    fn end(&self) -> Option<End> {
        self.shared.ended.get()
    }

    fn stopper(&self) -> Stopper {
        let shared = Arc::clone(&self.shared);
        Stopper::new(move |reason| shared.stop(reason))
    }

    fn stop(&mut self, reason: StopReason) {
        if self.end().is_none() {
            self.shared.stop(reason);
            self.wait(STOP_TIMEOUT);
        }
    }

    fn wait(&mut self, timeout: Duration) -> Option<End> {
        self.shared.ended.wait(timeout)
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn footprint_bytes(&self) -> Result<u64, ControlError> {
        let action = "read the memory use of QEMU";
        if self.end().is_some() {
            return Err(ControlError::Ended { action });
        }
        footprint::bytes(self.pid, &[]).map_err(ControlError::failed(action))
    }
}

impl Drop for TcgMachine {
    fn drop(&mut self) {
        self.stop(StopReason::Done);
        if self.end().is_some() {
            self.thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::thread;

    use ktstr_vmm::{NodeMemory, RamRegion};
    use serde_json::Value;

    use super::*;

    /// A machine whose QEMU is the test, at the other end of the control stream.
    fn machine() -> (TcgMachine, UnixStream) {
        let (control, qemu) = UnixStream::pair().unwrap();
        qemu.set_read_timeout(Some(STOP_TIMEOUT)).unwrap();
        let (frames, _) = UnixStream::pair().unwrap();
        let node = NodeMemory::new(4096).unwrap();
        let region = RamRegion {
            gpa: 0,
            len_bytes: 4096,
            node: 0,
            offset_bytes: 0,
        };
        let memory = GuestRam::of_nodes(&[node], &[region]).unwrap();
        let shared = Shared::new(None).unwrap();
        let machine = TcgMachine {
            pid: 0,
            memory,
            control: Control {
                shared: Arc::clone(&shared),
                stream: control,
                reply_timeout: Duration::from_millis(20),
            },
            shared,
            shell: None,
            frames: Some(frames),
            cpu_count: 1,
            has_thread_per_vcpu: false,
            pauses: Pauses::default(),
            thread: MachineThread::new(thread::spawn(|| {})),
        };
        (machine, qemu)
    }

    #[test]
    fn fault_d6_a_pause_that_was_not_answered_in_time_is_taken_back() {
        let (mut machine, qemu) = machine();
        let error = machine.pause().unwrap_err();
        assert!(matches!(error, ControlError::Timeout { .. }), "{error}");
        // What QEMU reads when it comes to it.
        let commands: Vec<String> = BufReader::new(qemu)
            .lines()
            .take(2)
            .map(|line| {
                let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
                line["execute"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(commands, ["stop", "cont"]);
        machine.shared.note_end(End::PoweredOff);
    }

    #[test]
    fn fault_d6_a_qemu_that_takes_no_commands_after_a_pause_is_ended() {
        let (mut machine, qemu) = machine();
        // Nobody reads, and there is no room for another command.
        let mut control = &machine.control.stream;
        control.set_nonblocking(true).unwrap();
        while control.write(&[b' '; 4096]).is_ok() {}
        control.set_nonblocking(false).unwrap();
        assert!(machine.pause().is_err());
        assert!(machine.shared.trouble().is_some());
        drop(qemu);
        machine.shared.note_end(End::PoweredOff);
    }
}

//! The handle of a machine on QEMU.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use ktstr_vmm::{ControlError, GuestRam, VcpuRegisters};
use serde_json::Value;

use super::KICK_PERIOD;
use super::shared::Shared;
use super::{qmp, registers, vcpu_threads};
use crate::console::ConsoleLog;
use crate::end_cell::MachineThread;
use crate::footprint;
use crate::machine::{End, Machine, Port, StopReason, Stopper};
use crate::vcpu_clock::VcpuClock;

/// How long QEMU may take to answer. Its main loop shares a lock with emulated devices, and the host may be
/// busy.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a killed process is waited for. Only a host in trouble takes longer.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why QEMU did not do as told.
#[derive(Debug, thiserror::Error)]
enum QemuError {
    #[error("QEMU refused: {0}")]
    Refused(String),
    #[error("QEMU's answer is not understood at {0:?}")]
    NotUnderstood(String),
}

#[derive(Debug)]
pub(crate) struct TcgMachine {
    pid: u32,
    memory: GuestRam,
    shared: Arc<Shared>,
    control: UnixStream,
    shell: Option<UnixStream>,
    frames: Option<UnixStream>,
    cpu_count: u32,
    reply_timeout: Duration,
    thread: MachineThread,
}

impl TcgMachine {
    pub(crate) fn new(
        pid: u32,
        memory: GuestRam,
        shared: Arc<Shared>,
        control: UnixStream,
        (shell, frames): (Option<UnixStream>, UnixStream),
        cpu_count: u32,
        thread: MachineThread,
    ) -> Self {
        Self {
            pid,
            memory,
            shared,
            control,
            shell,
            frames: Some(frames),
            cpu_count,
            reply_timeout: REPLY_TIMEOUT,
            thread,
        }
    }

    /// Has QEMU carry out a command, and gives its answer.
    fn command(
        &self,
        action: &'static str,
        command: &str,
        arguments: Option<&Value>,
    ) -> Result<Value, ControlError> {
        let (id, reply) = self
            .shared
            .expect_reply()
            .ok_or(ControlError::Ended { action })?;
        let answer = self.send(&qmp::request(command, arguments, id));
        let answer = answer.map_err(ControlError::failed(action)).and_then(|()| {
            let answer = reply.recv_timeout(self.reply_timeout);
            answer.map_err(|error| match error {
                RecvTimeoutError::Timeout => ControlError::Timeout {
                    action,
                    what: "QEMU".to_owned(),
                    timeout: self.reply_timeout,
                },
                RecvTimeoutError::Disconnected => ControlError::Ended { action },
            })
        });
        self.shared.forget_reply(id);
        answer?.map_err(|message| ControlError::failed(action)(QemuError::Refused(message)))
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        self.control.set_write_timeout(Some(self.reply_timeout))?;
        (&self.control).write_all(request)
    }

    /// Takes a pause back that QEMU may still come to: it carries out commands in their order.
    fn take_pause_back(&self) {
        let Some((id, _)) = self.shared.expect_reply() else {
            return;
        };
        let sent = self.send(&qmp::request("cont", None, id));
        self.shared.forget_reply(id);
        if let Err(error) = sent {
            let trouble =
                format!("QEMU may have stopped the guest and takes no more commands: {error}");
            self.shared.give_up(trouble);
        }
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
        let paused = self.command("pause the machine", "stop", None).map(drop);
        if let Err(ControlError::Timeout { .. } | ControlError::Failed { .. }) = paused {
            self.take_pause_back();
        }
        paused
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.command("resume the machine", "cont", None).map(drop)
    }

    fn vcpu_registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError> {
        let action = "read the vCPUs' registers";
        let answer = match self.shared.last_registers() {
            Some(answer) => answer,
            None => {
                let (command, arguments) = registers::command();
                self.command(action, command, Some(&arguments))?
            }
        };
        let not_understood = |at| ControlError::failed(action)(QemuError::NotUnderstood(at));
        let text = answer.as_str();
        let text = text.ok_or_else(|| not_understood("the type of the answer".to_owned()))?;
        registers::parse(text, self.cpu_count).map_err(not_understood)
    }

    fn vcpu_clock(&mut self) -> Result<VcpuClock, ControlError> {
        let action = "find the vCPUs' threads";
        let answer = self.command(action, "query-cpus-fast", None)?;
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
    use std::io::{BufRead as _, BufReader};
    use std::thread;

    use ktstr_vmm::{NodeMemory, RamRegion};

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
        let shared = Shared::new().unwrap();
        let thread = MachineThread::new(thread::spawn(|| {}));
        let mut machine = TcgMachine::new(0, memory, shared, control, (None, frames), 1, thread);
        machine.reply_timeout = Duration::from_millis(20);
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
        machine.control.set_nonblocking(true).unwrap();
        while (&machine.control).write(&[b' '; 4096]).is_ok() {}
        machine.control.set_nonblocking(false).unwrap();
        assert!(machine.pause().is_err());
        assert!(machine.shared.trouble().is_some());
        drop(qemu);
        machine.shared.note_end(End::PoweredOff);
    }
}

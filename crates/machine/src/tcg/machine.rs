//! The handle of a machine on QEMU.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::supervisor::Shared;
use super::{qmp, registers};
use crate::console::ConsoleLog;
use crate::machine::{ControlError, End, KillReason, Machine, Port, VcpuRegisters};
use crate::memory::{GuestMemory, RAM_NAME};

/// How long QEMU may take to answer. Its main loop shares a lock with emulated devices, and the host may be
/// busy.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of a killed process is waited for. Only a host in trouble takes longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct TcgMachine {
    pid: u32,
    memory: GuestMemory,
    shared: Arc<Shared>,
    control: UnixStream,
    shell: Option<UnixStream>,
    frames: Option<UnixStream>,
    cpu_count: u32,
    thread: Option<JoinHandle<()>>,
}

impl TcgMachine {
    pub(crate) fn new(
        pid: u32,
        memory: GuestMemory,
        shared: Arc<Shared>,
        control: UnixStream,
        (shell, frames): (Option<UnixStream>, UnixStream),
        cpu_count: u32,
        thread: JoinHandle<()>,
    ) -> Self {
        Self {
            pid,
            memory,
            shared,
            control,
            shell,
            frames: Some(frames),
            cpu_count,
            thread: Some(thread),
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
        let answer = self
            .send(&qmp::request(command, arguments, id))
            .map_err(|source| ControlError::Io { action, source })
            .and_then(|()| {
                reply
                    .recv_timeout(REPLY_TIMEOUT)
                    .map_err(|error| match error {
                        RecvTimeoutError::Timeout => ControlError::Timeout {
                            action,
                            timeout: REPLY_TIMEOUT,
                        },
                        RecvTimeoutError::Disconnected => ControlError::Ended { action },
                    })
            });
        self.shared.forget_reply(id);
        answer?.map_err(|message| ControlError::Refused { action, message })
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        self.control.set_write_timeout(Some(REPLY_TIMEOUT))?;
        (&self.control).write_all(request)
    }
}

impl Machine for TcgMachine {
    fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    fn take_port(&mut self, port: Port) -> Option<UnixStream> {
        match port {
            Port::Shell => self.shell.take(),
            Port::Frames => self.frames.take(),
        }
    }

    fn com1(&self) -> &ConsoleLog {
        &self.shared.com1
    }

    fn com2(&self) -> &ConsoleLog {
        &self.shared.com2
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        self.command("pause the machine", "stop", None).map(drop)
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        self.command("resume the machine", "cont", None).map(drop)
    }

    fn vcpu_registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError> {
        let action = "read the vCPUs' registers";
        let arguments = json!({ "command-line": "info registers -a" });
        let answer = self.command(action, "human-monitor-command", Some(&arguments))?;
        let text = answer.as_str().ok_or_else(|| ControlError::Answer {
            action,
            at: "the type of the answer".to_owned(),
        })?;
        registers::parse(text, self.cpu_count).map_err(|at| ControlError::Answer { action, at })
    }

    fn end(&self) -> Option<End> {
        self.shared.end()
    }

    fn kill(&mut self, reason: KillReason) {
        if self.end().is_none() {
            self.shared.stop(reason);
            self.wait(KILL_TIMEOUT);
        }
    }

    fn wait(&mut self, timeout: Duration) -> Option<End> {
        self.shared.wait(timeout)
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    fn footprint_bytes(&self) -> Result<u64, ControlError> {
        let action = "read the memory use of QEMU";
        if self.end().is_some() {
            return Err(ControlError::Ended { action });
        }
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", self.pid))
            .map_err(|source| ControlError::Io { action, source })?;
        Ok(footprint_kib(&smaps) * 1024)
    }
}

impl Drop for TcgMachine {
    fn drop(&mut self) {
        self.kill(KillReason::Done);
        // `on_end` runs on that thread and may own this handle.
        let thread = self.thread.take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
            && self.end().is_some()
        {
            // A panic there is one of `on_end`, which has been printed.
            let _ = thread.join();
        }
    }
}

/// Sum of `Pss` over all mappings in `/proc/PID/smaps` but guest RAM, in KiB: what is shared with other
/// processes, such as QEMU's code, counts in part.
fn footprint_kib(smaps: &str) -> u64 {
    let ram_name = RAM_NAME.to_string_lossy();
    let mut in_ram = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Pss:") if !in_ram => {
                sum += words.next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
            }
            // A mapping's first line starts with its addresses, all others with `Name:`.
            Some(first) if !first.ends_with(':') => in_ram = line.contains(&*ram_name),
            _ => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footprint_leaves_guest_ram_out() {
        let smaps = "\
55d0c0a00000-55d0c0e00000 r-xp 00000000 08:01 1234 /usr/bin/qemu-system-x86_64
Size:               4096 kB
Rss:                2000 kB
Pss:                1000 kB
Pss_Dirty:             7 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0020000000 rw-s 00000000 00:01 77 /memfd:ktstr-ram (deleted)
Pss:              400000 kB
7f0030000000-7f0030001000 rw-p 00000000 00:00 0
Pss:                 234 kB
";
        assert_eq!(footprint_kib(smaps), 1234);
    }
}

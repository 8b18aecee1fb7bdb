//! How far a test is, for people who wait for it: made of the events of its run, and sent to who shows it.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use ktstr_wire::GuestStage;
use serde::{Deserialize, Serialize};

use crate::events::{RunEvent, RunObserver};
use crate::millis::millis;

/// Before that a test is not worth a word about how far it is.
const WORTH_A_WORD: Duration = Duration::from_secs(2);

/// Where a test is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The test.
    pub test: String,
    /// What happens: `queued`, `booting`, `body`.
    pub stage: String,
    /// More about it, if there is more to say.
    pub detail: Option<String>,
    /// How long it had been there already when this was sent.
    pub elapsed_ms: u64,
    /// How long it will take, where that is declared.
    pub of_ms: Option<u64>,
}

impl Progress {
    /// Where a test whose body takes `duration` is after an event, if that says so.
    pub fn after(event: &RunEvent<'_>, duration: Duration) -> Option<Self> {
        let at = |stage: &str| Self {
            test: String::new(),
            stage: stage.to_owned(),
            detail: None,
            elapsed_ms: 0,
            of_ms: None,
        };
        Some(match event {
            RunEvent::Queued(waiting) => Self {
                detail: Some(format!("for {}", waiting.lack)),
                elapsed_ms: millis(waiting.waited),
                ..at("queued")
            },
            RunEvent::Booting { attempt: 1, .. } => at("booting"),
            RunEvent::Booting { attempt, .. } => Self {
                detail: Some(format!("attempt {attempt}")),
                ..at("booting")
            },
            RunEvent::Booted { .. } => at("booted"),
            RunEvent::Attached { ops } => Self {
                detail: Some((*ops).to_owned()),
                ..at("attached")
            },
            RunEvent::Stage(stage) => match stage {
                GuestStage::Body => Self {
                    of_ms: Some(millis(duration)),
                    ..at("body")
                },
                stage => at(name_of(*stage)),
            },
            RunEvent::Ended(_) => at("ended"),
            RunEvent::Prepared { .. }
            | RunEvent::Terminal(_)
            | RunEvent::Output { .. }
            | RunEvent::Snapshot { .. }
            | RunEvent::Retry(_)
            | RunEvent::Fallback { .. }
            | RunEvent::Remark(_) => return None,
        })
    }

    /// As one line, `since` after it was sent: `body 3 s of 10 s`.
    pub fn words(&self, since: Duration) -> String {
        let elapsed_s = (Duration::from_millis(self.elapsed_ms) + since).as_secs();
        let mut words = format!("{} {elapsed_s} s", self.stage);
        if let Some(of_ms) = self.of_ms {
            words.push_str(&format!(" of {} s", of_ms.div_ceil(1000)));
        }
        if let Some(detail) = &self.detail {
            words.push_str(&format!(" ({detail})"));
        }
        words
    }
}

const fn name_of(stage: GuestStage) -> &'static str {
    match stage {
        GuestStage::Attaching => "attaching",
        GuestStage::Body => "body",
        GuestStage::Detaching => "detaching",
        GuestStage::Judging => "judging",
        GuestStage::Command => "running the command",
        GuestStage::InnerHost => "on the inner host",
    }
}

/// The variable that names the socket for [`ProgressSender`].
pub const PROGRESS_ENV: &str = "KTSTR_PROGRESS_SOCKET";

/// Sends where a test is, a line of JSON each time, to the socket of a command that shows it. A command that is gone or
/// does not read is no reason for a test to wait: it is told nothing more.
#[derive(Debug)]
pub struct ProgressSender {
    test: String,
    duration: Duration,
    socket: Option<UnixStream>,
}

impl ProgressSender {
    /// For the test of this name, whose body takes `duration`. Without a socket it sends nothing.
    pub fn new(socket: Option<&Path>, test: &str, duration: Duration) -> Self {
        let connect = |path| {
            let socket = UnixStream::connect(path)?;
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(socket)
        };
        Self {
            test: test.to_owned(),
            duration,
            socket: socket.and_then(|path| connect(path).ok()),
        }
    }

    fn send(&mut self, progress: Progress) {
        let progress = Progress {
            test: self.test.clone(),
            ..progress
        };
        let Ok(mut line) = serde_json::to_vec(&progress) else {
            return;
        };
        line.push(b'\n');
        self.socket
            .take_if(|socket| socket.write_all(&line).is_err());
    }
}

impl RunObserver for ProgressSender {
    fn event(&mut self, event: &RunEvent<'_>) {
        if let Some(progress) = Progress::after(event, self.duration) {
            self.send(progress);
        }
    }
}

/// Says on standard error what a test waits for; with `stages` also where one is that takes long.
#[derive(Debug)]
pub struct ProgressLines {
    test: String,
    duration: Duration,
    started: Instant,
    stages: bool,
}

impl ProgressLines {
    /// For the test of this name, whose body takes `duration`.
    pub fn new(test: &str, duration: Duration, stages: bool) -> Self {
        Self {
            test: test.to_owned(),
            duration,
            started: Instant::now(),
            stages,
        }
    }
}

impl RunObserver for ProgressLines {
    fn event(&mut self, event: &RunEvent<'_>) {
        match event {
            RunEvent::Queued(waiting) if waiting.is_long() => eprintln!("{waiting}"),
            event if self.stages && self.started.elapsed() >= WORTH_A_WORD => {
                let total_s = self.started.elapsed().as_secs();
                if let Some(progress) = Progress::after(event, self.duration) {
                    eprintln!("{}: {} after {total_s} s", self.test, progress.stage);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;

    use ktstr_machine::End;

    use super::*;
    use crate::cpu_queue::{Lack, Waiting};

    #[test]
    fn events_become_words() {
        let waiting = Waiting {
            lack: Lack::HostCpus {
                needed: 1,
                limit: 2,
            },
            waited: Duration::from_secs(12),
            before: Vec::new(),
        };
        let booting = |attempt| RunEvent::Booting {
            attempt,
            queued: Duration::ZERO,
        };
        let events = [
            RunEvent::Queued(&waiting),
            booting(1),
            booting(2),
            RunEvent::Booted { release: "7.3.4" },
            RunEvent::Stage(GuestStage::Attaching),
            RunEvent::Attached { ops: "ktstr" },
            RunEvent::Remark("nothing"),
            RunEvent::Stage(GuestStage::Body),
            RunEvent::Ended(&End::PoweredOff),
        ];
        let progress = events
            .iter()
            .filter_map(|event| Progress::after(event, Duration::from_secs(10)));
        let words: Vec<String> = progress
            .map(|progress| progress.words(Duration::from_millis(3_900)))
            .collect();
        assert_eq!(
            words,
            [
                "queued 15 s (for 1 of 2 host CPUs)",
                "booting 3 s",
                "booting 3 s (attempt 2)",
                "booted 3 s",
                "attaching 3 s",
                "attached 3 s (ktstr)",
                "body 3 s of 10 s",
                "ended 3 s",
            ]
        );
    }

    #[test]
    fn what_is_sent_is_read_back_and_nobody_who_listens_is_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("progress");
        let listener = UnixListener::bind(&path).unwrap();
        let mut sender = ProgressSender::new(Some(&path), "eevdf::steady", Duration::ZERO);
        sender.event(&RunEvent::Stage(GuestStage::Body));
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let read: Progress = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (read.test.as_str(), read.stage.as_str()),
            ("eevdf::steady", "body")
        );
        for _ in 0..2 {
            sender.event(&RunEvent::Ended(&End::PoweredOff));
        }
        assert!(sender.socket.is_none(), "nobody reads any more");
        let mut nobody =
            ProgressSender::new(Some(Path::new("/no/such/socket")), "x", Duration::ZERO);
        nobody.event(&RunEvent::Ended(&End::PoweredOff));
    }
}

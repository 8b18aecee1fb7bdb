//! What the host says to a guest.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ktstr_wire::frame::OversizeError;
use ktstr_wire::{Encoder, HostMessage, Job};

/// How long a guest may leave the room for a message full. From then on it gets none.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// A job, numbered as the first frame to its guest.
#[derive(Debug)]
pub(super) struct JobFrame {
    encoder: Encoder,
    frame: Vec<u8>,
}

impl JobFrame {
    pub(super) fn new(job: &Job) -> Result<Self, OversizeError> {
        let mut encoder = Encoder::default();
        let frame = encoder.encode(&HostMessage::Job(Box::new(job.clone())))?;
        Ok(Self { encoder, frame })
    }
}

/// Sends messages to one guest.
#[derive(Debug)]
pub(super) struct Speaker {
    /// `None` once the guest has left messages unread.
    port: Option<UnixStream>,
    encoder: Encoder,
    job: Option<Vec<u8>>,
}

impl Speaker {
    pub(super) fn new(port: UnixStream, job: JobFrame) -> io::Result<Self> {
        port.set_write_timeout(Some(WRITE_TIMEOUT))?;
        Ok(Self {
            port: Some(port),
            encoder: job.encoder,
            job: Some(job.frame),
        })
    }

    /// Sends the job to a guest that has said hello. Once.
    pub(super) fn send_job(&mut self) {
        if let Some(frame) = self.job.take() {
            self.write(&frame);
        }
    }

    /// Answers a guest's request.
    pub(super) fn answer(&mut self, done: bool) {
        // Answers are small.
        if let Ok(frame) = self.encoder.encode(&HostMessage::Answer { done }) {
            self.write(&frame);
        }
    }

    /// A guest that is gone needs no message; one that does not get it is ended by the watchdog.
    fn write(&mut self, frame: &[u8]) {
        self.port.take_if(|port| port.write_all(frame).is_err());
    }
}

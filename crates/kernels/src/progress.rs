//! What a caller hears while a kernel is being found.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;

/// One thing that happened. The set is closed: whoever draws it handles each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A kernel is being looked for: what is being asked, of whom.
    Resolving(String),
    /// Another process holds what is needed; it is waited for. Repeated while the wait lasts.
    Waiting {
        /// What the other process does.
        what: String,
        /// Its process id, when it left one.
        holder_pid: Option<u32>,
        /// How long this has been waited for.
        waited_s: u64,
        /// When the wait is given up.
        limit_s: u64,
    },
    /// Bytes arrive. Repeated as they do.
    Download {
        name: String,
        /// Bytes so far.
        done_bytes: u64,
        /// All of them, when that is known.
        total_bytes: Option<u64>,
    },
    /// A mirror sends nothing, or next to nothing. Repeated while that lasts.
    Slow {
        mirror: String,
        /// For how long this has been so.
        waited_s: u64,
        /// What arrived in that time.
        arrived_bytes: u64,
        /// When the mirror is given up.
        limit_s: u64,
    },
    /// An archive or an image is being taken apart.
    Unpack { name: String },
    /// The kernel is there.
    Done {
        /// Its cache key.
        key: String,
        /// Its source, for a person.
        source: String,
        /// The folder it lies in.
        dir: PathBuf,
    },
    /// Something that a person should know: a choice that was made for them, a fallback.
    Note(String),
    /// Something that a person must know: not all of what was asked for is used, or something was removed.
    Warning(String),
}

impl Event {
    /// The words for [`Event::Slow`].
    pub fn slow_text(&self) -> Option<String> {
        let Self::Slow {
            mirror,
            waited_s,
            arrived_bytes,
            limit_s,
        } = self
        else {
            return None;
        };
        let arrived = match arrived_bytes {
            0 => "nothing".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        Some(format!(
            "waiting for {mirror}: {arrived} in {waited_s} s, it is given up after {limit_s} s"
        ))
    }
}

/// Hears of events, possibly from another thread than the caller's.
pub trait Progress: Sync {
    /// Takes note of one event. Must not block for long: the work waits for it.
    fn event(&self, event: &Event);
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn event(&self, _event: &Event) {}
}

/// Plain lines on stderr, for logs and pipes: a download is reported at its start and end, a wait every
/// ten seconds.
#[derive(Debug, Default)]
pub struct Lines {
    last_download: Mutex<Option<String>>,
}

/// Seconds between two lines about the same wait.
const WAIT_LINE_S: u64 = 10;

impl Lines {
    /// The line for an event, or nothing when it only repeats what was said.
    fn line(&self, event: &Event) -> Option<String> {
        match event {
            Event::Resolving(what) => Some(format!("looking for {what}")),
            Event::Waiting {
                what,
                holder_pid,
                waited_s,
                limit_s,
            } => {
                let holder = holder_pid.map_or_else(
                    || "another process".to_owned(),
                    |pid| format!("process {pid}"),
                );
                (waited_s % WAIT_LINE_S == 0).then(|| {
                    format!(
                        "waiting for {holder} ({what}), {waited_s} s so far, at most {limit_s} s"
                    )
                })
            }
            Event::Download {
                name, total_bytes, ..
            } => {
                let mut last = self.last_download.lock().ok()?;
                if last.as_deref() == Some(name) {
                    return None;
                }
                *last = Some(name.clone());
                let size = total_bytes.map_or_else(String::new, |bytes| {
                    format!(" ({} MB)", bytes.div_ceil(1_000_000))
                });
                Some(format!("downloading {name}{size}"))
            }
            Event::Slow { waited_s, .. } => {
                (waited_s % WAIT_LINE_S == 0).then(|| event.slow_text().unwrap_or_default())
            }
            Event::Unpack { name } => Some(format!("unpacking {name}")),
            Event::Done { key, source, .. } => Some(format!("kernel {key}: {source}")),
            Event::Note(text) => Some(text.clone()),
            Event::Warning(text) => Some(format!("warning: {text}")),
        }
    }
}

impl Progress for Lines {
    fn event(&self, event: &Event) {
        if let Some(line) = self.line(event) {
            // A closed stderr must not fail a fetch.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }
}

//! What the user sees while a kernel is fetched and while a machine boots.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use ktstr_host::{Progress, RunEvent};
use ktstr_kernels::{Event, Lines};

use crate::output;

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// How much is told when nobody watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    /// Every event.
    All,
    /// What takes time, and what the user should know.
    Slow,
}

/// A bar on a terminal, plain lines elsewhere.
pub(crate) fn for_stderr(talk: Talk) -> Box<dyn ktstr_kernels::Progress> {
    match (output::is_watched(), talk) {
        (true, _) => Box::new(Bar::new()),
        (false, Talk::All) => Box::new(AllLines::default()),
        (false, Talk::Slow) => Box::new(SlowLines::default()),
    }
}

/// Lines, without the last: every command says itself which kernel it got.
#[derive(Debug, Default)]
struct AllLines(Lines);

impl ktstr_kernels::Progress for AllLines {
    fn event(&self, event: &Event) {
        if !matches!(event, Event::Done { .. }) {
            self.0.event(event);
        }
    }
}

/// Lines, but none before there is something that takes time.
#[derive(Debug, Default)]
struct SlowLines {
    lines: Lines,
    held_back: Mutex<Vec<Event>>,
}

impl ktstr_kernels::Progress for SlowLines {
    fn event(&self, event: &Event) {
        let Ok(mut held_back) = self.held_back.lock() else {
            return;
        };
        match event {
            Event::Resolving(_) | Event::Note(_) => held_back.push(event.clone()),
            Event::Done { .. } => {}
            Event::Warning(_) => self.lines.event(event),
            Event::Waiting { .. }
            | Event::Slow { .. }
            | Event::Download { .. }
            | Event::Unpack { .. } => {
                for earlier in held_back.drain(..) {
                    self.lines.event(&earlier);
                }
                self.lines.event(event);
            }
        }
    }
}

/// One line at the bottom of the terminal that says how long a machine boots or waits, once that takes two seconds. It
/// goes away when this is dropped.
#[derive(Debug)]
pub(crate) struct BootLine {
    bar: ProgressBar,
    stage: Arc<Mutex<Option<(Progress, Instant)>>>,
}

impl BootLine {
    const SHOWN_AFTER: Duration = Duration::from_secs(2);

    /// Shows nothing yet.
    pub(crate) fn show() -> Self {
        let stage: Arc<Mutex<Option<(Progress, Instant)>>> = Arc::default();
        let told = Arc::clone(&stage);
        let words = move |state: &ProgressState, text: &mut dyn fmt::Write| {
            if state.elapsed() >= Self::SHOWN_AFTER
                && let Ok(told) = told.lock()
                && let Some((progress, at)) = &*told
            {
                // A line that can't be written is a line less.
                let _ = text.write_str(&progress.words(at.elapsed()));
            }
        };
        let bar = ProgressBar::new_spinner().with_style(style("{words}").with_key("words", words));
        bar.enable_steady_tick(TICK);
        Self { bar, stage }
    }

    /// Says what happens now.
    pub(crate) fn event(&self, event: &RunEvent<'_>) {
        if let Some(progress) = Progress::after(event, Duration::ZERO)
            && let Ok(mut stage) = self.stage.lock()
        {
            *stage = Some((progress, Instant::now()));
        }
    }
}

impl Drop for BootLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One line at the bottom of the terminal that goes away when all is done.
#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    download: Mutex<Option<String>>,
}

/// What doesn't fit into the line is cut off.
fn spinner() -> ProgressStyle {
    style("{spinner} {wide_msg}")
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner().with_style(spinner());
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            download: Mutex::new(None),
        }
    }

    fn spin(&self, message: String) {
        self.set_download(None);
        self.bar.set_style(spinner());
        self.bar.set_message(message);
    }

    /// Notes what is being fetched now, and says whether that is news.
    fn set_download(&self, name: Option<&str>) -> bool {
        let Ok(mut current) = self.download.lock() else {
            return false;
        };
        let is_new = current.as_deref() != name;
        *current = name.map(str::to_owned);
        is_new
    }

    fn fetch(&self, name: &str, done_bytes: u64, total_bytes: Option<u64>) {
        if self.set_download(Some(name)) {
            let template = match total_bytes {
                Some(_) => {
                    "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left"
                }
                None => "{spinner} {msg} {bytes} {bytes_per_sec}",
            };
            self.bar.set_style(style(template).progress_chars("=> "));
            self.bar.set_message(name.to_owned());
            self.bar.reset();
        }
        if let Some(total) = total_bytes {
            self.bar.set_length(total);
        }
        self.bar.set_position(done_bytes);
    }
}

impl ktstr_kernels::Progress for Bar {
    fn event(&self, event: &Event) {
        match event {
            Event::Resolving(what) => self.spin(format!("looking for {what}")),
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
                self.spin(format!(
                    "waiting for {holder} ({what}), {waited_s} s of at most {limit_s} s"
                ));
            }
            Event::Download {
                name,
                done_bytes,
                total_bytes,
            } => self.fetch(name, *done_bytes, *total_bytes),
            Event::Slow { .. } => self.spin(event.slow_text().unwrap_or_default()),
            Event::Unpack { name } => self.spin(format!("unpacking {name}")),
            Event::Done { .. } => self.bar.finish_and_clear(),
            Event::Note(text) => self.bar.println(text),
            Event::Warning(text) => self.bar.println(format!("warning: {text}")),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

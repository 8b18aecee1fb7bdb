//! Where the tests are that run now: they tell it on a socket, and it is shown beneath what nextest prints.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ktstr_host::Progress;

use crate::status_area::StatusArea;
use crate::terminal;

/// A test that takes less is not shown.
const SHOWN_AFTER: Duration = Duration::from_secs(2);

/// How often the lines are drawn.
const TICK: Duration = Duration::from_millis(250);

/// One test, by the number of its connection.
#[derive(Debug)]
struct Running {
    connected: Instant,
    progress: Option<(Progress, Instant)>,
}

type Tests = Arc<Mutex<BTreeMap<u64, Running>>>;

/// Shows the tests that run until it is dropped.
#[derive(Debug)]
pub(crate) struct RunningTests {
    socket: PathBuf,
    drawing: Option<(Sender<()>, JoinHandle<()>)>,
}

impl RunningTests {
    /// Listens at `socket`, which no file may have, and draws on the terminal.
    pub(crate) fn show(socket: PathBuf) -> io::Result<Self> {
        let tests = Tests::default();
        let listener = UnixListener::bind(&socket)?;
        let listened = Arc::clone(&tests);
        // Ends with the process: nobody connects once the tests are gone.
        thread::Builder::new()
            .name("progress-listener".to_owned())
            .spawn(move || listen(&listener, &listened))?;
        let (stop, stopped) = mpsc::channel();
        let drawing = thread::Builder::new()
            .name("progress-screen".to_owned())
            .spawn(move || {
                let mut area = None;
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    draw(&mut area, &lines(&tests, Instant::now()));
                }
            })?;
        Ok(Self {
            socket,
            drawing: Some((stop, drawing)),
        })
    }

    /// Where tests tell how far they are.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for RunningTests {
    fn drop(&mut self) {
        if let Some((stop, drawing)) = self.drawing.take() {
            drop(stop);
            // The hook has reported a panic in it.
            let _ = drawing.join();
        }
    }
}

fn listen(listener: &UnixListener, tests: &Tests) {
    for (number, stream) in (0..).zip(listener.incoming().map_while(Result::ok)) {
        let tests = Arc::clone(tests);
        // A test that can't be listened to is not shown.
        let _ = thread::Builder::new()
            .name("progress-reader".to_owned())
            .spawn(move || follow(stream, number, &tests));
    }
}

/// One test, until it ends.
fn follow(stream: UnixStream, number: u64, tests: &Tests) {
    let running = Running {
        connected: Instant::now(),
        progress: None,
    };
    lock(tests).insert(number, running);
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    for progress in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
        if let Some(running) = lock(tests).get_mut(&number) {
            running.progress = Some((progress, Instant::now()));
        }
    }
    lock(tests).remove(&number);
}

fn lock(tests: &Tests) -> std::sync::MutexGuard<'_, BTreeMap<u64, Running>> {
    tests.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line for each test that takes long, in the order in which they began.
fn lines(tests: &Tests, now: Instant) -> Vec<String> {
    let tests = lock(tests);
    let shown = tests
        .values()
        .filter(|running| now.duration_since(running.connected) >= SHOWN_AFTER);
    shown
        .filter_map(|running| {
            let (progress, at) = running.progress.as_ref()?;
            let words = progress.words(now.duration_since(*at));
            Some(format!("  {}: {words}", progress.test))
        })
        .collect()
}

/// The area is taken when there is something to show, and kept until the end.
fn draw(area: &mut Option<StatusArea>, lines: &[String]) {
    let Some(size) = terminal::window_size(io::stderr()) else {
        return;
    };
    if area.is_none() && !lines.is_empty() {
        *area = StatusArea::take(size);
    }
    if let Some(area) = area {
        area.show(size, lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_shown_after_two_seconds_with_where_it_is() {
        let began = Instant::now();
        let progress = Progress {
            test: "eevdf::steady".to_owned(),
            stage: "body".to_owned(),
            detail: None,
            elapsed_ms: 0,
            of_ms: Some(10_000),
        };
        let tests = Tests::default();
        let running = Running {
            connected: began,
            progress: Some((progress, began + Duration::from_secs(1))),
        };
        lock(&tests).insert(1, running);
        assert!(lines(&tests, began + Duration::from_secs(1)).is_empty());
        assert_eq!(
            lines(&tests, began + Duration::from_secs(4)),
            ["  eevdf::steady: body 3 s of 10 s"]
        );
    }
}

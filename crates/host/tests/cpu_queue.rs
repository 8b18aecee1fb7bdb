//! The queue for host CPUs, with processes that are killed.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ktstr_host::{Admission, Claim, CpuCap, CpuQueue, Entry, Permit, Place, Ticket, Waiting};
use tempfile::TempDir;

/// How long anything here may take on a busy host.
const LIMIT: Duration = Duration::from_secs(60);

const FOLDER: &str = "QUEUE_TEST_FOLDER";
const BOUND: &str = "QUEUE_TEST_BOUND";
const HOST_CPUS: &str = "QUEUE_TEST_HOST_CPUS";
const HOLD_MS: &str = "QUEUE_TEST_HOLD_MS";

fn queue(folder: &Path, bound: u32) -> CpuQueue {
    CpuQueue::open(Some(folder), CpuCap::Count(bound))
        .expect("a usable folder")
        .expect("a queue")
}

/// Waits until the machine may start.
fn permit(queue: &CpuQueue, claim: &Claim, on_wait: &mut dyn FnMut(&Waiting)) -> Permit {
    let mut ticket = Ticket::take(queue, claim.clone(), false).expect("a place in the queue");
    loop {
        match ticket.wait().expect("a usable queue") {
            Admission::Granted(permit) => return permit,
            Admission::Waiting(waiting) => on_wait(&waiting),
        }
    }
}

/// One process in the queue, as its own process: says when it has its share, and keeps it until it is told
/// to leave, or for a time.
#[test]
#[ignore = "started by the tests of this file"]
fn one_process() {
    let number = |name: &str| -> u32 { std::env::var(name).unwrap().parse().unwrap() };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let host_cpus = number(HOST_CPUS);
    let claim = Claim::new("one_process", "none", host_cpus);
    let queue = queue(&folder.join("line"), number(BOUND));
    let share = permit(&queue, &claim, &mut |_| {});
    let mut log = File::options()
        .append(true)
        .create(true)
        .open(folder.join("log"))
        .unwrap();
    // One write, so that lines of several processes don't mix.
    let mut note = |sign: &str| {
        log.write_all(format!("{sign}{host_cpus}\n").as_bytes())
            .unwrap();
    };
    note("+");
    match number(HOLD_MS) {
        0 => drop(std::io::stdin().read_line(&mut String::new())),
        hold_ms => thread::sleep(Duration::from_millis(hold_ms.into())),
    }
    note("-");
    drop(share);
}

/// A process in the queue, killed unless it has left before.
struct Member {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Member {
    /// As a failed test does with those it leaves behind.
    fn kill(self) {
        drop(self);
    }

    fn leave(mut self) {
        self.stdin.take();
        assert!(self.child.wait().expect("it ends").success());
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

struct Line {
    folder: TempDir,
    bound: u32,
}

impl Line {
    fn new(bound: u32) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            bound,
        }
    }

    fn start(&self, host_cpus: u32, hold_ms: u32) -> Member {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--ignored", "--exact", "--nocapture", "one_process"])
            .env(FOLDER, self.folder.path())
            .env(BOUND, self.bound.to_string())
            .env(HOST_CPUS, host_cpus.to_string())
            .env(HOLD_MS, hold_ms.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let stdin = child.stdin.take();
        Member { child, stdin }
    }

    /// Starts one, and waits until it stands in the line or has its share.
    fn join(&self, host_cpus: u32, place: Place) -> Member {
        let member = self.start(host_cpus, 0);
        self.wait_for(&member, place);
        member
    }

    fn entries(&self) -> Vec<Entry> {
        CpuQueue::look(Some(&self.folder.path().join("line"))).expect("a readable line")
    }

    fn place(&self, member: &Member) -> Option<Place> {
        let entries = self.entries();
        let entry = entries.iter().find(|entry| entry.claim.pid == member.pid());
        entry.map(|entry| entry.place)
    }

    #[track_caller]
    fn wait_for(&self, member: &Member, place: Place) {
        let until = Instant::now() + LIMIT;
        while self.place(member) != Some(place) {
            assert!(
                Instant::now() < until,
                "not {place:?}: {:?}",
                self.entries()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The shares that were taken (above 0) and given back (below), in order.
    fn log(&self) -> Vec<i64> {
        let log = File::open(self.folder.path().join("log")).expect("a log");
        let lines = BufReader::new(log).lines();
        lines
            .map(|line| line.expect("text").parse().expect("a number"))
            .collect()
    }
}

#[test]
fn fifty_at_once_never_pass_the_bound() {
    const BOUND: u32 = 7;
    let line = Line::new(BOUND);
    let members: Vec<Member> = (0..50).map(|index| line.start(1 + index % 4, 20)).collect();
    members.into_iter().for_each(Member::leave);
    let log = line.log();
    assert_eq!(log.len(), 100);
    let mut busy = 0;
    let mut most = 0;
    for change in log {
        busy += change;
        most = most.max(busy);
        assert!(busy <= BOUND.into(), "{busy} of {BOUND}");
    }
    assert_eq!(busy, 0);
    assert!(most > 4, "at most {most} of {BOUND} were ever used");
    assert_eq!(line.entries(), []);
    let left = fs::read_dir(line.folder.path().join("line")).unwrap();
    assert_eq!(left.count(), 1, "only the door stays");
}

#[test]
fn first_come_first_served() {
    let line = Line::new(2);
    let mut members: VecDeque<Member> = VecDeque::from([line.join(2, Place::Running)]);
    for _ in 0..4 {
        members.push_back(line.join(2, Place::Waiting));
    }
    while let Some(first) = members.pop_front() {
        line.wait_for(&first, Place::Running);
        for other in &members {
            assert_eq!(line.place(other), Some(Place::Waiting));
        }
        first.leave();
    }
}

#[test]
fn a_small_one_does_not_pass_a_large_one() {
    let line = Line::new(4);
    let small = line.join(1, Place::Running);
    let large = line.join(4, Place::Waiting);
    let late: Vec<Member> = (0..3).map(|_| line.join(1, Place::Waiting)).collect();
    small.leave();
    line.wait_for(&large, Place::Running);
    for late in &late {
        assert_eq!(line.place(late), Some(Place::Waiting));
    }
    large.leave();
    for late in late {
        line.wait_for(&late, Place::Running);
        late.leave();
    }
}

#[test]
fn one_larger_than_the_bound_runs_alone() {
    let line = Line::new(2);
    let small = line.join(1, Place::Running);
    let large = line.join(64, Place::Waiting);
    small.leave();
    line.wait_for(&large, Place::Running);
    let small = line.join(1, Place::Waiting);
    large.leave();
    line.wait_for(&small, Place::Running);
    small.leave();
}

#[test]
fn the_share_of_a_killed_holder_is_free_at_once() {
    let line = Line::new(2);
    let holder = line.join(2, Place::Running);
    let next = line.join(2, Place::Waiting);
    holder.kill();
    line.wait_for(&next, Place::Running);
    assert_eq!(line.entries().len(), 1);
    next.kill();
    assert_eq!(line.entries(), []);
    line.join(2, Place::Running).leave();
}

#[test]
fn a_killed_waiter_does_not_hold_up_the_line() {
    let line = Line::new(2);
    let holder = line.join(2, Place::Running);
    let large = line.join(2, Place::Waiting);
    let small = line.join(1, Place::Waiting);
    large.kill();
    assert_eq!(line.place(&small), Some(Place::Waiting));
    holder.leave();
    line.wait_for(&small, Place::Running);
    small.leave();
}

#[test]
fn who_waits_long_is_told_for_whom() {
    let folder = tempfile::tempdir().unwrap();
    let queue = queue(folder.path(), 1);
    let first = Claim::new("the_first", "tcg", 1);
    let mut share = Some(permit(&queue, &first, &mut |_| {}));
    let mut words = Vec::new();
    let second = permit(
        &queue,
        &Claim::new("the_second", "tcg", 1),
        &mut |waiting| {
            words.push(waiting.to_string());
            share.take();
        },
    );
    assert!(second.waited >= Duration::from_secs(1));
    let pid = std::process::id();
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(
        words[0].starts_with("waiting for 1 of 1 host CPUs after "),
        "{words:?}"
    );
    let whom = format!(" s, for process {pid} (the_first, 1 CPUs, 0 MiB, running)");
    assert!(words[0].ends_with(&whom), "{words:?}");
}

//! Machines that are a thread which holds the guest's end of the channel.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use ktstr_machine::{
    ConsoleLog, ControlError, GuestMemory, LaunchError, MachineEvent, OnEvent, SpecError, Stopper,
    VcpuClock, VcpuRegisters,
};
use ktstr_report::TimingSlack;
use ktstr_topology::{NumaSpec, Topology};
use ktstr_wire::{Decoder, DumpMoment, Encoder, HostMessage, Stream, Task};

use super::*;

/// Longer than anything here takes on a busy host, and shorter than what it would take if it were wrong.
const LONG: Duration = Duration::from_secs(30);

type GuestBody = Arc<dyn Fn(&mut UnixStream) + Send + Sync>;

struct FakeEngine {
    guest: GuestBody,
    /// Where the guest's end of the channel stays when the machine has ended.
    kept: Option<Sender<UnixStream>>,
}

#[derive(Default)]
struct State {
    end: Option<End>,
    on_event: Option<OnEvent>,
}

struct FakeMachine {
    state: Arc<Mutex<State>>,
    port: Option<UnixStream>,
    guest: UnixStream,
    kept: bool,
    log: ConsoleLog,
}

impl std::fmt::Debug for FakeEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeEngine")
    }
}

impl std::fmt::Debug for FakeMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeMachine")
    }
}

impl Engine for FakeEngine {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn describe(&self) -> String {
        "a thread".to_owned()
    }

    fn emulates_cpus(&self) -> bool {
        false
    }

    fn timing(&self, _: &Topology) -> TimingSlack {
        TimingSlack {
            gap_ms: 0,
            spread_pct: 0.0,
            why: String::new(),
        }
    }

    fn check(&self, _: &MachineSpec) -> Result<(), SpecError> {
        Ok(())
    }

    fn launch(&self, _: &MachineSpec, on_event: OnEvent) -> Result<Box<dyn Machine>, LaunchError> {
        let (ours, guest) = UnixStream::pair().unwrap();
        let state = Arc::new(Mutex::new(State {
            end: None,
            on_event: Some(on_event),
        }));
        let (body, mut stream) = (Arc::clone(&self.guest), guest.try_clone().unwrap());
        thread::spawn(move || body(&mut stream));
        if let Some(kept) = &self.kept {
            kept.send(guest.try_clone().unwrap()).unwrap();
        }
        Ok(Box::new(FakeMachine {
            state,
            port: Some(ours),
            guest,
            kept: self.kept.is_some(),
            log: ConsoleLog::new(),
        }))
    }
}

impl Machine for FakeMachine {
    fn memory(&self) -> &GuestMemory {
        unreachable!("nobody looks into this machine")
    }

    fn take_port(&mut self, port: Port) -> Option<UnixStream> {
        self.port.take_if(|_| port == Port::Frames)
    }

    fn com1(&self) -> &ConsoleLog {
        &self.log
    }

    fn com2(&self) -> &ConsoleLog {
        &self.log
    }

    fn pause(&mut self) -> Result<(), ControlError> {
        Err(ControlError::Ended { action: "pause" })
    }

    fn resume(&mut self) -> Result<(), ControlError> {
        Err(ControlError::Ended { action: "resume" })
    }

    fn release(&mut self) -> Result<(), ControlError> {
        Err(ControlError::Ended { action: "release" })
    }

    fn vcpu_registers(&mut self) -> Result<Vec<VcpuRegisters>, ControlError> {
        let registers = VcpuRegisters {
            rip: 0x1234,
            ..VcpuRegisters::default()
        };
        Ok(vec![registers])
    }

    fn vcpu_clock(&mut self) -> Result<VcpuClock, ControlError> {
        Err(ControlError::Ended { action: "tell" })
    }

    fn end(&self) -> Option<End> {
        self.state.lock().unwrap().end.clone()
    }

    fn stopper(&self) -> Stopper {
        let state = Arc::clone(&self.state);
        let guest = self.guest.try_clone().unwrap();
        let kept = self.kept;
        Stopper::new(move |reason| {
            let mut state = state.lock().unwrap();
            if state.end.is_none() {
                let end = End::Stopped(reason);
                state.end = Some(end.clone());
                if !kept {
                    guest.shutdown(Shutdown::Both).unwrap();
                }
                let on_event = state.on_event.take().unwrap();
                drop(state);
                on_event(MachineEvent::Ended(end));
            }
        })
    }

    fn stop(&mut self, reason: StopReason) {
        self.stopper().stop(reason);
    }

    fn wait(&mut self, _: Duration) -> Option<End> {
        self.end()
    }

    fn pid(&self) -> u32 {
        0
    }

    fn footprint_bytes(&self) -> Result<u64, ControlError> {
        Err(ControlError::Ended { action: "tell" })
    }
}

const LIMITS: Limits = Limits {
    boot: LONG,
    run: Some(Duration::from_millis(200)),
};

fn spec() -> MachineSpec {
    let kernel = ktstr_machine::BootKernel {
        bzimage: None,
        vmlinux: None,
        pvh: false,
    };
    MachineSpec::new(Topology::SINGLE, 64, kernel)
}

fn job() -> Job {
    let numa = NumaSpec::default().resolve(&Topology::SINGLE, 64);
    Job {
        topology: Topology::SINGLE,
        numa: numa.unwrap(),
        environment: Vec::new(),
        task: Task::Shell {
            argv: vec!["true".to_owned()],
            interactive: false,
        },
    }
}

/// Reads what the host says, message by message.
fn heard(stream: &mut UnixStream) -> impl FnMut() -> HostMessage + use<> {
    let mut stream = stream.try_clone().unwrap();
    let mut decoder = Decoder::default();
    move || {
        let mut piece = [0; 4096];
        loop {
            if let Some(message) = decoder.next() {
                return message.unwrap();
            }
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "the host hung up");
            decoder.push(&piece[..count]);
        }
    }
}

fn hello() -> Message {
    Message::Hello {
        release: "9.9.9".to_owned(),
    }
}

/// Drives a machine whose guest says hello and all of `messages`, as long as anybody listens.
fn drive_guest<M>(messages: fn() -> M, on: &mut dyn RunObserver) -> Record
where
    M: Iterator<Item = Message> + 'static,
{
    let engine = FakeEngine {
        guest: Arc::new(move |stream| {
            let mut encoder = Encoder::default();
            for message in std::iter::once(hello()).chain(messages()) {
                let frame = encoder.encode(&message).unwrap();
                if stream.write_all(&frame).is_err() {
                    return;
                }
            }
        }),
        kept: None,
    };
    drive(&engine, &spec(), &job(), LIMITS, None, on).unwrap()
}

/// Takes the output with a function.
struct OnOutput<F>(F);

impl<F: FnMut(Option<Instant>)> RunObserver for OnOutput<F> {
    fn event(&mut self, event: &RunEvent<'_>) {
        if let RunEvent::Output { until, .. } = event {
            (self.0)(*until);
        }
    }
}

/// The same again and again, for as long as a right host never takes.
fn flood(message: Message) -> impl Iterator<Item = Message> {
    let until = Instant::now() + LONG;
    std::iter::repeat(message).take_while(move |_| Instant::now() < until)
}

fn assert_ended_by_the_watchdog(record: &Record, began: Instant) {
    assert_eq!(record.end, End::Stopped(StopReason::Watchdog));
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    assert_eq!(record.run, LIMITS.run.unwrap());
    let remark = "vCPU 0 when the watchdog fired: RIP 0x1234".to_owned();
    assert!(record.remarks.contains(&remark), "{:?}", record.remarks);
}

#[test]
fn fault_d1_the_watchdog_acts_while_messages_come() {
    let began = Instant::now();
    let line = || flood(Message::Output(Stream::Stdout, b"y\n".to_vec()));
    // Slower than the guest, so that there is always another message.
    let record = drive_guest(
        line,
        &mut OnOutput(|_| thread::sleep(Duration::from_millis(2))),
    );
    assert_ended_by_the_watchdog(&record, began);
}

#[test]
fn fault_d1_the_watchdog_acts_while_requests_come_and_answers_are_left_unread() {
    let began = Instant::now();
    let request = || flood(Message::Request(Request::Dump(DumpMoment::BodyEnded)));
    let record = drive_guest(request, &mut ());
    assert_ended_by_the_watchdog(&record, began);
}

#[test]
fn fault_d1_the_watchdog_acts_while_nobody_takes_the_output() {
    let began = Instant::now();
    let line = || flood(Message::Output(Stream::Stdout, b"y\n".to_vec()));
    let mut given_up_at = Vec::new();
    let record = drive_guest(
        line,
        &mut OnOutput(|until: Option<Instant>| {
            // A pager that shows its first page.
            let until = until.unwrap_or(began + LONG);
            thread::sleep(until.saturating_duration_since(Instant::now()));
            given_up_at.push(until);
        }),
    );
    assert_ended_by_the_watchdog(&record, began);
    assert!(given_up_at.iter().all(|&at| at == given_up_at[0]));
}

#[test]
fn fault_d5_remarks_have_a_bound_and_the_rest_is_counted() {
    let messages = || {
        let remarks = (0..1000).map(|number| Message::Remark(format!("{number}")));
        remarks.chain([Message::Bye])
    };
    let record = drive_guest(messages, &mut ());
    assert_eq!(record.end, End::Stopped(StopReason::Done));
    assert_eq!(record.remarks.len(), MAX_REMARKS + 1);
    let last = record.remarks.last().unwrap();
    assert_eq!(last, "936 more remarks of the guest are left out");
}

#[test]
fn fault_d5_requests_have_a_bound_and_the_rest_is_refused_and_counted() {
    let engine = FakeEngine {
        guest: Arc::new(|stream| {
            let mut encoder = Encoder::default();
            let mut next = heard(stream);
            stream
                .write_all(&encoder.encode(&hello()).unwrap())
                .unwrap();
            assert_eq!(next(), HostMessage::Job(Box::new(job())));
            for _ in 0..MAX_REQUESTS + 7 {
                let request = Message::Request(Request::Snapshot(String::new()));
                stream
                    .write_all(&encoder.encode(&request).unwrap())
                    .unwrap();
                assert_eq!(next(), HostMessage::Answer { done: false });
            }
            stream
                .write_all(&encoder.encode(&Message::Bye).unwrap())
                .unwrap();
        }),
        kept: None,
    };
    let limits = Limits {
        run: Some(LONG),
        ..LIMITS
    };
    let record = drive(&engine, &spec(), &job(), limits, None, &mut ()).unwrap();
    assert!(record.said_bye);
    let refused = "7 more requests of the guest were refused, since it had made too many";
    assert_eq!(record.remarks, [refused]);
}

#[test]
fn fault_d6_a_channel_that_somebody_holds_open_does_not_hold_the_driver() {
    let (kept, held) = channel();
    let engine = FakeEngine {
        guest: Arc::new(|stream| {
            let mut encoder = Encoder::default();
            for message in [hello(), Message::Bye] {
                stream
                    .write_all(&encoder.encode(&message).unwrap())
                    .unwrap();
            }
        }),
        kept: Some(kept),
    };
    let (done, driven) = channel();
    thread::spawn(move || {
        let record = drive(&engine, &spec(), &job(), LIMITS, None, &mut ());
        done.send(record.unwrap()).unwrap();
    });
    let guests_end = held.recv().unwrap();
    let record = driven.recv_timeout(LONG).unwrap();
    assert!(record.said_bye);
    drop(guests_end);
}

#[test]
fn a_job_that_fits_no_frame_is_refused_before_a_machine_is_started() {
    let engine = FakeEngine {
        guest: Arc::new(|_| unreachable!("it is not started")),
        kept: None,
    };
    let mut job = job();
    job.environment
        .push(("NAME".to_owned(), "x".repeat(2 << 20)));
    let driven = drive(&engine, &spec(), &job, LIMITS, None, &mut ());
    assert!(matches!(driven, Err(DriveError::Job(_))), "{driven:?}");
}

#[test]
fn a_guest_that_got_a_damaged_frame_is_not_judged() {
    let messages = || [Message::LinkDamaged("frame 3".to_owned())].into_iter();
    let record = drive_guest(messages, &mut ());
    assert_eq!(record.damaged_to_guest.as_deref(), Some("frame 3"));
    assert_eq!(record.order.faults(), [""; 0]);
}

//! The last step of a machine's start: its threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crate::create::CreatedVm;
use crate::devices::Devices;
use crate::devices::virtio::worker::Worker;
use crate::end::End;
use crate::gate::Gate;
use crate::guest_ram::GuestRam;
use crate::load::LoadedVm;
use crate::machine::MicroVm;
use crate::setup_times::StepClock;
use crate::start_error::{StartError, host};
use crate::vcpu::VcpuThreads;

/// Called exactly once, from a thread of the machine, when the machine has ended and nothing of it is left.
pub type OnEnd = Box<dyn FnOnce(End) + Send>;

impl LoadedVm {
    /// Lets the vCPUs run. `on_end` is dropped uncalled when this fails.
    pub fn run(self, on_end: OnEnd) -> Result<MicroVm, StartError> {
        let CreatedVm {
            vcpus,
            vm,
            ram,
            devices,
            worker,
            streams,
            host_cpus,
            pause_port,
            mut times,
            ..
        } = self.0;
        let mut clock = StepClock::start();
        let gate = Arc::new(Gate::new(vcpus.len(), worker.wake()));
        let threads = VcpuThreads::start(vcpus, &host_cpus, &gate, &devices, pause_port)
            .map(Arc::new)
            .map_err(host("start the threads of the vCPUs"))?;
        times.vcpus = times.vcpus + clock.lap();
        let mut machine = MicroVm {
            gate,
            threads,
            vm,
            ram: GuestRam::new(ram),
            streams,
            times,
            paused_clock: None,
            supervisor: None,
        };
        supervise(&mut machine, devices, worker, on_end)?;
        Ok(machine)
    }
}

/// Starts the machine's thread: it serves the devices, and cleans up after the end.
fn supervise(
    machine: &mut MicroVm,
    devices: Arc<Devices>,
    worker: Worker,
    on_end: OnEnd,
) -> Result<(), StartError> {
    let gate = Arc::clone(&machine.gate);
    let threads = Arc::clone(&machine.threads);
    let supervisor = thread::Builder::new()
        .name("ktstr-vm".to_owned())
        .spawn(move || {
            // A panic has been printed. The machine goes on without a console, and its end is told.
            let _ = catch_unwind(AssertUnwindSafe(|| worker.run(|| gate.has_ended())));
            let end = gate.wait_for_end();
            threads.join();
            let _ = catch_unwind(AssertUnwindSafe(|| worker.finish()));
            drop(worker);
            // The guest's ends of the streams: who reads ours sees them end.
            drop(devices);
            gate.finish();
            on_end(end);
        });
    match supervisor {
        Ok(supervisor) => {
            machine.supervisor = Some(supervisor);
            Ok(())
        }
        Err(error) => {
            machine.gate.end(End::Stopped);
            machine.threads.join();
            Err(host("start the machine's thread")(error))
        }
    }
}

//! Boots a kernel on this host's KVM and shows what the guest says.
//!
//!     boot KERNEL INITRD TOPOLOGY MEMORY_MIB CMDLINE
//!
//! With `LOOK_EVERY_S` set, the machine is paused that often and its registers are shown; with `COPY`, the
//! images are copied instead of mapped. COM1 goes to standard output. What comes from the port `example` is
//! printed in a line of its own, and each time sent back to the guest.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use ktstr_topology::Topology;
use ktstr_vmm::{BootSource, InitrdPart, NodeMemory, PortKind, Stream, VmConfig};

/// Name of the port in the guest.
const PORT_NAME: &str = "example";

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [kernel, initrd, topology, memory_mib, cmdline] = arguments.as_slice() else {
        return Err("usage: boot KERNEL INITRD TOPOLOGY MEMORY_MIB CMDLINE".into());
    };
    let topology: Topology = topology.parse()?;
    let nodes = u64::from(topology.numa_nodes());
    let bytes = (memory_mib.parse::<u64>()? / nodes) << 20;
    let nodes = (0..nodes)
        .map(|_| NodeMemory::new(bytes))
        .collect::<io::Result<Vec<_>>>()?;
    let config = VmConfig::new(topology, nodes).port(1, PortKind::Named(PORT_NAME.to_owned()));
    let mut source = BootSource::new(File::open(kernel)?)
        .initrd(InitrdPart::File(File::open(initrd)?))
        .cmdline(cmdline);
    if std::env::var_os("COPY").is_none() {
        source = source.immutable_images();
    }
    let started = Instant::now();
    let mut machine = config.create()?.load(source)?.run(Box::new(move |end| {
        println!("ended: {end}, after {:?}", started.elapsed());
    }))?;
    for (name, time) in machine.setup_times().steps() {
        println!("{name}: {:?}, CPU time {:?}", time.wall, time.cpu);
    }
    let total = machine.setup_times().total();
    println!("set-up: {:?}, CPU time {:?}", total.wall, total.cpu);

    let mut readers = Vec::new();
    if let Some(com1) = machine.take_stream(Stream::Com1) {
        readers.push(thread::spawn(move || {
            let _ = io::copy(&mut &com1, &mut io::stdout());
        }));
    }
    if let Some(port) = machine.take_stream(Stream::Port(1)) {
        readers.push(thread::spawn(move || echo(&port)));
    }
    let look_every: Option<u32> = std::env::var("LOOK_EVERY_S")
        .ok()
        .and_then(|s| s.parse().ok());
    let mut seconds = 0;
    while machine.wait(Duration::from_secs(1)).is_none() {
        seconds += 1;
        if look_every.is_some_and(|every| seconds % every == 0) {
            machine.pause()?;
            for (cpu, registers) in machine.registers()?.iter().enumerate() {
                println!(
                    "cpu {cpu} at {:#x}, halted: {}",
                    registers.rip, registers.halted
                );
            }
            machine.resume()?;
        }
    }
    for reader in readers {
        reader.join().map_err(|_| "a reader panicked")?;
    }
    Ok(())
}

fn echo(mut port: &UnixStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = port.read(&mut buffer) {
        println!("port: {:?}", String::from_utf8_lossy(&buffer[..count]));
        if port.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

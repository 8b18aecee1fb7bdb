use ktstr_machine::*;
use std::time::{Duration, Instant};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let e = choose(EngineKind::Auto, &EngineOptions::from_env()).unwrap();
    eprintln!("{:?}", announce(EngineKind::Auto, &*e));
    let mut s = MachineSpec::new(
        a[1].parse().unwrap(),
        a[2].parse().unwrap(),
        BootKernel {
            bzimage: Some("/tmp/dev/machine/bz".into()),
            vmlinux: Some("/tmp/dev/machine/vmlinux".into()),
            pvh: a[3] == "pvh",
        },
    );
    s.initrd = vec![InitrdPart::File("/tmp/dev/machine/ir.cpio".into())];
    s.cmdline = a[4..].to_vec();
    let t = Instant::now();
    let mut m = e
        .launch(&s, Box::new(|e| eprintln!("on_end: {e}")))
        .unwrap();
    eprintln!("launch {:?} pid {}", t.elapsed(), m.pid());
    std::thread::sleep(Duration::from_millis(800));
    eprintln!("{:?} footprint {:?}", m.memory(), m.footprint_bytes());
    eprintln!("{:x?}", m.vcpu_registers().map(|r| r[0]));
    let end = m.wait(Duration::from_secs(60));
    eprintln!("end {:?} {:?}", end, t.elapsed());
    println!("{}", m.com1().contents());
}

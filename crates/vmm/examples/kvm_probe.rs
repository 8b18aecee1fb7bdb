//! Tells whether this host's KVM can run a kernel.

use std::time::Instant;

fn main() {
    let start = Instant::now();
    match ktstr_vmm::probe() {
        Ok(usable) => println!("usable: {usable:?}"),
        Err(unusable) => println!("unusable: {unusable}"),
    }
    println!("answered after {:?}", start.elapsed());
}

//! Fuzz targets: what must hold whatever a guest, a kernel image or a declared shape says.
//!
//! Each is a plain function that takes any bytes and panics at a defect. `fuzz/` runs them under libFuzzer;
//! the tests here run its seeds and what it once found. Not public API: it is there only for tests and with
//! the feature `fuzzing`.
//!
//! Inputs are read by hand, a byte or word at a time, so that a kept finding still means the same when an
//! operation is added at the end of a list.

mod boot;
mod io_apic;
mod serial;
mod tables;
mod virtio_console;

pub use boot::boot;
pub use io_apic::io_apic;
pub use serial::serial;
pub use tables::tables;
pub use virtio_console::virtio_console;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs every seed and every finding of `target`.
    fn replay(target: &str, run: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let mut inputs = 0;
        for kept in ["seeds", "regressions"] {
            let Ok(folder) = fs::read_dir(fuzz.join(kept).join(target)) else {
                continue;
            };
            for file in folder {
                let path = file.unwrap().path();
                eprintln!("{}", path.display());
                run(&fs::read(path).unwrap());
                inputs += 1;
            }
        }
        assert!(inputs > 0, "there is no input for {target}");
        run(&[]);
    }

    #[test]
    fn kept_inputs_of_the_serial_port_hold() {
        replay("serial", super::serial);
    }

    #[test]
    fn kept_inputs_of_the_virtio_console_hold() {
        replay("virtio_console", super::virtio_console);
    }

    #[test]
    fn kept_inputs_of_the_io_apic_hold() {
        replay("io_apic", super::io_apic);
    }

    #[test]
    fn kept_inputs_of_the_tables_hold() {
        replay("tables", super::tables);
    }

    #[test]
    fn kept_inputs_of_the_boot_loader_hold() {
        replay("boot", super::boot);
    }
}

//! Fuzz targets: what must hold of any file that a person, an archive or a mirror hands us.
//!
//! `fuzz/` runs them under libFuzzer, the test here with the seeds and what was once found. Not public API: they
//! are there only for tests and with the feature `fuzzing`.

mod apt;
mod deb;
mod image;
mod modules;

pub use apt::apt;
pub use deb::deb;
pub use image::image;
pub use modules::modules;

/// An error is text for a person: there is some, and nothing that a terminal acts on.
fn assert_message(text: &str) {
    assert!(!text.is_empty());
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Every seed and every finding that was kept.
    fn run_kept(target: &str, run: fn(&[u8])) {
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
    fn kept_inputs_of_the_image_hold() {
        run_kept("image", super::image);
    }

    #[test]
    fn kept_inputs_of_packages_hold() {
        run_kept("deb", super::deb);
    }

    #[test]
    fn kept_inputs_of_modules_hold() {
        run_kept("modules", super::modules);
    }

    #[test]
    fn kept_inputs_of_apt_hold() {
        run_kept("apt", super::apt);
    }
}

#![allow(missing_docs)]
use ktstr_kernels::*;
#[test]
fn t() {
    let d = std::env::var("SRC").unwrap();
    let cache = Cache::open(Some(std::path::Path::new("/root/.cache/ktstr-dev-kernels"))).unwrap();
    for spec in [format!("{d}/vmlinuz"), format!("{d}/vmlinuz"), format!("{d}/vmlinux"), format!("{d}/vmlinux"), "/tmp/dev/kernels/apt/debs".into(), "/tmp/dev/kernels/apt/debs".into(), "debian/sid".into(), "debian/sid".into(),"debian/6.12".into()] {
        let t = std::time::Instant::now();
        let k = resolve(Some(&spec.parse().unwrap()), &cache, &ResolveOptions::default(), &Lines::default());
        println!("{spec}: {:?} {:?}", t.elapsed(), k.as_ref().map(|k| k.key().to_owned()).map_err(|e| e.to_string()));
        if let Ok(k) = k { let t = std::time::Instant::now(); let r = k.requirements().unwrap(); println!("  requirements {:?} {:?}", t.elapsed(), r);
          let t = std::time::Instant::now(); let r = k.modules_for(&["virtio_net"]).map(|v| v.into_iter().map(|m| m.name).collect::<Vec<_>>()); println!("  modules {:?} {:?}", t.elapsed(), r.map_err(|e| e.to_string()));
          let t = std::time::Instant::now(); k.entry().verify().unwrap(); println!("  verify {:?} size {}", t.elapsed(), k.entry().size_bytes().unwrap()); }
    }
}

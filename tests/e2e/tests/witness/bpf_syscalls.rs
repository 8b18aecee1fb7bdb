//! BPF maps as bpf(2) has them.

#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper; commands are called that give ids, descriptors and bytes"
)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use ktstr::prelude::*;

// `enum bpf_cmd` (include/uapi/linux/bpf.h).
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_BTF_GET_FD_BY_ID: libc::c_long = 19;

/// `enum bpf_map_type`.
pub(crate) const HASH: u32 = 1;
pub(crate) const ARRAY: u32 = 2;
pub(crate) const PERCPU_ARRAY: u32 = 6;

/// More maps or entries than there are, unless an iteration ran on.
const MOST: usize = 4096;

/// A key, and its values: more than one if the map has one for each CPU.
pub(crate) type Entry = (Vec<u8>, Vec<Vec<u8>>);

/// A map that is held open.
pub(crate) struct OpenMap {
    fd: OwnedFd,
    /// The first 19 words of `struct bpf_map_info`.
    info: [u32; 19],
}

impl OpenMap {
    /// All maps that there are, by their ids.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let mut maps = Vec::new();
        // start_id and next_id
        let mut ids = [0_u32; 8];
        while maps.len() < MOST {
            match bpf(BPF_MAP_GET_NEXT_ID, &mut ids) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error).context("asking for the next map's id"),
            }
            ids[0] = ids[1];
            let fd = open(BPF_MAP_GET_FD_BY_ID, ids[0])?;
            let mut info = [0; 19];
            object_info(&fd, &mut info)?;
            maps.push(Self { fd, info });
        }
        Ok(maps)
    }

    pub(crate) fn kind(&self) -> u32 {
        self.info[0]
    }

    pub(crate) fn id(&self) -> u32 {
        self.info[1]
    }

    pub(crate) fn name(&self) -> String {
        let bytes: Vec<u8> = self.info[6..10]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .take_while(|&byte| byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The id of its types; 0 for none.
    pub(crate) fn btf_id(&self) -> u32 {
        self.info[16]
    }

    /// The types of a key and of a value in them.
    pub(crate) fn type_ids(&self) -> [u32; 2] {
        [self.info[17], self.info[18]]
    }

    fn key_bytes(&self) -> usize {
        self.info[2] as usize
    }

    /// Keys and values, the latter for each of `cpus` CPUs if the map has one for each.
    pub(crate) fn entries(&self, cpus: usize) -> Result<Vec<Entry>> {
        let value_bytes = self.info[3] as usize;
        let (values, step) = match self.kind() {
            PERCPU_ARRAY => (cpus, value_bytes.next_multiple_of(8)),
            _ => (1, value_bytes),
        };
        let mut entries = Vec::new();
        let mut key = None;
        while let Some(next) = self.next_key(key.as_deref())? {
            ensure!(
                entries.len() < MOST,
                "the entries of map {} do not end",
                self.id()
            );
            let mut value = vec![0; values * step];
            self.lookup(&next, &mut value)?;
            let each = value
                .chunks(step)
                .map(|value| value[..value_bytes].to_vec());
            entries.push((next.clone(), each.collect()));
            key = Some(next);
        }
        Ok(entries)
    }

    fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_bytes()];
        let key = key.map_or(std::ptr::null(), <[u8]>::as_ptr);
        let mut attr = self.attr([key as u64, next.as_mut_ptr() as u64])?;
        match bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) {
            Ok(_) => Ok(Some(next)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error).context("asking for the next key"),
        }
    }

    fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<()> {
        let mut attr = self.attr([key.as_ptr() as u64, value.as_mut_ptr() as u64])?;
        bpf(BPF_MAP_LOOKUP_ELEM, &mut attr).context("looking up a value")?;
        Ok(())
    }

    /// map_fd, and two addresses.
    fn attr(&self, addresses: [u64; 2]) -> Result<[u32; 8]> {
        let mut attr = [0; 8];
        attr[0] = u32::try_from(self.fd.as_raw_fd())?;
        for (at, address) in [2, 4].into_iter().zip(addresses) {
            [attr[at], attr[at + 1]] = halves(address);
        }
        Ok(attr)
    }
}

/// The type information with this id.
pub(crate) fn btf_bytes(id: u32) -> Result<Vec<u8>> {
    let fd = open(BPF_BTF_GET_FD_BY_ID, id)?;
    // `struct bpf_btf_info`: where to put it, how much there is room for, and more that is not asked for.
    let mut info = [0; 8];
    object_info(&fd, &mut info)?;
    let mut bytes = vec![0; info[2] as usize];
    let [low, high] = halves(bytes.as_mut_ptr() as u64);
    info = [low, high, info[2], 0, 0, 0, 0, 0];
    object_info(&fd, &mut info)?;
    Ok(bytes)
}

/// An address as two words, the low one first.
fn halves(address: u64) -> [u32; 2] {
    let bytes = address.to_le_bytes();
    let (words, _) = bytes.as_chunks::<4>();
    [words[0], words[1]].map(u32::from_le_bytes)
}

fn open(command: libc::c_long, id: u32) -> Result<OwnedFd> {
    let fd = bpf(command, &mut [id, 0, 0, 0, 0, 0, 0, 0]);
    let fd = fd.with_context(|| format!("opening the object with id {id}"))?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

fn object_info<const N: usize>(fd: &OwnedFd, info: &mut [u32; N]) -> Result<()> {
    let [low, high] = halves(info.as_mut_ptr() as u64);
    let (fd, bytes) = (
        u32::try_from(fd.as_raw_fd())?,
        u32::try_from(size_of_val(info))?,
    );
    // bpf_fd, info_len, info
    let attr = &mut [fd, bytes, low, high, 0, 0, 0, 0];
    bpf(BPF_OBJ_GET_INFO_BY_FD, attr).context("asking what an object is")?;
    Ok(())
}

/// Calls bpf(2) with the first 32 bytes of a `union bpf_attr`; the kernel takes the rest for zero.
fn bpf(command: libc::c_long, attr: &mut [u32; 8]) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is memory of the size that is told, which the kernel reads and writes before it returns.
    // Where it holds an address, that is of memory as long as the kernel takes for it: by the map's own sizes, or
    // by the length told beside it.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of_val(attr),
        )
    };
    match returned {
        -1 => Err(io::Error::last_os_error()),
        returned => Ok(returned),
    }
}

//! The archive around a package's parts (ar(5)), as far as packages use it: plain names, no tables (deb(5)).

use std::io::{self, Read};

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;
/// `ar_name`, `ar_size` and `ar_fmag` in it.
const NAME: std::ops::Range<usize> = 0..16;
const SIZE: std::ops::Range<usize> = 48..58;
const END: &[u8] = b"`\n";

/// An archive that is read once, from its start to its end.
#[derive(Debug)]
pub(super) struct Archive<R> {
    reader: R,
    /// What has not been read of the current member, and whether a byte of padding follows.
    left: u64,
    padded: bool,
    name: String,
}

/// Why it can't be read on, in words.
type Fault = String;

impl<R: Read> Archive<R> {
    pub(super) fn open(mut reader: R) -> Result<Self, Fault> {
        let mut magic = [0; MAGIC.len()];
        match reader.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => Ok(Self {
                reader,
                left: 0,
                padded: false,
                name: String::new(),
            }),
            Ok(()) => Err("it does not begin as an archive does".to_owned()),
            Err(error) if is_end(&error) => Err("it does not begin as an archive does".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Goes on to the next member, whatever was read of this one. Its name, or nothing at the end.
    pub(super) fn next_member(&mut self) -> Result<Option<&str>, Fault> {
        self.skip_rest()?;
        let mut header = [0; HEADER_BYTES];
        match read_full(&mut self.reader, &mut header).map_err(|error| error.to_string())? {
            0 => return Ok(None),
            HEADER_BYTES => {}
            _ => return Err("it ends in the middle of a member's header".to_owned()),
        }
        if !header.ends_with(END) {
            return Err("it has a member's header that does not end as one".to_owned());
        }
        // GNU ar ends names with a slash.
        let name = text(&header[NAME]);
        self.name = match name.strip_suffix('/') {
            Some(short) if !short.is_empty() && !short.contains('/') => short.to_owned(),
            _ => name,
        };
        self.left = parse_decimal(&header[SIZE])
            .ok_or_else(|| format!("its member `{}` has a size that is not a number", self.name))?;
        self.padded = self.left % 2 == 1;
        Ok(Some(&self.name))
    }

    /// Reads over what is left of a member; a member that is cut is an error.
    fn skip_rest(&mut self) -> Result<(), Fault> {
        let expected = self.left + u64::from(self.padded);
        // A file may leave the last byte of padding out.
        let least = self.left;
        let skipped = io::copy(&mut (&mut self.reader).take(expected), &mut io::sink())
            .map_err(|error| error.to_string())?;
        self.left = 0;
        self.padded = false;
        if skipped < least {
            return Err(format!("it ends in the middle of its {}", self.name));
        }
        Ok(())
    }
}

/// Reads the current member.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.reader).take(self.left).read(buffer)?;
        self.left -= count as u64;
        Ok(count)
    }
}

fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// Reads until the buffer is full or the bytes end.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A field: text, filled up with spaces. What a terminal would act on is replaced.
fn text(field: &[u8]) -> String {
    let visible = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    let text: String = field.iter().map(visible).collect();
    text.trim_end().to_owned()
}

/// At most ten digits, so it always fits.
fn parse_decimal(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

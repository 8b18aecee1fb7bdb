//! The kernel's release, as an image tells it.

/// `__NEW_UTS_LEN`: most bytes that `uname -r` has (include/uapi/linux/utsname.h).
const MAX_BYTES: usize = 64;

/// The release at the start of a banner: up to the first space or NUL. Nothing if it could not be one: it is
/// shown to people and names folders of modules, so it has visible ASCII only, and no slash.
pub(super) fn release_of(banner: &[u8]) -> Option<&str> {
    let end = banner
        .iter()
        .position(|byte| byte.is_ascii_whitespace() || *byte == 0)
        .unwrap_or(banner.len());
    let release = &banner[..end];
    let visible = release
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'/');
    let named = [&b"."[..], b".."].contains(&release);
    if release.is_empty() || release.len() > MAX_BYTES || !visible || named {
        return None;
    }
    std::str::from_utf8(release).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_a_word_that_can_name_a_folder() {
        assert_eq!(
            release_of(b"7.3.4+deb13-cloud-amd64 (a@b)"),
            Some("7.3.4+deb13-cloud-amd64")
        );
        assert_eq!(release_of(b"6.12.0\n\0"), Some("6.12.0"));
        let long = [b'9'; MAX_BYTES + 1];
        let refused: [&[u8]; 8] = [
            b"",
            b" 6.12",
            b"..",
            b"6.12/../../x",
            b"6\x0b12",
            b"6\x1b[2J",
            b"6\xff",
            &long,
        ];
        for banner in refused {
            assert_eq!(release_of(banner), None, "{banner:?}");
        }
    }
}

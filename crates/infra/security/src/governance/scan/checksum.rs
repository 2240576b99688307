//! Checksums that some providers build into their tokens. A valid one raises confidence; a wrong one discards nothing.

use crc::{CRC_32_ISO_HDLC, Crc};
use serde::Deserialize;

/// Where the last six characters are the base62 CRC-32 of what stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Checksum {
    /// `ghp_` and its kin: over what stands between prefix and checksum.
    Github,
    /// `npm_`: the same.
    Npm,
    /// `sp-live-`: over everything before, prefix included.
    Systemprompt,
}

const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Checksum {
    /// Whether the checksum of `token` is right.
    pub(super) fn holds(self, token: &[u8]) -> bool {
        let Some((body, sum)) = token.len().checked_sub(6).and_then(|at| token.split_at_checked(at)) else {
            return false;
        };
        let body = match self {
            Self::Github | Self::Npm => body.get(4..).unwrap_or_default(),
            Self::Systemprompt => body,
        };
        sum == base62(CRC32.checksum(body))
    }
}

/// Six base62 digits, highest first.
fn base62(mut value: u32) -> [u8; 6] {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get((value % 62) as usize).copied().unwrap_or(b'0');
        value /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_token_of_the_github_form_checks_and_a_changed_one_does_not() {
        assert!(Checksum::Github.holds(b"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"));
        assert!(!Checksum::Github.holds(b"ghp_zQWBuTSOoRi4A9spHcVY5ncnsDkxkK0mLq17"));
        assert!(!Checksum::Github.holds(b"ghp_"));
    }
}

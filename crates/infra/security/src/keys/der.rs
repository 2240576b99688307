//! The few lines of DER (X.690) that an RSA key needs on its way into a JSON Web Key: sequences, integers, octet strings.

use super::KeyError;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The integers of an RSAPrivateKey (RFC 8017 appendix A.1.2), big-endian without leading zeros, borrowed from the DER.
pub(super) struct RsaParts<'a> {
    pub n: &'a [u8],
    pub e: &'a [u8],
    pub d: &'a [u8],
    pub p: &'a [u8],
    pub q: &'a [u8],
    pub dp: &'a [u8],
    pub dq: &'a [u8],
    pub qi: &'a [u8],
}

/// Reads the RSA key inside a PKCS#8 PrivateKeyInfo (RFC 5208).
pub(super) fn rsa_parts(pkcs8: &[u8]) -> Result<RsaParts<'_>, KeyError> {
    read_rsa(pkcs8).ok_or(KeyError::PrivateKeyRejected)
}

fn read_rsa(pkcs8: &[u8]) -> Option<RsaParts<'_>> {
    let mut info = Der(Der(pkcs8).take(SEQUENCE)?);
    info.take(INTEGER)?;
    info.take(SEQUENCE)?;
    let mut key = Der(Der(info.take(OCTET_STRING)?).take(SEQUENCE)?);
    key.take(INTEGER)?;
    let mut next = || key.take(INTEGER).map(|bytes| bytes.strip_prefix(&[0]).unwrap_or(bytes));
    Some(RsaParts {
        n: next()?,
        e: next()?,
        d: next()?,
        p: next()?,
        q: next()?,
        dp: next()?,
        dq: next()?,
        qi: next()?,
    })
}

/// The rest of a run of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next value, which must have `tag`.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // 0x80 is the indefinite form, which DER does not have.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (found == tag).then_some(content)
    }
}

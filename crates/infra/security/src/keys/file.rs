//! The file of private keys (`security.signing_key_path`): a JWK Set, or PKCS#8 in PEM that somebody brought along. It is
//! readable for its owner alone, or it is refused.

use super::private::PrivateJwk;
use super::{KeyError, PrivateKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// Largest key file, in bytes; a ring of some dozens of RSA keys.
const MAX_FILE_BYTES: u64 = 256 * 1024;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

#[derive(Deserialize)]
struct PrivateSet {
    keys: Vec<PrivateJwk>,
}

/// The keys of the file; none if there is no file.
///
/// # Errors
/// A file that others can read, that is no key file, or that holds a refused key.
pub fn load(path: &Path) -> Result<Vec<PrivateKey>, KeyError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(KeyError::File { path: path.to_owned(), source }),
    };
    let io = |source| KeyError::File { path: path.to_owned(), source };
    let content = |problem| KeyError::FileContent { path: path.to_owned(), problem };
    let meta = file.metadata().map_err(io)?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(KeyError::FileMode(path.to_owned()));
    }
    if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
        return Err(content("this is no file, or one of more than 256 KiB"));
    }
    let mut text = Zeroizing::new(String::with_capacity(meta.len() as usize + 1));
    file.read_to_string(&mut text).map_err(io)?;
    let keys = if text.trim_start().starts_with("-----BEGIN") { from_pem(&text) } else { from_set(&text) };
    let keys = keys.ok_or_else(|| content("expected a JWK Set or PKCS#8 keys in PEM"))??;
    let kids: HashSet<&str> = keys.iter().map(PrivateKey::kid).collect();
    if kids.len() == keys.len() { Ok(keys) } else { Err(KeyError::DuplicateKid) }
}

fn from_set(text: &str) -> Option<Result<Vec<PrivateKey>, KeyError>> {
    let set: PrivateSet = serde_json::from_str(text).ok()?;
    Some(set.keys.iter().map(PrivateKey::from_jwk).collect())
}

fn from_pem(text: &str) -> Option<Result<Vec<PrivateKey>, KeyError>> {
    let blocks = text.split(PEM_BEGIN).skip(1).map(|block| {
        let (body, _) = block.split_once(PEM_END)?;
        let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
        STANDARD.decode(body.as_bytes()).map(Zeroizing::new).ok()
    });
    let blocks: Vec<Zeroizing<Vec<u8>>> =
        blocks.collect::<Option<_>>().filter(|list: &Vec<_>| !list.is_empty())?;
    Some(blocks.iter().map(|der| PrivateKey::from_pkcs8(der)).collect())
}

/// Replaces the file by a JWK Set of `keys`: a new file of mode 0600, flushed, then renamed over the old one.
///
/// # Errors
/// When the file cannot be written; the old one is then untouched.
pub fn store<'k>(path: &Path, keys: impl Iterator<Item = &'k PrivateKey>) -> Result<(), KeyError> {
    let io = |source| KeyError::File { path: path.to_owned(), source };
    let mut text = Zeroizing::new(String::from("{\"keys\":["));
    for (i, key) in keys.enumerate() {
        text.push_str(if i == 0 { "\n" } else { ",\n" });
        key.write_jwk(&mut text)?;
    }
    text.push_str("\n]}\n");
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(io)?;
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&temporary, path).map_err(io)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SigningAlgorithm;

    fn temporary() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/ring.json");
        (folder, path)
    }

    #[test]
    fn keys_of_each_algorithm_survive_the_file_and_still_sign() {
        let (_folder, path) = temporary();
        assert!(load(&path).unwrap().is_empty());
        let keys: Vec<PrivateKey> = SigningAlgorithm::ALL
            .into_iter()
            .map(|algorithm| PrivateKey::generate(algorithm).unwrap())
            .collect();
        store(&path, keys.iter()).unwrap();
        let read = load(&path).unwrap();
        for (made, read) in keys.iter().zip(&read) {
            assert_eq!((made.kid(), made.public()), (read.kid(), read.public()));
            let signature = jsonwebtoken::crypto::verify(
                &crate::keys::jwk::b64(&read.sign(b"input").unwrap()),
                b"input",
                &made.public().decoding_key(),
                crate::keys::TokenAlgorithm::Ring(made.algorithm()).for_jsonwebtoken(),
            );
            assert!(signature.unwrap());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let (_folder, path) = temporary();
        store(&path, std::iter::empty()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&path), Err(KeyError::FileMode(_))));
    }

    #[test]
    fn pem_is_read_and_anything_else_is_refused() {
        let (_folder, path) = temporary();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
        let body = STANDARD.encode(pair.to_pkcs8v1().unwrap().as_ref());
        write(&format!("{PEM_BEGIN}\n{body}\n{PEM_END}\n"));
        assert_eq!(load(&path).unwrap()[0].algorithm(), SigningAlgorithm::EdDsa);
        for bad in ["", "{}", "{\"keys\":1}", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
        {
            write(bad);
            assert!(matches!(load(&path), Err(KeyError::FileContent { .. })), "{bad}");
        }
        write(&format!("{PEM_BEGIN}\n{body}\n{PEM_END}\n").repeat(2));
        assert!(matches!(load(&path), Err(KeyError::DuplicateKid)));
    }
}

//! A command that signs in place of a key file: a hardware token, a key service. `COMMAND public-key` prints the raw public key in
//! base64; `COMMAND sign` reads the note's text and prints the raw Ed25519 signature in base64. No shell is used, and the
//! environment holds nothing but `PATH`.

use crate::note::VerifierKey;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// Longest time that the command may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer; a signature has 88 characters.
const MAX_ANSWER: u64 = 1024;

/// Why the command signed nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("the command of audit.signing_key_path is empty")]
    Empty,
    #[error("the signing command cannot be run")]
    Run(#[from] std::io::Error),
    #[error("the signing command did not end within 10 s")]
    Timeout,
    #[error("the signing command failed: {0}")]
    Failed(std::process::ExitStatus),
    #[error("the signing command printed no {0} in base64")]
    Answer(&'static str),
    #[error("the signing command's signature is not that of the public key that it named at start")]
    Signature,
}

/// The command, and the key that it signs with.
#[derive(Clone, Debug)]
pub struct CommandSigner {
    words: Vec<String>,
    path: String,
    public: [u8; 32],
}

impl CommandSigner {
    /// Asks the command for its public key.
    ///
    /// # Errors
    /// A command that cannot be run, or answers with something else.
    pub async fn open(words: &[String], path: &str) -> Result<Self, CommandError> {
        let mut own = Self { words: words.to_vec(), path: path.to_owned(), public: [0; 32] };
        let answer = own.run("public-key", &[]).await?;
        own.public = decoded(&answer).ok_or(CommandError::Answer("public key of 32 bytes"))?;
        Ok(own)
    }

    pub(super) fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The signature of a text, which is checked before it is used.
    pub(super) async fn sign(&self, text: &str, key: &VerifierKey) -> Result<[u8; 64], CommandError> {
        let answer = self.run("sign", text.as_bytes()).await?;
        let signature: [u8; 64] = decoded(&answer).ok_or(CommandError::Answer("signature of 64 bytes"))?;
        UnparsedPublicKey::new(&ED25519, key.public())
            .verify(text.as_bytes(), &signature)
            .map_err(|_| CommandError::Signature)?;
        Ok(signature)
    }

    async fn run(&self, what: &str, input: &[u8]) -> Result<Vec<u8>, CommandError> {
        let (program, arguments) = self.words.split_first().ok_or(CommandError::Empty)?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(what)
            .env_clear()
            .env("PATH", &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let work = async {
            if let Some(mut stdin) = stdin {
                // A command that does not read what it is not asked to sign is no failure.
                let _ = stdin.write_all(input).await;
            }
            let mut answer = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MAX_ANSWER).read_to_end(&mut answer).await?;
            }
            let status = child.wait().await?;
            if status.success() { Ok(answer) } else { Err(CommandError::Failed(status)) }
        };
        tokio::time::timeout(TIMEOUT, work).await.map_err(|_| CommandError::Timeout)?
    }
}

fn decoded<const N: usize>(answer: &[u8]) -> Option<[u8; N]> {
    let text = std::str::from_utf8(answer).ok()?;
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

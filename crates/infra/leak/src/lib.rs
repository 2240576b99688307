//! The scanner for values that are in use: it knows the very secrets that were handed to a child or a provider, in every
//! form of SCR-60, also partly escaped, broken by white space or unseen characters, or cut over the strings of one message, and
//! takes them out of whatever would leave. It matches known values, it guesses no patterns.
//!
//! What it cannot do (SCR-67): a hostile server can encode a value in a way that no list covers, spell it letter by letter in
//! prose, or send it out by another way. The scan catches accidents and careless servers; confinement is the work of the
//! sandbox and of egress.
//!
//! ```
//! use systemprompt_leak::Scanner;
//! use systemprompt_models::Secret;
//! let scanner = Scanner::new();
//! let hold = scanner.hold("crm_token", &Secret::from("s3cr3t-value-of-the-crm")).unwrap();
//! let (clean, hits) = scanner.redact_text("token: s3cr3t-value-of-the-crm!").unwrap();
//! assert_eq!(clean, "token: [redacted:crm_token]!");
//! assert_eq!(hits.len(), 1);
//! drop(hold);
//! assert!(scanner.redact_text("token: s3cr3t-value-of-the-crm!").is_none());
//! ```

mod forms;
mod index;
mod reading;
mod redact;
mod scanner;
mod seams;
mod stream;

pub use forms::Form;
pub use scanner::{Hit, Hold, LeakError, MAX_VALUES, MIN_DISTINCT, MIN_LENGTH, Scanner};
pub use stream::StreamScanner;

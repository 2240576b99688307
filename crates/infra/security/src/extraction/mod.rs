//! Where a credential stands in a request, and how the ids that correlate a call are read and passed on. Nothing here
//! verifies anything: a found token is only well-formed (RFC 6750 section 2.1).

pub mod cookie;
pub mod header;
pub mod token;

pub use cookie::{CookieExtractionError, CookieExtractor};
pub use header::{ContextHeaders, HeaderExtractor, HeaderInjectionError, HeaderInjector};
pub use token::{ExtractedToken, ExtractionMethod, TokenExtractionError, TokenExtractor};

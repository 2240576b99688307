//! Words of OAuth 2.1 and OpenID Connect.

pub mod api;
pub mod dynamic_registration;

use serde::{Deserialize, Serialize};
pub use systemprompt_models::JwtClaims;

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $name:ident = $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $type { $($(#[$vdoc])* #[serde(rename = $text)] $name,)* }

        impl $type {
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text)
            }
        }
    };
}
pub(crate) use words;

words! {
    /// A grant type (RFC 6749, RFC 8628, RFC 8693).
    GrantType {
        AuthorizationCode = "authorization_code";
        RefreshToken = "refresh_token";
        ClientCredentials = "client_credentials";
        TokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange";
        DeviceCode = "urn:ietf:params:oauth:grant-type:device_code";
    }
}

words! {
    /// A response type; the implicit ones are gone (RFC 9700 section 2.1.2).
    ResponseType {
        Code = "code";
    }
}

words! {
    /// A PKCE method (RFC 7636); `plain` is none.
    PkceMethod {
        S256 = "S256";
    }
}

words! {
    /// How a client proves itself (RFC 7591 section 2).
    ClientAuthMethod {
        None = "none";
        ClientSecretBasic = "client_secret_basic";
        ClientSecretPost = "client_secret_post";
        PrivateKeyJwt = "private_key_jwt";
    }
}

words! {
    /// How an authorization answer travels.
    ResponseMode {
        Query = "query";
        FormPost = "form_post";
    }
}

impl ResponseMode {
    /// Whether a value arrives as it is: HTML has no NUL, and browsers send every end of a line of a field as CR LF.
    pub fn carries(self, value: &str) -> bool {
        self == Self::Query || !value.contains(['\0', '\r', '\n'])
    }
}

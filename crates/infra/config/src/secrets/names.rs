//! Names of secrets: which are the platform's, which stand for a provider, and which no secret may bear (SCR-2, SCR-3, SCR-32).

/// The provider keys and the variable that a child finds each under (SCR-31).
pub const PROVIDER_VARIABLES: [(&str, &str); 4] = [
    ("anthropic", "ANTHROPIC_API_KEY"),
    ("openai", "OPENAI_API_KEY"),
    ("gemini", "GEMINI_API_KEY"),
    ("github", "GITHUB_TOKEN"),
];

/// Secrets of the deployment itself: never leased to a child, never given out by `Secrets::get`.
pub const PLATFORM_SECRETS: [&str; 7] = [
    "jwt_secret",
    "oauth_at_rest_pepper",
    "oauth_at_rest_pepper_previous",
    "manifest_signing_secret_seed",
    "database_url",
    "authz_webhook_secret",
    "inference_hook_secret",
];

const RESERVED: [&str; 11] = [
    "PATH",
    "HOME",
    "SHELL",
    "IFS",
    "ENV",
    "BASH_ENV",
    "TMPDIR",
    "NODE_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "RUBYOPT",
    "PERL5LIB",
];
const RESERVED_PREFIXES: [&str; 6] = ["LD_", "DYLD_", "PYTHON", "GIT_", "SSH_", "SYSTEMPROMPT_"];
const RESERVED_SUFFIX: &str = "_PROXY";

pub fn is_platform(name: &str) -> bool {
    PLATFORM_SECRETS.iter().any(|p| p.eq_ignore_ascii_case(name))
}

pub fn is_provider(name: &str) -> bool {
    PROVIDER_VARIABLES.iter().any(|(p, _)| p.eq_ignore_ascii_case(name))
}

/// `[A-Za-z_][A-Za-z0-9_]{0,63}`
pub fn is_well_formed(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a variable of this name would steer a loader, a shell or an interpreter of a child.
pub fn steers_a_child(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    RESERVED.contains(&upper.as_str())
        || RESERVED_PREFIXES.iter().any(|p| upper.starts_with(p))
        || upper.ends_with(RESERVED_SUFFIX)
}

/// Whether a custom secret must not bear this name.
pub fn is_reserved(name: &str) -> bool {
    steers_a_child(name) || PROVIDER_VARIABLES.iter().any(|(_, variable)| variable.eq_ignore_ascii_case(name))
}

/// The one spelling of a typed name; custom names stay as written.
pub(crate) fn canonical(name: &str) -> Option<&'static str> {
    PLATFORM_SECRETS
        .into_iter()
        .chain(PROVIDER_VARIABLES.map(|(provider, _)| provider))
        .find(|known| known.eq_ignore_ascii_case(name))
}

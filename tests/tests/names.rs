//! The names that others know this deployment's identity plane by stand where they are looked for: a module is a file of its own, and
//! an item is declared in it, never an alias of another one.

use crate::sources::{File, product};

const OAUTH: &str = "crates/domain/oauth/src";
const MODELS: &str = "crates/shared/models/src";
const SECURITY: &str = "crates/infra/security/src";

/// Files with the items that each declares: a word of the declaration and the name.
const NAMES: &[(&str, &str, &[&str])] = &[
    (OAUTH, "constants.rs", &[]),
    (OAUTH, "error.rs", &["enum OauthError", "type OauthResult"]),
    (OAUTH, "extension.rs", &["struct OauthExtension"]),
    (OAUTH, "state.rs", &["struct OAuthState"]),
    (OAUTH, "models/analytics.rs", &[]),
    (OAUTH, "models/cimd.rs", &[]),
    (OAUTH, "models/clients/mod.rs", &["struct OAuthClient", "struct ClientRelations"]),
    (OAUTH, "models/clients/api.rs", &["struct Created"]),
    (OAUTH, "models/oauth/api.rs", &["struct Page"]),
    (OAUTH, "models/oauth/dynamic_registration.rs", &[]),
    (OAUTH, "repository/bridge_host_prefs.rs", &["struct BridgeHostPrefsRepository"]),
    (OAUTH, "repository/bridge_session.rs", &["struct BridgeSessionRepository"]),
    (OAUTH, "repository/exchange_code.rs", &[]),
    (OAUTH, "repository/setup_token.rs", &[]),
    (OAUTH, "repository/webauthn.rs", &[]),
    (OAUTH, "repository/client/mod.rs", &["struct ClientRepository"]),
    (OAUTH, "repository/client/queries.rs", &["struct OAuthClientRow", "fn find_client_by_id"]),
    (OAUTH, "repository/client/mutations.rs", &[]),
    (OAUTH, "repository/client/inserts.rs", &[]),
    (OAUTH, "repository/client/relations.rs", &[]),
    (OAUTH, "repository/client/cleanup.rs", &[]),
    (OAUTH, "repository/oauth/mod.rs", &["struct OAuthRepository"]),
    (OAUTH, "repository/oauth/auth_code.rs", &[]),
    (OAUTH, "repository/oauth/refresh_token.rs", &[]),
    (OAUTH, "repository/oauth/scopes.rs", &[]),
    (OAUTH, "repository/oauth/user.rs", &[]),
    (OAUTH, "repository/oauth/cleanup.rs", &[]),
    (OAUTH, "services/bridge.rs", &[]),
    (
        OAUTH,
        "services/generation.rs",
        &[
            "fn generate_client_tokens",
            "struct ClientTokenOptions",
            "fn resolve_client_permissions",
            "struct TokenResponse",
            "fn generate_jwt",
            "struct JwtConfig",
            "struct JwtSigningParams",
        ],
    ),
    (OAUTH, "services/generation/subject.rs", &["fn build_client_user"]),
    (OAUTH, "services/http.rs", &[]),
    (OAUTH, "services/providers.rs", &["struct JwtValidationProviderImpl"]),
    (OAUTH, "services/templating.rs", &[]),
    (OAUTH, "services/cimd/fetcher.rs", &[]),
    (OAUTH, "services/cimd/validator.rs", &[]),
    (OAUTH, "services/jwt/mod.rs", &["trait TokenValidator", "struct AuthService"]),
    (OAUTH, "services/jwt/authentication.rs", &[]),
    (OAUTH, "services/jwt/authorization.rs", &[]),
    (OAUTH, "services/session/lookup.rs", &[]),
    (OAUTH, "services/session/creation.rs", &["struct SessionCreationService"]),
    (OAUTH, "services/validation/audience.rs", &[]),
    (OAUTH, "services/validation/client_credentials.rs", &[]),
    (OAUTH, "services/validation/jwt.rs", &[]),
    (OAUTH, "services/validation/oauth_params.rs", &[]),
    (OAUTH, "services/validation/redirect_uri.rs", &[]),
    (OAUTH, "services/webauthn/config.rs", &["struct WebAuthnConfig"]),
    (OAUTH, "services/webauthn/jwt.rs", &["struct JwtTokenValidator"]),
    (OAUTH, "services/webauthn/registry.rs", &[]),
    (OAUTH, "services/webauthn/token.rs", &[]),
    (OAUTH, "services/webauthn/user_service.rs", &["struct UserCreationService"]),
    (OAUTH, "services/webauthn/service/mod.rs", &["struct WebAuthnService"]),
    (OAUTH, "services/webauthn/service/authentication.rs", &[]),
    (OAUTH, "services/webauthn/service/credentials.rs", &[]),
    (OAUTH, "services/webauthn/service/link.rs", &[]),
    (OAUTH, "services/webauthn/service/registration.rs", &[]),
    (MODELS, "auth.rs", &[]),
    (MODELS, "auth/claims.rs", &["struct JwtClaims", "enum JwtAudience"]),
    (
        MODELS,
        "auth/permission.rs",
        &[
            "enum Permission",
            "fn is_hook_scope",
            "fn parse_permissions",
            "enum UserType",
            "enum RateLimitTier",
        ],
    ),
    (MODELS, "auth/providers.rs", &["trait JwtValidationProvider", "trait UserProvider"]),
    (MODELS, "auth/user.rs", &["struct AuthenticatedUser", "fn new_with_roles"]),
    (MODELS, "session.rs", &["struct CreateSessionInput", "enum SessionSource"]),
    (SECURITY, "keys/authority.rs", &["struct TokenAuthority"]),
];

/// The words of OAuth are declared by a macro, a name each.
const WORDS: &[&str] = &["GrantType", "PkceMethod", "ResponseType"];

/// What of `names` a file lacks.
fn missing(file: &File, names: &[&str]) -> Vec<String> {
    let lacks = |name: &&&str| file.find(name).is_empty();
    names.iter().filter(lacks).map(|name| format!("{}: `{name}`", file.path)).collect()
}

#[test]
fn the_identity_plane_is_found_by_the_names_that_others_know() {
    let files = product();
    let mut broken = Vec::new();
    for (folder, path, names) in NAMES {
        let path = format!("{folder}/{path}");
        match files.iter().find(|file| file.path == path) {
            Some(file) => broken.extend(missing(file, names)),
            None => broken.push(path),
        }
    }
    let words = files.iter().find(|file| file.path == format!("{OAUTH}/models/oauth/mod.rs")).unwrap();
    broken.extend(missing(words, WORDS));
    assert!(broken.is_empty(), "not where they are looked for:\n{}", broken.join("\n"));
}

#[test]
fn what_other_planes_ask_is_answered_by_the_identity_plane_and_asked_somewhere() {
    let files = product();
    let stands = |pattern: &str, prefix: &str| {
        files.iter().any(|file| file.path.starts_with(prefix) && !file.find(pattern).is_empty())
    };
    for name in ["JwtValidationProvider", "UserProvider"] {
        assert!(stands(&format!("impl {name} for"), OAUTH), "{name} has no answer");
        assert!(stands(&format!("dyn {name}"), "crates/app/"), "nobody asks {name}");
    }
}

#[test]
fn a_name_that_is_only_spoken_of_is_missing() {
    let file =
        File::parse("a.rs".to_owned(), "//! struct Gone\npub struct Here; type Other = Gone;".to_owned());
    assert_eq!(missing(&file, &["struct Here", "struct Gone"]), ["a.rs: `struct Gone`"]);
}

//! What the OpenAPI document says of each public endpoint of the authorization server (RFC 6749, 7009, 7591, 7592, 7662, 8628, 9126;
//! OpenID Connect Core and RP-Initiated Logout).

use crate::services::server::protocol::{Input, Member, Output, Proof, Protocol, Status, may, need};
use http::Method;

#[cfg(test)]
mod tests;

/// What is said of an endpoint.
pub fn of(method: &Method, path: &str) -> Option<&'static Protocol> {
    let below = path.strip_prefix("/api/v1/core/oauth").unwrap_or(path);
    Some(match (method.as_str(), below) {
        ("GET", "/") => &HOME,
        ("GET", "/api/v1/docs/{name}") => &DOCUMENT,
        ("GET", "/login") => &LOGIN,
        ("POST", "/login") => &LOGIN_FORM,
        ("POST", "/login/recovery-codes") => &RECOVERY_CODES,
        ("POST", "/login/notices") => &NOTICE_AWAY,
        ("GET", "/login/password") => &FIRST_PASSWORD,
        ("POST", "/login/password") => &FIRST_PASSWORD_FORM,
        ("GET", "/webauthn/link") => &LINK,
        ("GET", "/device") => &DEVICE_PAGE,
        ("POST", "/device") => &DEVICE_FORM,
        ("GET", "/authorize") => &AUTHORIZE,
        ("POST", "/authorize") => &AUTHORIZE_FORM,
        ("POST", "/par") => &PUSHED,
        ("GET", "/consent") => &CONSENT,
        ("POST", "/consent") => &CONSENT_FORM,
        ("POST", "/token") => &TOKENS,
        ("POST", "/introspect") => &INTROSPECTION,
        ("POST", "/revoke") => &REVOCATION,
        ("POST", "/device_authorization") => &DEVICE,
        ("GET", "/userinfo") => &USERINFO,
        ("POST", "/userinfo") => &USERINFO_FORM,
        ("GET", "/logout") => &LOGOUT,
        ("POST", "/logout") => &LOGOUT_FORM,
        ("POST", "/register") => &REGISTRATION,
        ("GET", "/register/{id}") => &REGISTERED_CLIENT,
        ("PUT", "/register/{id}") => &REGISTRATION_UPDATE,
        ("DELETE", "/register/{id}") => &DEREGISTRATION,
        ("POST", "/session") => &SESSION,
        ("GET", "/health") => &HEALTH,
        ("GET", "/assets/{name}") => &ASSET,
        ("GET", "/logo") => &LOGO,
        ("POST", "/webauthn/register/start") => &REGISTER_START,
        ("POST", "/webauthn/auth/start") => &AUTH_START,
        ("POST", "/webauthn/link/start") => &LINK_START,
        ("POST", "/webauthn/register/finish" | "/webauthn/auth/finish" | "/webauthn/link/finish") => {
            &CEREMONY_END
        }
        ("GET", "/webauthn/complete") => &COMPLETE,
        _ => return None,
    })
}

const PAGE: &[Status] = &[(200, "The page")];
const ON: &[Status] = &[(303, "Leads on")];
/// Refusals of every endpoint.
const ALWAYS: &[Status] = &[
    (400, "The request is not valid; `error` says how"),
    (429, "Too many requests; `Retry-After` says when to come again"),
    (503, "The answer could not be recorded, so there is none"),
];
const CLIENT_ERRORS: &[Status] = &[
    (401, "`invalid_client`: the client is not known, or has not proven itself"),
    (415, "The body is no form"),
];
const TYPED: &[Status] = &[(413, "The body is too large"), (415, "The body is no JSON")];
const FORGED: &[Status] = &[(403, "The form did not come from this page, or a token that is not for this")];

/// How a client proves itself by parameters.
const CLIENT: &[Member] = &[
    may("client_id", "The client, where it does not stand in `Authorization`"),
    may("client_secret", "Its secret"),
    may("client_assertion", "A JWT that it signed (RFC 7523)"),
    may("client_assertion_type", "`urn:ietf:params:oauth:client-assertion-type:jwt-bearer`"),
];
const RESOURCE: Member = may("resource", "A protected resource that the token is for (RFC 8707)").list();
const SCOPE: Member = may("scope", "Space-separated permissions and scopes");
const TOKEN: &[Member] =
    &[need("token", "An access or refresh token"), may("token_type_hint", "Of which kind it may be")];

const AUTHORIZATION: &[Member] = &[
    may("response_type", "`code`"),
    may("redirect_uri", "One that the client has registered"),
    SCOPE,
    may("state", "Comes back as it was"),
    may("nonce", "Stands in the ID token"),
    may("code_challenge", "S256 of the verifier; everybody needs one (RFC 7636)"),
    may("code_challenge_method", "`S256`"),
    RESOURCE,
    may("response_mode", "`query` or `form_post`"),
    may("prompt", "`none`, `login`, `consent`, `select_account` or `create`"),
    may("max_age", "Seconds since the sign-in, at most").number(),
    may("login_hint", "Fills in the form"),
    may("id_token_hint", "Who should be signed in"),
    may("claims", "Claims to ask for one by one, as JSON"),
    may("acr_values", "How to sign in, by preference"),
    may("ui_locales", "Languages, by preference"),
    may("display", "`page`"),
];
const AUTHORIZING: &[Member] = &[
    need("client_id", "The client"),
    may("request_uri", "What `/par` answered"),
    may("request", "Goes on with a request that waits; request objects are not taken"),
];

const fn page(takes: &'static [&'static [Member]]) -> Protocol {
    let answers = &[PAGE, ON, ALWAYS];
    Protocol { input: Input::Query, takes, gives: Output::Html, answers, proof: Proof::Session }
}

const fn form(takes: &'static [&'static [Member]]) -> Protocol {
    let answers = &[ON, ALWAYS, FORGED];
    Protocol { input: Input::Form, takes, gives: Output::Nothing, answers, proof: Proof::Session }
}

static AUTHORIZE: Protocol = page(&[AUTHORIZING, AUTHORIZATION]);
static AUTHORIZE_FORM: Protocol = Protocol { input: Input::Form, ..page(&[AUTHORIZING, AUTHORIZATION]) };

static PUSHED: Protocol = Protocol {
    input: Input::Form,
    takes: &[CLIENT, AUTHORIZATION],
    gives: Output::Json(&[
        need("request_uri", "For `/authorize`, once"),
        need("expires_in", "Seconds").number(),
    ]),
    answers: &[&[(201, "The request is kept")], CLIENT_ERRORS, ALWAYS],
    proof: Proof::Client,
};

static TOKENS: Protocol = Protocol {
    input: Input::Form,
    takes: &[
        &[
            need(
                "grant_type",
                "`authorization_code`, `refresh_token`, `client_credentials`, \
                 `urn:ietf:params:oauth:grant-type:device_code` or `urn:ietf:params:oauth:grant-type:token-exchange`",
            ),
            may("code", "Of `authorization_code`"),
            may("redirect_uri", "Of `authorization_code`, as at `/authorize`"),
            may("code_verifier", "Of `authorization_code`"),
            may("refresh_token", "Of `refresh_token`"),
            may("device_code", "Of the device grant"),
            SCOPE,
            RESOURCE,
            may("audience", "A surface by its name, or a resource").list(),
            may("plugin_id", "The plugin of a hook token"),
            may("subject_token", "Of token exchange (RFC 8693)"),
            may("subject_token_type", "Of token exchange"),
            may("actor_token", "Of token exchange"),
            may("actor_token_type", "Of token exchange"),
            may("requested_token_type", "Of token exchange"),
        ],
        CLIENT,
    ],
    gives: Output::Json(&[
        need("access_token", "The token"),
        need("token_type", "`Bearer`"),
        need("expires_in", "Seconds").number(),
        need("scope", "What was granted"),
        may("refresh_token", "For the next one"),
        may("id_token", "Who signed in, for `openid`"),
        may("issued_token_type", "Of token exchange"),
    ]),
    answers: &[&[(200, "Tokens")], CLIENT_ERRORS, ALWAYS],
    proof: Proof::Client,
};

static INTROSPECTION: Protocol = Protocol {
    input: Input::Form,
    takes: &[TOKEN, CLIENT],
    gives: Output::Json(&[
        need("active", "Whether it counts; if it does not, this is all").flag(),
        may("scope", "Space-separated"),
        may("client_id", "Whom it was issued to"),
        may("username", "Whom it stands for, where that is told"),
        may("token_type", "`Bearer` or `refresh_token`"),
        may("exp", "Epoch seconds").number(),
        may("iat", "Epoch seconds").number(),
        may("nbf", "Epoch seconds").number(),
        may("sub", "The user"),
        may("aud", "Where it counts").list(),
        may("iss", "The issuer"),
        may("jti", "Its id"),
        may("act", "Who acts for the user").object(),
        may("session_id", "The session that it ends with"),
    ]),
    answers: &[&[(200, "What there is to say")], CLIENT_ERRORS, ALWAYS],
    proof: Proof::ClientOrAdministrator,
};

static REVOCATION: Protocol = Protocol {
    input: Input::Form,
    takes: &[TOKEN, CLIENT],
    gives: Output::Nothing,
    answers: &[&[(200, "It does not count, or never did")], CLIENT_ERRORS, ALWAYS],
    proof: Proof::Client,
};

static DEVICE: Protocol = Protocol {
    input: Input::Form,
    takes: &[&[SCOPE, RESOURCE], CLIENT],
    gives: Output::Json(&[
        need("device_code", "For `/token`"),
        need("user_code", "For the person"),
        need("verification_uri", "Where the person enters it"),
        need("verification_uri_complete", "The same, with the code"),
        need("expires_in", "Seconds").number(),
        need("interval", "Seconds between two questions at `/token`").number(),
    ]),
    answers: &[&[(200, "The codes")], CLIENT_ERRORS, ALWAYS],
    proof: Proof::Client,
};

const CLAIMS: Output = Output::Json(&[
    need("sub", "The user"),
    may("name", "For `profile`"),
    may("preferred_username", "For `profile`"),
    may("locale", "For `profile`"),
    may("updated_at", "For `profile`; epoch seconds").number(),
    may("email", "For `email`"),
    may("email_verified", "For `email`").flag(),
]);
const CLAIMED: &[&[Status]] = &[
    &[
        (200, "Claims about the person"),
        (401, "`invalid_token`: the token does not count"),
        (403, "`insufficient_scope`: the token has no `openid`"),
    ],
    ALWAYS,
];

static USERINFO: Protocol =
    Protocol { input: Input::Query, takes: &[], gives: CLAIMS, answers: CLAIMED, proof: Proof::AccessToken };
static USERINFO_FORM: Protocol = Protocol {
    input: Input::Form,
    takes: &[&[may("access_token", "Where it is not sent as Bearer")]],
    gives: CLAIMS,
    answers: CLAIMED,
    proof: Proof::Open,
};

const LEAVING: &[Member] = &[
    may("id_token_hint", "An ID token of this server; one of this session needs no question"),
    may("client_id", "The client"),
    may("post_logout_redirect_uri", "One that the client has registered"),
    may("state", "Comes back as it was"),
    may("ui_locales", "Languages, by preference"),
];
static LOGOUT: Protocol = page(&[LEAVING]);
static LOGOUT_FORM: Protocol = Protocol {
    input: Input::Form,
    answers: &[PAGE, ON, ALWAYS, FORGED],
    ..page(&[LEAVING, &[may("csrf", "Of the page that asks"), may("decision", "`logout`")]])
};

const REGISTERED: Output = Output::Json(&[
    need("client_id", "The client"),
    may("client_secret", "Of a client that has one; only here"),
    may("client_id_issued_at", "Epoch seconds").number(),
    may("client_secret_expires_at", "0: never").number(),
    may("registration_access_token", "Manages this client; only here"),
    may("registration_client_uri", "Where it is managed"),
    may("scope", "What is registered"),
]);
const UNMANAGED: &[Status] = &[(401, "`invalid_token`: no management token of this client")];

static REGISTRATION: Protocol = Protocol {
    input: Input::Json,
    takes: &[],
    gives: REGISTERED,
    answers: &[
        &[
            (201, "The client"),
            (401, "`invalid_token`: registering needs a token here"),
            (403, "`access_denied`: nobody may register here"),
        ],
        TYPED,
        ALWAYS,
    ],
    proof: Proof::Open,
};
static REGISTERED_CLIENT: Protocol = Protocol {
    input: Input::Query,
    takes: &[],
    gives: REGISTERED,
    answers: &[&[(200, "The client")], UNMANAGED, ALWAYS],
    proof: Proof::Management,
};
static REGISTRATION_UPDATE: Protocol = Protocol {
    input: Input::Json,
    takes: &[],
    gives: REGISTERED,
    answers: &[&[(200, "The client, with another management token")], UNMANAGED, TYPED, ALWAYS],
    proof: Proof::Management,
};
static DEREGISTRATION: Protocol = Protocol {
    input: Input::Query,
    takes: &[],
    gives: Output::Nothing,
    answers: &[&[(204, "It is gone")], UNMANAGED, ALWAYS],
    proof: Proof::Management,
};

static SESSION: Protocol = Protocol {
    input: Input::Form,
    takes: &[],
    gives: Output::Json(&[
        need("session_id", "The session"),
        may("user_id", "Whose it is"),
        need("token_type", "`Bearer`"),
        need("expires_in", "Seconds").number(),
        need("anonymous", "Whether nobody is signed in").flag(),
        may("access_token", "Its token; for programs alone, a browser has the cookie"),
    ]),
    answers: &[&[(200, "The session")], ALWAYS],
    proof: Proof::Session,
};
static HEALTH: Protocol = Protocol {
    input: Input::Query,
    takes: &[],
    gives: Output::Json(&[
        need("status", "`ok` or `failed`"),
        need("keys", "`ok` or `failed`"),
        need("database", "`ok` or `failed`"),
        need("ledger", "`ok` or `failed`"),
    ]),
    answers: &[&[(200, "Tokens can be issued"), (503, "They cannot; the same members say why")]],
    proof: Proof::Nobody,
};
const fn file(media: &'static str, takes: &'static [&'static [Member]]) -> Protocol {
    let answers: &[&[Status]] = &[&[(200, "The file"), (404, "There is none")]];
    Protocol { input: Input::Query, takes, gives: Output::File(media), answers, proof: Proof::Nobody }
}
static ASSET: Protocol = file("*/*", &[]);
static LOGO: Protocol = file("image/*", &[&[need("client_id", "The client")]]);
static DOCUMENT: Protocol = file("text/plain", &[]);

const WAITING: &[Member] = &[may("request", "The authorization request that waits")];
const LANGUAGES: &[Member] = &[may("ui_locales", "Languages, by preference")];
const WITHOUT_PASSWORDS: &[Status] = &[(404, "Passwords are off")];
static HOME: Protocol = page(&[]);
static LOGIN: Protocol = page(&[
    WAITING,
    &[
        may("done", "After a sign-in that nothing waited for"),
        may("recovery", "The form for a recovery code"),
        may("register", "The form for a new user, where everybody may register"),
        may("switch", "The form also for somebody who is signed in"),
        may("again", "The same, for what needs a sign-in of the last five minutes"),
        may("step", "The password after a passkey that did not check its user"),
    ],
    LANGUAGES,
]);
static LOGIN_FORM: Protocol = form(&[
    &[need("csrf", "Of the page")],
    WAITING,
    &[
        may("username", "Of a password"),
        may("password", "The password, where passwords are enabled"),
        may("step", "Of a second step"),
        may("recovery", "Says that `code` is a recovery code"),
        may("code", "A recovery code"),
    ],
]);
static RECOVERY_CODES: Protocol = Protocol {
    answers: &[PAGE, ON, ALWAYS, FORGED],
    gives: Output::Html,
    ..form(&[&[need("csrf", "Of the page")]])
};
static NOTICE_AWAY: Protocol =
    form(&[&[need("csrf", "Of the page"), need("notice", "The notice that is put away")]]);
static FIRST_PASSWORD: Protocol =
    Protocol { answers: &[PAGE, ON, ALWAYS, WITHOUT_PASSWORDS], ..page(&[WAITING]) };
static FIRST_PASSWORD_FORM: Protocol = Protocol {
    answers: &[ON, ALWAYS, FORGED, WITHOUT_PASSWORDS],
    ..form(&[&[need("csrf", "Of the page"), need("new", "The password")], WAITING])
};
static LINK: Protocol = page(&[LANGUAGES]);
static CONSENT: Protocol = page(&[&[need("request", "The authorization request that waits")]]);
static CONSENT_FORM: Protocol = form(&[&[
    need("request", "The authorization request that waits"),
    need("csrf", "Of the page"),
    need("decision", "`allow` or `deny`"),
    may("scope_{name}", "`1` for each scope that the person left in"),
]]);
static DEVICE_PAGE: Protocol = page(&[
    &[may("user_code", "The code that the device shows"), may("done", "After the decision")],
    LANGUAGES,
]);
static DEVICE_FORM: Protocol = form(&[
    &[
        need("csrf", "Of the page"),
        need("user_code", "The code that was compared"),
        need("decision", "`allow` or `deny`"),
        may("scope_{name}", "`1` for each scope that the person left in"),
    ],
    LANGUAGES,
]);

const BEGUN: Output = Output::Json(&[
    may("challenge_id", "For the end of the ceremony; also in `x-challenge-id`"),
    may("options", "What the browser is given").object(),
    may("purpose", "Of a set-up token that makes a user"),
    may("email", "The mail address that the new user must have"),
]);
const CEREMONY: Output =
    Output::Json(&[need("user_id", "The user"), need("redirect", "Where the browser goes on")]);
const REFUSED: &[Status] = &[
    (401, "`invalid_credential`, or `login_required`: sign in again first"),
    (403, "`access_denied`: nobody may register here, or the request is not of our own pages"),
    (409, "`conflict`: a name that is taken, a passkey that is registered, or one too many"),
];
const ENDING: &[Member] = &[
    need("challenge_id", "Of the beginning"),
    need("credential", "What the browser made of it").object(),
    may("name", "Name of the passkey"),
    may("token", "The set-up token, if one began it"),
];
const fn ceremony(takes: &'static [&'static [Member]], gives: Output) -> Protocol {
    let answers: &[&[Status]] = &[&[(200, "It goes on")], REFUSED, TYPED, ALWAYS];
    Protocol { input: Input::Json, takes, gives, answers, proof: Proof::Session }
}
static REGISTER_START: Protocol = ceremony(
    &[
        &[
            need("username", "Letters, digits, _ and -; at most 50"),
            need("email", "Mail address"),
            may("full_name", "Name as people read it"),
            may("token", "A set-up token"),
        ],
        WAITING,
    ],
    BEGUN,
);
static AUTH_START: Protocol = ceremony(
    &[
        &[may("email", "Whose passkeys; without, any of this device"), may("mediation", "`conditional`")],
        WAITING,
    ],
    BEGUN,
);
static LINK_START: Protocol =
    ceremony(&[&[may("token", "A set-up token; without, a sign-in of the last five minutes")]], BEGUN);
static CEREMONY_END: Protocol = ceremony(&[ENDING], CEREMONY);
static COMPLETE: Protocol = Protocol { answers: &[ON], gives: Output::Nothing, ..page(&[WAITING]) };

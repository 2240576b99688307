//! Which tokens count where (SEC-54). Each surface has its own list of audiences for each class of tokens; there is no
//! shared set.

use crate::keys::TokenClass;
use systemprompt_models::{JwtAudience, Permission};
use url::Url;

/// A part of this deployment that takes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Surface {
    /// Site and console pages.
    Site,
    /// `/api/v1/**` as far as no other surface names the path.
    Api,
    /// The model gateway.
    Gateway,
    /// MCP servers.
    Mcp,
    /// A2A agents.
    A2a,
    /// The desktop bridge.
    Bridge,
    /// Decision endpoints for hooks.
    Hooks,
    /// `/api/v1/govern/*`, asked by other installations.
    Govern,
    /// `/api/v1/webhook/*`, event intake.
    Webhook,
}

impl Surface {
    pub const ALL: [Self; 9] = [
        Self::Site,
        Self::Api,
        Self::Gateway,
        Self::Mcp,
        Self::A2a,
        Self::Bridge,
        Self::Hooks,
        Self::Govern,
        Self::Webhook,
    ];

    /// Audiences that count for tokens of `class`; with none, and no resource of its own, the class is not taken at all.
    fn audiences(self, class: TokenClass) -> &'static [JwtAudience] {
        use JwtAudience::{A2a, Api, Bridge, Hook, Internal, Mcp, Web};
        use TokenClass::{Access, Admin, Anonymous, Session};
        match (self, class) {
            (Self::Site, Session | Admin | Anonymous) | (Self::Api, Anonymous) => &[Web],
            // Whoever may use the API may ask how a hook would be decided; the decision is then made for that principal.
            (Self::Api | Self::Hooks, Session | Admin) => &[Web, Api],
            (Self::Hooks, Access) => &[Hook],
            (Self::Api, Access) | (Self::Gateway, Access | Session | Admin) | (Self::Webhook, Session) => {
                &[Api]
            }
            (Self::Mcp, Access | Session | Admin) => &[Mcp],
            (Self::A2a, Access | Session | Admin) => &[A2a],
            (Self::Bridge, Access) => &[Bridge],
            (Self::Govern, Access) => &[Internal],
            (Self::Webhook, Access) => &[Internal, Api],
            (Self::Site, Access)
            | (Self::Gateway | Self::Mcp | Self::A2a | Self::Hooks, Anonymous)
            | (Self::Bridge | Self::Govern, Session | Admin | Anonymous)
            | (Self::Webhook, Admin | Anonymous) => &[],
        }
    }

    /// The scopes that a client asks for to be served here. The metadata of the resource and the challenge of a 401 both name
    /// these (ID-29), so that it does not matter which of the two a client reads.
    pub const fn scopes(self) -> &'static [Permission] {
        match self {
            Self::Site => &[],
            Self::Api | Self::Bridge | Self::Govern | Self::Webhook => &[Permission::User, Permission::Admin],
            Self::Gateway => &[Permission::User, Permission::Admin, Permission::Service, Permission::A2a],
            Self::Mcp => &[Permission::User, Permission::Mcp],
            Self::A2a => &[Permission::A2a],
            Self::Hooks => &[Permission::HookGovern, Permission::HookTrack],
        }
    }

    /// Whether tokens of `class` can count here.
    pub(crate) fn takes(self, class: TokenClass) -> bool {
        !self.audiences(class).is_empty()
    }

    /// Whether API keys count here (contract, "Tokens"; AG-23).
    pub(crate) fn takes_api_keys(self) -> bool {
        matches!(self, Self::Api | Self::Gateway | Self::A2a | Self::Bridge)
    }

    /// Whether a session cookie counts here.
    pub(crate) fn takes_cookies(self) -> bool {
        matches!(self, Self::Site | Self::Api)
    }

    /// Whether `x-api-key` is read here.
    pub(crate) fn reads_api_key_header(self) -> bool {
        !matches!(self, Self::Site | Self::Bridge)
    }

    /// Whether one of `audiences` is a name of this surface for tokens of `class`.
    pub(crate) fn is_named(self, class: TokenClass, audiences: &[JwtAudience]) -> bool {
        self.audiences(class).iter().any(|name| audiences.contains(name))
    }

    pub(crate) fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The surfaces whose own names are among `audiences`, as a set of [`Self::bit`].
    pub(crate) fn named_by(class: TokenClass, audiences: &[JwtAudience]) -> u16 {
        Self::ALL
            .into_iter()
            .filter(|surface| surface.is_named(class, audiences))
            .fold(0, |set, surface| set | surface.bit())
    }
}

/// Where a token is presented: a surface, and the URI of the resource if it has one of its own (RFC 8707).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    pub surface: Surface,
    pub resource: Option<&'a str>,
    /// The URI of the whole deployment, where a token for that counts (ID-29).
    pub whole: Option<&'a str>,
}

impl Target<'_> {
    /// Whether one of `audiences` is the resource of this target, or the deployment that it belongs to.
    pub(crate) fn is_resource_among(&self, audiences: &[JwtAudience]) -> bool {
        let mut named = audiences.iter().filter_map(|audience| match audience {
            JwtAudience::Resource(uri) => Some(uri),
            _ => None,
        });
        let Some(first) = named.next() else { return false };
        let own: Vec<String> = [self.resource, self.whole].into_iter().flatten().filter_map(normal).collect();
        std::iter::once(first).chain(named).any(|uri| normal(uri).is_some_and(|uri| own.contains(&uri)))
    }
}

impl From<Surface> for Target<'_> {
    fn from(surface: Surface) -> Self {
        Self { surface, resource: None, whole: None }
    }
}

/// RFC 3986 section 6.2.2 and 6.2.3: case, default port, dot segments, escapes. `None` for what cannot be a resource
/// identifier (RFC 8707 section 2: absolute, without a fragment).
fn normal(uri: &str) -> Option<String> {
    let url = Url::parse(uri).ok()?;
    if url.fragment().is_some() || !url.has_host() {
        return None;
    }
    let text = url.as_str();
    let mut out = String::with_capacity(text.len());
    let mut parts = text.split('%');
    out.push_str(parts.next()?);
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&digits.to_ascii_uppercase());
        }
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows: audience; columns: access, session, admin, anonymous. Each cell lists the surfaces where such a token counts.
    #[test]
    fn each_audience_counts_on_its_own_surfaces_alone() {
        use Surface::{A2a, Api, Bridge, Gateway, Govern, Hooks, Mcp, Site, Webhook};
        type Row = (&'static str, [&'static [Surface]; 4]);
        let rows: [Row; 8] = [
            ("web", [&[], &[Site, Api, Hooks], &[Site, Api, Hooks], &[Site, Api]]),
            ("api", [&[Api, Gateway, Webhook], &[Api, Gateway, Hooks, Webhook], &[Api, Gateway, Hooks], &[]]),
            ("mcp", [&[Mcp], &[Mcp], &[Mcp], &[]]),
            ("a2a", [&[A2a], &[A2a], &[A2a], &[]]),
            ("bridge", [&[Bridge], &[], &[], &[]]),
            ("hook", [&[Hooks], &[], &[], &[]]),
            ("internal", [&[Govern, Webhook], &[], &[], &[]]),
            ("https://example.org/", [&[], &[], &[], &[]]),
        ];
        let classes = [TokenClass::Access, TokenClass::Session, TokenClass::Admin, TokenClass::Anonymous];
        for (audience, cells) in rows {
            for (class, surfaces) in classes.into_iter().zip(cells) {
                let want = surfaces.iter().fold(0, |set, surface| set | surface.bit());
                assert_eq!(Surface::named_by(class, &[audience.into()]), want, "{audience} {class:?}");
            }
        }
    }

    #[test]
    fn a_resource_matches_by_equality_after_normalisation() {
        let target =
            Target { resource: Some("https://api.example.org/v1/mcp/a~b"), ..Target::from(Surface::Mcp) };
        for (uri, want) in [
            ("https://api.example.org/v1/mcp/a~b", true),
            ("HTTPS://API.example.org:443/v1/x/../mcp/a%7eb", true),
            ("https://api.example.org/v1/mcp/a~b/", false),
            ("https://api.example.org/v1/mcp/A~b", false),
            ("https://api.example.org/v1/mcp/a~b?x=1", false),
            ("https://api.example.org/v1/mcp/a~b#x", false),
            ("https://api.example.org/v1/mcp", false),
            ("http://api.example.org/v1/mcp/a~b", false),
            ("mcp", false),
            ("urn:a", false),
        ] {
            assert_eq!(target.is_resource_among(&[uri.into()]), want, "{uri}");
        }
        assert!(!Target::from(Surface::Mcp).is_resource_among(&["https://api.example.org/".into()]));
    }

    #[test]
    fn id_29_the_whole_deployment_matches_where_it_is_said_to() {
        let whole =
            |whole| Target { surface: Surface::Api, resource: Some("https://api.example.org/api/v1"), whole };
        for (uri, want) in [
            ("https://API.example.org", true),
            ("https://api.example.org/", true),
            ("https://api.example.org/api/v1", true),
            ("https://api.example.org/x", false),
            ("https://api.example.org.evil.test", false),
            ("api", false),
        ] {
            assert_eq!(
                whole(Some("https://api.example.org")).is_resource_among(&[uri.into()]),
                want,
                "{uri}"
            );
        }
        assert!(!whole(None).is_resource_among(&["https://api.example.org".into()]));
    }
}

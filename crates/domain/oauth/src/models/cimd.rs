//! Metadata documents: what is kept of one, and why one does not count (ID-22 to ID-27).

use systemprompt_models::Millis;
use systemprompt_net::EgressError;

/// A document as it was fetched and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    pub url: String,
    /// JSON text.
    pub document: String,
    /// Of what a consent is given for.
    pub metadata_digest: String,
    pub fetched_at: Millis,
    pub fresh_until: Millis,
    pub has_logo: bool,
}

/// A picture that was fetched for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// Why an address is no client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CimdFault {
    #[error("the address has not the form of a client id: {0}")]
    Address(&'static str),
    #[error("the host is not among those whose documents count")]
    Host,
    #[error("the document could not be fetched")]
    Fetch(#[from] EgressError),
    #[error("the document is not one JSON object")]
    NotAnObject,
    #[error("client_id is not the address of the document")]
    OtherClient,
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} must not stand in a public document")]
    Forbidden(&'static str),
    #[error("{0} is not valid")]
    Member(&'static str),
}

impl CimdFault {
    /// The code of the record.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Address(_) => "address_form",
            Self::Host => "host_not_allowed",
            Self::Fetch(error) => match error {
                EgressError::AddressNotAllowed { .. } => "address_not_allowed",
                EgressError::Unresolved { .. } => "unresolved",
                EgressError::Redirect(_) => "redirect",
                EgressError::Status(_) => "status",
                EgressError::TooLarge { .. } => "too_large",
                EgressError::Encoded => "encoded",
                EgressError::MediaType => "media_type",
                EgressError::Timeout => "timeout",
                EgressError::Busy => "busy",
                EgressError::HostNotAllowed { .. } => "host_not_allowed",
                _ => "connection",
            },
            Self::NotAnObject => "not_an_object",
            Self::OtherClient => "other_client_id",
            Self::Missing(_) => "member_missing",
            Self::Forbidden(_) => "member_forbidden",
            Self::Member(_) => "member_invalid",
        }
    }

    /// The member that is wrong.
    pub fn member(&self) -> Option<&'static str> {
        match self {
            Self::Missing(member) | Self::Forbidden(member) | Self::Member(member) => Some(member),
            _ => None,
        }
    }

    /// The status that the host answered with, if it was another than 200.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Fetch(EgressError::Status(status) | EgressError::Redirect(status)) => Some(*status),
            _ => None,
        }
    }
}

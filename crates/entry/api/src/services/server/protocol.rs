//! What the OpenAPI document says of endpoints whose messages a standard names: their parameters, their answers, and how whoever asks
//! proves who they are. It is data, and stands beside the routes.

use serde_json::{Map, Value, json};

/// Descriptions of the security schemes.
pub const CLIENT: &str = "Id and secret of a client, each form-encoded (RFC 6749 section 2.3.1). Instead, a client may send \
    `client_id` and `client_secret`, or `client_assertion` and `client_assertion_type`, as parameters; one without a secret sends \
    `client_id` alone.";
pub const SESSION: &str = "The session of a browser, which signing in makes";
pub const MANAGEMENT: &str = "The `registration_access_token` of the one client (RFC 7592)";

/// An endpoint.
#[derive(Debug)]
pub struct Protocol {
    pub input: Input,
    pub takes: &'static [&'static [Member]],
    pub gives: Output,
    /// Status and meaning; the first ones are no errors.
    pub answers: &'static [&'static [Status]],
    pub proof: Proof,
}

/// Where parameters stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Query,
    Form,
    Json,
}

/// What a good answer holds.
#[derive(Clone, Copy, Debug)]
pub enum Output {
    Json(&'static [Member]),
    Html,
    File(&'static str),
    /// Only a status, or a redirect.
    Nothing,
}

/// How whoever asks proves who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    Nobody,
    Client,
    ClientOrAdministrator,
    AccessToken,
    /// An access token, or nobody.
    Open,
    Management,
    Session,
}

pub type Status = (u16, &'static str);

/// A parameter, or a member of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub name: &'static str,
    kind: Kind,
    is_needed: bool,
    about: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Number,
    Flag,
    Object,
    List,
}

/// A parameter that must be there.
pub const fn need(name: &'static str, about: &'static str) -> Member {
    Member { name, kind: Kind::Text, is_needed: true, about }
}

/// A parameter that may be left out.
pub const fn may(name: &'static str, about: &'static str) -> Member {
    Member { is_needed: false, ..need(name, about) }
}

impl Member {
    pub const fn number(self) -> Self {
        Self { kind: Kind::Number, ..self }
    }

    pub const fn flag(self) -> Self {
        Self { kind: Kind::Flag, ..self }
    }

    pub const fn object(self) -> Self {
        Self { kind: Kind::Object, ..self }
    }

    /// It may stand there several times.
    pub const fn list(self) -> Self {
        Self { kind: Kind::List, ..self }
    }

    fn schema(&self) -> Value {
        match self.kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Number => json!({"type": "integer"}),
            Kind::Flag => json!({"type": "boolean"}),
            Kind::Object => json!({"type": "object"}),
            Kind::List => json!({"type": "array", "items": {"type": "string"}}),
        }
    }

    fn in_query(&self) -> Value {
        json!({"name": self.name, "in": "query", "required": self.is_needed, "description": self.about, "schema": self.schema()})
    }
}

/// The schema of an object with these members; others are let pass.
fn object<'a>(members: impl Iterator<Item = &'a Member>) -> Value {
    let mut properties = Map::new();
    let mut needed = Vec::new();
    for member in members {
        let mut schema = member.schema();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), member.about.into());
        }
        properties.insert(member.name.to_owned(), schema);
        if member.is_needed {
            needed.push(member.name);
        }
    }
    json!({"type": "object", "properties": properties, "required": needed})
}

impl Protocol {
    fn members(&self) -> impl Iterator<Item = &'static Member> {
        self.takes.iter().copied().flatten()
    }

    /// Puts it into an operation. `parameters` are those of the path; `body` is the schema of a body that has one of its own.
    pub(super) fn describe(
        &self,
        operation: &mut Map<String, Value>,
        mut parameters: Vec<Value>,
        body: Option<Value>,
    ) {
        let media = match self.input {
            Input::Query => {
                parameters.extend(self.members().map(Member::in_query));
                None
            }
            Input::Form => Some("application/x-www-form-urlencoded"),
            Input::Json => Some("application/json"),
        };
        if let Some(media) = media.filter(|_| body.is_some() || !self.takes.is_empty()) {
            let is_needed = body.is_some() || self.members().any(|member| member.is_needed);
            let schema = body.unwrap_or_else(|| object(self.members()));
            let body = json!({"required": is_needed, "content": {media: {"schema": schema}}});
            operation.insert("requestBody".to_owned(), body);
        }
        if !parameters.is_empty() {
            operation.insert("parameters".to_owned(), parameters.into());
        }
        operation.insert("responses".to_owned(), self.responses());
        operation.insert("security".to_owned(), self.proof.security());
    }

    fn responses(&self) -> Value {
        let mut responses = Map::new();
        for (status, about) in self.answers.iter().copied().flatten() {
            let mut response = json!({"description": about});
            let content = match (status, self.gives) {
                (200 | 201, Output::Json(members)) => {
                    json!({"application/json": {"schema": object(members.iter())}})
                }
                (400.., Output::Json(_) | Output::Nothing) if !self.is_of_pages() => {
                    json!({"application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}}})
                }
                (200 | 400.., Output::Html) => json!({"text/html": {"schema": {"type": "string"}}}),
                (400.., _) if self.is_of_pages() => json!({"text/html": {"schema": {"type": "string"}}}),
                (200, Output::File(media)) => json!({media: {"schema": {"type": "string"}}}),
                _ => Value::Null,
            };
            if let (Some(response), Value::Object(_)) = (response.as_object_mut(), &content) {
                response.insert("content".to_owned(), content);
            }
            responses.insert(status.to_string(), response);
        }
        responses.into()
    }

    /// Whether a browser is led on or shown a page, also where something is wrong.
    fn is_of_pages(&self) -> bool {
        self.answers.iter().copied().flatten().any(|(status, _)| *status == 303)
    }
}

impl Proof {
    fn security(self) -> Value {
        match self {
            Self::Nobody => json!([]),
            Self::Client => json!([{"client": []}, {}]),
            Self::ClientOrAdministrator => json!([{"client": []}, {"bearer": []}, {}]),
            Self::AccessToken => json!([{"bearer": []}]),
            Self::Open => json!([{"bearer": []}, {}]),
            Self::Management => json!([{"management": []}]),
            Self::Session => json!([{"session": []}, {}]),
        }
    }
}

/// RFC 6749 section 5.2 with our member.
pub(super) fn error_schema() -> Value {
    object(
        [
            need("error", "The code"),
            need("error_description", "What was wrong, without what was sent"),
            need("trace_id", "By which the server's log is searched"),
        ]
        .iter(),
    )
}

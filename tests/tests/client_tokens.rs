//! Case A24, row by row over HTTP and on both engines: what a client that an administrator made gets for itself, and what not.

use crate::http::{Client, FORM, claims_of};
use crate::stores;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use systemprompt_tests::Server;

const GRANT: &str = "grant_type=client_credentials";
/// The first 16 bytes of SHA-256 of `client.acme-ci`.
const ACME: &str = "7fcf8e60-2588-20bf-6863-a5ab358a5bc8";

struct Deployment {
    server: Server,
    http: Client,
}

impl Deployment {
    /// A confidential client; how it shows itself.
    async fn client(&self, id: &str, scope: &str) -> String {
        let ada = format!("Bearer {}", self.server.admin_token());
        let about = json!({"client_id": id, "client_name": id, "grant_types": ["client_credentials"], "scope": scope});
        let made = self.http.post("/api/v1/admin/clients", &[("authorization", &ada)], &about).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let secret = made.json()["client_secret"].as_str().unwrap().to_owned();
        format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
    }

    async fn ask(&self, client: &str, more: &str) -> (u16, Value) {
        let headers = [FORM, ("authorization", client)];
        let form = format!("{GRANT}{more}");
        let answer = self.http.raw("/api/v1/core/oauth/token", &headers, form).await.unwrap();
        (answer.status, answer.json())
    }

    async fn claims(&self, client: &str, more: &str) -> Value {
        let (status, body) = self.ask(client, more).await;
        assert_eq!(status, 200, "{more}: {body}");
        claims_of(body["access_token"].as_str().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a24_the_rows_of_the_seed_over_http() {
    for options in stores::unlimited().await {
        let server =
            options.env("SYSTEMPROMPT__SECURITY__JWT_ACCESS_TOKEN_EXPIRATION", "90").start().unwrap();
        let http = Client::new(&server);
        let deployment = Deployment { server, http };
        let acme = deployment.client("acme-ci", "service user mcp hook:govern hook:track").await;
        let db = stores::open(&deployment.server).await;

        for (row, more, error, description) in [
            ("no scope", "", "invalid_scope", "Scope is required for client credentials grant"),
            ("unknown word", "&scope=user+root", "invalid_scope", "scope holds a word that is no permission"),
            (
                "empty intersection",
                "&scope=admin+a2a",
                "invalid_scope",
                "No valid permissions: requested scopes not allowed for this client",
            ),
            (
                "hook without audience",
                "&scope=hook:govern",
                "invalid_target",
                "Hook scopes require audience=hook on the token request",
            ),
            (
                "hook under another audience",
                "&scope=hook:track+user&audience=api&audience=mcp",
                "invalid_target",
                "Hook scopes require audience=hook on the token request",
            ),
        ] {
            let (status, body) = deployment.ask(&acme, more).await;
            assert_eq!(
                (status, &body["error"], &body["error_description"]),
                (400, &json!(error), &json!(description)),
                "{row}"
            );
        }

        // The plugin claim, and the order of the request with each word once.
        let hook = deployment
            .claims(&acme, "&scope=hook:track+hook:govern+hook:track&audience=hook&plugin_id=acme.lint")
            .await;
        assert_eq!(
            (&hook["plugin_id"], &hook["scope"]),
            (&json!("acme.lint"), &json!("hook:track hook:govern"))
        );
        assert_eq!(hook["aud"], json!(["hook"]));
        assert_eq!(deployment.claims(&acme, "&scope=user").await.get("plugin_id"), None);

        // Who it is, and for how long.
        let said = deployment.claims(&acme, "&scope=mcp+user+admin").await;
        assert_eq!(said["sub"], ACME);
        assert_eq!(
            (&said["username"], &said["email"]),
            (&json!("client:acme-ci"), &json!("acme-ci@client.local"))
        );
        assert_eq!((&said["client_id"], &said["roles"]), (&json!("acme-ci"), &json!(["mcp", "user"])));
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 90);
        assert_eq!((&said["nbf"], said.get("auth_time")), (&said["iat"], None));

        // No refresh token and no ID token.
        let (_, body) = deployment.ask(&acme, "&scope=user").await;
        let names: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["access_token", "expires_in", "scope", "token_type"]);
        assert_eq!((&body["expires_in"], &body["token_type"]), (&json!(90), &json!("Bearer")));

        // The session row of each token: its own, of the client's user, and over when the token is.
        let rows = stores::texts(
            &db,
            "SELECT id || ' ' || source || ' ' || user_id || ' ' || CAST(expires_at AS TEXT) FROM user_sessions
             WHERE client_id = 'acme-ci'",
        )
        .await;
        assert_eq!(rows.len(), 4, "{rows:?}");
        let own = format!("{} oauth {ACME} {}000", said["session_id"].as_str().unwrap(), said["exp"]);
        assert!(rows.contains(&own) && own.starts_with("sess_"), "{own} in {rows:?}");
        assert_eq!(
            stores::count(
                &db,
                "SELECT COUNT(*) FROM users WHERE kind = 'client' AND username = 'client:acme-ci'"
            )
            .await,
            1
        );

        // A scope of the client that is no permission is passed over, and the log says so.
        let stray = deployment.client("stray", "user").await;
        stores::change(
            &db,
            "INSERT INTO oauth_client_scopes (client_id, value) VALUES ('stray', 'nonsense')",
        )
        .await;
        assert_eq!(deployment.claims(&stray, "&scope=user").await["scope"], "user");
        let log = deployment.server.log();
        let warned = log.lines().find(|line| line.contains("is no permission")).expect("a warning");
        assert!(
            warned.contains("WARN") && warned.contains("nonsense") && warned.contains("stray"),
            "{warned}"
        );
        let (_, body) = deployment.ask(&stray, "&scope=nonsense").await;
        assert_eq!(body["error"], "invalid_scope", "and it is not granted");
    }
}

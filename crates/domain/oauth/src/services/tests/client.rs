//! Client credentials (ID-52 to ID-58): the seed's vectors.

use super::plane::{planes, planes_with, word};
use crate::constants::MAX_HOOK_TOKEN_SECONDS;
use systemprompt_models::JwtAudience;
use systemprompt_models::session::SessionSource;

const OF: &str = "grant_type=client_credentials&scope=";

#[tokio::test(flavor = "multi_thread")]
async fn a24_what_a_client_asks_for_itself_is_granted_or_refused_as_the_seed_says() {
    for plane in planes().await {
        plane.client("stray", "client_secret_post", "client_credentials", "user nonsense", "").await;
        plane
            .client("held", "client_secret_basic", "client_credentials", "user hook:track", "hook internal")
            .await;
        plane.client("bare", "client_secret_basic", "authorization_code", "user", "").await;
        let rows = [
            (
                "acme-ci",
                "grant_type=client_credentials",
                "invalid_scope",
                "Scope is required for client credentials grant",
            ),
            (
                "acme-ci",
                "grant_type=client_credentials&scope=user+root",
                "invalid_scope",
                "scope holds a word that is no permission",
            ),
            (
                "acme-ci",
                "grant_type=client_credentials&scope=admin+a2a",
                "invalid_scope",
                "No valid permissions: requested scopes not allowed for this client",
            ),
            (
                "acme-ci",
                "grant_type=client_credentials&scope=hook:govern",
                "invalid_target",
                "Hook scopes require audience=hook on the token request",
            ),
            ("acme-ci", "grant_type=client_credentials&scope=user&audience=nowhere", "invalid_target", ""),
            ("acme-ci", "grant_type=client_credentials&scope=user&audience=internal", "invalid_target", ""),
            ("acme-ci", "grant_type=client_credentials&scope=user&plugin_id=a+b", "invalid_request", ""),
            ("held", "grant_type=client_credentials&scope=user&audience=api", "invalid_target", ""),
            ("bare", "grant_type=client_credentials&scope=user", "unauthorized_client", ""),
            ("acme-ci", "grant_type=password&scope=user", "unsupported_grant_type", ""),
            ("acme-ci", "grant_type=implicit", "unsupported_grant_type", ""),
            ("acme-ci", "scope=user", "invalid_request", "grant_type is missing"),
            (
                "nobody",
                "grant_type=client_credentials&scope=user",
                "invalid_client",
                "client authentication failed",
            ),
        ];
        for (client, form, error, description) in rows {
            let answer = plane.token(Some(client), form).await;
            assert_eq!(word(&answer), error, "{client} {form}");
            let told = answer.unwrap_err().description().into_owned();
            assert!(description.is_empty() || told == description, "{told}");
        }

        let tokens = plane.token(Some("acme-ci"), &format!("{OF}mcp+user+user+admin")).await.unwrap();
        assert_eq!((tokens.scope.as_str(), tokens.expires_in, tokens.token_type), ("mcp user", 90, "Bearer"));
        assert!(tokens.refresh_token.is_none() && tokens.id_token.is_none());
        let claims = plane.claims(&tokens.access_token);
        assert_eq!((claims.sub.as_str(), claims.exp - claims.iat), ("user-of-acme-ci", 90));
        assert_eq!(
            (claims.username.as_str(), claims.email.as_str()),
            ("client:acme-ci", "acme-ci@client.local")
        );
        assert_eq!((claims.roles.join(" ").as_str(), claims.nbf), ("mcp user", claims.iat));
        let session = plane.state.sessions.find(&claims.session_id).await.unwrap().unwrap();
        assert_eq!(
            (session.expires_at, session.source.map(SessionSource::as_str)),
            (claims.exp * 1000, Some("oauth"))
        );
        assert_eq!(session.id.as_str().len(), "sess_".len() + 32);
        assert!(plane.is_live(&tokens.access_token).await);

        let stray = "client_id=stray&client_secret=sps_stray&";
        let tokens = plane.token(None, &format!("{stray}{OF}user")).await.unwrap();
        assert_eq!(tokens.scope, "user", "the client's unknown scope is ignored");

        let form = format!("{OF}hook:track&audience=hook&plugin_id=acme.lint");
        let tokens = plane.token(Some("acme-ci"), &form).await.unwrap();
        let claims = plane.claims(&tokens.access_token);
        assert_eq!((claims.plugin_id.as_deref(), claims.aud), (Some("acme.lint"), vec![JwtAudience::Hook]));
        let recorded = plane.records("oauth.token").await;
        assert_eq!(recorded.len(), 3);
        assert_eq!(recorded[2]["detail"]["jti"], claims.jti.as_str());
        assert_eq!(recorded[2]["actor"]["kind"], "client");
        assert!(!plane.records("oauth.token_refused").await.is_empty());
        let counts = plane.state.meter.read();
        assert_eq!(counts.tokens[&("client_credentials", "issued")], 3);
        assert_eq!(counts.refused[&("token", "invalid_client")], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_token_lives_for_an_hour_at_most() {
    for plane in planes_with(|settings| settings.access_life = 86_400).await {
        let form = format!("{OF}user+hook:track&audience=hook");
        assert_eq!(plane.token(Some("acme-ci"), &form).await.unwrap().expires_in, MAX_HOOK_TOKEN_SECONDS);
        assert_eq!(plane.token(Some("acme-ci"), &format!("{OF}user")).await.unwrap().expires_in, 86_400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_58_an_owned_client_may_what_its_owner_may_now() {
    for plane in planes().await {
        plane
            .change("UPDATE oauth_clients SET owner_user_id = (SELECT id FROM users WHERE username = 'bob')")
            .await;
        let form = format!("{OF}user+service");
        let tokens = plane.token(Some("acme-ci"), &form).await.unwrap();
        assert_eq!(tokens.scope, "user", "bob has no `service`");
        let claims = plane.claims(&tokens.access_token);
        assert_eq!(
            (claims.department.as_deref(), claims.sub.as_str()),
            (Some("engineering"), "user-of-acme-ci")
        );
        let session = plane.state.sessions.find(&claims.session_id).await.unwrap().unwrap();
        assert_eq!(session.owner_id.as_ref(), Some(&plane.bob));
        assert_eq!(word(&plane.token(Some("acme-ci"), &format!("{OF}service")).await), "invalid_scope");
        plane.change("UPDATE users SET status = 'suspended'").await;
        assert_eq!(word(&plane.token(Some("acme-ci"), &form).await), "invalid_client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn id_55_a_hook_scope_goes_with_the_audience_hook_or_not_at_all() {
    for plane in planes_with(|settings| settings.audiences.push(JwtAudience::Hook)).await {
        plane.client("held", "client_secret_basic", "client_credentials", "user hook:govern", "api").await;
        let form = "grant_type=client_credentials&scope=hook:govern";
        assert_eq!(word(&plane.token(Some("held"), form).await), "invalid_target", "it is held to api");
        let tokens = plane.token(Some("acme-ci"), form).await.unwrap();
        assert!(plane.claims(&tokens.access_token).aud.contains(&JwtAudience::Hook));
        let tokens = plane.token(Some("held"), "grant_type=client_credentials&scope=user").await.unwrap();
        assert_eq!(plane.claims(&tokens.access_token).aud, [JwtAudience::Api]);
    }
}

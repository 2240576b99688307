//! What is written beside the row of a new client: its user, its secret, and its lists, one row a value.

use crate::at_rest::Digest;
use crate::models::clients::OAuthClient;
use systemprompt_database::{WriteTx, on_tx, sql};
use systemprompt_models::Millis;

/// Writes the lists of a client that has none yet.
pub(super) async fn insert_lists(tx: &mut WriteTx, client: &OAuthClient) -> sqlx::Result<()> {
    let id = client.client_id.as_str();
    let relations = &client.relations;
    for (kind, uris) in
        [("login", &relations.redirect_uris), ("post_logout", &relations.post_logout_redirect_uris)]
    {
        for uri in uris {
            on_tx!(*tx, conn => sqlx::query(sql!(
                "INSERT INTO oauth_client_redirect_uris (client_id, kind, value) VALUES ($1, $2, $3)"
            )).bind(id).bind(kind).bind(uri).execute(&mut *conn).await.map(drop))?;
        }
    }
    for grant in &relations.grant_types {
        on_tx!(*tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_client_grant_types (client_id, value) VALUES ($1, $2)"
        )).bind(id).bind(grant.as_str()).execute(&mut *conn).await.map(drop))?;
    }
    for response in &relations.response_types {
        on_tx!(*tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_client_response_types (client_id, value) VALUES ($1, $2)"
        )).bind(id).bind(response).execute(&mut *conn).await.map(drop))?;
    }
    for scope in &relations.scopes {
        on_tx!(*tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_client_scopes (client_id, value) VALUES ($1, $2)"
        )).bind(id).bind(scope).execute(&mut *conn).await.map(drop))?;
    }
    for contact in &relations.contacts {
        on_tx!(*tx, conn => sqlx::query(sql!(
            "INSERT INTO oauth_client_contacts (client_id, value) VALUES ($1, $2)"
        )).bind(id).bind(contact).execute(&mut *conn).await.map(drop))?;
    }
    Ok(())
}

/// The user that a client's own tokens stand for. The row of a client that was deleted comes back with it. The mail that such tokens
/// name is nobody's address and stands in no row: a person who has it must not be in the way.
pub(super) async fn insert_user(tx: &mut WriteTx, client: &OAuthClient) -> sqlx::Result<()> {
    let name = format!("client:{}", client.client_id);
    on_tx!(*tx, conn => sqlx::query(sql!(
        "INSERT INTO users (id, username, username_key, display_name, status, created_at, updated_at, version, kind)
         VALUES ($1, $2, $2, $3, 'active', $4, $4, 1, 'client')
         ON CONFLICT (id) DO UPDATE SET status = 'active', display_name = excluded.display_name,
             updated_at = excluded.updated_at, version = users.version + 1"
    ))
        .bind(client.user_id.as_str()).bind(&name).bind(&client.name).bind(client.created_at)
        .execute(&mut *conn).await.map(drop))
}

pub(super) async fn insert_secret(
    tx: &mut WriteTx,
    id: &str,
    secret: &Digest,
    now: Millis,
) -> sqlx::Result<()> {
    on_tx!(*tx, conn => sqlx::query(sql!(
        "INSERT INTO oauth_client_secrets (client_id, secret_digest, pepper_id, created_at) VALUES ($1, $2, $3, $4)"
    )).bind(id).bind(&secret.hex).bind(&*secret.pepper_id).bind(now).execute(&mut *conn).await.map(drop))
}

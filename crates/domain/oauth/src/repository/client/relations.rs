//! The lists of a client, one row a value.

use crate::models::clients::OAuthClient;
use systemprompt_database::{WriteTx, on_tx, sql};

/// Writes the lists of a client that has none yet.
pub(super) async fn insert(tx: &mut WriteTx, client: &OAuthClient) -> sqlx::Result<()> {
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

/// Writes the lists of a client in place of those that it has.
pub(super) async fn replace(tx: &mut WriteTx, client: &OAuthClient) -> sqlx::Result<()> {
    let id = client.client_id.as_str();
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_client_redirect_uris WHERE client_id = $1"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_client_grant_types WHERE client_id = $1"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_client_response_types WHERE client_id = $1"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_client_scopes WHERE client_id = $1"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    on_tx!(*tx, conn => sqlx::query(sql!("DELETE FROM oauth_client_contacts WHERE client_id = $1"))
        .bind(id).execute(&mut *conn).await.map(drop))?;
    insert(tx, client).await
}

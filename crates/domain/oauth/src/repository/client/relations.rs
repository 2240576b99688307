//! The lists of a client, one row a value: put in the place of those that it has.

use super::inserts::insert_lists;
use crate::models::clients::OAuthClient;
use systemprompt_database::{WriteTx, on_tx, sql};

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
    insert_lists(tx, client).await
}

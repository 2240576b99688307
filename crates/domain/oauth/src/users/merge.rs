//! Two accounts of one person become one (ID-97).

use super::{User, UserKind, UserStatus, Users, user_draft};
use crate::error::IdentityError;
use crate::repository::users::{erase, hand_over};
use systemprompt_audit::{EntryKind, Payload, Role};
use systemprompt_database::retry_contended;
use systemprompt_models::RequestContext;
use systemprompt_security::session::UserEnd;

impl Users {
    /// Merges the user `id` into `into`: identities at other issuers and the clients that serve them change hands, everything else
    /// of them ends as with a deletion. Roles do not change hands, nor do the person's own credentials: a key of one account is no
    /// proof for the other. The secrets of the clients go on with them, and act for the other owner from then on.
    ///
    /// # Errors
    /// No such users, two of different kinds or the same one, one that may not act, another version, the last administrator, or a
    /// change that could not be recorded.
    pub async fn merge(
        &self,
        by: &RequestContext,
        id: &str,
        version: Option<i64>,
        into: &str,
    ) -> Result<User, IdentityError> {
        let before = self.seen(id, version).await?;
        let into = self.get(into).await?;
        let fits = into.id != before.id
            && into.kind == before.kind
            && into.kind != UserKind::Client
            && into.status == UserStatus::Active;
        if !fits {
            let form = "another active user of the same kind, which is not that of clients".to_owned();
            return Err(IdentityError::Invalid(vec![("into", form)]));
        }
        let after = self.deleted(&before);
        let draft = user_draft(EntryKind::AdminUserMerged, by, &before.id)
            .with_payload(Payload::of(Role::Before, &before).about(before.id.as_str()))
            .with("into", into.id.as_str())
            .with("roles_before", before.roles.clone())
            .with("sessions", self.sessions.count_of(&before.id, None).await?);
        self.record(draft).await?;
        retry_contended(|| async {
            let mut tx = self.begin_update(&before, &after).await?;
            hand_over(&mut tx, before.id.as_str(), into.id.as_str(), self.clock.now()).await?;
            erase(&mut tx, before.id.as_str()).await?;
            self.end_with(tx, &before.id, Some(UserEnd::All), "user_merged").await
        })
        .await?;
        self.get(into.id.as_str()).await
    }
}

//! Sessions of browsers: seen and ended by whose they are, renewed, and begun at a sign-in in the place of nobody's.

use super::*;

#[tokio::test]
async fn id_81_people_see_and_end_their_own_sessions_only() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let link = setup::invitation(&fixture.state, &caller(), None, Vec::new()).await.unwrap().url;
        let token = token_of(&link);
        let (mut other, bobs) = register(&fixture, "bob", &token).await;
        let bob = caller_of(&fixture, &bobs.unwrap()).await;
        sign_in(&fixture, &mut other, None).await.unwrap();
        let me = caller_of(&fixture, &sign_in(&fixture, &mut device, None).await.unwrap()).await;
        let foreign = bob.principal.session_id.as_str();
        assert!(!lookup::end_own(&fixture.state, &me, foreign).await.unwrap());
        assert_eq!(lookup::own(&fixture.state, &bob.principal).await.unwrap().len(), 2);
        assert_eq!(lookup::end_all_own(&fixture.state, &bob, true).await.unwrap(), 1);
        let left = lookup::own(&fixture.state, &bob.principal).await.unwrap();
        assert!(left.len() == 1 && left[0].current);
        assert!(lookup::end_own(&fixture.state, &bob, foreign).await.unwrap());
        assert!(!lookup::end_own(&fixture.state, &bob, foreign).await.unwrap());
    }
}

#[tokio::test]
async fn id_79_a_session_is_renewed_when_over_half_its_token_is_gone() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let done = sign_in(&fixture, &mut device, None).await.unwrap();
        let claims = fixture.state.verifier.verify_own(done.token.unwrap().expose()).unwrap().claims;
        let found = lookup::look_up(&fixture.state, &caller(), Some(&claims)).await.unwrap();
        assert!(found.token.is_none());
        assert_eq!(found.user_id.as_deref(), Some(done.user_id.as_str()));
        fixture.clock.advance(1900 * 1000);
        let found = lookup::look_up(&fixture.state, &caller(), Some(&claims)).await.unwrap();
        assert_eq!((found.session_id.clone(), found.expires_in), (claims.session_id.clone(), 3600));
        assert!(found.token.is_some());
        let stranger = lookup::look_up(&fixture.state, &caller(), None).await.unwrap();
        assert!(stranger.user_id.is_none() && stranger.session_id != found.session_id);
        assert_eq!(stranger.expires_in, 86_400);
    }
}

#[tokio::test]
async fn id_81_a_sign_in_ends_the_session_of_somebody_unknown_and_names_it() {
    for fixture in fixtures().await {
        let (mut device, _) = administrator(&fixture).await;
        let state = &fixture.state;
        let (id, token, _) = SessionCreationService(state).anonymous(&caller()).await.unwrap();
        let unknown = Principal::from_claims(&state.verifier.verify_own(token.expose()).unwrap().claims);
        let (context, flow) = (caller(), Secret::from("fl_unknown"));
        let browser = Browser { context: &context, visitor: Some(&unknown), flow: &flow };
        let service = WebAuthnService { state, browser };
        let begun = service.auth_start(StartAuthentication::default()).await.unwrap();
        let credential = device.get(&begun.options);
        let done = service.auth_finish(finish(&begun, credential)).await.unwrap();
        let me = caller_of(&fixture, &done).await;
        let row = state.sessions.find(&me.principal.session_id).await.unwrap().unwrap();
        assert!(row.is_live(state.clock.now()) && row.parent_session_id.as_ref() == Some(&id));
        assert!(state.sessions.find(&id).await.unwrap().unwrap().revoked_at.is_some());
    }
}

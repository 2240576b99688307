//! The words of the pages, in English and German.

macro_rules! texts {
    ($($name:ident: $en:literal, $de:literal;)*) => {
        /// The words of the pages in one language.
        #[derive(Debug)]
        pub struct Texts {
            /// The language's own tag, for the page.
            pub lang: &'static str,
            $(pub $name: &'static str,)*
        }

        pub static ENGLISH: Texts = Texts { lang: "en", $($name: $en,)* };
        pub static GERMAN: Texts = Texts { lang: "de", $($name: $de,)* };
    };
}

texts! {
    // Errors.
    error_title: "This did not work", "Das hat nicht geklappt";
    error_code: "Error", "Fehler";
    trace: "Reference", "Vorgang";
    error_client: "The application that sent you here is not known to this installation, or may not use it.",
        "Die Anwendung, die Sie hierher geschickt hat, ist dieser Installation nicht bekannt oder darf sie nicht benutzen.";
    error_redirect: "The address to which the application wants the answer sent is not one that it has registered.",
        "Die Adresse, an die die Anwendung die Antwort schicken lassen will, hat sie nicht angemeldet.";
    error_request: "The request is not valid. Go back to the application and begin again.",
        "Die Anfrage ist nicht gültig. Gehen Sie zur Anwendung zurück und beginnen Sie von vorn.";
    error_expired: "This request has expired or belongs to another browser. Go back to the application and begin again.",
        "Diese Anfrage ist abgelaufen oder gehört zu einem anderen Browser. Gehen Sie zur Anwendung zurück und beginnen Sie von vorn.";
    error_forged: "The form did not come from this page. Nothing was changed.",
        "Das Formular kam nicht von dieser Seite. Es wurde nichts geändert.";
    error_busy: "The server cannot answer at the moment. Try again shortly.",
        "Der Server kann gerade nicht antworten. Versuchen Sie es gleich noch einmal.";

    // Consent.
    consent_title: "Allow access", "Zugriff erlauben";
    consent_allow: "Allow", "Darf";
    consent_question: "?", " zugreifen?";
    consent_lead: "The application asks to act with your account. You decide what it may do.",
        "Die Anwendung möchte mit Ihrem Konto handeln. Sie entscheiden, was sie darf.";
    never_verified: "Nobody has verified this application.", "Niemand hat diese Anwendung geprüft.";
    never_verified_more: "It chose its name itself. Go on only if you have just started it.",
        "Ihren Namen hat sie sich selbst gegeben. Machen Sie nur weiter, wenn Sie sie eben gestartet haben.";
    any_program: "The answer goes to a program on this computer. Any program that runs here could receive it.",
        "Die Antwort geht an ein Programm auf diesem Rechner. Jedes Programm, das hier läuft, könnte sie empfangen.";
    not_you: "Not you?", "Nicht Sie?";
    consent_scopes: "It may", "Sie darf";
    consent_where: "Where the answer goes", "Wohin die Antwort geht";
    consent_redirect: "Sent to", "Empfänger";
    consent_client_id: "Application", "Anwendung";
    consent_resource: "For", "Für";
    consent_everything: "Everything in this installation", "Alles in dieser Installation";
    allow: "Allow", "Erlauben";
    deny: "Deny", "Ablehnen";
    policy: "Privacy policy", "Datenschutz";
    terms: "Terms", "Bedingungen";
    scope_openid: "Know who you are", "Wissen, wer Sie sind";
    scope_profile: "See your name and language", "Ihren Namen und Ihre Sprache sehen";
    scope_email: "See your mail address", "Ihre Mailadresse sehen";
    claims_profile: "See details of your profile that it asks for one by one", "Einzelne Angaben Ihres Profils sehen, nach denen sie fragt";
    claims_email: "See your mail address or whether it was verified", "Ihre Mailadresse sehen, oder ob sie geprüft wurde";
    scope_offline_access: "Keep access when you have signed out", "Zugriff behalten, wenn Sie sich abgemeldet haben";
    scope_user: "Use models and this installation's interfaces as you", "Modelle und Schnittstellen dieser Installation als Sie benutzen";
    scope_mcp: "Call the tools that you may call", "Die Werkzeuge aufrufen, die Sie aufrufen dürfen";
    scope_a2a: "Send messages to agents in your name", "In Ihrem Namen Nachrichten an Agenten schicken";
    scope_admin: "Administer everything: users, rules, keys and records", "Alles verwalten: Benutzer, Regeln, Schlüssel und Aufzeichnungen";
    scope_other: "Use this permission", "Diese Berechtigung benutzen";

    // Signing in.
    login_title: "Sign in", "Anmelden";
    login_lead: "Use the passkey of this device, of your phone, or of a security key.",
        "Benutzen Sie den Passkey dieses Geräts, Ihres Telefons oder eines Sicherheitsschlüssels.";
    login_mail: "Mail address", "Mailadresse";
    login_mail_hint: "Only if your passkey does not appear by itself.",
        "Nur, wenn Ihr Passkey nicht von selbst erscheint.";
    login_passkey: "Sign in with a passkey", "Mit Passkey anmelden";
    login_recovery: "Lost your passkey?", "Passkey verloren?";
    login_register: "Register", "Registrieren";
    login_done_title: "You are signed in", "Sie sind angemeldet";
    login_done_lead: "Nothing else waits for you: you can close this page.",
        "Sonst wartet nichts auf Sie: Sie können diese Seite schließen.";
    login_again: "Sign in again: this needs a sign-in of the last five minutes.",
        "Melden Sie sich noch einmal an: Das braucht eine Anmeldung der letzten fünf Minuten.";
    need_script: "Passkeys need JavaScript, which this browser does not run.",
        "Passkeys brauchen JavaScript, das dieser Browser nicht ausführt.";
    or: "or", "oder";
    username: "User name", "Benutzername";
    password: "Password", "Passwort";
    login_password: "Sign in with a password", "Mit Passwort anmelden";
    login_failed: "That did not match. Check what you entered and try again.",
        "Das passt nicht. Prüfen Sie die Eingabe und versuchen Sie es noch einmal.";
    throttled: "Too many attempts. Wait a while and try again.",
        "Zu viele Versuche. Warten Sie eine Weile und versuchen Sie es dann noch einmal.";

    // What is next.
    next_title: "What is next", "Wie es weitergeht";
    next_passkey: "Add a passkey", "Passkey hinzufügen";
    next_documents: "Overview and documents", "Übersicht und Dokumente";
    next_switch: "Use another account", "Anderes Konto benutzen";
    codes_none: "You have no recovery codes. If you lose your passkey, one of them lets you back in.",
        "Sie haben keine Wiederherstellungscodes. Wenn Sie Ihren Passkey verlieren, kommen Sie mit einem davon wieder hinein.";
    codes_left: "Recovery codes left:", "Übrige Wiederherstellungscodes:";
    codes_again: "New ones take the place of these.", "Neue treten an ihre Stelle.";
    codes_make: "Make recovery codes", "Wiederherstellungscodes anlegen";
    codes_title: "Your recovery codes", "Ihre Wiederherstellungscodes";
    codes_lead: "Keep them where your passkey is not, such as on paper. Each counts once. They are shown only now.",
        "Bewahren Sie sie getrennt von Ihrem Passkey auf, etwa auf Papier. Jeder zählt einmal. Sie werden nur jetzt gezeigt.";
    codes_kept: "I have kept them", "Ich habe sie aufbewahrt";

    // The page at the root.
    home_title: "Control plane for AI agents", "Leitstand für KI-Agenten";
    home_lead: "Models, tools and agents answer here to whoever may use them.",
        "Modelle, Werkzeuge und Agenten antworten hier jedem, der sie benutzen darf.";
    home_account: "Your account", "Ihr Konto";
    home_documents: "Documents", "Dokumente";
    home_first: "First steps", "Erste Schritte";
    home_identity: "Signing in, clients and tokens", "Anmeldung, Clients und Token";
    home_security: "What is refused where", "Was wo abgelehnt wird";
    home_policies: "Policies", "Richtlinien";
    home_ledger: "The ledger", "Das Hauptbuch";

    second_title: "One more step", "Noch ein Schritt";
    second_lead: "Your passkey was accepted, but it did not check that it was you. Enter your password as well.",
        "Ihr Passkey wurde angenommen, hat aber nicht geprüft, dass Sie es sind. Geben Sie auch Ihr Passwort ein.";
    notices_title: "News about your account", "Neues zu Ihrem Konto";
    notices_lead: "If this was not you, end your other sessions and remove what you do not know.",
        "Wenn Sie das nicht waren, beenden Sie Ihre anderen Sitzungen und entfernen Sie, was Sie nicht kennen.";
    notice_from: "from", "von";
    notice_dismiss: "Dismiss", "Ausblenden";
    notice_passkey_added: "A passkey was added", "Ein Passkey kam hinzu";
    notice_passkey_removed: "A passkey was removed", "Ein Passkey wurde entfernt";
    notice_passkey_suspect: "A passkey may have been copied and is blocked", "Ein Passkey wurde vielleicht kopiert und ist gesperrt";
    notice_password_changed: "The password was changed", "Das Passwort wurde geändert";
    notice_recovery_made: "New recovery codes were made", "Neue Wiederherstellungscodes wurden angelegt";
    notice_recovery_used: "A recovery code was used", "Ein Wiederherstellungscode wurde benutzt";

    // Ceremonies: what the program says.
    passkey_failed: "The passkey was not accepted.", "Der Passkey wurde nicht angenommen.";
    passkey_cancelled: "Nothing happened: the passkey dialog was closed or took too long.",
        "Es ist nichts geschehen: Der Passkey-Dialog wurde geschlossen oder dauerte zu lange.";
    passkey_taken: "This user name or mail address is taken, or the passkey is registered already.",
        "Benutzername oder Mailadresse sind vergeben, oder der Passkey ist schon angemeldet.";
    link_invalid: "This link is not valid, has expired, or was used. Ask for a new one.",
        "Dieser Link ist ungültig, abgelaufen oder wurde schon benutzt. Bitten Sie um einen neuen.";

    // Registering and adding a passkey.
    register_title: "Create your account", "Konto anlegen";
    register_lead: "You need no password: the passkey stays on your device.",
        "Sie brauchen kein Passwort: Der Passkey bleibt auf Ihrem Gerät.";
    register_admin: "This account will administer this installation.",
        "Dieses Konto verwaltet diese Installation.";
    register_username_hint: "Letters, digits, _ and -", "Buchstaben, Ziffern, _ und -";
    register_name: "Your name", "Ihr Name";
    register_optional: "Optional", "Freiwillig";
    register_button: "Create passkey", "Passkey anlegen";
    link_title: "Set up a passkey", "Passkey einrichten";
    link_lead: "Your device makes a passkey for this account. It replaces a password.",
        "Ihr Gerät legt einen Passkey für dieses Konto an. Er ersetzt ein Passwort.";
    link_stale: "Sign in first: adding a passkey needs a sign-in of the last five minutes.",
        "Melden Sie sich erst an: Ein Passkey lässt sich nur in den fünf Minuten nach einer Anmeldung hinzufügen.";
    link_again: "Sign in", "Anmelden";
    link_name: "Name of the passkey", "Name des Passkeys";

    // The other half of a sign-in.
    first_password_title: "Set a password", "Passwort festlegen";
    first_password_lead: "Your passkey does not make sure that it is you who uses it. From the next time on you sign in with both: without a password you could not come back.",
        "Ihr Passkey prüft nicht, ob Sie es sind, der ihn benutzt. Ab dem nächsten Mal melden Sie sich mit beidem an: Ohne Passwort kämen Sie nicht mehr hinein.";
    first_password_hint: "characters at least, and none that is easy to guess",
        "Zeichen mindestens, und keines, das leicht zu erraten ist";
    first_password_weak: "That password is too short or too easy to guess.",
        "Dieses Passwort ist zu kurz oder zu leicht zu erraten.";

    // Recovery.
    recovery_title: "Come back in", "Wieder hineinkommen";
    recovery_lead: "Enter one of your recovery codes. It counts once; then you set up a new passkey, and every other session ends.",
        "Geben Sie einen Ihrer Wiederherstellungscodes ein. Er zählt einmal; danach richten Sie einen neuen Passkey ein, und alle anderen Sitzungen enden.";
    recovery_code: "Recovery code", "Wiederherstellungscode";
    continue_word: "Continue", "Weiter";
    back_to_login: "Back to signing in", "Zurück zur Anmeldung";

    // Devices.
    device_title: "Connect a device", "Gerät verbinden";
    device_lead: "Enter the code that the device shows.", "Geben Sie den Code ein, den das Gerät anzeigt.";
    device_code: "Code", "Code";
    device_unknown: "There is no open request with this code. Check it, or let the device show a new one.",
        "Zu diesem Code gibt es keine offene Anfrage. Prüfen Sie ihn, oder lassen Sie das Gerät einen neuen anzeigen.";
    device_confirm_lead: "Compare the code. Go on only if your device shows exactly this one, and you started it yourself.",
        "Vergleichen Sie den Code. Machen Sie nur weiter, wenn Ihr Gerät genau diesen zeigt und Sie es selbst gestartet haben.";
    device_place: "Asked from", "Angefragt von";
    device_time: "Asked at", "Angefragt um";
    device_allowed_title: "The device is connected", "Das Gerät ist verbunden";
    device_allowed_lead: "Go on there. You can close this page.", "Machen Sie dort weiter. Sie können diese Seite schließen.";
    device_denied_title: "The device was refused", "Das Gerät wurde abgelehnt";
    device_denied_lead: "It gets nothing. You can close this page.", "Es bekommt nichts. Sie können diese Seite schließen.";

    // Signing out.
    logout_title: "Sign out?", "Abmelden?";
    logout_lead: "Your session in this browser ends, and what applications hold of it.",
        "Ihre Sitzung in diesem Browser endet, und was Anwendungen von ihr haben.";
    logout: "Sign out", "Abmelden";
    logged_out_title: "You are signed out", "Sie sind abgemeldet";
    logged_out_lead: "You can close this page.", "Sie können diese Seite schließen.";

    // Passing an answer on by form.
    continue_title: "Going back to the application", "Zurück zur Anwendung";
    continue_lead: "If nothing happens, press the button.", "Wenn nichts geschieht, drücken Sie den Knopf.";
    continue_button: "Continue", "Weiter";
}

/// The language of a page: that of the request, else that of the browser, else English.
pub fn preferred(ui_locales: Option<&str>, accept_language: Option<&str>) -> &'static Texts {
    asked(ui_locales).unwrap_or_else(|| {
        accepted(accept_language.unwrap_or_default()).into_iter().find_map(known).unwrap_or(&ENGLISH)
    })
}

/// The language that the parameter asks for, if one of its tags is known.
pub fn asked(ui_locales: Option<&str>) -> Option<&'static Texts> {
    ui_locales.unwrap_or_default().split_ascii_whitespace().find_map(known)
}

/// Most tags of a header that are looked at.
const MAX_TAGS: usize = 32;

/// The tags of an `Accept-Language` header, the best first (RFC 9110 section 12.5.4); of the same weight, as they stand.
fn accepted(header: &str) -> Vec<&str> {
    let mut tags: Vec<(&str, u16)> = header
        .split(',')
        .take(MAX_TAGS)
        .map(|part| {
            let (tag, parameters) = part.split_once(';').unwrap_or((part, ""));
            (tag.trim(), weight(parameters))
        })
        .filter(|(_, weight)| *weight > 0)
        .collect();
    tags.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    tags.into_iter().map(|(tag, _)| tag).collect()
}

/// The weight among the parameters of a tag, in thousandths; one that cannot be read is none.
fn weight(parameters: &str) -> u16 {
    let q = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let Some((_, value)) = q.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("q")) else {
        return 1000;
    };
    let (whole, part) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let part = format!("{part:0<3}");
    match (whole, part.len(), part.parse::<u16>()) {
        ("0", 3, Ok(thousandths)) => thousandths,
        ("1", 3, Ok(0)) => 1000,
        _ => 0,
    }
}

fn known(tag: &str) -> Option<&'static Texts> {
    let language = tag.split('-').next().unwrap_or_default();
    [&ENGLISH, &GERMAN].into_iter().find(|texts| texts.lang.eq_ignore_ascii_case(language))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_decides_before_the_browser() {
        for (wanted, accepted, want) in [
            (Some("fr de-AT"), Some("en"), "de"),
            (None, Some("fr-FR, de;q=0.8, en;q=0.7"), "de"),
            (None, Some("en;q=0.1, de"), "de"),
            (None, Some("en;q=0.5, de ; Q=0.51"), "de"),
            (None, Some("de;q=0, en;q=0.001"), "en"),
            (None, Some("de;q=x, en;q=0.1"), "en"),
            (None, Some("de;q=1.000, en"), "de"),
            (None, Some("xx"), "en"),
            (None, None, "en"),
        ] {
            assert_eq!(preferred(wanted, accepted).lang, want);
        }
    }
}

use super::receipt_secrets::{LOOK, LOOK_AGAIN, Looked, Seen};
use super::*;

fn missing() -> Trouble {
    Trouble { reason: "SecretNotFound", message: "create it".into(), is_passing: false }
}

#[test]
fn a_secret_of_receipts_is_looked_at_often_while_it_is_wrong_and_stops_nothing() {
    let now = clock::monotonic();
    let (mut account, channel) = (Account::new(), plain("uid", 1));
    enter(&mut account, &channel, "token", now);
    let look = |account: &mut Account, seen, now| {
        assert!(account.wants_receipt_look(now), "it is time");
        assert!(!account.wants_receipt_look(now), "one look at a time");
        account.looked_at_receipts(Looked(Version::of(&channel), seen), now);
        account.state(false, now, WALL()).receipts
    };
    let (reason, message) = look(&mut account, Seen::Unusable(missing()), now).expect("it is said");
    assert!(reason == "SecretNotFound" && message.contains("503") && message.contains("create it"));
    assert!(door(&mut account, now).is_some(), "messages are sent");
    let later = now + LOOK_AGAIN;
    assert!(!account.wants_receipt_look(now + LOOK_AGAIN / 2));
    assert!(look(&mut account, Seen::Unread, later).is_some(), "it could not be read now");
    let later = later + LOOK_AGAIN;
    assert_eq!(look(&mut account, Seen::Usable, later), None);
    assert!(!account.wants_receipt_look(later + LOOK / 2));
    // Another spec may name another Secret.
    account.observe(Some(plain("uid", 2)), later, WALL());
    assert!(account.wants_receipt_look(later));
    account.looked_at_receipts(Looked(Version::of(&channel), Seen::Unusable(missing())), later);
    assert_eq!(account.state(false, later, WALL()).receipts, None, "that was the one before");
    assert!(account.wants_receipt_look(later));
}

#[test]
fn what_the_process_before_has_seen_stands_until_the_first_look_has_ended() {
    let now = clock::monotonic();
    let refused = json!({"type": "ReceiptsRefused", "status": "True", "observedGeneration": 1, "reason": "SecretNotFound",
                         "message": "create it", "lastTransitionTime": "2026-11-23T09:59:00Z"});
    let channel =
        channel("uid", 1, &json!({}), &json!({"observedGeneration": 1, "conditions": [refused.clone()]}));
    let mut account = Account::new();
    enter(&mut account, &channel, "token", now);
    assert!(account.wants_receipt_look(now), "it looks at once");
    let mut shows = |seen: Option<Seen>| {
        if let Some(seen) = seen {
            account.looked_at_receipts(Looked(Version::of(&channel), seen), now);
        }
        let conditions = status_of(&mut account, &channel, now)["conditions"].clone();
        conditions.as_array().is_some_and(|all| all.contains(&refused))
    };
    assert!(shows(None) && shows(Some(Seen::Unread)));
    assert!(!shows(Some(Seen::Usable)));
}

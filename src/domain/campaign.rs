//! Campaign keys: the same campaign from a pipeline that runs again is not sent again. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sha2::{Digest, Sha256};

use crate::api::{
    Broadcast, BroadcastCampaign, BroadcastCampaignSpec, BroadcastIdentity, DEFAULT_CAMPAIGN_RETENTION,
};

/// Bytes of the digest in a name: 160 bits, so no two keys meet.
const NAME_BYTES: usize = 20;

/// Name of the object of a key: always the same, so that of two Broadcasts only one can create it. A key may be any text,
/// and a name may not.
#[must_use]
pub fn campaign_name(key: &str) -> String {
    Sha256::digest(key).iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a Broadcast may start under a key that is there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is its own.
    Own,
    /// Another Broadcast has it.
    Taken,
    /// It is kept no longer, or its Broadcast gave it up before it began.
    Free,
    /// Its Broadcast is gone without having said so: it is kept from now on.
    Abandoned,
}

/// Whether a key is that of the Broadcast with this UID.
#[must_use]
pub fn is_own(campaign: &BroadcastCampaignSpec, uid: Option<&str>) -> bool {
    uid == Some(&campaign.broadcast.uid)
}

/// Judges a key that is there by the Broadcast that is stored under the name of its owner, if there is one, and by whether that
/// `has_begun`. `now` is the time of the API server: a clock that is ahead would free a key before its time.
#[must_use]
pub fn judge(
    campaign: &BroadcastCampaignSpec,
    uid: Option<&str>,
    owner: Option<&Broadcast>,
    has_begun: bool,
    now: Timestamp,
) -> Use {
    if is_own(campaign, uid) {
        return Use::Own;
    }
    if let Some(until) = &campaign.kept_until {
        return if now < until.0 { Use::Taken } else { Use::Free };
    }
    match owner.filter(|owner| is_own(campaign, owner.metadata.uid.as_deref())) {
        None => Use::Abandoned,
        // It may change until it began: then it had this one for nothing. One that has lost its status can be changed as well.
        Some(owner) if has_other_key(campaign, owner) && !has_begun => Use::Free,
        Some(_) => Use::Taken,
    }
}

/// Whether a Broadcast has another key than this one by now, or none.
#[must_use]
pub fn has_other_key(campaign: &BroadcastCampaignSpec, owner: &Broadcast) -> bool {
    owner.spec.campaign_key.as_ref() != Some(&campaign.key)
}

/// What a Broadcast keeps under its key from its start on. `None` without a key.
#[must_use]
pub fn campaign_of(broadcast: &Broadcast, now: Timestamp) -> Option<BroadcastCampaign> {
    let key = broadcast.spec.campaign_key.clone()?;
    let broadcast_identity = BroadcastIdentity {
        name: broadcast.metadata.name.clone().unwrap_or_default(),
        uid: broadcast.metadata.uid.clone().unwrap_or_default(),
    };
    let mut campaign = BroadcastCampaign::new(
        &campaign_name(&key),
        BroadcastCampaignSpec {
            key,
            broadcast: broadcast_identity,
            start_time: Time(now),
            retention_seconds: retention(broadcast),
            kept_until: None,
        },
    );
    campaign.metadata.namespace.clone_from(&broadcast.metadata.namespace);
    Some(campaign)
}

/// Seconds that the key of a Broadcast is kept after it.
#[must_use]
pub fn retention(broadcast: &Broadcast) -> i32 {
    broadcast.spec.campaign_retention_seconds.unwrap_or(DEFAULT_CAMPAIGN_RETENTION)
}

/// The end of a key whose Broadcast went now.
#[must_use]
pub fn kept_until(retention_seconds: i32, now: Timestamp) -> Time {
    // A time beyond what a calendar has is the end of it.
    let end = now.checked_add(SignedDuration::from_secs(i64::from(retention_seconds)));
    Time(end.unwrap_or(Timestamp::MAX))
}

/// What a person reads whose Broadcast has a key that another one used.
#[must_use]
pub fn refusal(campaign: &BroadcastCampaign) -> String {
    let BroadcastCampaignSpec { key, broadcast, start_time, retention_seconds, kept_until } = &campaign.spec;
    let until = match kept_until {
        Some(until) => format!("until {}", until.0),
        None => format!("as long as that Broadcast is there, and {retention_seconds} s more"),
    };
    format!(
        "campaign {key} was taken by Broadcast {} at {}, and may have been sent since: nothing is sent. The key is kept \
         {until}. To send it all the same, give this Broadcast another spec.campaignKey, or free the key: kubectl -n {} delete bcp {}",
        broadcast.name,
        start_time.0,
        campaign.metadata.namespace.as_deref().unwrap_or_default(),
        campaign.metadata.name.as_deref().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BroadcastSpec;

    fn broadcast(uid: &str, key: &str) -> Broadcast {
        let spec = BroadcastSpec { campaign_key: Some(key.into()), ..BroadcastSpec::default() };
        let mut broadcast = Broadcast::new("sale", spec);
        broadcast.metadata.uid = Some(uid.into());
        broadcast
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small")
    }

    #[test]
    fn a_name_is_that_of_the_key_alone() {
        assert_eq!(campaign_name("spring sale/2026"), campaign_name("spring sale/2026"));
        assert_ne!(campaign_name("spring sale/2026"), campaign_name("spring sale/2027"));
        assert_eq!(campaign_name("é 😀").len(), 40);
    }

    #[test]
    fn a_key_is_taken_while_its_broadcast_is_there_and_kept_for_a_time_after() {
        let first = broadcast("1", "spring");
        let mut used = campaign_of(&first, at(0)).expect("a key").spec;
        assert_eq!(used.retention_seconds, 2_592_000, "30 days");
        let judge = |used: &BroadcastCampaignSpec, uid: &str, owner: Option<&Broadcast>, second| {
            judge(used, Some(uid), owner, false, at(second))
        };
        assert_eq!(judge(&used, "1", Some(&first), 0), Use::Own);
        assert_eq!(judge(&used, "2", Some(&first), 99_999_999), Use::Taken);
        assert_eq!(judge(&used, "2", None, 0), Use::Abandoned);
        assert_eq!(judge(&used, "2", Some(&broadcast("2", "spring")), 0), Use::Abandoned, "of the same name");
        assert_eq!(judge(&used, "2", Some(&broadcast("1", "summer")), 0), Use::Free, "it changed its key");
        let sent = super::judge(&used, Some("2"), Some(&broadcast("1", "summer")), true, at(0));
        assert_eq!(sent, Use::Taken, "it changed its key after it had sent");
        used.kept_until = Some(kept_until(60, at(100)));
        assert_eq!(judge(&used, "2", None, 159), Use::Taken);
        assert_eq!(judge(&used, "2", None, 160), Use::Free);
    }

    #[test]
    fn a_refusal_says_who_when_how_long_and_what_to_do() {
        let mut used = campaign_of(&broadcast("1", "spring"), at(0)).expect("a key");
        used.metadata.namespace = Some("shop".into());
        let text = refusal(&used);
        for part in [
            "campaign spring was taken by Broadcast sale at 1970-01-01T00:00:00Z, and may have been sent since",
            "2592000 s more",
            "another spec.campaignKey",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with(&format!("kubectl -n shop delete bcp {}", campaign_name("spring"))), "{text}");
    }
}

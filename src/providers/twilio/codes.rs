//! Twilio's error codes: what each means for the chat, the Broadcast and the channel. A code may come with an answer, with a
//! receipt, or with both.

use crate::domain::answer::RefusalKind::{
    self, Content, Later, MediaNotFetched, OptedOut, Permanent, RateLimited, Retryable, Sender, Unavailable,
};
use crate::domain::answer::SenderTrouble::{AccountRestricted, AuthenticationFailed};

/// One error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Twilio's number for it.
    pub number: u32,
    /// What is to be done about it.
    pub kind: RefusalKind,
    /// What it says, for receipts, which have the number alone.
    pub meaning: &'static str,
}

/// The error with this number. `None`: not one that is known here.
#[must_use]
pub fn of(number: u32) -> Option<&'static Code> {
    TABLE.binary_search_by_key(&number, |code| code.number).ok().and_then(|index| TABLE.get(index))
}

const fn code(number: u32, kind: RefusalKind, meaning: &'static str) -> Code {
    Code { number, kind, meaning }
}

/// All of them, by number. Their meanings are those of Twilio's error dictionary.
///
/// Where a code can be about one recipient or about the sender, it is about the recipient: one bad number must not stop a channel. But
/// that a region is switched off is a setting, which a person can change before a whole audience has failed by it.
/// 30003 and 30008 come hours after the message, when the handset cannot be reached or nobody knows why: a try seconds later is
/// another failure, or with 30008 perhaps a second message.
const TABLE: &[Code] = &[
    code(10001, Sender(AccountRestricted), "the account is not active"),
    code(20003, Sender(AuthenticationFailed), "the account or its auth token is wrong, or may not send"),
    code(20005, Sender(AccountRestricted), "the account is not active"),
    code(20404, Sender(AuthenticationFailed), "there is no such account"),
    code(20429, RateLimited, "too many requests"),
    code(21211, Permanent, "the number of the recipient is not valid"),
    code(21212, Sender(AccountRestricted), "the number of the sender is not valid"),
    // A setting of the account: with it, those of the region can be sent to.
    code(21408, Sender(AccountRestricted), "the account may not send to this region"),
    code(21610, OptedOut, "the recipient has unsubscribed"),
    code(21611, RateLimited, "the queue of the sender is full"),
    code(21612, Permanent, "the recipient cannot be reached from this sender"),
    code(21614, Permanent, "the number of the recipient is not a mobile number"),
    code(21655, Content, "there is no such content template"),
    code(21661, Sender(AccountRestricted), "the number of the sender cannot send text messages"),
    code(21701, Sender(AccountRestricted), "there is no such messaging service"),
    code(21702, Sender(AccountRestricted), "the messaging service cannot send"),
    code(21703, Sender(AccountRestricted), "the messaging service has no number to send from"),
    code(21704, Sender(AccountRestricted), "the messaging service has no numbers"),
    code(21705, Sender(AccountRestricted), "the messaging service is not valid"),
    code(30001, RateLimited, "the queue of the sender is full"),
    code(30002, Sender(AccountRestricted), "the account is suspended"),
    code(30003, Later, "the handset cannot be reached"),
    code(30004, Permanent, "the message was blocked"),
    code(30005, Permanent, "the handset is unknown"),
    code(30006, Permanent, "the number is a landline, or its carrier cannot be reached"),
    code(30007, Permanent, "the message was filtered"),
    code(30008, Later, "the carrier did not say why"),
    code(30036, Retryable, "the message was too long in the queue"),
    code(63001, Sender(AuthenticationFailed), "the network of the sender refused its credentials"),
    code(63002, Sender(AccountRestricted), "the network does not know the sender"),
    code(63003, Permanent, "the network does not know the recipient"),
    code(63005, Content, "the network does not take this content"),
    code(63007, Sender(AccountRestricted), "the sender is not set up for this network"),
    code(63012, Unavailable, "the network had an internal error"),
    code(63013, Content, "the message is against the policy of the network"),
    code(63016, Permanent, "outside of the time in which a free text may be sent"),
    code(63017, RateLimited, "too many messages at once"),
    code(63018, RateLimited, "too many messages at once for this sender"),
    code(63019, MediaNotFetched, "the media could not be fetched"),
    code(63020, Sender(AccountRestricted), "the business account of the sender has a problem"),
    code(63021, Content, "the network does not take this content"),
    code(63022, Sender(AccountRestricted), "the certificate of the sender's name is not valid"),
    code(63024, Permanent, "the recipient is not valid"),
    code(63026, Sender(AccountRestricted), "what the sender sends was marked as spam"),
    code(63027, Content, "there is no such template in this language"),
    code(63028, Content, "the template has another number of parameters"),
    code(63030, Content, "the content is not possible in this kind of message"),
    code(63032, Permanent, "the network does not let this recipient have the message"),
    code(63038, RateLimited, "the account has sent all that it may send today"),
    code(63040, Content, "the template was rejected"),
    code(63041, Content, "the template is paused"),
    code(63049, Later, "the network chose not to deliver the message"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_so_that_each_code_is_found() {
        assert!(TABLE.is_sorted_by(|one, next| one.number < next.number));
        for code in TABLE {
            assert_eq!(of(code.number), Some(code));
        }
        assert_eq!(of(0), None);
    }
}

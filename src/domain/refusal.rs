//! Why a gateway did not take a message. Pure.

use std::time::Duration;

use crate::api::ErrorAction;

/// Why a gateway did not take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is to be done about it.
    pub kind: RefusalKind,
    /// The gateway's error code.
    pub code: String,
    /// What it said.
    pub detail: String,
    /// How long it asked to wait.
    pub wait: Option<Duration>,
    /// What a rule of the channel wants besides, where it does not change the kind.
    pub besides: Option<ErrorAction>,
}

/// What a refusal is about, and what is to be done. Every error code of a provider has one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// About this recipient: another try fails as well. The chat fails.
    Permanent,
    /// About this recipient, as far as the HTTP status tells: its code is in no table. As [`RefusalKind::Permanent`], but many of
    /// them in a row stop the Broadcast.
    Unlisted,
    /// About this recipient: another try may succeed, by `spec.retry`.
    Retryable,
    /// About this recipient: another try may succeed in a day or so. The chat fails, and a restart may take it.
    Later,
    /// This recipient does not want messages of this sender. The chat fails, and is not sent to again.
    OptedOut,
    /// A rule of the channel: the chat fails, and is not sent to again.
    Suppressed,
    /// Too many messages to this recipient at once: this chat waits, the others go on.
    ChatLimited,
    /// Too many messages at once: the channel waits. No chat fails.
    RateLimited,
    /// A rule of the channel stops the Broadcast. No chat fails.
    Stopped,
    /// About what is sent: nobody can get it. The Broadcast stops. No chat fails.
    Content,
    /// About what is sent: no request can be made of it, so nobody was asked. The Broadcast stops. No chat fails. Planning finds it, so
    /// it comes only where the channel has changed since.
    NotSupported,
    /// About the media: [`Answer::about_media`](super::answer::Answer::about_media) says whose trouble that is. Otherwise as [`RefusalKind::Content`].
    Media,
    /// About the media, which could not be fetched: another try may succeed, by `spec.retry`. After the last one,
    /// [`Answer::about_media`](super::answer::Answer::about_media) says whose trouble that is: one recipient's, or that of the whole
    /// Broadcast.
    MediaNotFetched,
    /// About the provider, which is in trouble itself: the chat goes behind the others, and fails by nothing. If that goes on, the
    /// channel waits.
    Unavailable,
    /// About the sender: nothing can be sent. The channel stops. No chat fails.
    Sender(SenderTrouble),
}

/// Why a gateway takes nothing from this sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SenderTrouble {
    /// It refused the credentials, or they may not send.
    AuthenticationFailed,
    /// It restricted, blocked or closed the account or the sending number.
    AccountRestricted,
    /// The account has no money, or no way to pay.
    PaymentRequired,
    /// It answers with a redirect: the url of the channel is not the gateway's.
    Redirected,
    /// Something else than the gateway answered, and passed the message on to nobody.
    UnexpectedAnswer,
    /// An error policy of the channel says so.
    ByErrorPolicy,
}

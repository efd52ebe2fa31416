//! Flags of single formats: which token is taken, and where receipts go.

use std::collections::BTreeMap;

use crate::simulator::Format;

/// Tokens of single formats.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tokens of single formats, instead of --token")]
pub(super) struct TokenArgs {
    /// Access token of Meta's Cloud API
    #[arg(long = "whatsapp-token", env = "CHAT_SIMULATOR_WHATSAPP_TOKEN", hide_env_values = true)]
    whats_app: Option<String>,
    /// Token of the Telegram bot: <id>:<secret>
    #[arg(long = "telegram-token", env = "CHAT_SIMULATOR_TELEGRAM_TOKEN", hide_env_values = true)]
    telegram: Option<String>,
    /// Auth token of the Twilio account
    #[arg(long = "twilio-token", env = "CHAT_SIMULATOR_TWILIO_TOKEN", hide_env_values = true)]
    twilio: Option<String>,
    /// API key of Periskope
    #[arg(long = "periskope-token", env = "CHAT_SIMULATOR_PERISKOPE_TOKEN", hide_env_values = true)]
    periskope: Option<String>,
}

/// Where receipts go, and what those of providers are signed with. Without any of them there are none.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Receipts")]
#[group(id = "receipts_to", multiple = true)]
pub(super) struct Addresses {
    /// Where those in the HTTP channel's format go, with {namespace} and {channel} in it
    #[arg(long = "receipts-url", env = "CHAT_SIMULATOR_RECEIPTS_URL", value_name = "URL")]
    pub(super) url: Option<String>,
    /// Where statuses of Meta's Cloud API go; {channel} is the phone number id
    #[arg(long = "receipts-whatsapp-url", env = "CHAT_SIMULATOR_RECEIPTS_WHATSAPP_URL", value_name = "URL")]
    pub(super) whats_app_url: Option<String>,
    /// Where updates of a Telegram bot go; {channel} is the id of the bot
    #[arg(long = "receipts-telegram-url", env = "CHAT_SIMULATOR_RECEIPTS_TELEGRAM_URL", value_name = "URL")]
    pub(super) telegram_url: Option<String>,
    /// Where events of Periskope go; {channel} is the phone
    #[arg(
        long = "receipts-periskope-url",
        env = "CHAT_SIMULATOR_RECEIPTS_PERISKOPE_URL",
        value_name = "URL"
    )]
    pub(super) periskope_url: Option<String>,
    /// Signs callbacks of Twilio, which go to the address that each message gives
    #[arg(
        long = "receipts-twilio-token",
        env = "CHAT_SIMULATOR_RECEIPTS_TWILIO_TOKEN",
        value_name = "AUTH_TOKEN",
        hide_env_values = true
    )]
    pub(super) twilio_auth_token: Option<String>,
}

impl TokenArgs {
    pub(super) fn settings(self) -> BTreeMap<Format, String> {
        let Self { whats_app, telegram, twilio, periskope } = self;
        let given = [
            (Format::WhatsApp, whats_app),
            (Format::Telegram, telegram),
            (Format::Twilio, twilio),
            (Format::Periskope, periskope),
        ];
        given.into_iter().filter_map(|(format, token)| Some((format, token?))).collect()
    }
}

impl Addresses {
    pub(super) fn is_any(&self) -> bool {
        let Self { url, whats_app_url, telegram_url, periskope_url, twilio_auth_token } = self;
        [url, whats_app_url, telegram_url, periskope_url, twilio_auth_token].into_iter().any(Option::is_some)
    }
}

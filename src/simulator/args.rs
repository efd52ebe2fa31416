//! The command line of `chat-simulator`.

mod providers;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{ProviderReceipts, ReceiptSettings, Rule, Settings, Simulator, StartError};
use providers::{Addresses, TokenArgs};

const EXAMPLES: &str = "Examples:
  chat-simulator --listen 127.0.0.1:8090 --latency-ms 20
  chat-simulator --faults '[{\"do\": {\"statusAfterAccept\": 503}}]'
  curl -s http://127.0.0.1:8090/simulator/summary

The first line on standard output is `listening on http://<address>`.";

/// A gateway that takes messages and delivers none: it remembers all that it was sent, goes wrong as it is told to, and sends
/// receipts. It speaks as the HTTP channel, Meta's Cloud API, Telegram, Twilio and Periskope do, each at its usual path.
#[derive(Debug, Parser)]
#[command(name = "chat-simulator", version, after_help = EXAMPLES)]
pub struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "CHAT_SIMULATOR_LISTEN", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// How long each answer to a message waits
    #[arg(long, env = "CHAT_SIMULATOR_LATENCY_MS", default_value_t = 0, value_name = "MS")]
    latency_ms: u64,
    /// The only token that is taken, whatever the format; without it none is looked at
    #[arg(long, env = "CHAT_SIMULATOR_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Answer a repeated Idempotency-Key with the earlier message id, without accepting the message again
    #[arg(long, env = "CHAT_SIMULATOR_IDEMPOTENT")]
    idempotent: bool,
    /// What goes wrong: a JSON list of rules
    #[arg(long, env = "CHAT_SIMULATOR_FAULTS", value_name = "JSON", conflicts_with = "faults_file")]
    faults: Option<String>,
    /// What goes wrong: a file with a JSON list of rules
    #[arg(long, env = "CHAT_SIMULATOR_FAULTS_FILE", value_name = "PATH")]
    faults_file: Option<PathBuf>,
    /// What is logged to standard error, for example debug
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    log_filter: String,
    #[command(flatten)]
    tokens: TokenArgs,
    #[command(flatten)]
    receipts_to: Addresses,
    #[command(flatten)]
    receipts: ReceiptArgs,
}

/// Each of them needs somewhere for receipts to go.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Receipts")]
struct ReceiptArgs {
    /// Signs receipts: whsec_<base64>
    #[arg(
        long = "receipts-secret",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_SECRET",
        hide_env_values = true
    )]
    secret: Option<String>,
    /// Of 100 accepted messages, how many are delivered
    #[arg(
        long = "receipts-delivered-percent",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_DELIVERED_PERCENT",
        default_value_t = 100,
        value_name = "N"
    )]
    delivered_percent: u8,
    /// Of 100 accepted messages, how many are read too
    #[arg(
        long = "receipts-read-percent",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_READ_PERCENT",
        default_value_t = 0,
        value_name = "N"
    )]
    read_percent: u8,
    /// Of 100 accepted messages, how many fail after all
    #[arg(
        long = "receipts-failed-percent",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_FAILED_PERCENT",
        default_value_t = 0,
        value_name = "N"
    )]
    failed_percent: u8,
    /// How long after a message its first receipt comes
    #[arg(
        long = "receipts-delay-ms",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_DELAY_MS",
        default_value_t = 0,
        value_name = "MS"
    )]
    delay_ms: u64,
    /// Most receipts in one request
    #[arg(
        long = "receipts-batch-size",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_BATCH_SIZE",
        default_value_t = 100,
        value_name = "N"
    )]
    batch_size: usize,
    /// How often waiting receipts are sent
    #[arg(
        long = "receipts-flush-ms",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_FLUSH_MS",
        default_value_t = 50,
        value_name = "MS"
    )]
    flush_ms: u64,
    /// How often each receipt is sent
    #[arg(
        long = "receipts-times",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_TIMES",
        default_value_t = 1,
        value_name = "N"
    )]
    times: usize,
    /// Send read before delivered
    #[arg(long = "receipts-reverse", requires = "receipts_to", env = "CHAT_SIMULATOR_RECEIPTS_REVERSE")]
    reverse: bool,
    /// Send the first receipt of a message before the message itself is answered
    #[arg(
        long = "receipts-before-answer",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_BEFORE_ANSWER"
    )]
    before_answer: bool,
    /// Name messages in receipts by their message id, not by their token
    #[arg(
        long = "receipts-use-message-id",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_USE_MESSAGE_ID"
    )]
    use_message_id: bool,
    /// Of 100 accepted messages, how many get sent before anything else
    #[arg(
        long = "receipts-sent-percent",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_SENT_PERCENT",
        default_value_t = 0,
        value_name = "N"
    )]
    sent_percent: u8,
    /// Error code of failed; without it the format's own for a chat that cannot be reached
    #[arg(
        long = "receipts-failed-code",
        requires = "receipts_to",
        env = "CHAT_SIMULATOR_RECEIPTS_FAILED_CODE",
        value_name = "CODE"
    )]
    failed_code: Option<String>,
    /// App secret that signs statuses of Meta's Cloud API
    #[arg(
        long = "receipts-whatsapp-secret",
        requires = "whats_app_url",
        env = "CHAT_SIMULATOR_RECEIPTS_WHATSAPP_SECRET",
        hide_env_values = true
    )]
    whats_app_secret: Option<String>,
    /// Secret token that updates of a Telegram bot come with
    #[arg(
        long = "receipts-telegram-secret",
        requires = "telegram_url",
        env = "CHAT_SIMULATOR_RECEIPTS_TELEGRAM_SECRET",
        hide_env_values = true
    )]
    telegram_secret: Option<String>,
    /// Key that signs events of Periskope
    #[arg(
        long = "receipts-periskope-key",
        requires = "periskope_url",
        env = "CHAT_SIMULATOR_RECEIPTS_PERISKOPE_KEY",
        hide_env_values = true
    )]
    periskope_signing_key: Option<String>,
}

/// Why the process ends before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file with the faults cannot be read.
    #[error("failed to read faults from {path}")]
    FaultsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The faults are no list of rules.
    #[error("the faults are not a JSON list of rules")]
    Faults(#[source] serde_json::Error),
    /// The simulator cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Signals cannot be listened to.
    #[error("failed to listen to signals")]
    Signals(#[source] io::Error),
}

impl Args {
    /// Runs a simulator until SIGTERM or ctrl-c.
    ///
    /// # Errors
    /// When it cannot be started as asked.
    pub async fn run(self) -> Result<(), RunError> {
        let filter = EnvFilter::new(&self.log_filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
        let mut terminated = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
        let mut interrupted = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
        let simulator = Simulator::start(self.settings()?).await?;
        println!("listening on {}", simulator.url());
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        simulator.stop().await;
        Ok(())
    }

    fn settings(self) -> Result<Settings, RunError> {
        let faults = self.faults()?;
        Ok(Settings {
            listen: self.listen,
            latency: Duration::from_millis(self.latency_ms),
            token: self.token,
            tokens: self.tokens.settings(),
            idempotent: self.idempotent,
            faults,
            receipts: self.receipts_to.is_any().then(|| self.receipts.settings(self.receipts_to)),
        })
    }

    fn faults(&self) -> Result<Vec<Rule>, RunError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|source| RunError::FaultsFile { path: path.clone(), source })
        };
        let text = match (&self.faults, &self.faults_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => read(path)?,
            (None, None) => return Ok(Vec::new()),
        };
        serde_json::from_str(&text).map_err(RunError::Faults)
    }
}

impl ReceiptArgs {
    fn settings(self, to: Addresses) -> ReceiptSettings {
        ReceiptSettings {
            url: to.url.unwrap_or_default(),
            secret: self.secret,
            delivered_percent: self.delivered_percent,
            read_percent: self.read_percent,
            failed_percent: self.failed_percent,
            delay_ms: self.delay_ms,
            batch_size: self.batch_size,
            flush_ms: self.flush_ms,
            times: self.times,
            reverse: self.reverse,
            before_answer: self.before_answer,
            use_message_id: self.use_message_id,
            sent_percent: self.sent_percent,
            failed_code: self.failed_code,
            providers: ProviderReceipts {
                whats_app_url: to.whats_app_url,
                whats_app_secret: self.whats_app_secret,
                telegram_url: to.telegram_url,
                telegram_secret: self.telegram_secret,
                twilio_auth_token: to.twilio_auth_token,
                periskope_url: to.periskope_url,
                periskope_signing_key: self.periskope_signing_key,
                ..ProviderReceipts::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::Format;
    use clap::CommandFactory;

    #[test]
    fn flags_become_settings() {
        Args::command().debug_assert();
        let url = "http://127.0.0.1:8082/{namespace}/{channel}";
        let faults = r#"[{"do": {"hang": {}}}]"#;
        let flags = ["chat-simulator", "--latency-ms", "5", "--faults", faults, "--receipts-url", url];
        let args = Args::try_parse_from(flags.into_iter().chain(["--receipts-reverse"])).expect("flags");
        let settings = args.settings().expect("settings");
        assert_eq!((settings.latency.as_millis(), settings.faults.len()), (5, 1));
        let receipts = settings.receipts.expect("receipts");
        assert_eq!((receipts.url.as_str(), receipts.reverse, receipts.times), (url, true, 1));
    }

    #[test]
    fn providers_have_flags_of_their_own() {
        let flags = [
            ("--token", "all"),
            ("--telegram-token", "42:AA"),
            ("--receipts-whatsapp-url", "http://127.0.0.1:8082/{channel}"),
            ("--receipts-whatsapp-secret", "app"),
            ("--receipts-twilio-token", "auth"),
            ("--receipts-failed-code", "131049"),
        ];
        let flags = flags.into_iter().flat_map(|(name, value)| [name, value]);
        let args = Args::try_parse_from(["chat-simulator"].into_iter().chain(flags)).expect("flags");
        let settings = args.settings().expect("settings");
        assert_eq!(settings.token.as_deref(), Some("all"));
        assert_eq!(settings.tokens, [(Format::Telegram, "42:AA".to_owned())].into());
        let receipts = settings.receipts.expect("receipts");
        assert_eq!((receipts.url.as_str(), receipts.failed_code.as_deref()), ("", Some("131049")));
        let ProviderReceipts { whats_app_url, whats_app_secret, twilio_auth_token, telegram_url, .. } =
            receipts.providers;
        assert_eq!(whats_app_url.as_deref(), Some("http://127.0.0.1:8082/{channel}"));
        assert_eq!((whats_app_secret.as_deref(), twilio_auth_token.as_deref()), (Some("app"), Some("auth")));
        assert_eq!(telegram_url, None);
    }

    #[test]
    fn flags_of_receipts_need_an_address_for_them() {
        assert!(Args::try_parse_from(["chat-simulator", "--receipts-times", "2"]).is_err());
        assert!(Args::try_parse_from(["chat-simulator", "--receipts-whatsapp-secret", "a"]).is_err());
        assert!(Args::try_parse_from(["chat-simulator"]).is_ok());
    }

    #[test]
    fn faults_that_are_no_rules_are_an_error() {
        let args = Args::try_parse_from(["chat-simulator", "--faults", "[{}, 1]"]).expect("flags");
        assert!(matches!(args.settings(), Err(RunError::Faults(_))));
    }
}

//! What a user types: every kubectl command is shown, run, and shown with its output.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use broadcast_operator::clock;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::common::control_plane::ControlPlane;

/// A shell in a folder with manifests.
pub struct Shell {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    folder: PathBuf,
}

/// Output of a command.
pub struct Answer {
    pub text: String,
    pub log: String,
    /// When the command had ended.
    pub returned: Timestamp,
}

impl Shell {
    pub fn new(plane: &ControlPlane) -> Self {
        let folder = plane.folder().join("demo");
        std::fs::create_dir_all(&folder).expect("should make a folder");
        Self { kubectl: plane.binary("kubectl"), kubeconfig: plane.kubeconfig("admin"), folder }
    }

    /// Puts a file into the folder.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("should write a file");
    }

    /// Shows a file of the folder.
    pub fn cat(&self, name: &str) {
        prompt(&format!("cat {name}"));
        print!("{}", std::fs::read_to_string(self.folder.join(name)).expect("should read a file"));
    }

    /// Runs a command and shows its output.
    pub fn kubectl(&self, arguments: &[&str]) -> Answer {
        let answer = self.ask(arguments);
        print!("{}", answer.text);
        answer
    }

    /// Runs a command whose output is too long to show.
    ///
    /// # Panics
    /// When it fails: then there is nothing more to show.
    pub fn ask(&self, arguments: &[&str]) -> Answer {
        echo(arguments);
        let output = tokio::task::block_in_place(|| self.command(arguments).output());
        let returned = clock::now();
        let output = output.unwrap_or_else(|error| panic!("failed to start kubectl: {error}"));
        let text = |bytes| String::from_utf8(bytes).expect("should be text");
        let log = text(output.stderr);
        assert!(output.status.success(), "kubectl failed: {log}");
        Answer { text: text(output.stdout), log, returned }
    }

    /// Runs a command that does not end by itself, such as `get --watch`, until something has come about.
    pub async fn kubectl_until<T>(&self, arguments: &[&str], come_about: impl Future<Output = T>) -> T {
        echo(arguments);
        let mut command = tokio::process::Command::from(self.command(arguments));
        let mut child =
            command.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("should start kubectl");
        let value = come_about.await;
        child.kill().await.expect("should end kubectl");
        value
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.folder.join(".cache"))
            // The user's own defaults would change what is shown.
            .env("KUBERC", "off")
            .env("TZ", "UTC")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .args(arguments);
        command
    }
}

impl Answer {
    /// When the API server answered, by the log that `-v=6` makes kubectl write: `I1123 10:00:03.123456 … "Response" …`.
    pub fn answered(&self) -> Timestamp {
        let line =
            self.log.lines().find(|line| line.contains("\"Response\"") && line.contains("verb=\"PATCH\""));
        let line = line.unwrap_or_else(|| panic!("no answer to a PATCH in the log: {}", self.log));
        let mut words = line.trim_start_matches('I').split_whitespace();
        let (day, time) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let year = self.returned.to_zoned(TimeZone::UTC).year();
        let at = DateTime::strptime("%Y%m%d %H:%M:%S%.f", format!("{year}{day} {time}"));
        let at = at.unwrap_or_else(|error| panic!("no time in {line}: {error}"));
        at.to_zoned(TimeZone::UTC).expect("should be a time").timestamp()
    }
}

/// Begins a chapter.
pub fn chapter(title: &str) {
    println!("\n{}", bold(&format!("== {title}")));
}

/// Says something about what is seen.
pub fn say(text: &str) {
    println!("# {text}");
}

fn echo(arguments: &[&str]) {
    let words = arguments.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    prompt(&format!("kubectl {words}"));
}

fn prompt(command: &str) {
    println!("{}", bold(&format!("$ {command}")));
}

fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_./=:,@%".contains(character);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{word}'") }
}

fn bold(text: &str) -> String {
    let plain = !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    if plain { text.to_owned() } else { format!("\x1b[1m{text}\x1b[0m") }
}

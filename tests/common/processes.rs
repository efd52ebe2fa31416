//! Child processes that cannot outlive us: a shell waits for the end of our standard pipe to it, and then ends them.

use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The watchdog learns each process by its id (`+id`), forgets those that we ended ourselves (`-id`), and takes away folders
/// that we leave (`/path`).
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
while read -r change; do
  case $change in
    +*) alive="$alive ${change#+}" ;;
    /*) folders="$folders $change" ;;
    -*) kept=; for id in $alive; do [ "$id" = "${change#-}" ] || kept="$kept $id"; done; alive=$kept ;;
  esac
done
[ -z "$alive" ] || kill -9 $alive 2>/dev/null
[ -z "$folders" ] || rm -rf $folders
"#;

fn tell(change: &str) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        #[expect(clippy::zombie_processes, reason = "it outlives us on purpose")]
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("should start a shell");
        Mutex::new(watchdog.stdin.expect("should have a pipe to it"))
    });
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(pipe, "{change}").expect("should reach the watchdog");
}

/// Takes a folder away when we have ended, if it is still there then.
pub fn remove_in_the_end(folder: &Path) {
    let path = folder.display().to_string();
    assert!(!path.contains(char::is_whitespace), "{path} has a space in it");
    tell(&path);
}

/// A child process. Ends when it is dropped, and when we die.
pub struct Process(Child);

impl Process {
    /// Starts a program whose output goes to a file.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).expect("should open a log");
        let copy = file.try_clone().expect("should share a log");
        let child = command.stdin(Stdio::null()).stdout(copy).stderr(file).spawn();
        let child = child.unwrap_or_else(|error| panic!("failed to start {command:?}: {error}"));
        tell(&format!("+{}", child.id()));
        Self(child)
    }

    /// Sends a signal by name: TERM, KILL, STOP, CONT.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "failed to send {name}");
    }

    /// Its exit code, if it has ended.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.0.try_wait().expect("should be our child").map(|status| status.code().unwrap_or(-1))
    }

    /// Ends it on the spot.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        tell(&format!("-{}", self.0.id()));
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("should have free ports");
    listener.local_addr().expect("should be bound").port()
}

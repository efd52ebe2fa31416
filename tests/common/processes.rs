//! Child processes that cannot outlive us: a shell waits for the end of our standard pipe to it, and then ends them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rand::RngExt;

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

/// A program that can be killed and started again as it was, while others look at it.
pub struct Service {
    process: Mutex<Process>,
    command: Mutex<Command>,
    log: PathBuf,
}

impl Service {
    /// Starts a program whose output goes to a file.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let process = Process::start(&mut command, &log);
        Self { process: Mutex::new(process), command: Mutex::new(command), log }
    }

    /// Ends it on the spot.
    pub fn kill(&self) {
        self.process().kill();
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        self.process().signal(name);
    }

    /// Starts it again, if it has ended.
    pub fn start_again(&self) {
        let mut process = self.process();
        if process.exit_code().is_some() {
            let mut command = self.command.lock().unwrap_or_else(PoisonError::into_inner);
            *process = Process::start(&mut command, &self.log);
        }
    }

    /// What it has written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Below the ports that Linux and macOS give to outgoing connections: while a server is away, nobody gets its port by
/// accident, not even a client that tries to reach it there.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| random.random_range(PORTS))
        .take(PORTS.len())
        .find(is_free)
        .expect("should have free ports")
}

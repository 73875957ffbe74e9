//! Programs that run beside the driver: started, waited for, measured, ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take until it is ready, and a program until it ends
/// when asked to.
const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(3);

/// A running program; ended when dropped.
pub struct Program {
    child: Child,
    log: PathBuf,
}

/// The last lines of a text, for an error message.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

impl Program {
    /// Start it; what it says goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let file = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = file.try_clone().map_err(|e| e.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        let child = child.map_err(|e| format!("{command:?}: {e}"))?;
        Ok(Self { child, log: log.to_path_buf() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Wait until `ready` holds.
    pub fn wait_until(&mut self, ready: impl Fn(&Self) -> bool) -> Result<(), String> {
        let since = Instant::now();
        while !ready(self) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{}: {}", tail(&self.output()), status));
            }
            if since.elapsed() > START {
                return Err(format!("not ready after {START:?}: {}", tail(&self.output())));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Wait for its end by itself; what it said.
    pub fn end(mut self, limit: Duration) -> Result<String, String> {
        let since = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(self.output()),
                Ok(Some(status)) => return Err(format!("{}: {status}", tail(&self.output()))),
                Ok(None) if since.elapsed() < limit => thread::sleep(Duration::from_millis(2)),
                Ok(None) => return Err(format!("still running after {limit:?}: {}", tail(&self.output()))),
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    /// Time that its threads have run, in seconds, to the nanosecond: also for a
    /// program that runs less than the clock's tick.
    pub fn run_seconds(&self) -> f64 {
        let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.id())) else { return 0.0 };
        let ran = threads.flatten().filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<f64>().ok()
        });
        ran.sum::<f64>() / 1e9
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // SAFETY: no pointers; it is our child and has not been waited for, so the number is still its.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let since = Instant::now();
        while since.elapsed() < STOP {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("bench-{}-{name}.log", std::process::id()))
    }

    fn shell(line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        command
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let log = log("fails");
        let mut program = Program::start(&mut shell("echo one; echo no such device >&2; exit 3"), &log).unwrap();
        let why = program.wait_until(|p| p.output().contains("ready")).unwrap_err();
        assert!(why.contains("no such device") && why.contains('3'), "{why}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let log = log("dropped");
        let mut program = Program::start(&mut shell("echo ready; exec sleep 100"), &log).unwrap();
        program.wait_until(|p| p.output().contains("ready")).unwrap();
        let id = program.id();
        drop(program);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn work_takes_processor_time_and_sleep_takes_none() {
        let (log, other) = (log("works"), log("sleeps"));
        let busy = Program::start(&mut shell("while :; do :; done"), &log).unwrap();
        let idle = Program::start(&mut shell("exec sleep 100"), &other).unwrap();
        thread::sleep(Duration::from_millis(300));
        let slept = idle.run_seconds();
        let since = Instant::now();
        while busy.run_seconds() < 0.03 {
            assert!(since.elapsed() < Duration::from_secs(30), "{}", busy.run_seconds());
            thread::sleep(Duration::from_millis(10));
        }
        assert!(idle.run_seconds() - slept < 0.01);
        for file in [log, other] {
            fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn one_that_does_not_end_is_given_up() {
        let log = log("stays");
        let program = Program::start(&mut shell("exec sleep 100"), &log).unwrap();
        let why = program.end(Duration::from_millis(50)).unwrap_err();
        assert!(why.contains("still running"), "{why}");
        fs::remove_file(log).unwrap();
    }
}

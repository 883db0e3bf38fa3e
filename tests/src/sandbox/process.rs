//! The driver under test, as a process: started, killed without warning, started again.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Why the driver does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("start {}", .program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("the driver is not running")]
    NotRunning,
    #[error("the driver ended by itself: {status}; it said last:\n{log}")]
    Ended { status: ExitStatus, log: String },
    #[error("signal the driver")]
    Signal(#[source] io::Error),
    #[error("the driver still runs {0:?} after it was told to end")]
    Stuck(Duration),
}

/// How long a driver may take to end in good order.
const SHUTDOWN: Duration = Duration::from_secs(20);

/// A program with its arguments, and the process that runs it now, if any.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// What it prints is appended to `log`.
    pub fn new(program: PathBuf, arguments: Vec<OsString>, log: PathBuf) -> Self {
        Self { program, arguments, log, child: None }
    }

    /// Starts it with `argument`, too, from now on.
    pub fn add(&mut self, argument: &str) {
        self.arguments.push(argument.into());
    }

    /// Starts it with `other` in the place of `argument` from now on.
    pub fn replace(&mut self, argument: &str, other: &Path) {
        for known in self.arguments.iter_mut().filter(|known| *known == argument) {
            other.as_os_str().clone_into(known);
        }
    }

    /// Starts it without `argument` from now on.
    pub fn remove(&mut self, argument: &str) {
        self.arguments.retain(|known| known != argument);
    }

    pub fn start(&mut self) -> Result<(), ProcessError> {
        let fail = |source| ProcessError::Start { program: self.program.clone(), source };
        let open = || OpenOptions::new().create(true).append(true).open(&self.log);
        let (out, err): (File, File) = (open().map_err(fail)?, open().map_err(fail)?);
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(fail)?;
        self.child = Some(child);
        Ok(())
    }

    /// Its pid, as seen inside the box.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Fails if the process has ended by itself.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        let child = self.child.as_mut().ok_or(ProcessError::NotRunning)?;
        match child.try_wait().map_err(ProcessError::Signal)? {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                Err(ProcessError::Ended { status, log: self.log_tail() })
            }
        }
    }

    /// Kills it with SIGKILL, which it cannot prepare for, and waits until it is gone.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        let mut child = self.child.take().ok_or(ProcessError::NotRunning)?;
        child.kill().map_err(ProcessError::Signal)?;
        let status = child.wait().map_err(ProcessError::Signal)?;
        if status.signal() == Some(Signal::SIGKILL as i32) {
            return Ok(());
        }
        Err(ProcessError::Ended { status, log: self.log_tail() })
    }

    /// Asks it to end with SIGTERM, and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus, ProcessError> {
        self.check()?;
        let child = self.child.as_mut().ok_or(ProcessError::NotRunning)?;
        let pid = i32::try_from(child.id()).map_err(|_| ProcessError::NotRunning)?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)
            .map_err(|errno| ProcessError::Signal(errno.into()))?;
        let started = Instant::now();
        while started.elapsed() < SHUTDOWN {
            if let Some(status) = child.try_wait().map_err(ProcessError::Signal)? {
                self.child = None;
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(ProcessError::Stuck(SHUTDOWN))
    }

    /// The last lines that it printed.
    pub fn log_tail(&self) -> String {
        const LINES: usize = 25;
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// All that it has printed, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either may fail only because it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Process) {
        let directory = tempfile::tempdir().unwrap();
        let arguments = vec!["-c".into(), script.into()];
        let log = directory.path().join("log");
        let mut process = Process::new("/bin/sh".into(), arguments, log);
        process.start().unwrap();
        (directory, process)
    }

    #[test]
    fn a_killed_process_can_be_started_again() {
        let (_directory, mut process) = shell("exec sleep 60");
        process.kill().unwrap();
        assert!(matches!(process.kill(), Err(ProcessError::NotRunning)));
        process.start().unwrap();
        process.check().unwrap();
        assert!(!process.stop().unwrap().success());
    }

    #[test]
    fn a_process_that_ends_by_itself_leaves_its_last_words() {
        let (_directory, mut process) = shell("echo it broke >&2; exit 3");
        let started = Instant::now();
        let error = loop {
            match process.check() {
                Ok(()) => assert!(started.elapsed() < Duration::from_secs(10)),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("exit status: 3") && error.contains("it broke"), "{error}");
    }
}

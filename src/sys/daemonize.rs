//! Detaching from the terminal: fork, a new session, fork again.
//!
//! The starting process waits until the daemon reports over a pipe that it is ready, or why it
//! cannot start; so the exit code of `ktrix --daemon` is right.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;

use crate::sys::process::{exit_now, fork_in_two};

/// The two processes after [`daemonize`].
#[derive(Debug)]
pub(crate) enum Daemonized {
    /// The starting process; the daemon has reported, or has died before it could.
    Starter(Result<(), String>),
    /// The daemon, with the pipe to the starting process.
    Daemon(ReadyPipe),
}

/// The daemon's end of the pipe to the process that started it, or of the channel to the ktrix that
/// it takes the place of.
#[derive(Debug)]
pub(crate) struct ReadyPipe {
    pipe: File,
}

impl ReadyPipe {
    pub(crate) fn over(pipe: OwnedFd) -> Self {
        Self { pipe: File::from(pipe) }
    }

    /// Reports that the daemon is ready: the starting process ends with code 0.
    pub(crate) fn ready(mut self) {
        // The starting process may have been killed meanwhile.
        let _ = self.pipe.write_all(READY);
    }

    /// Reports that the daemon cannot start: the starting process prints `why` and ends with code
    /// 1.
    pub(crate) fn failed(mut self, why: &str) {
        let why = why.as_bytes();
        let _ = self.pipe.write_all(why.get(..WORDS_MAX as usize).unwrap_or(why));
    }
}

/// Detaches from the terminal, the session and the standard streams.
///
/// # Errors
/// When a process, a pipe or a session cannot be made. The starting process gets the error.
pub(crate) fn daemonize() -> io::Result<Daemonized> {
    let (reader, writer) = io::pipe()?;
    if let Some(middle) = fork_in_two()? {
        drop(writer);
        let outcome = listen(reader);
        let _ = crate::sys::process::wait_for(middle);
        return Ok(Daemonized::Starter(outcome));
    }
    drop(reader);
    match leave_session() {
        Ok(()) => Ok(Daemonized::Daemon(ReadyPipe::over(writer.into()))),
        Err(error) => {
            ReadyPipe::over(writer.into()).failed(&format!("cannot daemonize: {error}"));
            exit_now(1)
        }
    }
}

/// In the middle process: starts a session, and forks a child that can never get a terminal again.
/// Returns in that child only.
fn leave_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    if fork_in_two()?.is_some() {
        exit_now(0);
    }
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

fn listen(mut reader: PipeReader) -> Result<(), String> {
    let mut said = Vec::new();
    let heard = (&mut reader).take(WORDS_MAX).read_to_end(&mut said);
    match heard {
        Ok(_) if said == READY => Ok(()),
        Ok(_) if said.is_empty() => Err("the daemon exited before it was ready".to_owned()),
        Ok(_) => Err(String::from_utf8_lossy(&said).into_owned()),
        Err(error) => Err(format!("cannot read from the daemon: {error}")),
    }
}

/// The report of a daemon that is ready; any other is why it is not.
pub(crate) const READY: &[u8] = b"\0";
/// The most bytes of a report.
pub(crate) const WORDS_MAX: u64 = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(speak: impl FnOnce(ReadyPipe)) -> Result<(), String> {
        let (reader, pipe) = io::pipe().unwrap();
        speak(ReadyPipe::over(pipe.into()));
        listen(reader)
    }

    #[test]
    fn the_starting_process_gets_the_report_of_the_daemon() {
        assert_eq!(heard(ReadyPipe::ready), Ok(()));
        assert_eq!(heard(|a| a.failed("no room")), Err("no room".to_owned()));
        assert_eq!(heard(drop), Err("the daemon exited before it was ready".to_owned()));
    }
}

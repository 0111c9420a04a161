//! The output of a command: complete at its end, and silent when its reader has left.

use std::io::{self, BufWriter, IsTerminal, LineWriter, Write};

/// Runs a command with the standard output, and ensures that all of it is written.
///
/// A reader that leaves early (`| head`) ends the command, which then counts as done: exit code 0
/// and no message.
///
/// # Errors
///
/// The error of the command, and a failure to write other than that.
pub(super) fn to_stdout(
    command: impl FnOnce(&mut dyn Write) -> anyhow::Result<i32>,
) -> anyhow::Result<i32> {
    let stdout = io::stdout();
    let mut out: Box<dyn Write> = match stdout.is_terminal() {
        true => Box::new(LineWriter::new(stdout.lock())),
        false => Box::new(BufWriter::with_capacity(BUFFER_BYTES, stdout.lock())),
    };
    let code = command(&mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match code {
        Err(error) if is_broken_pipe(&error) => Ok(0),
        code => code,
    }
}

/// Writes a value as one line of JSON.
///
/// # Errors
///
/// A failure to write.
pub(super) fn json_line(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// An error and its causes, in one line; a cause that the text already ends with is left out.
pub(super) fn error_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        match text.as_str() {
            "" => text = cause,
            before if before.ends_with(&cause) => {}
            _ => text = format!("{text}: {cause}"),
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref()).any(is_pipe)
}

const BUFFER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_cause_is_left_out() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot start: {0}")]
        struct Whole(#[from] io::Error);
        let refused = || io::Error::other("permission denied");
        let error = anyhow::Error::from(Whole(refused()));
        assert_eq!(error_line(&error), "cannot start: permission denied");
        let error = error.context("no ktrix");
        assert_eq!(error_line(&error), "no ktrix: cannot start: permission denied");
        let error = anyhow::Error::from(refused()).context("cannot open \"/c\"");
        assert_eq!(error_line(&error), "cannot open \"/c\": permission denied");
    }

    #[test]
    fn a_reader_that_left_is_the_only_write_error_without_a_message() {
        let left = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&left.context("in the middle of a list")));
        assert!(!is_broken_pipe(&anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull))));
        // As serde_json passes it on.
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(is_broken_pipe(&json_line(&mut Full, &1).unwrap_err().into()));
    }
}

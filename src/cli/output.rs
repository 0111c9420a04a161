//! What a command prints: whole at its end, and without a complaint when nobody reads on.

use std::io::{self, BufWriter, IsTerminal, LineWriter, Write};

/// Runs a command with the standard output, and sees that all of it is written.
///
/// A reader that has seen enough (`| head`) ends the command, which is then done: exit code 0 and
/// no message.
///
/// # Errors
///
/// What the command says, and a failure to write other than that.
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
        Err(error) if is_left(&error) => Ok(0),
        code => code,
    }
}

/// Writes a value as one line of JSON.
///
/// # Errors
///
/// What writing says.
pub(super) fn json_line(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// An error and what caused it, in one line; what a text repeats at its end is told once.
pub(super) fn told(error: &anyhow::Error) -> String {
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

fn is_left(error: &anyhow::Error) -> bool {
    let is_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref()).any(is_pipe)
}

const BUFFER_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot start: {0}")]
        struct Whole(#[from] io::Error);
        let refused = || io::Error::other("permission denied");
        let error = anyhow::Error::from(Whole(refused()));
        assert_eq!(told(&error), "cannot start: permission denied");
        let error = error.context("no ktrix");
        assert_eq!(told(&error), "no ktrix: cannot start: permission denied");
        let error = anyhow::Error::from(refused()).context("cannot open \"/c\"");
        assert_eq!(told(&error), "cannot open \"/c\": permission denied");
    }

    #[test]
    fn only_a_reader_that_left_is_no_error() {
        let left = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_left(&left.context("in the middle of a list")));
        assert!(!is_left(&anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull))));
        // As serde_json hands it on.
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(is_left(&json_line(&mut Full, &1).unwrap_err().into()));
    }
}

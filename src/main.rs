//! The `ktrix` program: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ktrix::cli::main()
}

//! The command line: the commands for people, with exit codes for scripts.
//!
//! Exit codes: 0 done; 1 not done, with the reason on stderr; 2 an invalid command; 3 the running
//! configuration differs.

mod output;
mod colour;
mod progress;
mod load;
mod request;
mod name;
mod opened;
mod cause;
mod find;
pub mod cache;
pub mod explain;
mod summary;
pub mod check;
pub mod signal;
mod table;
mod server;
mod status;
mod config;
mod follower;
mod line;
mod log;
mod top;
pub mod run;
pub mod demo;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::load::{DEFAULT_FILE, read_to_serve};
use crate::cli::signal::Word;
use crate::config::Config;

/// A caching reverse proxy that runs as a classic Unix daemon.
#[derive(Debug, Parser)]
#[command(name = "ktrix", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "See ktrix(8), and ktrix.yaml(5) for every key of the configuration.")]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

/// The configuration to serve, or a command for the running ktrix.
#[derive(Args, Debug)]
struct Serve {
    /// The configuration [default: /etc/ktrix/ktrix.yaml]
    file: Option<PathBuf>,
    /// Check the configuration, report its mistakes, and exit
    #[arg(long, conflicts_with_all = ["signal", "daemon", "upstream"])]
    test: bool,
    /// With --test: print what each process may touch, too
    #[arg(short = 'v', long, requires = "test")]
    verbose: bool,
    /// Send this command to the running ktrix, found by its pid file
    #[arg(short = 's', long, value_name = "WORD", conflicts_with_all = ["daemon", "upstream"])]
    signal: Option<Word>,
    /// The pid file for --signal, if not the configuration's
    #[arg(long, value_name = "FILE", requires = "signal")]
    pid: Option<PathBuf>,
    /// With --signal: do not wait for the end or for the outcome of a reload
    #[arg(long, requires = "signal")]
    no_wait: bool,
    /// Detach from the terminal, once the daemon serves
    #[arg(long)]
    daemon: bool,
    /// Run without a file: the origin to serve from
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    upstream: Option<String>,
    /// With --upstream: an address to listen on; may be repeated [default: port 8080 of all]
    #[arg(long, value_name = "ADDRESS", requires = "upstream")]
    listen: Vec<String>,
    /// With --upstream: the directory to cache in [default: no cache]
    #[arg(long, value_name = "DIR", requires = "upstream")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one, and only once
enum Command {
    /// Try it out: a ktrix in front of a small built-in origin, with a line for every request
    Demo {
        /// The port to listen on, on this machine only; 0 for one that is free
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Show the workers, upstreams and servers of the running ktrix, and its cache
    Status(status::StatusCommand),
    Log(log::LogCommand),
    Top(top::TopCommand),
    /// Drain, disable, enable or weigh a server of the running ktrix
    Server(server::ServerCommand),
    /// Inspect or purge a cache, beside a running ktrix or without one
    Cache(cache::CacheCommand),
    /// Print the effective configuration, or what differs from that of the running ktrix
    Config(config::ConfigCommand),
    /// Explain how a request would be answered, step by step, with the reason of each step
    Explain(explain::ExplainCommand),
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Demo { port }) => demo::demo(port),
        Some(Command::Status(command)) => status::run(&command),
        Some(Command::Log(command)) => log::run(&command),
        Some(Command::Top(command)) => top::run(&command),
        Some(Command::Server(command)) => server::run(&command),
        Some(Command::Cache(command)) => cache::run(&command),
        Some(Command::Config(command)) => config::run(&command),
        Some(Command::Explain(command)) => explain::run(&command),
        Some(Command::Completions { shell }) => completions(shell),
        None => serve(arguments.serve),
    };
    match done {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("ktrix: {}", output::error_line(&error));
            ExitCode::from(1)
        }
    }
}

fn completions(shell: Shell) -> anyhow::Result<i32> {
    output::to_stdout(|out| {
        clap_complete::generate(shell, &mut Arguments::command(), "ktrix", &mut &mut *out);
        Ok(0)
    })
}

fn serve(serve: Serve) -> anyhow::Result<i32> {
    let file = serve.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    if serve.test {
        return check::check(file, serve.verbose);
    }
    if let Some(word) = serve.signal {
        return signal::signal(word, file, serve.pid.as_deref(), !serve.no_wait);
    }
    match &serve.upstream {
        Some(upstream) => {
            let load = || Ok(Config::from_flags(&serve.listen, upstream, serve.cache.as_deref()));
            run::run(load, None, serve.daemon)
        }
        None => run::run(|| read_to_serve(file), Some(file), serve.daemon),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_form_of_the_manual_is_understood() {
        for line in [
            "ktrix",
            "ktrix /etc/ktrix.yaml",
            "ktrix --daemon /etc/ktrix.yaml",
            "ktrix --test /etc/ktrix.yaml",
            "ktrix --test",
            "ktrix --test -v /etc/ktrix.yaml",
            "ktrix -s reload",
            "ktrix -s stop /etc/ktrix.yaml",
            "ktrix -s quit --pid /run/ktrix.pid",
            "ktrix -s reopen",
            "ktrix -s upgrade",
            "ktrix --upstream http://127.0.0.1:81",
            "ktrix --listen :80 --listen [::1]:81 --upstream app --cache /tmp/c",
            "ktrix demo",
            "ktrix demo --port 8081",
            "ktrix status",
            "ktrix status --json -c /etc/k.yaml",
            "ktrix server drain app/10.0.0.1:80",
            "ktrix server enable app/10.0.0.1:80 --config /etc/k.yaml",
            "ktrix server disable -c /etc/k.yaml app/unix:/run/s",
            "ktrix server weight app/10.0.0.1:80 0",
            "ktrix log",
            "ktrix top -c /etc/k.yaml",
            "ktrix log --json -n 3 -c /etc/k.yaml",
            "ktrix log status >= 500 and host = a",
            "ktrix cache list",
            "ktrix cache show http://a/b --config /etc/k.yaml",
            "ktrix cache --dir /c purge http://a/b",
            "ktrix cache purge --soft --tag news",
            "ktrix cache verify --dir /c",
            "ktrix cache list --host a --prefix /b --stale --json -c /etc/k.yaml",
            "ktrix cache show http://a/b --json",
            "ktrix cache cat http://a/b -H Accept:x",
            "ktrix cache du --by host --json",
            "ktrix config dump",
            "ktrix config dump --diff -c /etc/k.yaml",
            "ktrix completions bash",
            "ktrix explain http://a/b",
            "ktrix explain http://a/b -H Accept:x -X HEAD --json -c /etc/k.yaml",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn invalid_command_lines_are_refused() {
        for line in [
            "ktrix a b",
            "ktrix --listen :80",
            "ktrix --cache /tmp/c",
            "ktrix --upstream app file.yaml",
            "ktrix --test -s stop",
            "ktrix -v",
            "ktrix -s dance",
            "ktrix demo --port 99999",
            "ktrix server drain",
            "ktrix server weight app/10.0.0.1:80",
            "ktrix server weight app/10.0.0.1:80 1001",
            "ktrix cache",
            "ktrix cache verify --dir /c --config /f",
            "ktrix cache du --by moon",
            "ktrix cache cat",
            "ktrix config",
            "ktrix completions sh",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

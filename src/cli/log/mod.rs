//! `ktrix log`: the requests of the running ktrix as they end, from its shared memory.

mod field;
pub(in crate::cli) mod filter;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use crate::cli::colour;
use crate::cli::follower::Follower;
use crate::cli::line::Line;
use crate::cli::load::DEFAULT_FILE;
use crate::cli::log::filter::Filter;
use crate::cli::output;
use crate::cli::signal;
use crate::cli::table::Running;
use crate::config::LogFormat;
use crate::log::feed::Fed;
use crate::log::format::LineWriter;

/// Follow the requests of the running ktrix, all or those that pass a filter
#[derive(Args, Debug)]
#[command(
    after_help = "A filter is made of conditions, \"and\", \"or\", \"not\" and parentheses, as in \
    'status >= 500 and host = www.example.com'. ktrix(8) lists the fields."
)]
pub(super) struct LogCommand {
    /// Which requests, as 'status >= 500 and total > 1s' [default: all]
    filter: Vec<String>,
    /// As JSON, with the members of the access log
    #[arg(long)]
    json: bool,
    /// End after this many requests
    #[arg(short = 'n', long, value_name = "NUMBER")]
    number: Option<u64>,
    /// The configuration of the ktrix [default: /etc/ktrix/ktrix.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command until ktrix ends.
///
/// # Errors
/// When no ktrix runs with the configuration, or another user runs it.
pub(super) fn run(command: &LogCommand) -> Result<i32> {
    let text = command.filter.join(" ");
    let filter = match Filter::parse(&text) {
        Ok(filter) => filter,
        Err(flaw) => {
            eprintln!("ktrix: this is no filter:\n{}", flaw.explain(&text));
            return Ok(2);
        }
    };
    let file = command.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    output::to_stdout(|out| {
        let mut shown = Shown {
            filter,
            json: command.json.then(|| LineWriter::new(LogFormat::Json)),
            has_colours: colour::is_wanted(&io::stdout()),
            n_left: command.number.unwrap_or(u64::MAX),
        };
        follow(file, &mut shown, out)?;
        Ok(0)
    })
}

fn follow(file: &Path, shown: &mut Shown, out: &mut dyn Write) -> Result<()> {
    // Of a ktrix that has just been started, there may be nothing to follow yet.
    Running::find(file)?;
    let mut running = signal::find(file)?;
    let mut follower = Follower::of(running.pid)?;
    say(&format!("following the requests of ktrix, pid {}", running.pid));
    let mut looked_at = Instant::now();
    while shown.n_left > 0 {
        shown.write(&follower.new_records(), out)?;
        let n_missed = follower.take_missed();
        if n_missed > 0 {
            say(&format!("ktrix: {n_missed} requests were too fast for this command to see"));
        }
        if looked_at.elapsed() >= LOOK {
            looked_at = Instant::now();
            // After an upgrade another master has the pid file, while the old one drains.
            let has_ended = running.has_ended();
            let next = signal::find(file).ok().filter(|next| next.pid != running.pid);
            let next = next.filter(|_| Running::find(file).is_ok());
            if let Some(next) = next {
                if let Some(last) = follower.turn_to(next.pid)? {
                    shown.write(&last, out)?;
                    if !has_ended {
                        say(
                            "another ktrix has taken over: what the old one still finishes is not shown",
                        );
                    }
                }
                running = next;
            } else if has_ended {
                shown.write(&follower.last_records(), out)?;
                say("ktrix has ended");
                return Ok(());
            }
        }
        std::thread::sleep(STEP);
    }
    Ok(())
}

/// Tells the person, who may have closed the standard error.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// How the command shows requests.
struct Shown {
    filter: Filter,
    json: Option<LineWriter>,
    has_colours: bool,
    /// How many requests are left to be shown.
    n_left: u64,
}

impl Shown {
    fn write(&mut self, records: &[Fed], out: &mut dyn Write) -> Result<()> {
        let mut json = Vec::new();
        for record in records.iter().map(Fed::record) {
            if self.n_left == 0 || !self.filter.passes(&record) {
                continue;
            }
            self.n_left -= 1;
            match &mut self.json {
                Some(writer) => {
                    json.clear();
                    writer.write(&record, &mut json);
                    out.write_all(&json)?;
                }
                None => writeln!(out, "{}", Line(&record).long(self.has_colours))?,
            }
        }
        Ok(out.flush()?)
    }
}

/// How often the feed is read.
const STEP: Duration = Duration::from_millis(20);
/// How often the end of ktrix is looked for.
const LOOK: Duration = Duration::from_secs(1);

//! `ktrix top`: the requests, servers and processes of the running ktrix on a terminal.
//!
//! It follows the requests as `ktrix log` does and adds them up itself, so that the workers pay only while
//! it runs.

mod sketch;
mod latency;
mod processes;
mod snapshot;
mod stats;
mod screen;
mod rows;
mod fit;
mod above;
mod view;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use crossterm::cursor::{Hide, Show};
use crossterm::event::{self, Event, KeyEventKind};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use crate::cli::follower::Follower;
use crate::cli::load::DEFAULT_FILE;
use crate::cli::table::Running;
use crate::cli::top::processes::Processes;
use crate::cli::top::screen::{Screen, Wish};
use crate::cli::top::snapshot::Snapshot;
use crate::cli::top::stats::Stats;
use crate::cli::top::view::View;
use crate::sys::process;

/// Watch the requests, servers and processes of the running ktrix on a terminal
#[derive(Args, Debug)]
pub(super) struct TopCommand {
    /// The configuration of the ktrix [default: /etc/ktrix/ktrix.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command until its user quits.
///
/// # Errors
/// When no ktrix runs with the configuration, or another user runs it.
pub(super) fn run(command: &TopCommand) -> Result<i32> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        eprintln!("ktrix: top needs a terminal (ktrix status prints once, ktrix log follows)");
        return Ok(2);
    }
    let file = command.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    let mut top = Top::new(file)?;
    let has_to_stop = Arc::new(AtomicBool::new(false));
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        signal_hook::flag::register(signal as i32, Arc::clone(&has_to_stop))?;
    }
    let _taken = TakenTerminal::take().context("cannot use the terminal")?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    while !has_to_stop.load(Ordering::Acquire) {
        top.look();
        terminal.draw(|frame| top.view().draw(frame))?;
        if top.wait(&has_to_stop)? == Wish::Quit {
            break;
        }
    }
    Ok(0)
}

/// The terminal while this command has it; dropping it gives it back as it was.
struct TakenTerminal;

impl TakenTerminal {
    fn take() -> io::Result<Self> {
        enable_raw_mode()?;
        let taken = Self;
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            hook(panic);
        }));
        Ok(taken)
    }
}

impl Drop for TakenTerminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // A terminal that is gone needs nothing.
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Waits for a key, for a step at most; whether the terminal was closed. The library reads the end of a
/// closed one again and again.
fn is_terminal_gone() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(STEP).unwrap_or(PollTimeout::ZERO);
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    // A signal ends the wait, and is looked at next.
    let n_ready = nix::poll::poll(&mut fds, timeout).unwrap_or(0);
    n_ready > 0 && fds[0].revents().is_some_and(|events| events.intersects(gone))
}

/// The state of the command.
struct Top<'f> {
    file: &'f Path,
    follower: Follower,
    stats: Stats,
    processes: Processes,
    snapshot: Snapshot,
    screen: Screen,
    clock: String,
    /// Why the last look failed; empty if it did not.
    trouble: String,
    looked_at: Instant,
    read_at: Instant,
    was_paused: bool,
}

impl<'f> Top<'f> {
    fn new(file: &'f Path) -> Result<Self> {
        let running = Running::find(file)?;
        let mut processes = Processes::new();
        let snapshot = Snapshot::of(&running, &mut processes);
        Ok(Self {
            file,
            follower: Follower::of(running.pid)?,
            stats: Stats::new(snapshot.counted.clone(), Instant::now()),
            snapshot,
            processes,
            screen: Screen::new(),
            clock: String::new(),
            trouble: String::new(),
            looked_at: Instant::now(),
            read_at: Instant::now(),
            was_paused: false,
        })
    }

    /// Looks at everything but the requests, unless it is paused.
    fn look(&mut self) {
        if self.screen.is_paused {
            self.was_paused = true;
            return;
        }
        if !self.clock.is_empty() && self.looked_at.elapsed() < LOOK {
            return;
        }
        self.pass();
        self.looked_at = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = now.as_secs() % 86_400;
        self.clock = format!("{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60);
        self.trouble = match self.look_at_tables() {
            Ok(()) => String::new(),
            Err(error) => {
                self.stats.lose_count();
                match process::has_ended(self.snapshot.pid) {
                    true => "KTRIX HAS ENDED".to_owned(),
                    false => format!("{error:#}"),
                }
            }
        };
    }

    /// Never waits, so that keys do not.
    fn look_at_tables(&mut self) -> Result<()> {
        let running = Running::find_now(self.file)?;
        if !self.trouble.is_empty() || running.pid.as_raw() != self.snapshot.pid {
            // It was started again, or upgraded.
            self.follower.turn_to(running.pid)?;
        }
        self.snapshot = Snapshot::of(&running, &mut self.processes);
        let (counted, at) = (&self.snapshot.counted, Instant::now());
        match std::mem::take(&mut self.was_paused) {
            true => self.stats.skip_to(counted, at),
            false => self.stats.count(counted, at),
        }
        Ok(())
    }

    /// Time passes for the requests that were read.
    fn pass(&mut self) {
        self.stats.pass(self.read_at.elapsed().as_secs_f64());
        self.read_at = Instant::now();
    }

    fn view(&self) -> View<'_> {
        View {
            screen: &self.screen,
            stats: &self.stats,
            snapshot: &self.snapshot,
            clock: &self.clock,
            trouble: &self.trouble,
        }
    }

    /// Reads requests until there is something to draw.
    fn wait(&mut self, has_to_stop: &AtomicBool) -> Result<Wish> {
        while !has_to_stop.load(Ordering::Acquire) {
            self.read();
            if is_terminal_gone() {
                return Ok(Wish::Quit);
            }
            let mut has_key = false;
            while event::poll(Duration::ZERO)? {
                has_key = true;
                match self.press(&event::read()?) {
                    Wish::Nothing => {}
                    wish => return Ok(wish),
                }
            }
            let is_due = self.looked_at.elapsed() >= LOOK && !self.screen.is_paused;
            if has_key || is_due {
                break;
            }
        }
        Ok(Wish::Nothing)
    }

    fn press(&mut self, event: &Event) -> Wish {
        let Event::Key(key) = event else { return Wish::Nothing };
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        let wish = self.screen.press(*key);
        let rows = rows::rows(self.screen.panel(), 0, &self.stats, &self.snapshot);
        self.screen.keep_within(rows.len());
        if wish == Wish::Restart {
            self.stats.restart();
        }
        wish
    }

    /// Adds the requests that have ended; those that were missed count as the others.
    fn read(&mut self) {
        let records = self.follower.new_records();
        let n_missed = self.follower.take_missed();
        if self.screen.is_paused {
            self.read_at = Instant::now();
            return;
        }
        if self.read_at.elapsed() >= PASS {
            self.pass();
        }
        self.stats.sample.add(records.len(), n_missed);
        let weight = 1.0 + n_missed as f64 / records.len().max(1) as f64;
        for record in records.iter().map(|fed| fed.record()) {
            if self.screen.filter.passes(&record) {
                self.stats.add(&record, weight);
            }
        }
    }
}

/// How often requests are read.
const STEP: Duration = Duration::from_millis(40);
/// How often what was read becomes less.
const PASS: Duration = Duration::from_millis(200);
/// How often all is looked at and drawn.
const LOOK: Duration = Duration::from_secs(1);

//! The record of a crash in the error log: the requests that a dead worker had in flight. Those of a crash
//! become suspects.
//!
//! If the worker was at work with a request, only that one counts. Otherwise all that were in flight do;
//! the answers between two crashes clear those that did not cause them.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use crate::base::units::format_duration;
use crate::log::limit::UNLIMITED;
use crate::master::child::Process;
use crate::master::{Master, Mode};
use crate::shared::in_flight::{Left, Request, Suspicion};
use crate::sys::process::{EXIT_PANIC, ExitStatus};
use crate::sys::sandbox::syscalls;
use crate::worker::inherited::Role;

impl Master {
    /// Logs what a worker had in flight that did not exit by itself.
    pub(super) fn record_crash(
        &mut self,
        generation: usize,
        (role, process, status): (Role, &Process, ExitStatus),
        now: Instant,
    ) {
        let left = self.tables.in_flight.take(process.slot);
        let is_ordered = matches!(self.mode, Mode::Stopping { .. });
        let Some(cause) = cause_of(status).filter(|_| !is_ordered) else { return };
        let who = format!("{role} (pid {})", process.pid);
        if let Some(call) = left.call {
            let name = syscalls::name_of(call);
            let name = name.map_or_else(|| format!("number {call}"), str::to_owned);
            log::error!("{who} made the forbidden system call {name}");
        }
        if role == Role::Keeper {
            return;
        }
        let is_fault = is_fault(status);
        log_left(&who, &cause, &left, is_fault);
        let refused_for = self.generations[generation].config.limits.crash_guard;
        if !is_fault || refused_for.is_zero() {
            return;
        }
        let (blamed, suspicion) = match left.current {
            Some(current) => (vec![current], Suspicion::AtWork),
            None => (left.others, Suspicion::Suspected),
        };
        for request in blamed {
            let Some(fingerprint) = request.fingerprint else { continue };
            if self.suspects.add(&self.tables.in_flight, (fingerprint, suspicion), refused_for, now)
            {
                log::error!(
                    "{} was in flight in two crashes within a minute; answering it with 503 for {} \
                     (limits.crash-guard)",
                    Named(&request),
                    format_duration(refused_for)
                );
            }
        }
    }
}

/// The name of the signal, or of a panic; `None` if the process exited by itself.
fn cause_of(status: ExitStatus) -> Option<String> {
    match status {
        ExitStatus::Signal(number) => Some(
            Signal::try_from(number)
                .map_or_else(|_| format!("signal {number}"), |it| it.to_string()),
        ),
        ExitStatus::Exit(EXIT_PANIC) => Some("a panic".to_owned()),
        ExitStatus::Exit(_) => None,
    }
}

/// Whether the program itself has failed: no other process has ended it.
fn is_fault(status: ExitStatus) -> bool {
    // SIGBUS is not one: all workers die of it when another program cuts a file of the cache.
    const FAULTS: [Signal; 5] =
        [Signal::SIGSEGV, Signal::SIGILL, Signal::SIGABRT, Signal::SIGSYS, Signal::SIGFPE];
    match status {
        ExitStatus::Signal(number) => {
            Signal::try_from(number).is_ok_and(|signal| FAULTS.contains(&signal))
        }
        ExitStatus::Exit(code) => code == EXIT_PANIC,
    }
}

fn log_left(who: &str, cause: &str, left: &Left, is_fault: bool) {
    let level = if is_fault { log::Level::Error } else { log::Level::Warn };
    let n_left = left.others.len() as u64 + left.n_more + u64::from(left.current.is_some());
    log::log!(level, "{who} died of {cause}, requests in flight: {n_left}");
    if let Some(request) = &left.current {
        log::log!(level, "{who} was at work with {request}");
    }
    for request in &left.others {
        log::log!(target: UNLIMITED, level, "{who} had in flight {request}");
    }
    if left.n_more > 0 {
        log::log!(level, "{who} had in flight {} more", left.n_more);
    }
}

/// A request without its stage.
struct Named<'r>(&'r Request);

impl fmt::Display for Named<'_> {
    /// `GET www.example.com /a`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { method, host, path, .. } = self.0;
        let text = |bytes| String::from_utf8_lossy(bytes);
        write!(f, "{} {} {}", text(method), text(host), text(path))
    }
}

impl fmt::Display for Request {
    /// `GET www.example.com /a, fetching, for 1.203 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Named(self))?;
        let Some((stage, began_us)) = self.since else { return Ok(()) };
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_micros(began_us));
        write!(f, ", {}, for {:.3} s", stage.word(), age.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_of_the_program_is_a_fault() {
        for (status, is) in [
            (ExitStatus::Signal(11), true),
            (ExitStatus::Signal(31), true),
            (ExitStatus::Exit(EXIT_PANIC), true),
            (ExitStatus::Signal(7), false),
            (ExitStatus::Signal(9), false),
            (ExitStatus::Signal(15), false),
            (ExitStatus::Exit(1), false),
        ] {
            assert_eq!(is_fault(status), is, "{status}");
        }
    }
}

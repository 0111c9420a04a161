//! Waits with a deadline, and names what was waited for.
//!
//! Every wait of a conversation uses this module or a socket time-out, so that a failing test names
//! its wait instead of hanging.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The time limit for events that normally take milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Calls `look` every few milliseconds until it returns something; panics with `what` when `limit`
/// is over.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    until_ok(what, limit, || look().ok_or_else(String::new))
}

/// As [`until`], and the panic names what was there instead.
pub fn until_ok<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "waited {limit:?} for: {what}\n{seen}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Looks until `holds` is true, within [`PATIENCE`].
pub fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, PATIENCE, || holds().then_some(()));
}

/// A gate at which threads wait until a test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets all threads through, now and later.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(|e| e.into_inner()) = true;
        self.0.1.notify_all();
    }

    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits until the gate is open; a minute at most, so that no thread stays for ever.
    pub fn wait(&self) {
        let guard = self.0.0.lock().unwrap_or_else(|e| e.into_inner());
        let _ = self.0.1.wait_timeout_while(guard, Duration::from_secs(60), |open| !*open);
    }
}

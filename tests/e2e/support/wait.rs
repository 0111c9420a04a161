//! Waiting with a deadline, and saying for what.
//!
//! Every wait of a conversation goes through here or through a socket time-out, so that a test
//! that fails says what it waited for instead of hanging.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for a thing that normally takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks every few milliseconds until `look` finds something; panics with `what` when `limit` is
/// over.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Looks until `holds` is true, within [`PATIENCE`].
pub fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, PATIENCE, || holds().then_some(()));
}

/// Something that threads wait for until a test lets them go on.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through, now and later.
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

//! Which tests run at the same time: tests that measure time or open thousands of sockets run
//! alone.

use std::cell::RefCell;
use std::sync::{Once, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

static HALL: RwLock<()> = RwLock::new(());

enum Place {
    None,
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

thread_local! {
    static PLACE: RefCell<Place> = const { RefCell::new(Place::None) };
}

/// Takes a place beside other tests until this thread ends. Every origin and every ktrix does so.
pub fn share() {
    raise_files();
    PLACE.with_borrow_mut(|place| {
        if matches!(place, Place::None) {
            *place = Place::Shared { _guard: HALL.read().unwrap_or_else(|e| e.into_inner()) };
        }
    });
}

/// Waits until no other test runs, and keeps it so until this thread ends. Call this first.
pub fn alone() {
    PLACE.with_borrow_mut(|place| {
        *place = Place::None;
        *place = Place::Alone { _guard: HALL.write().unwrap_or_else(|e| e.into_inner()) };
    });
}

/// Raises the number of open files to that of the largest tests, as far as the system allows.
fn raise_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
        let want = hard.max(65_536);
        if setrlimit(Resource::RLIMIT_NOFILE, want, want).is_err() {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    });
}

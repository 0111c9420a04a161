//! What went wrong, at once and on the real standard error: the harness keeps a test's output for the end,
//! which a run that is cut short or truncated does not show.

use std::io::Write as _;
use std::panic;
use std::sync::Once;
use std::thread;

static ANNOUNCED: Once = Once::new();

/// Announces every panic from now on.
pub fn announce() {
    ANNOUNCED.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let thread = thread::current();
            let name = thread.name().unwrap_or("a thread");
            let _ = writeln!(std::io::stderr(), "{name}: {panic}");
            hook(panic);
        }));
    });
}

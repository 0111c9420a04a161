//! The identity of this machine.

/// Its name, and its id where it has one.
pub(crate) fn identity() -> (String, Vec<u8>) {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let id = std::fs::read("/etc/machine-id").unwrap_or_default();
    (name.to_string_lossy().into_owned(), id)
}

//! System calls. This is the only floor with `unsafe` in it.

pub(crate) mod pinned;
pub(crate) mod host;
pub(crate) mod names;
pub(crate) mod memory;
pub mod process;
pub(crate) mod privileges;
pub(crate) mod sandbox;
pub(crate) mod daemonize;
pub(crate) mod socket;
pub(crate) mod passed;
pub(crate) mod notify;
pub(crate) mod file;
pub(crate) mod watch;
pub(crate) mod shm;
pub(crate) mod ring_map;

//! The kernel's side of the house, and the only floor with `unsafe` in it.

pub mod pinned;
pub mod process;
pub mod privileges;
pub mod daemonize;
pub mod socket;
pub mod file;
pub mod shm;
pub mod ring_map;

//! The kernel's side of the house, and the only floor with `unsafe` in it.

pub mod pinned;
pub mod process;
pub mod privileges;
pub mod daemonize;
pub mod socket;
pub mod shm;
pub mod file;
pub mod ring_map;

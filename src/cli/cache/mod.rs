//! `ktrix cache list|show|purge|verify`: the cache in comfort, beside a running ktrix or without.

mod list;
mod name;
mod purge;
mod show;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::cache::index::Index;
use crate::cache::store::Store;
use crate::cli::{DEFAULT_FILE, load};

/// What to look into, and what for.
#[derive(Args, Debug)]
pub struct CacheCommand {
    #[command(subcommand)]
    what: CacheWhat,
    /// The configuration that names the cache [default: /etc/ktrix/ktrix.yaml]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The cache directory itself
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "config")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum CacheWhat {
    /// A line for every object
    List,
    /// What is known about one object
    Show {
        /// Its URL, its key of 32 hex digits, or the path of its file
        url: String,
    },
    /// Remove one object and its variants
    Purge {
        /// Its URL, its key of 32 hex digits, or the path of its file
        url: String,
    },
    /// Check every object against its checksums and the index
    Verify,
}

/// Does what is asked. Exit code 1 says that there was nothing to show or to purge, or that there
/// are faults.
pub(super) fn run(command: &CacheCommand) -> Result<i32> {
    let dir = match &command.dir {
        Some(dir) => dir.clone(),
        None => {
            let file = command.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
            let Some(config) = load(file)? else { return Ok(1) };
            let without = || format!("\"{}\" configures no cache", file.display());
            config.cache.with_context(without)?.path
        }
    };
    let mut out = std::io::stdout().lock();
    let is_good = match &command.what {
        CacheWhat::List => list::list(&dir, &mut out).map(|()| true)?,
        CacheWhat::Show { url } => show::show(&dir, url, &mut out)?,
        CacheWhat::Purge { url } => purge::purge(&dir, url, &mut out)? > 0,
        CacheWhat::Verify => verify::verify(&dir, &mut out)? == 0,
    };
    Ok(i32::from(!is_good))
}

fn open(dir: &Path) -> Result<(Index, Store)> {
    let index = Index::open_existing(dir)?;
    let store = Store::open(dir, index.epoch())
        .with_context(|| format!("cannot open cache directory {dir:?}"))?;
    Ok((index, store))
}

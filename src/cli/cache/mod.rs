//! `ktrix cache list|show|cat|du|purge|verify`: the cache for people and scripts, beside a running
//! ktrix or without one.
//!
//! All but `purge` only read: see [`crate::cache::index::reader`].

mod show;
mod cat;
mod du;
mod list;
mod purge;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use crate::cli::load::{DEFAULT_FILE, load};
use crate::cli::name::Naming;
use crate::cli::opened::{Opened, now_s};
use crate::cli::output;

/// The cache to work on, and the command.
#[derive(Args, Debug)]
pub struct CacheCommand {
    #[command(subcommand)]
    action: CacheAction,
    #[command(flatten)]
    place: Place,
}

/// Where the cache is.
#[derive(Args, Debug)]
struct Place {
    /// The configuration that names the cache [default: /etc/ktrix/ktrix.yaml]
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The cache directory itself
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "config")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum CacheAction {
    /// A line for every object: key, state, status, bytes, age, freshness left, URL
    List {
        #[command(flatten)]
        filter: list::Filter,
        /// A JSON value in each line
        #[arg(long)]
        json: bool,
    },
    /// All known facts of one object and its variants
    Show {
        /// Its URL, its key of 32 hex digits, or the path of its file
        url: String,
        /// Only the variant for a request with this field; may be repeated
        #[arg(short = 'H', value_name = "NAME: VALUE")]
        fields: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// The body of one object, as it would be served
    Cat {
        /// Its URL, its key of 32 hex digits, or the path of its file
        url: String,
        /// The variant for a request with this field; may be repeated
        #[arg(short = 'H', value_name = "NAME: VALUE")]
        fields: Vec<String>,
    },
    /// The disk space that the cache uses
    Du {
        /// A line for each of these, the largest first
        #[arg(long)]
        by: Option<du::By>,
        /// A JSON value in each line
        #[arg(long)]
        json: bool,
    },
    /// Purge objects, and list or undo purges
    Purge(purge::Purge),
    /// Check every object against its checksums and the index
    Verify,
}

/// Runs the command. Exit code 1 means that there was nothing to show or to purge, or that there
/// are faults.
pub(super) fn run(command: &CacheCommand) -> Result<i32> {
    let Some((dir, naming)) = command.place.find()? else { return Ok(1) };
    output::to_stdout(|out| Ok(i32::from(!look(&command.action, &dir, &naming, out)?)))
}

fn look(what: &CacheAction, dir: &Path, naming: &Naming, out: &mut dyn Write) -> Result<bool> {
    if let CacheAction::Purge(what) = what {
        return purge::purge(dir, naming, what, out).map(|()| true);
    }
    let (cache, now_s) = (Opened::open(dir)?, now_s());
    Ok(match what {
        CacheAction::List { filter, json } => {
            list::list(&cache, filter, *json, now_s, out).map(|()| true)?
        }
        CacheAction::Show { url, fields, json } => {
            let what = show::Options { name: url, fields, is_json: *json, now_s };
            show::show(&cache, naming, &what, out)?
        }
        CacheAction::Cat { url, fields } => {
            cat::cat(&cache, naming, url, fields, out).map(|()| true)?
        }
        CacheAction::Du { by, json } => du::du(&cache, *by, *json, out).map(|()| true)?,
        CacheAction::Verify | CacheAction::Purge(_) => verify::verify(&cache, out)? == 0,
    })
}

impl Place {
    /// The directory, and how its keys are made; `None` when the configuration has errors, which
    /// are then on stderr.
    fn find(&self) -> Result<Option<(PathBuf, Naming)>> {
        if let Some(dir) = &self.dir {
            return Ok(Some((dir.clone(), Naming::of(None))));
        }
        let file = self.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let Some(config) = load(file)? else { return Ok(None) };
        let naming = Naming::of(Some(&config));
        let without = || format!("\"{}\" configures no cache", file.display());
        Ok(Some((config.cache.with_context(without)?.path, naming)))
    }
}

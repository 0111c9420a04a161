//! `ktrix explain`: the whole decision for a request, step by step, with the reason of each step.
//!
//! The command calls the same functions as a worker, and reads the stored objects beside it.
//! Nothing is sent, stored or marked. Facts that only the running workers have (running fills,
//! servers that are down, counted requests) are not part of it.

mod step;
mod setting;
mod explainer;
mod outcome;
mod purge;
mod request;
mod parts;
mod stored;
mod freshness;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::cli::explain::explainer::Explainer;
use crate::cli::explain::outcome::Outcome;
use crate::cli::explain::setting::Setting;
use crate::cli::explain::step::Step;
use crate::cli::load::DEFAULT_FILE;
use crate::cli::opened::{Opened, now_s};
use crate::cli::output;
use crate::cli::request::UrlRequest;

/// The request to explain.
#[derive(Args, Debug)]
pub struct ExplainCommand {
    /// The URL, as a client would ask for it
    url: String,
    /// A field of the request; may be repeated
    #[arg(short = 'H', value_name = "NAME: VALUE")]
    fields: Vec<String>,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// The configuration [default: /etc/ktrix/ktrix.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The cache directory of a ktrix that runs without a configuration
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Explanation {
    steps: Vec<Step>,
    #[serde(flatten)]
    outcome: Outcome,
}

/// Explains; the exit code is 0 for any verdict, and 1 when nothing could be explained.
///
/// # Errors
///
/// When the request, the configuration or the cache cannot be read.
pub(super) fn run(command: &ExplainCommand) -> Result<i32> {
    let setting = match &command.dir {
        Some(dir) => Setting::of_dir(dir)?,
        None => {
            let file = command.config.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
            let Some(setting) = Setting::of_file(file)? else { return Ok(1) };
            setting
        }
    };
    let asked = UrlRequest::new(&command.method, &command.url, &command.fields)?;
    let dir = setting.config.cache.as_ref().map(|cache| &cache.path);
    let cache = dir.map(|dir| Opened::open_if_any(dir)).transpose()?.flatten();
    let explanation = explain(&setting, cache.as_ref(), &asked, now_s())?;
    output::to_stdout(|out| {
        match command.json {
            true => output::json_line(out, &explanation)?,
            false => explanation.write(out)?,
        }
        Ok(0)
    })
}

fn explain(
    setting: &Setting,
    cache: Option<&Opened>,
    asked: &UrlRequest,
    now_s: u64,
) -> Result<Explanation> {
    let mut explainer = Explainer { setting, cache, now_s, steps: Vec::new() };
    let outcome = match explainer.request(asked) {
        Ok(routed) => explainer.look_up(&routed)?,
        Err(outcome) => outcome,
    };
    Ok(Explanation { steps: explainer.steps, outcome })
}

impl Explanation {
    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.steps.iter().try_for_each(|step| step.write(out))?;
        self.outcome.write(out)
    }
}

//! The logs: the access log, and the sink of ktrix's own messages.

use std::path::{Path, PathBuf};

use crate::config::document::{Place, Value};
use crate::config::error::Faults;
use crate::config::section::{Section, as_usize};
use crate::config::{AccessLogConfig, ErrorSink, LogConfig, LogFormat, WhenFull};

pub(super) fn resolve(faults: &mut Faults<'_>, root: &Section<'_>) -> LogConfig {
    let mut config =
        LogConfig { access: None, error: ErrorSink::Auto, level: log::LevelFilter::Info };
    let Some(node) = root.node("log") else { return config };
    if let Value::Scalar(_) = node.value {
        let scalar = root.scalar(faults, "log");
        let file = scalar.filter(|scalar| !scalar.is("off")).and_then(|s| s.file(faults));
        config.access = file.map(access_log_at);
        return config;
    }
    let section = root.section(faults, "log", "log");
    config.access = access_log(faults, &section);
    config.error = match section.scalar(faults, "error") {
        None => ErrorSink::Auto,
        Some(scalar) if scalar.is("auto") => ErrorSink::Auto,
        Some(scalar) if scalar.is("syslog") => ErrorSink::Syslog,
        Some(scalar) if scalar.is("stderr") => ErrorSink::Stderr,
        Some(scalar) if scalar.is("off") => {
            let way_out = "is not a sink of the error log (try \"level: off\", or \"./off\")";
            scalar.wrong(faults, way_out);
            ErrorSink::Auto
        }
        Some(scalar) => scalar.file(faults).map_or(ErrorSink::Auto, ErrorSink::File),
    };
    let level = section.word(faults, "level").parse();
    config.level = level.unwrap_or(log::LevelFilter::Info);
    config
}

fn access_log(faults: &mut Faults<'_>, log: &Section<'_>) -> Option<AccessLogConfig> {
    if !matches!(log.node("access")?.value, Value::Map(_)) {
        let scalar = log.scalar(faults, "access")?;
        return if scalar.is("off") { None } else { scalar.file(faults).map(access_log_at) };
    }
    let section = log.section(faults, "log.access", "access");
    let file = section.required(faults, "file", "file: /var/log/ktrix/access.log");
    let mut config = access_log_at(file.and_then(|file| file.file(faults)).unwrap_or_default());
    config.format = match section.word(faults, "format") {
        "common" => LogFormat::Common,
        "json" => LogFormat::Json,
        _ => LogFormat::Combined,
    };
    config.when_full = match section.word(faults, "when-full") {
        "drop" => WhenFull::Drop,
        "wait" => WhenFull::Wait,
        _ => WhenFull::Spill,
    };
    config.spill_bytes = section.size(faults, "spill");
    config.buffer_bytes = as_usize(section.size(faults, "buffer")).next_power_of_two();
    Some(config)
}

/// The access log at a path, with the defaults of the schema.
pub(crate) fn access_log_at(file: PathBuf) -> AccessLogConfig {
    let nowhere = Path::new("");
    let section = Section::absent("log.access", String::new(), Place::default());
    let buffer_bytes = as_usize(section.size(&mut Faults::of(nowhere), "buffer"));
    let spill_bytes = section.size(&mut Faults::of(nowhere), "spill");
    let (format, when_full) = (LogFormat::Combined, WhenFull::Spill);
    AccessLogConfig { file, format, when_full, buffer_bytes, spill_bytes, is_live: false }
}

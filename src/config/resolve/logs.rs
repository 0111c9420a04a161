//! The logs: the access log, the slow log, and the sink of ktrix's own messages.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::document::{Place, Value};
use crate::config::error::Faults;
use crate::config::request_log::RequestLog;
use crate::config::section::{Section, as_usize};
use crate::config::{AccessLogConfig, ErrorSink, LogConfig, LogFormat, WhenFull};

pub(super) fn resolve(faults: &mut Faults<'_>, root: &Section<'_>) -> LogConfig {
    let (error, level) = (ErrorSink::Auto, log::LevelFilter::Info);
    let mut config = LogConfig { access: None, slow: None, error, level };
    let Some(node) = root.node("log") else { return config };
    if let Value::Scalar(_) = node.value {
        let scalar = root.scalar(faults, "log");
        let file = scalar.filter(|scalar| !scalar.is("off")).and_then(|s| s.file(faults));
        config.access = file.map(|file| request_log_at(RequestLog::Access, file));
        return config;
    }
    let section = root.section(faults, "log", "log");
    config.access = request_log(faults, &section, RequestLog::Access);
    config.slow = request_log(faults, &section, RequestLog::Slow);
    if let (Some(access), Some(slow)) = (&config.access, &config.slow)
        && access.file == slow.file
        && let Some(node) = section.node("slow")
    {
        // A log repairs the interrupted writes of its own lines alone.
        let message =
            format!("\"{}\" is the file of log.access (name another)", slow.file.display());
        faults.add(node.place, section.path_of("slow"), message);
    }
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

fn request_log(
    faults: &mut Faults<'_>,
    log: &Section<'_>,
    which: RequestLog,
) -> Option<AccessLogConfig> {
    let (key, example) = match which {
        RequestLog::Access => ("access", "file: /var/log/ktrix/access.log"),
        RequestLog::Slow => ("slow", "file: /var/log/ktrix/slow.log"),
    };
    if !matches!(log.node(key)?.value, Value::Map(_)) {
        let scalar = log.scalar(faults, key)?;
        let file = if scalar.is("off") { None } else { scalar.file(faults) };
        return file.map(|file| request_log_at(which, file));
    }
    let section = log.section(faults, which.section(), key);
    let file = section.required(faults, "file", example);
    let file = file.and_then(|file| file.file(faults)).unwrap_or_default();
    let mut config = request_log_at(which, file);
    config.format = match section.word(faults, "format") {
        "common" => LogFormat::Common,
        "json" => LogFormat::Json,
        "text" => LogFormat::Text,
        _ => LogFormat::Combined,
    };
    match which {
        RequestLog::Access => {
            config.when_full = match section.word(faults, "when-full") {
                "drop" => WhenFull::Drop,
                "wait" => WhenFull::Wait,
                _ => WhenFull::Spill,
            };
            config.spill_bytes = section.size(faults, "spill");
            config.buffer_bytes = as_usize(section.size(faults, "buffer")).next_power_of_two();
        }
        RequestLog::Slow => config.over = section.duration(faults, "over"),
    }
    Some(config)
}

/// The log at a path, with the defaults of the schema. The slow log has few lines: its buffer and its
/// spill file are those of an access log.
pub(crate) fn request_log_at(which: RequestLog, file: PathBuf) -> AccessLogConfig {
    let faults = &mut Faults::of(Path::new(""));
    let absent = |schema| Section::absent(schema, String::new(), Place::default());
    let access = absent(RequestLog::Access.section());
    let (format, over) = match which {
        RequestLog::Access => (LogFormat::Combined, Duration::ZERO),
        RequestLog::Slow => (LogFormat::Text, absent(which.section()).duration(faults, "over")),
    };
    AccessLogConfig {
        which,
        over,
        file,
        format,
        when_full: WhenFull::Spill,
        buffer_bytes: as_usize(access.size(faults, "buffer")),
        spill_bytes: access.size(faults, "spill"),
    }
}

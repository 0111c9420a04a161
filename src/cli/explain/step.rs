//! One step of an explanation: a fact, and its reason.

use std::io::{self, Write};

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    /// The subject of the step.
    pub(super) step: &'static str,
    /// The fact.
    pub(super) value: String,
    /// The reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) because: Option<Because>,
}

/// The reason of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Because {
    /// A section of an RFC.
    Rfc(&'static str),
    /// A line of the configuration.
    Config { file: String, line: u32, key: String },
    /// The default of a key that the configuration leaves out.
    Default(String),
}

impl Step {
    /// Writes the step as a line; further lines of its value follow below it.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut lines = self.value.lines();
        write!(out, "{:WIDTH$} {}", self.step, lines.next().unwrap_or_default())?;
        match &self.because {
            Some(Because::Rfc(section)) => write!(out, "  ({section})")?,
            Some(Because::Config { file, line, key }) => write!(out, "  ({file}:{line}: {key})")?,
            Some(Because::Default(key)) => write!(out, "  (the default of {key})")?,
            None => {}
        }
        writeln!(out)?;
        lines.try_for_each(|line| writeln!(out, "{:WIDTH$} {line}", ""))
    }
}

/// Columns of the first word.
const WIDTH: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_names_its_reason() {
        let config = |file: &str| Because::Config { file: file.into(), line: 7, key: "a.b".into() };
        let cases = [
            (Some(Because::Rfc("RFC 9111 section 4")), "  (RFC 9111 section 4)\n"),
            (Some(config("k.yaml")), "  (k.yaml:7: a.b)\n"),
            (Some(Because::Default("a.b".into())), "  (the default of a.b)\n"),
            (None, "\n"),
        ];
        for (because, end) in cases {
            let step = Step { step: "key", value: "one\ntwo".into(), because };
            let mut out = Vec::new();
            step.write(&mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, format!("key          one{end}             two\n"));
        }
    }
}

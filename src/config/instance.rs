//! The name of an instance in `Via`.
//!
//! Two instances that pass requests on to each other must not have one name, since each would refuse
//! what the other has forwarded. The default differs between the instances of a machine, by what no
//! two of them can share, and between machines of one host name, by the id of the machine.

use md5::{Digest, Md5};

use crate::base::chars;
use crate::config::Config;
use crate::config::error::Faults;
use crate::config::section::Scalar;

impl Config {
    /// The name of an instance with this configuration on a machine with this name and id.
    pub(crate) fn instance_name(&self, host: &str, machine: &[u8]) -> String {
        self.via.clone().unwrap_or_else(|| self.default_name(host, machine))
    }

    fn default_name(&self, host: &str, machine: &[u8]) -> String {
        let mut hash = Md5::new_with_prefix(machine);
        for listen in &self.listen {
            hash.update(format!("\n{}", listen.address));
        }
        if let Some(cache) = &self.cache {
            hash.update(format!("\n{}", cache.path.display()));
        }
        let hash = hash.finalize();
        let number = hash.iter().take(3).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        let token = |char: char| match u8::try_from(char) {
            Ok(octet) if chars::is_token_char(octet) => char,
            _ => '-',
        };
        let host: String = host.chars().take(NAME_MAX).map(token).collect();
        let host = if host.is_empty() { "ktrix" } else { &host };
        format!("{host}-{number:06x}")
    }
}

/// The name that the configuration has.
pub(crate) fn name(faults: &mut Faults<'_>, scalar: &Scalar<'_>) -> Option<String> {
    let text = scalar.text;
    if scalar.is("off") || text.len() > NAME_MAX || !chars::is_token(text.as_bytes()) {
        let why =
            format!("is not a name of 1 to {NAME_MAX} letters, digits, \"-\", \"_\" and \".\"");
        scalar.wrong(faults, &why);
        return None;
    }
    Some(text.to_owned())
}

/// The longest name of a host, HOST_NAME_MAX of Linux.
const NAME_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn instances_have_names_that_differ_and_stay() {
        let config = |text: &str| {
            let text = format!("upstream: 10.0.0.1\n{text}");
            Config::load_for(Path::new("k"), &text, 1).unwrap()
        };
        let name = |host: &str, machine: &str, text: &str| {
            config(text).instance_name(host, machine.as_bytes())
        };
        let base = name("web", "m", "listen: 80");
        assert_eq!(base, name("web", "m", "listen: 80\nworkers: 3"));
        assert!(base.starts_with("web-") && base.len() == "web-".len() + 6, "{base}");
        let others = [
            name("web", "m", "listen: 81"),
            name("web", "m", "listen: [80, 81]"),
            name("web", "m", "listen: 80\ncache: /c"),
            name("web", "n", "listen: 80"),
        ];
        assert!(!others.contains(&base), "{others:?}");
        assert!(name("a b\u{e9}(c", "", "").starts_with("a-b--c-"));
        assert!(name("", "", "").starts_with("ktrix-"));
        assert_eq!(name("web", "m", "via: edge_1"), "edge_1");
    }

    #[test]
    fn a_name_is_a_token() {
        for text in ["a b", "\"\"", "a:80", "off", "\"a,b\"", &"x".repeat(65)] {
            let text = format!("upstream: 10.0.0.1\nvia: {text}\n");
            let errors = Config::load_for(Path::new("k"), &text, 1).unwrap_err();
            assert!(errors.0.len() == 1 && errors.0[0].key == "via", "{text}: {errors}");
        }
    }
}

//! The outcome of the last reload or upgrade, in a file beside the pid file, for `ktrix -s`.
//!
//! The first line is a number that no other outcome has; the rest is empty, or says why the reload
//! was refused.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    number: u128,
    /// Why it was refused; empty if it was not.
    pub(crate) refusal: String,
}

/// Where the outcome is.
pub(crate) fn path_of(pid_file: &Path) -> PathBuf {
    let mut name = pid_file.as_os_str().to_owned();
    name.push(".reload");
    PathBuf::from(name)
}

/// Replaces the outcome; an empty refusal is none.
pub(crate) fn write(pid_file: &Path, refusal: &str) -> io::Result<()> {
    let number = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let path = path_of(pid_file);
    let new = path.with_extension("reload.new");
    let _ = fs::remove_file(&new);
    // The directory may be another user's: no link of theirs is followed.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    file.write_all(format!("{number}\n{refusal}").as_bytes())?;
    fs::rename(&new, &path)
}

/// The last outcome.
pub(crate) fn read(pid_file: &Path) -> Option<Outcome> {
    let text = fs::read_to_string(path_of(pid_file)).ok()?;
    let (number, refusal) = text.split_once('\n')?;
    Some(Outcome { number: number.parse().ok()?, refusal: refusal.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_differs_from_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("ktrix.pid");
        assert_eq!(read(&pid_file), None);
        let mut last = None;
        for refusal in ["", "", "k.yaml:1:1: a\nk.yaml:2:1: b"] {
            write(&pid_file, refusal).unwrap();
            let now = read(&pid_file);
            assert!(now != last && now.as_ref().is_some_and(|now| now.refusal == refusal));
            last = now;
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

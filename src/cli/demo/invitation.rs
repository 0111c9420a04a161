//! The first text of the demonstration: commands to copy into another terminal.

use std::path::Path;

use crate::cli::demo::origin::{PAGES, TOGETHER};

pub(super) fn text(program: &Path, port: u16, cache_dir: &Path) -> String {
    let url = format!("http://127.0.0.1:{port}");
    let mut text = format!(
        "ktrix serves on {url}/, with two workers and an empty cache.\n\
         Ask in another terminal, each line twice, and see what the second answer costs:\n\n"
    );
    for (path, what) in PAGES {
        text.push_str(&format!("  curl -i {url}{path:<10}   # {what}\n"));
    }
    let explain = format!("{} explain --dir {}", quoted(program), quoted(cache_dir));
    text.push_str(&format!(
        "\nOne request to the origin for two clients, the second of them collapsed:\n\n  \
         curl {url}{TOGETHER} & curl {url}{TOGETHER}\n\n\
         Remove the picture from the cache:\n\n  \
         curl -X PURGE {url}/picture\n\n\
         Why a request is a hit, stale, a miss or a pass, step by step:\n\n  \
         {explain} {url}/stale\n\n\
         Press Ctrl-C to end. Every request, its verdict and its time:\n\n"
    ));
    text
}

/// A path as a word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_invitation_names_every_page_and_command() {
        let text = text(Path::new("/opt/ktrix"), 8081, Path::new("/tmp/d"));
        for (path, _) in PAGES {
            assert!(text.contains(&format!("curl -i http://127.0.0.1:8081{path} ")), "{path}");
        }
        assert!(text.contains("  curl -X PURGE http://127.0.0.1:8081/picture\n"), "{text}");
        let explain = "  /opt/ktrix explain --dir /tmp/d http://127.0.0.1:8081/stale\n";
        assert!(text.contains(explain), "{text}");
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/ktrix-1")), "/tmp/ktrix-1");
        assert_eq!(quoted(Path::new("/my $HOME's")), r"'/my $HOME'\''s'");
    }
}

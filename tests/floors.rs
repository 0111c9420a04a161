//! The house keeps its floors: read from the sources, not from anybody's memory.
//!
//! A module of `src/` imports only modules declared above it in `lib.rs`. What stands above `sys`
//! there is pure: no sockets, files, clocks, processes. `unsafe` lives in `src/sys/`. A file is
//! one noun, and so not long; its tests do not count.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The longest source file there may be, in lines, its tests not counted.
const LINES_MAX: usize = 500;

/// Files that may be longer, each with its reason. A table is one.
const LONGER: &[(&str, &str)] = &[];

/// What the pure floors must not touch. `Duration` and addresses are values and therefore fine.
const KERNEL: &[&str] = &[
    "std::fs",
    "std::os",
    "std::process",
    "std::thread",
    "std::io::stdin",
    "std::env",
    "Instant",
    "SystemTime::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "File::",
    "mio::",
    "nix::",
    "socket2::",
    "memmap2::",
    "fs2::",
    "libc::",
    "signal_hook",
];

/// Where a pure floor may look at the kernel after all, and why.
const LOOKS: &[(&str, &str, &str)] =
    &[("config/load.rs", "std::thread", "the number of cores is the default of `workers`")];

/// `std::net` has values beside its sockets; these are the values.
const NET_VALUES: &[&str] = &[
    "AddrParseError",
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
];

/// A source file without its comments, text literals and tests.
struct Source {
    /// Path below `src/`.
    path: PathBuf,
    /// Lines that are no tests.
    n_lines: usize,
    code: String,
}

impl Source {
    /// The top module that the file belongs to.
    fn floor(&self) -> String {
        let first = self.path.iter().next().unwrap().to_string_lossy();
        first.strip_suffix(".rs").unwrap_or(&first).to_owned()
    }

    fn place(&self, at: usize) -> String {
        let line = self.code[..at].matches('\n').count() + 1;
        format!("src/{}:{line}", self.path.display())
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(&root).unwrap().to_owned();
        let (code, n_test_lines) = without_tests(&bare(&text));
        Source { path, n_lines: text.lines().count() - n_test_lines, code }
    };
    files.into_iter().map(read).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Blanks out comments and literals; line ends stay, so that places stay true.
fn bare(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let end = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |n| n + 2)
        } else if let Some(len) = literal(rest, at.checked_sub(1).map(|i| bytes[i])) {
            len
        } else {
            let char = rest.chars().next().unwrap();
            out.push(char);
            at += char.len_utf8();
            continue;
        };
        out.extend(rest[..end].chars().filter(|&c| c == '\n'));
        out.push(' ');
        at += end;
    }
    out
}

/// The length of the text or character literal that begins here.
fn literal(rest: &str, before: Option<u8>) -> Option<usize> {
    let is_word = before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if let Some(raw) = rest.strip_prefix(['r', 'b', 'c']).filter(|_| !is_word) {
        let raw = raw.strip_prefix('r').unwrap_or(raw);
        let hashes = raw.bytes().take_while(|&b| b == b'#').count();
        if hashes > 0 && raw[hashes..].starts_with('"') && rest[..2].contains('r') {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = rest.len() - raw.len() + hashes + 1;
            return Some(
                rest[start..].find(&close).map_or(rest.len(), |n| start + n + close.len()),
            );
        }
        if raw.starts_with('"') && rest.starts_with('r') {
            return Some(rest[2..].find('"').map_or(rest.len(), |n| n + 3));
        }
    }
    if rest.starts_with('"') {
        return Some(closed(rest, b'"'));
    }
    // A character, not a lifetime: 'x' or '\x'.
    let mut chars = rest.strip_prefix('\'')?.chars();
    match chars.next()? {
        '\\' => Some(closed(rest, b'\'')),
        char => (chars.next() == Some('\'')).then(|| char.len_utf8() + 2),
    }
}

/// Where a literal that may hold escapes ends.
fn closed(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += 1 + usize::from(bytes[at] == b'\\');
    }
    (at + 1).min(bytes.len())
}

/// Blanks out every item under `#[cfg(test)]`, and says how many lines that were.
fn without_tests(code: &str) -> (String, usize) {
    let mut code = code.to_owned();
    let mut n_lines = 0;
    while let Some(start) = code.find("#[cfg(test)]") {
        let mut depth = 0;
        let mut end = code.len();
        for (i, char) in code[start..].char_indices() {
            match char {
                '{' => depth += 1,
                '}' => depth -= 1,
                ';' if depth == 0 => {}
                _ => continue,
            }
            if depth == 0 {
                end = start + i + 1;
                break;
            }
        }
        let lines: String = code[start..end].chars().filter(|&c| c == '\n').collect();
        n_lines += lines.len();
        code.replace_range(start..end, &lines);
    }
    (code, n_lines)
}

/// The modules of `lib.rs` in their order.
fn floors() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = bare(&fs::read_to_string(root).unwrap());
    let names = text.lines().filter_map(|line| line.trim().strip_suffix(';'));
    names
        .filter_map(|line| line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")))
        .map(str::to_owned)
        .collect()
}

/// Where `word` stands as a whole word, or as a path's beginning if it ends with colons.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let bytes = code.as_bytes();
        let before = at.checked_sub(1).is_some_and(|i| is_word(bytes[i]));
        let after = bytes.get(at + word.len()).is_some_and(|&b| is_word(b));
        !before && (!after || word.ends_with(':'))
    })
}

/// The first segments of what follows `crate::` here: one, or those of a braced list.
fn imported(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let Some(list) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), 0);
    for (i, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(name(&list[start..i]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&list[start..i]));
                start = i + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn a_module_imports_only_modules_declared_above_it() {
    let floors = floors();
    let height = |name: &str| floors.iter().position(|floor| floor == name);
    let mut faults = Vec::new();
    for source in sources() {
        let floor = source.floor();
        let Some(own) = height(&floor) else { continue };
        for at in words(&source.code, "crate::") {
            for name in imported(&source.code[at + "crate::".len()..]) {
                if height(&name).is_some_and(|other| other > own) {
                    faults.push(format!("{}: {floor} imports {name}", source.place(at)));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_pure_floors_touch_no_kernel() {
    let floors = floors();
    let kernel = floors.iter().position(|floor| floor == "sys").expect("the floor sys");
    let mut faults = Vec::new();
    for source in sources() {
        if !floors[..kernel].contains(&source.floor()) {
            continue;
        }
        let path = source.path.display().to_string();
        let may_look = |word: &str| LOOKS.iter().any(|(p, w, _)| *p == path && *w == word);
        for word in KERNEL.iter().filter(|word| !may_look(word)) {
            faults.extend(
                words(&source.code, word).map(|at| format!("{}: {word}", source.place(at))),
            );
        }
        for at in words(&source.code, "std::net::") {
            let rest = &source.code[at + "std::net::".len()..];
            for name in imported(rest) {
                if !NET_VALUES.contains(&&*name) {
                    faults.push(format!("{}: std::net::{name}", source.place(at)));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_lives_in_sys() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.floor() != "sys" {
            faults.extend(words(&source.code, "unsafe").map(|at| source.place(at)));
        }
    }
    assert!(faults.is_empty(), "unsafe outside of sys:\n{}", faults.join("\n"));
}

#[test]
fn no_file_is_long_without_a_reason() {
    let mut faults = Vec::new();
    for source in sources() {
        let path = source.path.display().to_string();
        let reason = LONGER.iter().find(|(name, _)| *name == path);
        match (source.n_lines > LINES_MAX, reason) {
            (true, None) => faults.push(format!("src/{path} has {} lines", source.n_lines)),
            (false, Some(_)) => faults.push(format!("src/{path} is no longer long: strike it off")),
            _ => {}
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_reader_of_sources_knows_code_from_text() {
    let text = r##"
        use crate::{base::x, http};
        // unsafe in a comment
        const A: &str = "unsafe \" crate::cli"; const B: char = '"'; const C: &str = r#"unsafe"#;
        fn f<'a>(x: &'a str) -> &'a str { x }
        #[cfg(test)]
        mod tests { fn g() { if true { unsafe { } } } }
        const D: u8 = b'\''; const E: &[u8] = b"unsafe";
    "##;
    let (code, n_test_lines) = without_tests(&bare(text));
    assert_eq!(n_test_lines, 1);
    assert_eq!(words(&code, "unsafe").count(), 0, "{code}");
    let at = words(&code, "crate::").collect::<Vec<_>>();
    assert_eq!(at.len(), 1, "{code}");
    assert_eq!(imported(&code[at[0] + 7..]), ["base", "http"]);
    assert!(code.contains("const D"), "{code}");
    assert_eq!(code.matches('\n').count(), text.matches('\n').count());
}

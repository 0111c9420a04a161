//! The structure of the library, read from its sources.
//!
//! A module of `src/` imports only modules declared above it in `lib.rs`, and inside each room a file
//! imports only files declared above it in `mod.rs`; no files import each other in a circle. What
//! stands above `sys` is pure: no sockets, files, clocks, processes. `unsafe` stands in `src/sys/` only.
//! A file is one noun, and so not long; its tests do not count. Each rule is a function from a tree to
//! its faults, and each has a test that plants a violation and expects the fault.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// The longest source file there may be, in lines, its tests not counted.
const LINES_MAX: usize = 500;

/// Files that may be longer, each with its reason. A table is one.
const LONGER: &[(&str, &str)] = &[];

/// The names that the pure floors must not use. `Duration` and addresses are values and therefore
/// fine.
const KERNEL: &[&str] = &[
    "std::fs", "std::os", "std::process", "std::thread", "std::io::stdin", "std::env", "Instant",
    "SystemTime::now", "TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener",
    "ToSocketAddrs", "File::", "mio::", "nix::", "socket2::", "memmap2::", "fs2::", "libc::",
    "signal_hook",
];

/// Where a pure floor may look at the kernel after all, and why.
const LOOKS: &[(&str, &str, &str)] = &[
    ("config/load.rs", "std::thread", "the number of cores is the default of `workers`"),
    ("config/source.rs", "std::fs", "the files that a configuration names are a part of it"),
];

/// `std::net` has values beside its sockets; these are the values.
const NET_VALUES: &[&str] = &[
    "AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4",
    "SocketAddrV6",
];

/// A source file without its comments, text literals and tests.
struct Source {
    /// Path below `src/`.
    path: String,
    /// Where the module is in the tree: empty for `lib.rs`.
    module: Vec<String>,
    /// Lines that are no tests.
    n_lines: usize,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let (code, n_test_lines) = without_tests(&bare(text));
        let mut module: Vec<String> =
            path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|name| matches!(&**name, "mod" | "lib")) {
            module.pop();
        }
        Self { path: path.to_owned(), module, n_lines: text.lines().count() - n_test_lines, code }
    }

    /// The top module that the file belongs to; `None` for `lib.rs`.
    fn floor(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    fn place(&self, at: usize) -> String {
        let line = self.code[..at].matches('\n').count() + 1;
        format!("src/{}:{line}", self.path)
    }

    /// The modules that this file declares, in their order, those of its tests left out.
    fn declared(&self) -> Vec<String> {
        let names = self.code.lines().filter_map(|line| line.trim().strip_suffix(';'));
        names
            .filter_map(|line| line.split_once("mod ").map(|(before, name)| (before.trim(), name)))
            .filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
            .map(|(_, name)| name.trim().to_owned())
            .collect()
    }

    /// The paths below `crate` that the file names, each with where it does.
    fn imports(&self) -> Vec<(usize, Vec<String>)> {
        let mut paths = Vec::new();
        for at in words(&self.code, "crate::") {
            for path in expanded(&self.code[at + "crate::".len()..]) {
                paths.push((at, path));
            }
        }
        for at in words(&self.code, "super::") {
            let mut base = self.module.clone();
            let mut rest = &self.code[at..];
            while let Some(behind) = rest.strip_prefix("super::") {
                base.pop();
                rest = behind;
            }
            // A longer chain is read once, from its beginning.
            if self.code[..at].ends_with("super::") {
                continue;
            }
            paths.extend(expanded(rest).into_iter().map(|path| (at, [&base[..], &path].concat())));
        }
        paths
    }
}

/// The sources of a library, by their modules.
struct Tree {
    sources: BTreeMap<Vec<String>, Source>,
}

impl Tree {
    /// The sources of ktrix, read once.
    fn of_ktrix() -> &'static Self {
        static KTRIX: LazyLock<Tree> = LazyLock::new(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
            let mut files = Vec::new();
            collect(&root, &root, &mut files);
            Tree::of(files.iter().map(|(path, text)| (&**path, &**text)))
        });
        &KTRIX
    }

    /// Those of these files that `lib.rs` leads to: what only tests declare is no part of it.
    fn of<'t>(files: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        let all = files.into_iter().map(|(path, text)| Source::new(path, text));
        let mut all: BTreeMap<_, _> = all.map(|source| (source.module.clone(), source)).collect();
        let mut sources = BTreeMap::new();
        let mut next = vec![Vec::new()];
        while let Some(module) = next.pop() {
            let Some(source) = all.remove(&module) else { continue };
            next.extend(source.declared().into_iter().map(|name| [&module[..], &[name]].concat()));
            sources.insert(module, source);
        }
        Self { sources }
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.sources.values()
    }

    /// The modules of `lib.rs` in their order.
    fn floors(&self) -> Vec<String> {
        self.sources[&Vec::new()].declared()
    }

    /// The file that a path leads into: the longest beginning of it that is a module.
    fn module_of<'p>(&self, path: &'p [String]) -> Option<&'p [String]> {
        (1..=path.len()).rev().map(|len| &path[..len]).find(|it| self.sources.contains_key(*it))
    }

    /// Which file imports which others, with the place of the first import.
    fn edges(&self) -> BTreeMap<&[String], BTreeMap<Vec<String>, String>> {
        let mut edges: BTreeMap<&[String], BTreeMap<Vec<String>, String>> = BTreeMap::new();
        for source in self.sources() {
            let of = edges.entry(&source.module).or_default();
            for (at, path) in source.imports() {
                if let Some(to) = self.module_of(&path).filter(|to| *to != source.module) {
                    of.entry(to.to_vec()).or_insert_with(|| source.place(at));
                }
            }
        }
        edges
    }
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
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

/// The paths that begin here: one, or all that a braced list stands for.
fn expanded(rest: &str) -> Vec<Vec<String>> {
    fn name_of(text: &str) -> &str {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.split(|c| !is_word(c)).next().unwrap_or_default()
    }
    let rest = rest.trim_start();
    if let Some(list) = rest.strip_prefix('{') {
        let (mut depth, mut paths, mut start) = (0, Vec::new(), 0);
        for (i, char) in list.char_indices() {
            match char {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    paths.extend(expanded(&list[start..i]));
                    start = i + 1;
                    if char == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return paths;
    }
    let name = name_of(rest);
    if name.is_empty() {
        return Vec::new();
    }
    match rest[name.len()..].strip_prefix("::") {
        Some(behind) => {
            let mut paths = expanded(behind);
            if paths.is_empty() {
                paths.push(Vec::new());
            }
            paths.into_iter().map(|path| [&[name.to_owned()], &path[..]].concat()).collect()
        }
        None => vec![vec![name.to_owned()]],
    }
}

/// Imports of a floor that stands below.
fn upward_imports(tree: &Tree) -> Vec<String> {
    let floors = tree.floors();
    let height = |name: &str| floors.iter().position(|floor| floor == name);
    let mut faults = Vec::new();
    for source in tree.sources() {
        let Some(own) = source.floor().and_then(height) else { continue };
        for (at, path) in source.imports() {
            if path.first().and_then(|name| height(name)).is_some_and(|other| other > own) {
                let (from, to) = (&floors[own], &path[0]);
                faults.push(format!("{}: {from} imports {to}", source.place(at)));
            }
        }
    }
    faults
}

/// Imports of a file that its room's `mod.rs` declares further down.
fn imports_against_order(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (from, edges) in tree.edges() {
        for (to, place) in edges {
            let n_shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            let (Some(a), Some(b)) = (from.get(n_shared), to.get(n_shared)) else { continue };
            // The order of the floors is checked by itself.
            if n_shared == 0 {
                continue;
            }
            let order = tree.sources[&from[..n_shared]].declared();
            let at = |name| order.iter().position(|it| it == name);
            if at(a) < at(b) {
                let room = from[..n_shared].join("::");
                faults.push(format!("{place}: in {room}, {a} imports {b}, which is below it"));
            }
        }
    }
    faults
}

/// Files that import one another in a circle.
fn cycles(tree: &Tree) -> Vec<String> {
    let edges = tree.edges();
    let reach = |start: &[String]| -> BTreeSet<Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut next: Vec<Vec<String>> = edges[start].keys().cloned().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(edges[&module[..]].keys().cloned());
            }
        }
        seen
    };
    let reached: BTreeMap<&[String], _> = edges.keys().map(|from| (*from, reach(from))).collect();
    let mut circles = BTreeSet::new();
    for (from, reaches) in &reached {
        if reaches.contains(*from) {
            let circle = reaches.iter().filter(|to| reached[&to[..]].contains(*from));
            circles.insert(circle.map(|module| module.join("::")).collect::<Vec<_>>());
        }
    }
    circles.into_iter().map(|circle| format!("in a circle: {}", circle.join(", "))).collect()
}

/// Words of the kernel on floors above `sys`.
fn kernel_on_pure_floors(tree: &Tree) -> Vec<String> {
    let floors = tree.floors();
    let kernel = floors.iter().position(|floor| floor == "sys").expect("the floor sys");
    let mut faults = Vec::new();
    for source in tree.sources() {
        if !source.floor().is_some_and(|floor| floors[..kernel].iter().any(|it| it == floor)) {
            continue;
        }
        let may_look = |word: &str| LOOKS.iter().any(|(p, w, _)| *p == source.path && *w == word);
        for word in KERNEL.iter().filter(|word| !may_look(word)) {
            faults.extend(
                words(&source.code, word).map(|at| format!("{}: {word}", source.place(at))),
            );
        }
        for at in words(&source.code, "std::net::") {
            for path in expanded(&source.code[at + "std::net::".len()..]) {
                if !NET_VALUES.contains(&&*path[0]) {
                    faults.push(format!("{}: std::net::{}", source.place(at), path[0]));
                }
            }
        }
    }
    faults
}

/// `unsafe` outside of `sys`.
fn unsafe_outside_of_sys(tree: &Tree) -> Vec<String> {
    let others = tree.sources().filter(|source| source.floor() != Some("sys"));
    others
        .flat_map(|source| words(&source.code, "unsafe").map(|at| source.place(at)))
        .map(|place| format!("{place}: unsafe"))
        .collect()
}

/// Files longer than [`LINES_MAX`] without a reason, and reasons without a long file.
fn long_files(tree: &Tree, longer: &[(&str, &str)]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in tree.sources() {
        let path = &*source.path;
        let has_reason = longer.iter().any(|(name, _)| *name == path);
        match (source.n_lines > LINES_MAX, has_reason) {
            (true, false) => faults.push(format!("src/{path} has {} lines", source.n_lines)),
            (false, true) => faults.push(format!("src/{path} is no longer long: strike it off")),
            _ => {}
        }
    }
    faults
}

fn expect_none(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_module_imports_only_modules_declared_above_it() {
    expect_none(&upward_imports(Tree::of_ktrix()));
}

#[test]
fn a_file_imports_only_files_declared_above_it_in_its_room() {
    expect_none(&imports_against_order(Tree::of_ktrix()));
}

#[test]
fn no_files_import_one_another_in_a_circle() {
    expect_none(&cycles(Tree::of_ktrix()));
}

#[test]
fn the_pure_floors_touch_no_kernel() {
    expect_none(&kernel_on_pure_floors(Tree::of_ktrix()));
}

#[test]
fn unsafe_lives_in_sys() {
    expect_none(&unsafe_outside_of_sys(Tree::of_ktrix()));
}

#[test]
fn no_file_is_long_without_a_reason() {
    expect_none(&long_files(Tree::of_ktrix(), LONGER));
}

#[test]
fn the_whole_library_is_read() {
    let tree = Tree::of_ktrix();
    assert!(tree.sources.len() > 200, "{} files", tree.sources.len());
    for floor in tree.floors() {
        assert!(tree.sources().any(|source| source.floor() == Some(&floor)), "{floor} is empty");
    }
}

/// A library without a fault, in which each test plants its own.
const SOUND: &[(&str, &str)] = &[
    ("lib.rs", "pub mod base;\n#[allow(unsafe_code)]\npub mod sys;\npub mod top;"),
    ("base.rs", "use std::net::{IpAddr, SocketAddr};"),
    ("sys/mod.rs", "pub mod file;\nfn f() { unsafe { g() } }"),
    ("sys/file.rs", "use std::fs::File;"),
    ("top/mod.rs", "pub mod low;\npub mod high;\npub(crate) mod room;\n#[cfg(test)]\nmod tests;"),
    ("top/low.rs", "use crate::base::Size;\nfn f() { std::fs::read(p) }"),
    ("top/high.rs", "use crate::top::low::{self, Low};\nuse super::low::Other;"),
    ("top/room/mod.rs", "mod inner;\nuse crate::top::{high::High, low};"),
    ("top/room/inner.rs", "use crate::top::high;"),
    ("top/tests.rs", "use crate::top::high::High;\nunsafe fn only_a_test_declares_this() {}"),
];

/// The sound library with `text` in the place of the file `path`.
fn planted(path: &str, text: &str) -> Tree {
    assert!(SOUND.iter().any(|(name, _)| *name == path), "{path} is one of the files");
    Tree::of(SOUND.iter().map(|&(name, own)| (name, if name == path { text } else { own })))
}

#[test]
fn the_sound_library_has_no_fault() {
    let tree = Tree::of(SOUND.iter().copied());
    assert_eq!(tree.sources.len(), SOUND.len() - 1, "what only tests declare is left out");
    for rule in [
        upward_imports, imports_against_order, cycles, kernel_on_pure_floors, unsafe_outside_of_sys,
    ] {
        expect_none(&rule(&tree));
    }
    expect_none(&long_files(&tree, &[]));
}

#[test]
fn a_planted_upward_import_is_found() {
    for text in ["use crate::top::low;", "fn f() { crate::top::g() }", "use crate::{sys, base};"] {
        let faults = upward_imports(&planted("base.rs", text));
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
    }
    let faults = upward_imports(&planted("base.rs", "\nuse crate::top::low;"));
    assert_eq!(faults, ["src/base.rs:2: base imports top"]);
}

#[test]
fn a_planted_import_against_the_order_is_found() {
    let tree = planted("top/low.rs", "use crate::top::room::inner::Inner;");
    let expected = "src/top/low.rs:1: in top, low imports room, which is below it";
    assert_eq!(imports_against_order(&tree), [expected]);
    let tree = planted("top/low.rs", "fn f() { super::high::g() }");
    assert_eq!(imports_against_order(&tree).len(), 1);
    let order = "pub mod high;\npub mod low;\nmod room;";
    assert_eq!(imports_against_order(&planted("top/mod.rs", order)).len(), 1);
}

#[test]
fn a_planted_circle_is_found() {
    let tree = planted("top/low.rs", "use crate::top::room::inner::Inner;");
    assert_eq!(cycles(&tree), ["in a circle: top::high, top::low, top::room::inner"]);
    // A room's own file counts as any other.
    let tree = planted("top/room/inner.rs", "use crate::top::room::Room;");
    assert!(cycles(&tree).is_empty());
    let tree = planted("top/room/mod.rs", "mod inner;\nuse crate::top::room::inner::Inner;");
    assert!(cycles(&tree).is_empty());
    let mut files = SOUND.to_vec();
    files.retain(|(name, _)| !name.starts_with("top/room/"));
    files.push(("top/room/mod.rs", "mod inner;\nuse crate::top::room::inner::Inner;"));
    files.push(("top/room/inner.rs", "use super::Room;"));
    assert_eq!(cycles(&Tree::of(files)), ["in a circle: top::room, top::room::inner"]);
}

#[test]
fn a_planted_look_at_the_kernel_is_found() {
    for text in ["use std::fs::File;", "fn f() { Instant::now() }", "use std::net::TcpStream;"] {
        assert!(!kernel_on_pure_floors(&planted("base.rs", text)).is_empty(), "{text}");
    }
}

#[test]
fn a_planted_unsafe_is_found() {
    let tree = planted("top/low.rs", "fn f() {\n    unsafe { g() }\n}");
    assert_eq!(unsafe_outside_of_sys(&tree), ["src/top/low.rs:2: unsafe"]);
}

#[test]
fn a_planted_long_file_is_found_and_a_reason_that_is_none_too() {
    let text = "fn f() {}\n".repeat(LINES_MAX + 1);
    let tree = planted("top/low.rs", &text);
    assert_eq!(long_files(&tree, &[]).len(), 1);
    expect_none(&long_files(&tree, &[("top/low.rs", "a table")]));
    assert_eq!(long_files(&tree, &[("top/low.rs", ""), ("top/high.rs", "")]).len(), 1);
    let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{text}}}\n");
    expect_none(&long_files(&planted("top/low.rs", &tests), &[]));
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
    assert_eq!(expanded(&code[at[0] + 7..]), [vec!["base", "x"], vec!["http"]]);
    assert!(code.contains("const D"), "{code}");
    assert_eq!(code.matches('\n').count(), text.matches('\n').count());
}

//! The rules of the house, checked on the sources themselves: which layer may
//! know which, what the pure layers may not touch, how large files and functions
//! may be, and that every unsafe block says why it is sound.
//!
//! Each check is a function from a source text to complaints, and each is shown
//! to complain about a bad sample.

use std::fs;
use std::path::Path;

/// Each layer with those that its code (tests left out) may name beside itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("errno", &[]),
    ("rng", &[]),
    ("telemetry", &["time"]),
    ("arch", &[]),
    ("wire", &["time", "errno", "rng", "telemetry", "arch"]),
    ("frame", &["time", "errno", "rng", "telemetry", "arch", "wire"]),
    ("tcp", &["time", "errno", "rng", "telemetry", "arch", "wire", "frame"]),
    ("stack", &["time", "errno", "rng", "telemetry", "arch", "wire", "frame", "tcp"]),
    ("socket", &["time", "errno", "rng", "telemetry", "arch", "wire", "frame", "tcp", "stack"]),
    ("device", &["time", "errno", "rng", "telemetry", "frame"]),
    (
        "runtime",
        &[
            "time", "errno", "rng", "telemetry", "arch", "wire", "frame", "tcp", "stack", "socket",
            "device",
        ],
    ),
    (
        "ffi",
        &[
            "time", "errno", "rng", "telemetry", "arch", "wire", "frame", "tcp", "stack", "socket",
            "device", "runtime",
        ],
    ),
];

/// The layers without I/O, clock, thread or unsafe code.
const PURE: &[&str] = &["wire", "tcp", "stack", "socket"];

/// What a pure layer may not name, and why.
const IMPURE: &[(&str, &str)] = &[
    ("std::time", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("std::thread", "there are no threads"),
    ("thread_local!", "there are no threads"),
    ("std::fs", "there is no I/O"),
    ("std::process", "there is no I/O"),
    ("std::env", "configuration is an argument"),
    ("std::os", "there is no I/O"),
    ("TcpStream", "there is no I/O"),
    ("TcpListener", "there is no I/O"),
    ("UdpSocket", "there is no I/O"),
    ("UnixStream", "there is no I/O"),
    ("ToSocketAddrs", "there is no I/O"),
    ("println!", "there is no I/O"),
    ("print!", "there is no I/O"),
    ("Mutex", "a core's state has one owner"),
    ("RwLock", "a core's state has one owner"),
    ("Condvar", "there are no threads"),
    ("RefCell", "ownership is plain"),
    ("RandomState", "the same seed gives the same bytes"),
    ("std::collections::HashMap", "its order is random"),
    ("std::collections::HashSet", "its order is random"),
];

/// Where unsafe code may stand.
const UNSAFE: &[&str] =
    &["src/arch/", "src/frame/", "src/runtime/", "src/device/xdp/", "src/ffi/", "src/bin/ringroad/sys.rs"];

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;

/// A source file: its path from the package's root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The layer that the file belongs to, if it belongs to one.
    fn layer(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let name = rest.split('/').next()?;
        let name = name.strip_suffix(".rs").unwrap_or(name);
        LAYERS.iter().map(|(layer, _)| *layer).find(|layer| *layer == name)
    }

    /// True for files that hold nothing but tests.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or("");
        let tests = |part: &str| part == "tests" || part.ends_with("_tests");
        tests(name.trim_end_matches(".rs")) || self.path.split('/').any(tests)
    }

    /// The code with comments, strings and characters blanked out.
    fn code(&self) -> String {
        blank(&self.text)
    }

    /// As [`Source::code`], with test modules and test functions blanked out too.
    fn shipped(&self) -> String {
        if self.is_test() { String::new() } else { without_tests(&self.code()) }
    }
}

/// Replaces comments, strings and characters by spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let end = match bytes[i] {
            b'/' if bytes[i..].starts_with(b"//") => line_end(bytes, i),
            b'/' if bytes[i..].starts_with(b"/*") => comment_end(bytes, i),
            b'"' => string_end(bytes, i),
            b'r' if !is_word(out.last().copied()) && raw_hashes(bytes, i).is_some() => {
                raw_end(bytes, i)
            }
            b'\'' => char_end(bytes, i),
            _ => i,
        };
        if end == i {
            out.push(bytes[i]);
            i += 1;
        } else {
            out.extend(bytes[i..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            i = end;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| from + n)
}

fn comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut i) = (0, from);
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if bytes[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut i = from + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// The number of `#` of a raw string that begins here.
fn raw_hashes(bytes: &[u8], from: usize) -> Option<usize> {
    let hashes = bytes[from + 1..].iter().take_while(|b| **b == b'#').count();
    (bytes.get(from + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn raw_end(bytes: &[u8], from: usize) -> usize {
    let hashes = raw_hashes(bytes, from).unwrap_or(0);
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let start = from + 2 + hashes;
    let found = bytes[start..].windows(close.len()).position(|w| w == close);
    found.map_or(bytes.len(), |n| start + n + close.len())
}

/// The end of a character, or `from` where the quote begins a lifetime.
fn char_end(bytes: &[u8], from: usize) -> usize {
    match bytes.get(from + 1) {
        Some(b'\\') => {
            let after = bytes[from + 3..].iter().position(|b| *b == b'\'');
            after.map_or(bytes.len(), |n| from + 4 + n)
        }
        Some(first) => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            let closed = bytes.get(from + 1 + width) == Some(&b'\'');
            if closed { from + 2 + width } else { from }
        }
        None => from,
    }
}

/// The place behind the brace that closes the first one opened at or after `from`
/// (or behind a `;` that comes before any).
fn block_end(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (i, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return i + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return i + 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanks out what stands under `#[cfg(test)]` or `#[test]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_string();
    for mark in ["#[cfg(test)]", "#[cfg(all(test", "#[test]"] {
        while let Some(at) = out.find(mark) {
            let end = block_end(&out, at + mark.len());
            let blanked: String =
                out[at..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
            out.replace_range(at..end, &blanked);
        }
    }
    out
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Every place where `word` stands by itself.
fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).map(|i| code.as_bytes()[i]);
        let after = code.as_bytes().get(at + word.len()).copied();
        let edge = |byte, end: Option<char>| {
            !is_word(byte) || end.is_some_and(|c| !c.is_alphanumeric() && c != '_')
        };
        edge(before, word.chars().next()) && edge(after, word.chars().last())
    })
}

/// The names at the top of what `crate::` leads to: one, or those of a group.
fn crate_names(code: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for at in places(code, "crate::") {
        let rest = &code[at + "crate::".len()..];
        let ident = |s: &str| -> String {
            s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        let Some(group) = rest.strip_prefix('{') else {
            names.push((at, ident(rest)));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    names.push((at, ident(&group[start..i])));
                    start = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    names.retain(|(_, name)| !name.is_empty());
    names
}

fn check_imports(source: &Source) -> Vec<String> {
    let Some(layer) = source.layer() else { return Vec::new() };
    let (_, allowed) = LAYERS.iter().find(|(name, _)| *name == layer).expect("a layer of the table");
    let code = source.shipped();
    let known = |name: &str| LAYERS.iter().any(|(layer, _)| *layer == name);
    let wrong = crate_names(&code).into_iter().filter(|(_, name)| {
        name != layer && known(name) && !allowed.contains(&name.as_str())
    });
    wrong
        .map(|(at, name)| {
            format!("{}:{}: `{layer}` may not know `{name}`", source.path, line_of(&code, at))
        })
        .collect()
}

fn check_purity(source: &Source) -> Vec<String> {
    let Some(layer) = source.layer().filter(|layer| PURE.contains(layer)) else {
        return Vec::new();
    };
    let code = source.shipped();
    let mut wrong = Vec::new();
    for (word, why) in IMPURE {
        for at in places(&code, word) {
            let line = line_of(&code, at);
            wrong.push(format!("{}:{line}: `{word}` in `{layer}`: {why}", source.path));
        }
    }
    let root = source.path == format!("src/{layer}/mod.rs");
    if root && !source.text.contains("#![forbid(unsafe_code)]") {
        wrong.push(format!("{}: a pure layer forbids unsafe code", source.path));
    }
    wrong
}

fn check_unsafe(source: &Source) -> Vec<String> {
    let code = source.code();
    let lines: Vec<&str> = source.text.lines().collect();
    let mut wrong = Vec::new();
    for at in places(&code, "unsafe") {
        let rest = code[at + "unsafe".len()..].trim_start();
        let line = line_of(&code, at);
        let allowed = UNSAFE.iter().any(|path| source.path.starts_with(path));
        if !allowed && source.path.starts_with("src/") {
            wrong.push(format!("{}:{line}: unsafe code may not stand here", source.path));
        }
        if (rest.starts_with('{') || rest.starts_with("impl")) && !is_explained(&lines, line - 1) {
            wrong.push(format!("{}:{line}: unsafe without a SAFETY comment", source.path));
        }
    }
    wrong
}

/// True where a comment with `SAFETY:` ends right above the statement that the
/// line belongs to, or the line itself has it.
fn is_explained(lines: &[&str], line: usize) -> bool {
    if lines[line].contains("SAFETY:") {
        return true;
    }
    let mut i = line;
    while i > 0 {
        i -= 1;
        let text = lines[i].trim();
        if text.starts_with("//") {
            if text.contains("SAFETY:") {
                return true;
            }
            continue;
        }
        // Lines of the same statement, and attributes, may stand between.
        if text.is_empty() || text.ends_with([';', '{', '}']) {
            return false;
        }
    }
    false
}

fn check_sizes(source: &Source) -> Vec<String> {
    let code = source.shipped();
    let mut wrong = Vec::new();
    // The lines that are left when test modules are taken out.
    let tests: usize = lines_of_tests(source);
    let lines = source.text.lines().count() - tests;
    if !source.is_test() && lines > FILE_LINES {
        wrong.push(format!("{}: {lines} lines without tests, more than {FILE_LINES}", source.path));
    }
    for at in places(&code, "fn") {
        let name: String = code[at + 2..]
            .trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if name.is_empty() {
            continue; // a function pointer's type
        }
        let end = block_end(&code, at);
        let lines = code[at..end].matches('\n').count() + 1;
        if lines > FUNCTION_LINES {
            let line = line_of(&code, at);
            wrong.push(format!(
                "{}:{line}: `{name}` has {lines} lines, more than {FUNCTION_LINES}",
                source.path
            ));
        }
    }
    wrong
}

fn lines_of_tests(source: &Source) -> usize {
    let code = source.code();
    let kept = without_tests(&code);
    let filled = |text: &str| text.lines().map(|l| !l.trim().is_empty()).collect::<Vec<_>>();
    let (all, kept) = (filled(&code), filled(&kept));
    let Some(first) = all.iter().zip(&kept).position(|(a, k)| *a && !k) else { return 0 };
    let last = all.iter().zip(&kept).rposition(|(a, k)| *a && !k).unwrap_or(first);
    // Code that was kept between the first and the last line of tests counts.
    last + 1 - first - kept[first..=last].iter().filter(|k| **k).count()
}

fn check_unfinished(source: &Source) -> Vec<String> {
    let code = source.code();
    let mut wrong = Vec::new();
    for word in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
        for at in places(&code, word) {
            let line = line_of(&code, at);
            wrong.push(format!("{}:{line}: `{word}`", source.path));
        }
    }
    wrong
}

/// All Rust files of the package.
fn sources() -> Vec<Source> {
    fn collect(root: &Path, dir: &Path, all: &mut Vec<Source>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        let mut paths: Vec<_> = entries.map(|e| e.expect("a directory entry").path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                collect(root, &path, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy();
                let text = fs::read_to_string(&path).expect("a source file");
                all.push(Source::new(&name, &text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for dir in ["src", "tests", "benches", "examples"] {
        collect(root, &root.join(dir), &mut all);
    }
    all.push(Source::new("build.rs", &fs::read_to_string(root.join("build.rs")).expect("build.rs")));
    assert!(all.len() > 30, "the sources are there");
    all
}

fn run(check: fn(&Source) -> Vec<String>, from: &str) {
    let wrong: Vec<String> =
        sources().iter().filter(|s| s.path.starts_with(from)).flat_map(check).collect();
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn layers_know_only_those_below() {
    run(check_imports, "src/");
}

#[test]
fn every_module_of_the_library_is_in_the_table_of_layers() {
    let lib = sources().into_iter().find(|s| s.path == "src/lib.rs").expect("src/lib.rs");
    for at in places(&lib.code(), "mod") {
        let name: String = lib.text[at + 3..].trim().chars().take_while(|c| *c != ';').collect();
        assert!(LAYERS.iter().any(|(layer, _)| *layer == name), "`{name}` is in no layer");
    }
}

#[test]
fn pure_layers_are_pure() {
    run(check_purity, "src/");
}

#[test]
fn unsafe_code_stands_where_it_may_and_says_why() {
    run(check_unsafe, "");
}

#[test]
fn files_and_functions_can_be_held_in_the_head() {
    run(check_sizes, "src/");
}

#[test]
fn nothing_is_unfinished() {
    run(check_unfinished, "");
}

mod samples {
    use super::*;

    fn complaints(check: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
        check(&Source::new(path, text)).len()
    }

    #[test]
    fn an_import_from_above_is_noticed() {
        let check = |path, text| complaints(check_imports, path, text);
        assert_eq!(check("src/tcp/input.rs", "use crate::wire::tcp;"), 0);
        assert_eq!(check("src/tcp/input.rs", "use crate::stack::Core;"), 1);
        assert_eq!(check("src/tcp/input.rs", "fn f() { crate::socket::g() }"), 1);
        assert_eq!(check("src/wire/tcp.rs", "use crate::{telemetry::{A, B}, frame::Frame};"), 1);
        assert_eq!(check("src/time.rs", "pub use crate::rng::Rng;"), 1);
        assert_eq!(check("src/device/mod.rs", "use crate::wire::ipv4;"), 1);
        assert_eq!(check("src/tcp/input.rs", "// as crate::stack does\nuse crate::tcp::seq;"), 0);
        let in_test = "#[cfg(test)]\nmod tests { use crate::stack::Core; }\nuse crate::frame::Frame;";
        assert_eq!(check("src/tcp/input.rs", in_test), 0);
    }

    #[test]
    fn impurity_is_noticed() {
        let check = |path, text| complaints(check_purity, path, text);
        assert_eq!(check("src/stack/core.rs", "use std::time::Instant;"), 1);
        assert_eq!(check("src/socket/tcp.rs", "use std::net::{IpAddr, TcpStream};"), 1);
        assert_eq!(check("src/socket/tcp.rs", "fn f() { std::thread::yield_now() }"), 1);
        assert_eq!(check("src/stack/core.rs", "use std::collections::HashMap;"), 1);
        assert_eq!(check("src/stack/core.rs", "use hashbrown::HashMap; use std::net::IpAddr;"), 0);
        assert_eq!(check("src/stack/core.rs", "let text = \"std::time\"; // std::fs"), 0);
        assert_eq!(check("src/runtime/worker.rs", "use std::time::Instant;"), 0);
        assert_eq!(check("src/tcp/mod.rs", "//! TCP.\nmod seq;"), 1);
        assert_eq!(check("src/tcp/mod.rs", "//! TCP.\n#![forbid(unsafe_code)]\nmod seq;"), 0);
    }

    #[test]
    fn unexplained_or_misplaced_unsafe_code_is_noticed() {
        let check = |path, text| complaints(check_unsafe, path, text);
        let good = "// SAFETY: it is.\nlet x =\n    unsafe { f() };";
        assert_eq!(check("src/arch/x86.rs", good), 0);
        assert_eq!(check("src/arch/x86.rs", "let x = unsafe { f() };"), 1);
        assert_eq!(check("src/arch/x86.rs", "// SAFETY: far away.\nlet y = 1;\nunsafe { f() };"), 1);
        assert_eq!(check("src/arch/x86.rs", "unsafe impl Send for X {}"), 1);
        assert_eq!(check("src/arch/x86.rs", "// SAFETY: two\n// lines.\nunsafe impl Send for X {}"), 0);
        assert_eq!(check("src/tcp/input.rs", good), 1);
        assert_eq!(check("src/tcp/input.rs", "#![forbid(unsafe_code)]"), 0);
    }

    #[test]
    fn size_is_noticed() {
        let check = |text: &str| complaints(check_sizes, "src/tcp/input.rs", text);
        let long_file = "const A: u8 = 1;\n".repeat(FILE_LINES + 1);
        assert_eq!(check(&long_file), 1);
        assert_eq!(check(&"const A: u8 = 1;\n".repeat(FILE_LINES)), 0);
        let body = |n: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(n));
        assert_eq!(check(&body(FUNCTION_LINES - 2)), 0);
        assert_eq!(check(&body(FUNCTION_LINES - 1)), 1);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", body(FILE_LINES));
        assert_eq!(check(&tests), 0);
        let commented = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// x\ng();\n".repeat(FILE_LINES));
        assert_eq!(check(&commented), 0);
    }

    #[test]
    fn unfinished_work_is_noticed() {
        let check = |text| complaints(check_unfinished, "tests/sim.rs", text);
        assert_eq!(check("fn f() { todo!() }"), 1);
        assert_eq!(check("fn f() { unimplemented!(\"later\") }"), 1);
        assert_eq!(check("#[test]\n#[ignore]\nfn f() {}"), 1);
        assert_eq!(check("#[ignore = \"slow\"]\nfn f() {}"), 1);
        assert_eq!(check("// todo!()\nlet x = \"todo!()\";"), 0);
    }

    #[test]
    fn strings_comments_and_characters_are_blanked() {
        let blanked = |text: &str| {
            let out = blank(text);
            assert_eq!(out.len(), text.len());
            out.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(blanked("a /* b /* c */ d */ e"), "a e");
        assert_eq!(blanked(r#"a "b \" c" d"#), "a d");
        assert_eq!(blanked("a r#\"b \" c\"# d"), "a d");
        assert_eq!(blanked("for<'a> fn('\\'', '\"', 'x') 'b: {"), "for<'a> fn( , , ) 'b: {");
        assert_eq!(blanked("x // y\nz"), "x z");
    }
}

//! The tables of conformance (docs/rfc*.md) are checked: every code and test that
//! they name is there, tests are tests, no requirement is missing, and the summary
//! (docs/conformance.md) counts what the tables say.

use ringroad::tcp::{Config, ConnOptions};
use ringroad::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const RFCS: &[&str] = &["9293", "5961", "7323", "6298", "8985"];
/// RFC 9293, appendix B.
const IDENTIFIERS: &[(&str, usize)] = &[("MUST", 69), ("SHLD", 31), ("MAY", 18)];

fn read(path: &str) -> String {
    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&full).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A row of a table.
#[derive(Debug)]
struct Row {
    id: String,
    done: bool,
    code: Vec<(String, String)>,
    tests: Vec<(String, String)>,
}

/// The `file#name` in a cell.
fn names(cell: &str) -> Vec<(String, String)> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted
        .map(|text| {
            let (path, name) = text.split_once('#').unwrap_or_else(|| panic!("`{text}`: file#name"));
            let below = if path.starts_with("tests/") { "" } else { "src/" };
            (format!("{below}{path}"), name.to_string())
        })
        .collect()
}

fn rows(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|l| l.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, _, done, code, tests] = cells[..] else { continue };
        if id == "requirement" || id.starts_with("---") {
            continue;
        }
        rows.push(Row {
            id: id.to_string(),
            done: done.starts_with("yes"),
            code: names(code.trim_matches('|')),
            tests: names(tests.trim_matches('|')),
        });
    }
    rows
}

fn table(rfc: &str) -> Vec<Row> {
    let rows = rows(&read(&format!("docs/rfc{rfc}.md")));
    assert!(rows.len() >= 10, "docs/rfc{rfc}.md has a table");
    rows
}

/// True where `text` defines something of this name.
fn defines(text: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    ["fn ", "const ", "pub ", "struct ", "enum "].iter().any(|kind| {
        let start = format!("{kind}{name}");
        text.match_indices(&start).any(|(at, _)| !text[at + start.len()..].starts_with(word))
    })
}

/// True where `text` has a test of this name.
fn tests(text: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else { return false };
    text[..at].trim_end().ends_with("#[test]")
}

#[test]
fn everything_that_the_tables_name_is_there() {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for rfc in RFCS {
        for row in table(rfc) {
            let mut check = |(path, name): &(String, String), is: fn(&str, &str) -> bool, what| {
                let text = texts.entry(path.clone()).or_insert_with(|| {
                    let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
                    fs::read_to_string(full).unwrap_or_default()
                });
                if !is(text, name) {
                    wrong.push(format!("RFC {rfc}, {}: {path} has no {what} {name}", row.id));
                }
            };
            row.code.iter().for_each(|n| check(n, defines, "item"));
            row.tests.iter().for_each(|n| check(n, tests, "test"));
            if row.done && (row.code.is_empty() || row.tests.is_empty()) {
                wrong.push(format!("RFC {rfc}, {}: done, but without code or test", row.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_requirement_is_missing_and_none_is_there_twice() {
    for rfc in RFCS {
        let ids: Vec<String> = table(rfc).into_iter().map(|r| r.id).collect();
        for (i, id) in ids.iter().enumerate() {
            assert!(!ids[..i].contains(id), "RFC {rfc}: {id} is there twice");
        }
    }
    let ids: Vec<String> = table("9293").into_iter().map(|r| r.id).collect();
    let mut expected = Vec::new();
    for (kind, count) in IDENTIFIERS {
        expected.extend((1..=*count).map(|n| format!("{kind}-{n}")));
    }
    assert_eq!(ids, expected);
}

#[test]
fn the_summary_counts_what_the_tables_say() {
    let summary = read("docs/conformance.md");
    let mut lines = Vec::new();
    for (kind, all) in IDENTIFIERS {
        let done = table("9293").iter().filter(|r| r.done && r.id.starts_with(kind)).count();
        lines.push(format!("RFC 9293, {kind}: {done} of {all}"));
        if *kind == "SHLD" {
            assert!(done >= 27, "{done} of {all}");
        }
    }
    for rfc in &RFCS[1..] {
        let rows = table(rfc);
        let done = rows.iter().filter(|r| r.done).count();
        lines.push(format!("RFC {rfc}: {done} of {}", rows.len()));
    }
    for line in lines {
        assert!(summary.contains(&line), "docs/conformance.md says not: {line}");
    }
}

#[test]
fn bad_tables_are_noticed() {
    let good = "| MUST-1 | what | yes | `tcp/a.rs#f` | `tests/b.rs#g`, `tcp/c.rs#h` |";
    let row = &rows(good)[0];
    assert!(row.done && row.id == "MUST-1");
    assert_eq!(row.code, [("src/tcp/a.rs".into(), "f".into())]);
    assert_eq!(row.tests[0], ("tests/b.rs".into(), "g".into()));
    assert_eq!(row.tests.len(), 2);
    assert!(!rows("| MUST-1 | what | no: why |  |  |")[0].done);
    assert!(defines("pub fn flush(&self)", "flush") && !defines("fn flush_all()", "flush"));
    assert!(defines("    pub retries: u8,", "retries"));
    assert!(tests("#[test]\nfn it_does() {}", "it_does") && !tests("fn it_does() {}", "it_does"));
}

#[test]
fn defaults_are_those_of_the_tables() {
    let (config, options) = (Config::default(), ConnOptions::default());
    assert!(!options.keepalive, "MUST-25");
    assert!(options.keep_idle >= 7200, "MUST-28");
    assert!(config.delayed_ack < Duration::from_millis(500), "MUST-40");
    assert!(!options.nodelay, "SHLD-7");
    assert!(config.max_rto >= Duration::from_secs(60), "RFC 6298, 2.5");
    assert_eq!(config.initial_rto, Duration::from_secs(1), "RFC 6298, 2.1");
    // MUST-23: a SYN is sent again for 3 minutes at least, the RTO doubling.
    let waits = (0..=u32::from(config.syn_retries)).map(|n| 1u64 << n.min(6));
    assert!(waits.sum::<u64>() >= 180, "MUST-23");
}

#[test]
fn programs_of_ours_send_no_urgent_data_and_leave_diffserv_alone() {
    // SHLD-13, SHLD-23: what is meant to be read as an example.
    let mut seen = 0;
    for dir in ["examples", "src/bin/ringroad"] {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).expect(dir) {
            let path = entry.expect("an entry").path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            seen += 1;
            for word in ["MSG_OOB", "IP_TOS"] {
                assert!(!text.contains(word), "{} uses {word}", path.display());
            }
        }
    }
    assert!(seen > 3, "there are programs");
}

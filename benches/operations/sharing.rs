//! Whether two workers write to one cache line while both serve, or one reads what the
//! other writes: valgrind's lackey tells of every load and store, and of every change of
//! threads.
//!
//! From the time when both have warmed up until one is done, each line of 64 bytes that a
//! worker loads from or stores to is noted with the worker's thread. Atomic operations are stores, too.
//! What the kernel writes is not seen, and what is done aside (`baton.rs`) is not noted.

use crate::baton;
use crate::worker::{self, Job, Serves};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

const BYTES: u64 = 64;
const BEGINS: &str = "marks ";

/// What is watched. Where packets come to the wrong queue lines have to be found that one
/// writes and the other reads, and in the control one that both write to.
const WATCHED: [(&str, Job); 4] = [
    ("tcp-echo", job(Serves::Streams)),
    ("udp-echo", job(Serves::Datagrams)),
    (HANDED_OVER, Job { crossed: true, ..job(Serves::Streams) }),
    (CONTROL, Job { spoil: true, ..job(Serves::Streams) }),
];
const HANDED_OVER: &str = "handed-over";
const CONTROL: &str = "spoilt";

const fn job(serves: Serves) -> Job {
    // Not many more frames than TCP wants for its short ways: clearing them is told of, too.
    Job { serves, workers: 2, warm: 50, steps: 150, frames: 512, crossed: false, spoil: false }
}

/// What was seen of a line: who stored to it, and who looked at it, by which instruction
/// first.
#[derive(Default)]
struct Line {
    writers: BTreeMap<u32, u64>,
    readers: BTreeMap<u32, u64>,
}

impl Line {
    /// One writes to it and the other reads it: by this, something goes from core to core.
    fn is_passed(&self) -> bool {
        self.writers.len() == 1 && self.readers.keys().any(|reader| !self.writers.contains_key(reader))
    }
}

#[derive(Default)]
struct Seen {
    lines: HashMap<u64, Line>,
    stores: u64,
}

fn hex(text: &[u8]) -> Option<u64> {
    let digits = text.iter().skip_while(|c| **c == b' ').take_while(|c| c.is_ascii_hexdigit());
    digits.map(|c| (*c as char).to_digit(16)).try_fold(0, |n, digit| Some(n << 4 | u64::from(digit?)))
}

/// Reads what the program says of its marks, and then what lackey says of the program.
fn read(from: impl BufRead) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let mut marks: Option<[u64; 4]> = None;
    let (mut thread, mut code) = (1, 0);
    let (mut playing, mut warm) = (BTreeSet::new(), BTreeSet::new());
    let mut said = Vec::new();
    for line in from.split(b'\n') {
        let line = line.map_err(|e| e.to_string())?;
        // "I  0401f2a0,3", " S 1ffeffe7e8,8", " M 0421f3e8,4", "--7--   SCHED[2]:  acquired lock"
        match (line.get(..3), marks) {
            (Some(b"I  "), _) => code = hex(&line[3..]).unwrap_or(0),
            (Some(b" L "), _) => {
                if warm.len() == 2 && playing.contains(&thread) {
                    let at = hex(&line[3..]).unwrap_or(0);
                    seen.lines.entry(at / BYTES).or_default().readers.entry(thread).or_insert(code);
                }
            }
            (Some(b" S " | b" M "), Some([taken, given, first, last])) => {
                let at = hex(&line[3..]).unwrap_or(0);
                if at == taken {
                    playing.insert(thread);
                } else if at == given {
                    playing.remove(&thread);
                } else if at == first {
                    warm.insert(thread);
                } else if at == last {
                    return Ok(seen);
                } else if warm.len() == 2 && playing.contains(&thread) {
                    seen.stores += 1;
                    seen.lines.entry(at / BYTES).or_default().writers.entry(thread).or_insert(code);
                }
            }
            (Some(b" S " | b" M "), _) => {}
            _ => {
                let text = String::from_utf8_lossy(&line);
                if let Some((_, of)) = text.split_once("SCHED[") {
                    thread = of.split(']').next().and_then(|n| n.parse().ok()).unwrap_or(thread);
                } else if let Some(at) = text.strip_prefix(BEGINS) {
                    let at: Vec<u64> = at.split(' ').filter_map(|n| n.parse().ok()).collect();
                    marks = Some(at.try_into().map_err(|_| format!("it said {text:?}"))?);
                } else if said.len() < 40 {
                    said.push(text.into_owned());
                }
            }
        }
    }
    Err(format!("it did not come to its end:\n{}", said.join("\n")))
}

/// Watches one of them: the lines that both workers write to, in words.
fn watch(name: &str) -> Result<Vec<String>, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new("valgrind");
    // The same environment everywhere (one of malloc's might join the threads' arenas);
    // and no files for a debugger, which would stay when it is killed.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(["--tool=lackey", "--vgdb=no", "--trace-mem=yes", "--trace-sched=yes"]).arg(me).args(["shared", name]);
    // Memory is cleared by wide stores, not byte by byte, each of which would be told of.
    command.env("GLIBC_TUNABLES", format!("glibc.cpu.x86_rep_stosb_threshold={}", 1 << 30));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(|e| format!("valgrind: {e}"))?;
    let seen = read(BufReader::with_capacity(1 << 20, child.stderr.take().expect("piped")));
    let _ = child.kill();
    let _ = child.wait();
    let Seen { lines, stores } = seen?;
    let threads: BTreeSet<u32> = lines.values().flat_map(|line| line.writers.keys().copied()).collect();
    if threads.len() != 2 {
        return Err(format!("not two workers, but the threads {threads:?} wrote something"));
    }
    let written = lines.values().filter(|line| !line.writers.is_empty()).count();
    let passed = lines.values().filter(|line| line.is_passed()).count();
    println!("sharing: {name}: {stores} stores of two workers to {written} lines; the other one reads {passed} of them");
    if (name == HANDED_OVER) != (passed > 0) {
        for (line, Line { writers, readers }) in lines.iter().filter(|(_, line)| line.is_passed()) {
            println!("sharing: {name}: {:#x} is written by {writers:x?} and read by {readers:x?}", line * BYTES);
        }
        return Err(format!("{passed} lines are written by one and read by the other"));
    }
    let shared = lines.iter().filter(|(_, line)| line.writers.len() > 1).map(|(line, Line { writers, .. })| {
        let by: Vec<String> = writers.iter().map(|(thread, code)| format!("{thread} at {code:#x}")).collect();
        format!("the line {:#x} is written by the threads {}", line * BYTES, by.join(" and "))
    });
    Ok(shared.collect())
}

/// Watches all: each that is no control has no such line, and that has one.
pub fn run() -> ExitCode {
    let well = std::thread::scope(|scope| {
        let watches = WATCHED.map(|(name, _)| (name, scope.spawn(move || watch(name))));
        let well = watches.map(|(name, watch)| match watch.join().expect("no panic") {
            Err(why) => {
                println!("sharing: {name}: {why}");
                false
            }
            Ok(shared) if name == CONTROL => {
                if shared.len() != 1 {
                    println!("sharing: {} lines were found, not the one that is written by both on purpose", shared.len());
                }
                shared.len() == 1
            }
            Ok(shared) => {
                shared.iter().for_each(|line| println!("sharing: {name}: {line}"));
                shared.is_empty()
            }
        });
        well.iter().all(|well| *well)
    });
    if !well {
        return ExitCode::FAILURE;
    }
    println!("sharing: no cache line is written by both workers, but the one that is on purpose");
    ExitCode::SUCCESS
}

/// The program that is watched.
pub fn serve(name: &str) -> ExitCode {
    let Some((_, job)) = WATCHED.iter().find(|(watched, _)| *watched == name) else {
        eprintln!("operations: there is no {name} on two workers");
        return ExitCode::FAILURE;
    };
    let marks = baton::marks().map(|mark| mark.to_string()).join(" ");
    // At once, as lackey writes to the same place.
    let told = std::io::stderr().write_all(format!("{BEGINS}{marks}\n").as_bytes());
    if told.is_err() {
        return ExitCode::FAILURE;
    }
    worker::run(*job);
    ExitCode::SUCCESS
}

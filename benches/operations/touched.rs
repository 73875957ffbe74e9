//! Which cache lines of a connection's place an echo touches, and whether they are those
//! that are asked for ahead where there are many connections: valgrind's lackey tells of
//! every load and store. What is touched beyond them would come from memory late, and what
//! is not touched would come in vain.

use crate::baton::{self, Mark};
use crate::meter::{Meter, Operation};
use crate::tcp::Echo;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

const BYTES: usize = 64;
const BEGINS: &str = "place ";
const WARM: u64 = 200;
/// More than lie between two looks at the receive buffer, which come now and then.
const ECHOES: u64 = 400;

/// What was seen of a line.
#[derive(Clone, Copy, Default)]
struct Line {
    loads: u64,
    stores: u64,
    /// A bit for each byte that was touched.
    bytes: u64,
}

#[derive(Clone, Copy)]
struct Watched {
    first: usize,
    last: usize,
    /// Where the place begins, how long it is, and how much of it is asked for ahead.
    at: usize,
    len: usize,
    warm: usize,
}

impl Watched {
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.strip_prefix(BEGINS)?.split(' ').map(|n| n.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { first: next()?, last: next()?, at: next()?, len: next()?, warm: next()? })
    }
}

/// " L 0421f3e8,8": where, and how many bytes.
fn access(text: &str) -> Option<(usize, usize)> {
    let (at, len) = text.get(3..)?.split_once(',')?;
    Some((usize::from_str_radix(at.trim(), 16).ok()?, len.trim().parse().ok()?))
}

fn read(from: impl BufRead) -> Result<(Watched, BTreeMap<usize, Line>), String> {
    let mut watched: Option<Watched> = None;
    let (mut lines, mut on) = (BTreeMap::<usize, Line>::new(), false);
    for text in from.lines() {
        let text = text.map_err(|e| e.to_string())?;
        let kind = text.get(..3).unwrap_or("");
        let Some(w) = watched else {
            watched = Watched::parse(&text);
            continue;
        };
        let (" L " | " S " | " M ") = kind else { continue };
        let Some((at, len)) = access(&text) else { continue };
        if at == w.first {
            on = true;
        } else if at == w.last {
            return Ok((w, lines));
        } else if on {
            for byte in (at..at + len).filter(|byte| (w.at..w.at + w.len).contains(byte)) {
                let line = lines.entry((byte - w.at) / BYTES).or_default();
                line.bytes |= 1 << ((byte - w.at) % BYTES);
                if byte == at || (byte - w.at) % BYTES == 0 {
                    line.loads += u64::from(kind != " S ");
                    line.stores += u64::from(kind != " L ");
                }
            }
        }
    }
    Err("the program did not come to its end".into())
}

/// The bytes, as ranges of offsets in the place.
fn ranges(line: usize, bytes: u64) -> String {
    let mut out = String::new();
    let mut at = 0;
    while at < BYTES {
        let run = (bytes >> at).trailing_ones() as usize;
        if run > 0 {
            out += &format!(" {}-{}", line * BYTES + at, line * BYTES + at + run - 1);
        }
        at += run.max(1);
    }
    out
}

fn watch() -> Result<bool, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=lackey", "--vgdb=no", "--trace-mem=yes"]).arg(me).arg("touch");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(|e| format!("valgrind: {e}"))?;
    let seen = read(BufReader::with_capacity(1 << 20, child.stderr.take().expect("piped")));
    let _ = child.kill();
    let _ = child.wait();
    let (watched, lines) = seen?;
    println!("| line | loads | stores | bytes | which |\n| ---: | ---: | ---: | ---: | --- |");
    for (&line, seen) in &lines {
        let (loads, stores) = (seen.loads as f64 / ECHOES as f64, seen.stores as f64 / ECHOES as f64);
        println!("| {line} | {loads:.2} | {stores:.2} | {} |{} |", seen.bytes.count_ones(), ranges(line, seen.bytes));
    }
    let asked = watched.warm.div_ceil(BYTES);
    // What is seldom touched need not come with each.
    let often = |seen: &Line| seen.loads.max(seen.stores) >= ECHOES / 2;
    let touched: Vec<usize> = lines.iter().filter(|(_, seen)| often(seen)).map(|(&line, _)| line).collect();
    println!("lines: an echo touches {} of a connection's lines, and {asked} are asked for ahead", touched.len());
    Ok(touched.into_iter().eq(0..asked))
}

/// Watches: false where other lines are touched than those that are asked for.
pub fn run() -> ExitCode {
    match watch() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("lines: those are not the same");
            ExitCode::FAILURE
        }
        Err(why) => {
            println!("lines: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The program that is watched: echoes on the near end's one connection.
pub fn touch() -> ExitCode {
    let mut echo = Echo::new(true);
    let mut meter = Meter::default();
    for _ in 0..WARM {
        echo.step(&mut meter);
    }
    let [_, _, first, last] = baton::marks();
    let (place, warm) = echo.place();
    let told = format!("{BEGINS}{first} {last} {} {} {warm}\n", place.start, place.len());
    // At once, as lackey writes to the same place.
    if std::io::stderr().write_all(told.as_bytes()).is_err() {
        return ExitCode::FAILURE;
    }
    baton::mark(Mark::First);
    for _ in 0..ECHOES {
        echo.step(&mut meter);
    }
    baton::mark(Mark::Last);
    ExitCode::SUCCESS
}

//! Runs every operation under callgrind and holds the counts against the
//! committed ones.

use crate::{COMPANY, EMPTY, ENTRIES, Entry, IN_COMPANY, Run};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;

/// By how much a count may differ from the committed one, as a part of it.
const LEEWAY: f64 = 0.03;

#[derive(Args)]
pub struct Options {
    /// The committed numbers
    #[arg(long, default_value = "benches/counts.json")]
    file: PathBuf,
    /// Write what is counted to the file instead of comparing
    #[arg(long)]
    write: bool,
    /// Only operations with one of these in their names; the others keep their numbers
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Count so often, and print the spread of each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// What is committed.
#[derive(Default, Serialize, Deserialize, PartialEq, Debug)]
struct Counts {
    /// What else the numbers depend on.
    made_with: BTreeMap<String, String>,
    /// Instructions of each operation, once.
    instructions: BTreeMap<String, f64>,
}

/// How one operation stands.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Verdict {
    Same,
    /// More than the leeway above the committed number.
    Above,
    /// More than the leeway below it: the committed number hides the next growth.
    Below,
    /// Not committed.
    New,
}

fn verdict(now: f64, committed: Option<f64>) -> Verdict {
    match committed {
        None => Verdict::New,
        Some(then) if now > then * (1.0 + LEEWAY) => Verdict::Above,
        Some(then) if now < then * (1.0 - LEEWAY) => Verdict::Below,
        Some(_) => Verdict::Same,
    }
}

/// A folder for callgrind's files, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(entry: &Entry) -> Result<Self, String> {
        let name = format!("ringroad-counts-{}-{}", std::process::id(), entry.name.replace('/', "-"));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self(path))
    }

    /// The total of the file whose name begins so.
    fn total(&self, begins: &str) -> Result<f64, String> {
        let mut files = std::fs::read_dir(&self.0).map_err(|e| e.to_string())?.flatten();
        let file = files.find(|f| f.file_name().to_string_lossy().starts_with(begins));
        let file = file.ok_or("callgrind wrote no such file: a function that it is told of is missing")?;
        let text = std::fs::read_to_string(file.path()).map_err(|e| e.to_string())?;
        let line = text.lines().rev().find_map(|l| l.strip_prefix("totals: "));
        line.and_then(|l| l.trim().parse().ok()).ok_or("callgrind wrote no total".into())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What callgrind is told of an operation, and how the names of the files begin
/// that have its count together.
fn marks(entry: &Entry) -> (&'static [&'static str], &'static [&'static str]) {
    match entry.run {
        Run::Metered(_) => (&["--toggle-collect=*meter::metered*"], &["out"]),
        // From one function to the other, but not in the third, and of a worker's thread
        // alone; each of them writes a file. `--toggle-collect` switches collecting off to begin with, so
        // the order matters.
        Run::Worker(_, workers) => (
            &[
                "--toggle-collect=*worker::apart*",
                "--collect-atstart=yes",
                "--zero-before=*worker::first_turn*",
                "--dump-before=*worker::last_turn*",
                "--separate-threads=yes",
            ],
            &["out.1-", "out.2-", "out.3-", "out.4-"][..workers],
        ),
    }
}

/// What was collected while an operation was done, how often it was done, and the
/// calls of the meter.
fn collect(entry: &Entry) -> Result<[f64; 3], String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = Folder::new(entry)?;
    let (marks, begins) = marks(entry);
    let mut command = Command::new("valgrind");
    // The same environment everywhere: it lies on the stack.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}/out", folder.0.display())).args(marks);
    let Output { status, stdout, stderr } =
        command.arg(me).args(["run", entry.name]).output().map_err(|e| format!("valgrind: {e}"))?;
    if !status.success() {
        return Err(String::from_utf8_lossy(&stderr).into_owned());
    }
    let said = String::from_utf8_lossy(&stdout);
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let &[done, calls] = numbers.as_slice() else { return Err(format!("it said {said:?}")) };
    let collected: f64 = begins.iter().map(|begins| folder.total(begins)).sum::<Result<f64, String>>()?;
    if collected == 0.0 {
        return Err("callgrind collected nothing: a function that it is told of is missing".into());
    }
    Ok([collected, done, calls])
}

/// Counts these operations, as many at a time as there are processors.
fn count(entries: &[&Entry]) -> Result<BTreeMap<String, f64>, String> {
    let todo = Mutex::new(entries.iter());
    let found = Mutex::new(BTreeMap::new());
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(entry) = todo.lock().expect("no panic").next() else { return };
                    match collect(entry) {
                        Ok(numbers) => {
                            found.lock().expect("no panic").insert(entry.name, numbers);
                        }
                        Err(why) => failed.lock().expect("no panic").push(format!("{}: {why}", entry.name)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    if !failed.is_empty() {
        return Err(failed.join("\n"));
    }
    let found = found.into_inner().expect("no panic");
    let [collected, done, _] = found.get(EMPTY).ok_or("the empty run is missing")?;
    let marking = collected / done;
    let net = |[collected, done, calls]: [f64; 3]| {
        let each = (collected - calls * marking) / done;
        (each * 10.0).round() / 10.0
    };
    Ok(found.into_iter().filter(|(name, _)| *name != EMPTY).map(|(name, n)| (name.into(), net(n))).collect())
}

fn first_line(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn made_with() -> BTreeMap<String, String> {
    // What the vector units add up, callgrind counts; it knows none beyond AVX2.
    #[cfg(target_arch = "x86_64")]
    let vectors = if is_x86_feature_detected!("avx2") { "x86_64, AVX2" } else { "x86_64, no AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = std::env::consts::ARCH;
    let all = [
        ("rustc", first_line("rustc", "--version")),
        ("libc", first_line("ldd", "--version")),
        ("valgrind", first_line("valgrind", "--version")),
        ("processor", vectors.to_owned()),
    ];
    all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// The first round's counts, and how far apart the rounds were.
struct Rounds {
    counts: BTreeMap<String, f64>,
    spread: BTreeMap<String, f64>,
}

fn rounds(entries: &[&Entry], rounds: u32) -> Result<Rounds, String> {
    let counts = count(entries)?;
    let (mut low, mut high) = (counts.clone(), counts.clone());
    for _ in 1..rounds {
        for (name, n) in count(entries)? {
            low.entry(name.clone()).and_modify(|l| *l = l.min(n));
            high.entry(name).and_modify(|h| *h = h.max(n));
        }
    }
    let spread = low.iter().map(|(name, l)| (name.clone(), (high[name] - l) / l)).collect();
    Ok(Rounds { counts, spread })
}

fn table(rounds: &Rounds, committed: &Counts, shown: bool) {
    println!("| operation | | instructions | committed | change |{}", if shown { " spread |" } else { "" });
    println!("| --- | --- | ---: | ---: | ---: |{}", if shown { " ---: |" } else { "" });
    for entry in ENTRIES {
        let Some(&now) = rounds.counts.get(entry.name) else { continue };
        let then = committed.instructions.get(entry.name);
        let change = then.map_or("new".into(), |t| format!("{:+.1} %", (now / t - 1.0) * 100.0));
        let then = then.map_or(String::new(), |t| format!("{t:.1}"));
        let spread = if shown { format!(" {:.2} % |", rounds.spread[entry.name] * 100.0) } else { String::new() };
        println!("| {} | {} | {now:.1} | {then} | {change} |{spread}", entry.name, entry.what);
    }
}

/// Says what is wrong; true where nothing is that has to be mended.
fn judge(counts: &BTreeMap<String, f64>, committed: &Counts) -> bool {
    let mut well = true;
    for (name, &now) in counts {
        let then = committed.instructions.get(name).copied();
        match verdict(now, then) {
            Verdict::Same => {}
            Verdict::Above => {
                well = false;
                println!("counts: {name} takes more than {:.0} % more instructions than committed", LEEWAY * 100.0);
            }
            Verdict::Below => println!(
                "counts: {name} takes more than {:.0} % fewer than committed: write it down (scripts/counts --write)",
                LEEWAY * 100.0
            ),
            Verdict::New => {
                well = false;
                println!("counts: {name} is not committed");
            }
        }
    }
    let count = |name: &str| counts.get(name).or(committed.instructions.get(name)).copied();
    for (beside, alone) in IN_COMPANY {
        let counted = counts.contains_key(beside) || counts.contains_key(alone);
        if counted && let (Some(beside_n), Some(alone_n)) = (count(beside), count(alone)) && beside_n > alone_n * (1.0 + COMPANY) {
            well = false;
            println!("counts: {beside} takes {beside_n:.1}, which is more than {:.0} % more than {alone}", COMPANY * 100.0);
        }
    }
    for (what, here) in made_with() {
        let there = committed.made_with.get(&what).map_or("unknown", String::as_str);
        if here != there {
            println!("counts: {what} is {here}; the numbers were made with {there}, which may be the difference");
        }
    }
    if !well {
        println!("counts: where the growth is meant, commit new numbers with it: scripts/counts --write");
    }
    well
}

fn read(file: &Path) -> Result<Counts, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))
}

fn write(file: &Path, old: Counts, counts: BTreeMap<String, f64>) -> Result<(), String> {
    let mut new = Counts { made_with: made_with(), instructions: counts };
    for (name, n) in old.instructions {
        if ENTRIES.iter().any(|e| e.name == name) {
            new.instructions.entry(name).or_insert(n);
        }
    }
    let text = serde_json::to_string_pretty(&new).map_err(|e| e.to_string())? + "\n";
    std::fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}

fn gate(options: &Options) -> Result<bool, String> {
    let wanted = |e: &&Entry| options.only.is_empty() || options.only.iter().any(|part| e.name.contains(part));
    let mut entries: Vec<&Entry> = ENTRIES.iter().filter(wanted).filter(|e| e.name != EMPTY).collect();
    if entries.is_empty() {
        return Err("there is no such operation".into());
    }
    entries.extend(ENTRIES.iter().find(|e| e.name == EMPTY));
    let committed = match read(&options.file) {
        Err(_) if options.write && !options.file.exists() => Counts::default(),
        read => read?,
    };
    let found = rounds(&entries, options.rounds)?;
    table(&found, &committed, options.rounds > 1);
    if options.write {
        write(&options.file, committed, found.counts)?;
        println!("counts: written to {}", options.file.display());
        return Ok(true);
    }
    Ok(judge(&found.counts, &committed))
}

pub fn run(options: &Options) -> ExitCode {
    match gate(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("counts: {why}");
            ExitCode::FAILURE
        }
    }
}

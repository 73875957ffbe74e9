//! How long an interface's interrupts are put off (`napi_defer_hard_irqs`,
//! `gro_flush_timeout`): set while somebody polls it, and put back.
//!
//! What was there before is written to a note first, one for each interface. Who
//! uses an interface holds a shared lock on its note; the first one notes and sets,
//! the last one puts back. A killed process loses its lock, but its note stays: the
//! next one to start on the interface takes what was there before from it. A value
//! that somebody else changed meanwhile is left as it is.
//!
//! Who begins, ends or only looks has the notes' directory locked meanwhile: a note
//! that is locked then is one that is in use. No lock is waited for without an end, and
//! each is unlocked before it is closed: a forked child shares the open file, and would
//! keep the lock as long as it lives.

use crate::device::xdp::Interface;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// What is set, in this order.
const NAMES: [&str; 2] = ["napi_defer_hard_irqs", "gro_flush_timeout"];
/// So often a note is looked at again that somebody has locked for himself, a second at
/// least: nobody should.
const TRIES: u32 = 1000;
/// So often is looked again where one and the same other is beginning or ending, half a
/// minute at least: what he writes takes the kernel's lock of all interfaces, or a disk's
/// time, and either may be long in coming.
const PATIENCE: u32 = 30_000;
const PAUSE: Duration = Duration::from_millis(1);

/// Where the values and the notes are.
#[derive(Clone, Debug)]
pub struct Places {
    /// A directory for each interface, as `/sys/class/net`.
    pub interfaces: PathBuf,
    /// The directory of the notes.
    pub notes: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { interfaces: "/sys/class/net".into(), notes: "/run/ringroad".into() }
    }
}

/// How long interrupts are put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// After so many polls without a packet interrupts are on again.
    pub polls: u32,
    /// When the kernel polls by itself if nobody else has, in nanoseconds.
    pub timeout: u64,
}

/// One of the values: what it was, and what it was set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    before: u64,
    set: u64,
}

/// The interrupts of an interface are put off as long as this lives.
#[derive(Debug)]
pub struct Deferral {
    places: Places,
    interface: Interface,
    note: File,
    /// It ended, and could not put back.
    left: Arc<AtomicBool>,
    /// A forked child has a copy of this, which is none.
    process: u32,
}

impl Deferral {
    /// Puts the interface's interrupts off. Where another process does already, its
    /// values stay.
    ///
    /// # Errors
    /// The interface is not in sysfs (that shows another network namespace), or the
    /// values or the note cannot be written. Nothing is changed then.
    pub fn begin(places: &Places, interface: &Interface, values: Values) -> io::Result<Self> {
        directory(places, interface)?;
        let note = open_note(places, interface.index)?;
        let _turn = Turn::take(&places.notes)?;
        // Nobody's, until it is begun: its end takes the directory's lock, too.
        let mut this = Self::of(places, interface, note);
        let held = this.hold(values);
        match held {
            Ok(()) => this.process = std::process::id(),
            Err(_) => {
                if this.note.try_lock().is_ok() {
                    this.put_back();
                }
                let _ = this.note.unlock();
            }
        }
        held.map(|()| this)
    }

    fn of(places: &Places, interface: &Interface, note: File) -> Self {
        let (places, interface, left) = (places.clone(), interface.clone(), Arc::default());
        Self { places, interface, note, left, process: 0 }
    }

    /// True once this has ended and could not put the values back, as where privileges
    /// were dropped; the note stays.
    pub fn left(&self) -> Arc<AtomicBool> {
        self.left.clone()
    }

    /// Comes to share the note with all who use the values, which are set by the first.
    fn hold(&mut self, values: Values) -> io::Result<()> {
        for _ in 0..TRIES {
            if self.note.try_lock().is_ok() {
                self.set(values)?;
                // Before others may come in, the note tells all.
                if self.note.try_lock_shared().is_ok() {
                    return Ok(());
                }
            } else if self.note.try_lock_shared().is_ok() {
                if !self.read_note()?.is_empty() {
                    return Ok(());
                }
                // The last one went in between.
                self.note.unlock()?;
            }
            std::thread::sleep(PAUSE);
        }
        Err(io::Error::from(io::ErrorKind::WouldBlock))
    }

    /// Puts back what a killed process left behind on the interface, if it can be.
    /// Nothing is done where somebody uses it.
    pub fn clear(places: &Places, interface: &Interface) {
        if let Some((_turn, mut left)) = Self::unused(places, interface, true) {
            left.put_back();
            let _ = left.note.unlock();
        }
    }

    /// A note that is there and nobody uses, locked.
    fn unused(places: &Places, interface: &Interface, write: bool) -> Option<(Turn, Self)> {
        directory(places, interface).ok()?;
        open_notes(&places.notes).ok()?;
        let path = note_path(places, interface.index);
        let note = OpenOptions::new().read(true).write(write).custom_flags(libc::O_NOFOLLOW).open(path).ok()?;
        // Who only looks does not hold up a start for long.
        let turn = Turn::take_within(&places.notes, TRIES).ok()?;
        note.try_lock().ok()?;
        Some((turn, Self::of(places, interface, note)))
    }

    /// What a killed process left behind on the interface, in words; `None` where
    /// nothing is, or somebody uses it.
    pub fn left_behind(places: &Places, interface: &Interface) -> Option<String> {
        let directory = directory(places, interface).ok()?;
        let (_turn, mut left) = Self::unused(places, interface, false)?;
        let changes = left.read_note();
        let _ = left.note.unlock();
        let changes = changes.ok()?;
        let mut text = String::new();
        for (name, change) in NAMES.iter().zip(changes) {
            if value(&directory, name).is_ok_and(|now| now == change.set && now != change.before) {
                let comma = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{comma}{name} is {} and was {}", change.set, change.before);
            }
        }
        (!text.is_empty()).then_some(text)
    }

    fn set(&mut self, values: Values) -> io::Result<()> {
        let directory = directory(&self.places, &self.interface)?;
        let noted = self.read_note()?;
        let mut changes = [Change { before: 0, set: 0 }; NAMES.len()];
        for (i, (name, set)) in NAMES.iter().zip([u64::from(values.polls), values.timeout]).enumerate() {
            let now = value(&directory, name)?;
            // A note that nobody holds is of one that was killed.
            let left = noted.get(i).filter(|left| left.set == now);
            changes[i] = Change { before: left.map_or(now, |left| left.before), set };
        }
        self.write_note(&changes)?;
        for (name, change) in NAMES.iter().zip(&changes) {
            self.write(&directory, name, change.set)?;
        }
        Ok(())
    }

    /// Writes a value of this interface: one of another, which has got its name just now,
    /// has another file.
    fn write(&self, directory: &Path, name: &str, value: u64) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(directory.join(name))?;
        if !is_of(directory, &self.interface) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        file.set_len(0)?;
        file.write_all(value.to_string().as_bytes())
    }

    /// The interface's directory, whatever its name is by now; `None`: it is gone.
    fn directory(&self) -> io::Result<Option<PathBuf>> {
        let named = self.places.interfaces.join(&self.interface.name);
        let others = fs::read_dir(&self.places.interfaces)?.filter_map(|entry| Some(entry.ok()?.path()));
        Ok(std::iter::once(named).chain(others).find(|directory| is_of(directory, &self.interface)))
    }

    /// Puts back what has still the value that it was set to. A note that could not
    /// be followed stays, for the next one. False where something may be as it was set.
    fn put_back(&mut self) -> bool {
        let Ok(changes) = self.read_note() else { return false };
        let directory = match self.directory() {
            Ok(Some(directory)) => directory,
            // Its values went with it.
            Ok(None) => return true,
            // Out of sight (chroot).
            Err(_) => return false,
        };
        let mut done = true;
        for (name, change) in NAMES.iter().zip(changes) {
            done &= match value(&directory, name) {
                Ok(now) if now == change.set && now != change.before => {
                    self.write(&directory, name, change.before).is_ok()
                }
                Ok(_) => true,
                Err(_) => false,
            };
        }
        if done {
            let _ = self.note.set_len(0);
        }
        done
    }

    /// The changes that the note tells of: all, or none.
    fn read_note(&mut self) -> io::Result<Vec<Change>> {
        let mut text = String::new();
        self.note.rewind()?;
        self.note.read_to_string(&mut text)?;
        let change = |(line, name): (&str, &&str)| {
            let mut words = line.split(' ');
            let named = words.next()? == *name;
            let (before, set) = (number(words.next()?).ok()?, number(words.next()?).ok()?);
            named.then_some(Change { before, set })
        };
        let changes: Vec<Change> = text.lines().zip(&NAMES).map_while(change).collect();
        Ok(if changes.len() == NAMES.len() { changes } else { Vec::new() })
    }

    fn write_note(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut text = String::new();
        for (name, Change { before, set }) in NAMES.iter().zip(changes) {
            let _ = writeln!(text, "{name} {before} {set}");
        }
        let mut old = String::new();
        self.note.rewind()?;
        self.note.read_to_string(&mut old)?;
        let written = self.overwrite(&text);
        if written.is_err() {
            let _ = self.overwrite(&old);
        }
        written
    }

    /// What is there is cut afterwards: who is killed between has the new lines first,
    /// and others are not read. The old values are in one of both at any time.
    fn overwrite(&mut self, text: &str) -> io::Result<()> {
        self.note.rewind()?;
        self.note.write_all(text.as_bytes())?;
        self.note.set_len(text.len() as u64)
    }
}

impl Drop for Deferral {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        // Where it does not come, another start at this moment may take this for alive.
        let _turn = Turn::take(&self.places.notes);
        // A lock that others share cannot be made one's own.
        if self.note.try_lock().is_ok() && !self.put_back() {
            self.left.store(true, Ordering::Release);
        }
        let _ = self.note.unlock();
    }
}

/// The directory of the notes, locked until this is dropped.
struct Turn(File);

impl Turn {
    fn take(notes: &Path) -> io::Result<Self> {
        Self::take_within(notes, PATIENCE)
    }

    fn take_within(notes: &Path, patience: u32) -> io::Result<Self> {
        let directory = open_notes(notes)?;
        let mut wait = Wait::new(patience);
        loop {
            if directory.try_lock().is_ok() {
                // For those who wait: somebody else has it now.
                let _ = directory.set_modified(SystemTime::now());
                return Ok(Self(directory));
            }
            if !wait.goes_on(directory.metadata()?.modified()?) {
                return Err(io::Error::from(io::ErrorKind::WouldBlock));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// How long a lock is waited for. Nobody is next: who looks now and then may find it
/// locked again and again while others come and go, however many looks there are. So
/// only those count at which the same one has it.
struct Wait {
    since: Option<SystemTime>,
    tries: u32,
    most: u32,
}

impl Wait {
    fn new(most: u32) -> Self {
        Self { since: None, tries: 0, most }
    }

    /// It is locked, since then: is another look worth while?
    fn goes_on(&mut self, since: SystemTime) -> bool {
        self.tries = if self.since == Some(since) { self.tries + 1 } else { 0 };
        self.since = Some(since);
        self.tries < self.most
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

fn value(directory: &Path, name: &str) -> io::Result<u64> {
    number(&fs::read_to_string(directory.join(name))?)
}

/// The interface's directory, if it is this one and not another namespace's of the
/// same name: sysfs shows the namespace in which it was mounted.
fn directory(places: &Places, interface: &Interface) -> io::Result<PathBuf> {
    let directory = places.interfaces.join(&interface.name);
    let mac = interface.mac.map(|byte| format!("{byte:02x}")).join(":");
    if !is_of(&directory, interface) || !says(&directory, "address", &mac) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "sysfs shows another network namespace"));
    }
    Ok(directory)
}

/// True for its directory, in the namespace that was looked at before: its number stays,
/// its hardware address may change.
fn is_of(directory: &Path, interface: &Interface) -> bool {
    says(directory, "ifindex", &interface.index.to_string())
}

fn says(directory: &Path, name: &str, wanted: &str) -> bool {
    fs::read_to_string(directory.join(name)).is_ok_and(|text| text.trim() == wanted)
}

fn note_path(places: &Places, interface: u32) -> PathBuf {
    // The number of the thread's namespace, as `net:[4026531840]`.
    let namespace = fs::read_link("/proc/thread-self/ns/net").unwrap_or_default();
    let digits: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    places.notes.join(format!("interrupts-{digits}-{interface}"))
}

/// Nobody else may read it: who can, can hold its lock.
fn open_note(places: &Places, interface: u32) -> io::Result<File> {
    let made = DirBuilder::new().mode(0o700).create(&places.notes);
    match made {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    open_notes(&places.notes)?;
    let path = note_path(places, interface);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

/// The directory of the notes, which nobody but root or us may have made: who owns it
/// can put something else where a note is, which we would write to.
fn open_notes(notes: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_DIRECTORY;
    let directory = OpenOptions::new().read(true).custom_flags(flags).open(notes)?;
    // SAFETY: takes nothing and cannot fail.
    let us = unsafe { libc::geteuid() };
    if !may_own(directory.metadata()?.uid(), us) {
        let why = format!("{} belongs to somebody else", notes.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(directory)
}

fn may_own(owner: u32, us: u32) -> bool {
    owner == 0 || owner == us
}

#[cfg(test)]
#[path = "deferral/tests.rs"]
mod tests;

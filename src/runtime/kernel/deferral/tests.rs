//! Values put off and put back, in directories that look like sysfs.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const OURS: Values = Values { polls: 2, timeout: 200_000 };

/// A directory of interfaces with one in it, and one of notes.
struct Fake {
    root: PathBuf,
    places: Places,
}

fn interface() -> Interface {
    Interface {
        name: "eth7".into(),
        index: 7,
        mac: [2, 0, 0, 0, 0, 0xab],
        mtu: 1500,
        up: true,
        running: true,
        loopback: false,
        driver: "igb".into(),
        rx_queues: 1,
        tx_queues: 1,
    }
}

impl Fake {
    fn new(name: &str, polls: u64, timeout: u64) -> Self {
        // In memory, as the notes and sysfs are: a busy disk holds up who has its lock.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let root = base.join(format!("ringroad-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let places = Places { interfaces: root.join("net"), notes: root.join("notes") };
        fs::create_dir_all(places.interfaces.join("eth7")).unwrap();
        let fake = Self { root, places };
        fake.write("ifindex", "7\n");
        fake.write("address", "02:00:00:00:00:ab\n");
        fake.write(NAMES[0], &format!("{polls}\n"));
        fake.write(NAMES[1], &format!("{timeout}\n"));
        fake
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.places.interfaces.join("eth7").join(name), text).unwrap();
    }

    fn values(&self) -> [u64; 2] {
        NAMES.map(|name| number(&fs::read_to_string(self.places.interfaces.join("eth7").join(name)).unwrap()).unwrap())
    }

    fn begin(&self) -> io::Result<Deferral> {
        Deferral::begin(&self.places, &interface(), OURS)
    }

    fn left_behind(&self) -> Option<String> {
        Deferral::left_behind(&self.places, &interface())
    }

    fn note(&self) -> String {
        fs::read_to_string(note_path(&self.places, 7)).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Ends as a killed process does: its lock goes, and nothing else happens.
fn kill(mut deferral: Deferral) {
    deferral.process = 0;
}

#[test]
fn values_are_set_and_put_back() {
    let fake = Fake::new("once", 1, 30);
    for _ in 0..2 {
        let deferral = fake.begin().unwrap();
        assert_eq!(fake.values(), [2, 200_000]);
        assert_eq!(fake.left_behind(), None, "somebody uses it");
        drop(deferral);
        assert_eq!(fake.values(), [1, 30]);
        assert_eq!(fake.note(), "");
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&fake.places.notes), mode(&note_path(&fake.places, 7))), (0o700, 0o600));
}

#[test]
fn a_new_hardware_address_is_no_new_interface() {
    let fake = Fake::new("address", 1, 30);
    let deferral = fake.begin().unwrap();
    fake.write("address", "02:00:00:00:00:01\n");
    drop(deferral);
    assert_eq!((fake.values(), fake.note().as_str()), ([1, 30], ""));
}

#[test]
fn the_last_of_several_puts_back() {
    let fake = Fake::new("several", 0, 0);
    let first = fake.begin().unwrap();
    // The second one neither takes the first's values for the original ones ...
    let other = Values { polls: 9, timeout: 9 };
    let second = Deferral::begin(&fake.places, &interface(), other).unwrap();
    assert_eq!(fake.values(), [2, 200_000]);
    drop(first);
    // ... nor loses them when the first one ends.
    assert_eq!(fake.values(), [2, 200_000]);
    let third = fake.begin().unwrap();
    drop(second);
    assert_eq!(fake.values(), [2, 200_000]);
    drop(third);
    assert_eq!(fake.values(), [0, 0]);
}

#[test]
fn what_a_killed_one_left_is_known_to_the_next() {
    let fake = Fake::new("killed", 1, 30);
    kill(fake.begin().unwrap());
    assert_eq!(fake.values(), [2, 200_000]);
    let told = "napi_defer_hard_irqs is 2 and was 1, gro_flush_timeout is 200000 and was 30";
    assert_eq!(fake.left_behind().as_deref(), Some(told));
    kill(fake.begin().unwrap());
    drop(fake.begin().unwrap());
    assert_eq!(fake.values(), [1, 30]);
    assert_eq!(fake.left_behind(), None);
}

#[test]
fn one_killed_beside_another_is_put_back_by_that() {
    let fake = Fake::new("beside", 0, 0);
    let (first, second) = (fake.begin().unwrap(), fake.begin().unwrap());
    kill(first);
    assert_eq!(fake.values(), [2, 200_000]);
    drop(second);
    assert_eq!(fake.values(), [0, 0]);
}

#[test]
fn what_somebody_else_set_stays() {
    let fake = Fake::new("else", 0, 0);
    let deferral = fake.begin().unwrap();
    fake.write(NAMES[1], "5000");
    drop(deferral);
    assert_eq!(fake.values(), [0, 5000]);
    // Also behind a killed one: the note is no longer true of that value.
    kill(fake.begin().unwrap());
    fake.write(NAMES[0], "7");
    assert_eq!(fake.left_behind().unwrap(), "gro_flush_timeout is 200000 and was 5000");
    drop(fake.begin().unwrap());
    assert_eq!(fake.values(), [7, 5000]);
}

#[test]
fn a_note_that_cannot_be_is_none() {
    let fake = Fake::new("nonsense", 3, 4);
    for text in ["", "nonsense", "napi_defer_hard_irqs 1 3\n", "napi_defer_hard_irqs 1 3\ngro_flush_timeout 1"] {
        drop(fake.begin().unwrap());
        fs::write(note_path(&fake.places, 7), text).unwrap();
        assert_eq!(fake.left_behind(), None, "{text}");
        drop(fake.begin().unwrap());
        assert_eq!(fake.values(), [3, 4], "{text}");
    }
}

#[test]
fn another_interface_of_the_name_is_not_touched() {
    let fake = Fake::new("other", 0, 0);
    fake.write("address", "02:00:00:00:00:ac");
    assert_eq!(fake.begin().unwrap_err().kind(), io::ErrorKind::NotFound);
    fake.write("address", "02:00:00:00:00:ab");
    fake.write("ifindex", "8");
    assert_eq!(fake.begin().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(fake.values(), [0, 0]);
}

#[test]
fn where_a_value_cannot_be_set_none_is() {
    let fake = Fake::new("half", 0, 0);
    let second = fake.places.interfaces.join("eth7").join(NAMES[1]);
    fs::remove_file(&second).unwrap();
    fs::create_dir(&second).unwrap(); // nobody can write to it, not even root
    assert!(fake.begin().is_err());
    fs::remove_dir(&second).unwrap();
    fs::write(&second, "0").unwrap();
    assert_eq!(fake.values(), [0, 0]);
    assert_eq!(fake.note(), "");
}

#[test]
fn beginners_at_the_same_time_agree() {
    let fake = Fake::new("crowd", 1, 30);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let deferral = fake.begin().unwrap();
                    assert_eq!(fake.values(), [2, 200_000]);
                    drop(deferral);
                }
            });
        }
    });
    assert_eq!(fake.values(), [1, 30]);
}

#[test]
fn a_forked_child_does_not_keep_the_lock() {
    let fake = Fake::new("forked", 1, 30);
    for _ in 0..2 {
        let deferral = fake.begin().unwrap();
        // A child shares the open file, and has it open when its parent ends.
        let childs = deferral.note.try_clone().unwrap();
        drop(deferral);
        assert_eq!((fake.values(), fake.note()), ([1, 30], String::new()));
        drop(fake.begin().expect("nobody uses it"));
        drop(childs);
    }
}

#[test]
fn who_shares_a_note_and_ends_keeps_no_lock_either() {
    let fake = Fake::new("forked-beside", 1, 30);
    let (first, second) = (fake.begin().unwrap(), fake.begin().unwrap());
    let childs = first.note.try_clone().unwrap();
    drop(first);
    drop(second);
    assert_eq!(fake.values(), [1, 30]);
    drop(childs);
}

#[test]
fn a_note_that_somebody_locks_for_good_is_not_waited_for() {
    let fake = Fake::new("locked", 1, 30);
    drop(fake.begin().unwrap());
    let note = File::open(note_path(&fake.places, 7)).unwrap();
    note.lock().unwrap();
    assert_eq!(fake.begin().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(note);
    drop(fake.begin().unwrap());
}

#[test]
fn while_others_come_and_go_nobody_is_sent_away() {
    let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    let mut wait = Wait::new(TRIES);
    for round in 0..5 {
        assert!((0..TRIES).all(|_| wait.goes_on(at(round))), "another one has it");
    }
    assert!(!wait.goes_on(at(4)), "the same one has it still");
}

#[test]
fn who_takes_the_turn_says_so_to_those_who_wait() {
    let fake = Fake::new("turns", 1, 30);
    drop(fake.begin().unwrap());
    let since = || fs::metadata(&fake.places.notes).unwrap().modified().unwrap();
    let mut wait = Wait::new(TRIES);
    assert!((0..TRIES).all(|_| wait.goes_on(since())));
    // Two who have it one after the other, without a moment between.
    drop(Turn::take(&fake.places.notes).unwrap());
    assert!((0..TRIES).all(|_| wait.goes_on(since())));
    assert!(!wait.goes_on(since()));
}

#[test]
fn who_waits_for_one_who_stays_gives_up_in_the_end() {
    let fake = Fake::new("stays", 1, 30);
    drop(fake.begin().unwrap());
    let turn = Turn::take(&fake.places.notes).unwrap();
    assert_eq!(Turn::take_within(&fake.places.notes, 20).err().map(|why| why.kind()), Some(io::ErrorKind::WouldBlock));
    drop(turn);
    drop(Turn::take(&fake.places.notes).unwrap());
}

#[test]
fn who_looks_at_a_killed_ones_note_is_not_taken_for_it() {
    let fake = Fake::new("looked-at", 1, 30);
    kill(fake.begin().unwrap());
    let other = Values { polls: 9, timeout: 9 };
    let started = std::thread::scope(|scope| {
        let turn = Turn::take(&fake.places.notes).unwrap();
        let starter = scope.spawn(|| Deferral::begin(&fake.places, &interface(), other).unwrap());
        std::thread::sleep(8 * PAUSE);
        assert_eq!(fake.values(), [2, 200_000], "it waits for who looks");
        drop(turn);
        starter.join().unwrap()
    });
    assert_eq!(fake.values(), [9, 9]);
    drop(started);
    assert_eq!(fake.values(), [1, 30]);
}

#[test]
fn who_looks_waits_for_who_begins() {
    let fake = Fake::new("looks", 1, 30);
    kill(fake.begin().unwrap());
    std::thread::scope(|scope| {
        let turn = Turn::take(&fake.places.notes).unwrap();
        let look = scope.spawn(|| fake.left_behind());
        std::thread::sleep(8 * PAUSE);
        assert!(!look.is_finished());
        drop(turn);
        assert!(look.join().unwrap().is_some());
    });
}

#[test]
fn what_is_out_of_sight_stays_noted() {
    let fake = Fake::new("unseen", 1, 30);
    let deferral = fake.begin().unwrap();
    let (here, elsewhere) = (fake.places.interfaces.clone(), fake.root.join("elsewhere"));
    fs::rename(&here, &elsewhere).unwrap(); // chroot, or a new name
    drop(deferral);
    fs::rename(&elsewhere, &here).unwrap();
    assert_eq!(fake.values(), [2, 200_000]);
    assert!(fake.left_behind().is_some());
    drop(fake.begin().unwrap());
    assert_eq!((fake.values(), fake.note()), ([1, 30], String::new()));
}

#[test]
fn no_link_is_followed_to_a_note() {
    let fake = Fake::new("links", 1, 30);
    drop(fake.begin().unwrap());
    let (note, victim) = (note_path(&fake.places, 7), fake.root.join("victim"));
    fs::write(&victim, "precious").unwrap();
    fs::remove_file(&note).unwrap();
    symlink(&victim, &note).unwrap();
    assert_eq!(fake.begin().unwrap_err().raw_os_error(), Some(libc::ELOOP));
    // Nor to their directory.
    let elsewhere = fake.root.join("elsewhere");
    fs::remove_file(&note).unwrap();
    fs::rename(&fake.places.notes, &elsewhere).unwrap();
    symlink(&elsewhere, &fake.places.notes).unwrap();
    assert!(fake.begin().is_err());
    assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), fake.values()), ("precious", [1, 30]));
}

#[test]
fn the_notes_are_roots_or_ours() {
    assert!(may_own(0, 1000) && may_own(1000, 1000) && may_own(0, 0));
    assert!(!may_own(1000, 0) && !may_own(1001, 1000));
    let fake = Fake::new("owner", 1, 30);
    drop(fake.begin().unwrap());
    // Only root can give it away.
    if std::os::unix::fs::chown(&fake.places.notes, Some(1), None).is_ok() {
        assert_eq!(fake.begin().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(fake.values(), [1, 30]);
    }
}

#[test]
fn an_interface_that_has_another_name_by_now_has_its_values_back() {
    // Two swap their names: the other one, under the first's name, is left alone.
    let fake = Fake::new("swapped", 1, 30);
    let deferral = fake.begin().unwrap();
    let (named, elsewhere) = (fake.places.interfaces.join("eth7"), fake.places.interfaces.join("eth9"));
    fs::rename(&named, &elsewhere).unwrap();
    fs::create_dir(&named).unwrap();
    fake.write("ifindex", "9");
    fake.write("address", "02:00:00:00:00:ac");
    fake.write(NAMES[0], "2");
    fake.write(NAMES[1], "200000");
    drop(deferral);
    assert_eq!(fake.values(), [2, 200_000], "another one's");
    let values = NAMES.map(|name| value(&elsewhere, name).unwrap());
    assert_eq!((values, fake.note()), ([1, 30], String::new()));
}

#[test]
fn one_that_was_made_anew_under_the_name_is_not_touched() {
    let fake = Fake::new("anew", 1, 30);
    let deferral = fake.begin().unwrap();
    let left = deferral.left();
    fake.write("ifindex", "8");
    drop(deferral);
    assert_eq!(fake.values(), [2, 200_000]);
    assert!(!left.load(Ordering::Acquire), "what is gone has nothing to be put back");
    assert!(!fake.note().is_empty());
}

#[test]
fn what_could_not_be_put_back_is_told() {
    let fake = Fake::new("refused", 0, 30);
    let values = Values { polls: 1, timeout: 200_000 };
    let deferral = Deferral::begin(&fake.places, &interface(), values).unwrap();
    let left = deferral.left();
    // Reads as 1, and nobody may write to it.
    let path = fake.places.interfaces.join("eth7").join(NAMES[0]);
    fs::remove_file(&path).unwrap();
    symlink("/sys/class/net/lo/ifindex", &path).unwrap();
    assert!(!left.load(Ordering::Acquire));
    drop(deferral);
    assert!(left.load(Ordering::Acquire));
    assert_eq!((fake.values(), fake.note().is_empty()), ([1, 30], false));
    // Nor can it where it sees no interface at all.
    fs::remove_file(&path).unwrap();
    fake.write(NAMES[0], "0");
    let deferral = fake.begin().unwrap();
    let left = deferral.left();
    fs::rename(&fake.places.interfaces, fake.root.join("elsewhere")).unwrap();
    drop(deferral);
    assert!(left.load(Ordering::Acquire));
}

#[test]
fn a_note_without_room_is_as_it_was() {
    use std::os::fd::{AsRawFd, FromRawFd};
    let fake = Fake::new("full", 1, 30);
    // SAFETY: the name is a C string; a new descriptor is nobody else's.
    let note = unsafe { File::from_raw_fd(libc::memfd_create(c"note".as_ptr(), libc::MFD_ALLOW_SEALING)) };
    let mut deferral = Deferral::of(&fake.places, &interface(), note);
    let old = [Change { before: 100, set: 200 }, Change { before: 300, set: 400 }];
    deferral.write_note(&old).unwrap();
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::fcntl(deferral.note.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_GROW) }, 0);
    assert!(deferral.write_note(&[Change { before: 1000, set: 2000 }; 2]).is_err());
    assert_eq!(deferral.read_note().unwrap(), old);
    // Killed before the cut: the end of longer lines is still there.
    deferral.note.rewind().unwrap();
    let new = "napi_defer_hard_irqs 1 3\ngro_flush_timeout 3 5\n";
    deferral.note.write_all(new.as_bytes()).unwrap();
    assert_eq!(deferral.read_note().unwrap(), [Change { before: 1, set: 3 }, Change { before: 3, set: 5 }]);
    deferral.write_note(&old).unwrap();
}

#[test]
fn who_does_not_poll_puts_back_what_a_killed_one_left_and_nothing_else() {
    let fake = Fake::new("cleared", 0, 5_000);
    let clear = || Deferral::clear(&fake.places, &interface());
    clear();
    assert!(!fake.places.notes.exists(), "there is nothing to look at");
    kill(fake.begin().unwrap());
    let used = fake.begin().unwrap();
    clear();
    assert_eq!(fake.values(), [2, 200_000], "somebody uses them");
    kill(used);
    clear();
    assert_eq!(fake.values(), [0, 5_000]);
    fake.write(NAMES[1], "200000");
    clear();
    assert_eq!(fake.values(), [0, 200_000], "what is set later is somebody else's");
}

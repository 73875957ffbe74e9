//! Workers that run one at a time, a turn each.
//!
//! Valgrind lets one thread run at a time anyway, and when it changes depends on the
//! machine; workers that spin would be counted with whatever the other one did
//! meanwhile. With a baton all always do the same: the second one's n-th turn lies
//! between the first one's n-th and its next. Who waits for it sleeps, apart from what
//! is counted and watched.

use crossbeam::utils::CachePadded;
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Who plays.
struct Game {
    /// Whose turn it is.
    turn: usize,
    /// A bit for each player that is not done.
    playing: u32,
}

impl Game {
    /// Whoever comes after this player in the round.
    fn pass(&mut self, from: usize) {
        let (bits, after) = (self.playing, from as u32 + 1);
        self.turn = ((after + bits.rotate_right(after).trailing_zeros()) % u32::BITS) as usize;
        MOVED.notify_all();
    }
}

static GAME: Mutex<Game> = Mutex::new(Game { turn: 0, playing: 1 });
static MOVED: Condvar = Condvar::new();

/// Each mark is written to when something happens, which is how a tool that sees all
/// stores knows; in a line of its own.
static MARKS: [CachePadded<AtomicUsize>; 4] = [const { CachePadded::new(AtomicUsize::new(0)) }; 4];

/// What is marked.
#[derive(Clone, Copy)]
pub enum Mark {
    /// The thread has the baton: what it writes is a worker's.
    Taken,
    /// It gives the baton away.
    Given,
    /// A worker has warmed up.
    First,
    /// A worker is done.
    Last,
}

/// Where the marks are.
pub fn marks() -> [usize; 4] {
    MARKS.each_ref().map(|mark| mark.as_ptr() as usize)
}

pub fn mark(what: Mark) {
    MARKS[what as usize].store(black_box(1), Ordering::Relaxed);
}

thread_local! {
    static PLAYS: Cell<bool> = const { Cell::new(false) };
}

/// So many workers play. Before the first one begins.
pub fn players(workers: usize) {
    GAME.lock().unwrap_or_else(PoisonError::into_inner).playing = (1 << workers) - 1;
}

/// A turn of this player's is over, if it had one; returns when it has its next.
pub fn next_turn(me: usize) {
    let played = PLAYS.replace(true);
    if played {
        // First of all: the baton itself is what both write to.
        mark(Mark::Given);
    }
    let mut game = GAME.lock().unwrap_or_else(PoisonError::into_inner);
    if played {
        game.pass(me);
    }
    let waited = MOVED.wait_while(game, |game| game.turn != me);
    drop(waited.unwrap_or_else(PoisonError::into_inner));
    mark(Mark::Taken);
}

/// Does what is no worker's, though a worker's thread does it.
pub fn aside<R>(work: impl FnOnce() -> R) -> R {
    mark(Mark::Given);
    let result = work();
    mark(Mark::Taken);
    result
}

/// This player, whose turn it is, is done: the others go on by themselves.
pub fn done(me: usize) {
    let mut game = GAME.lock().unwrap_or_else(PoisonError::into_inner);
    game.playing &= !(1 << me);
    game.pass(me);
}

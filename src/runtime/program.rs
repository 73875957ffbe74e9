//! What a worker runs besides its stack.

use crate::socket::Sockets;
use crate::time::Instant;
use core::ops::ControlFlow;

/// A program that runs on the workers, each with its own state.
pub trait App {
    /// One turn: takes what is ready and returns. `Break` ends the program on
    /// this worker (the worker itself goes on). It must not block, and uses no
    /// other sockets than these.
    fn turn(&mut self, now: Instant, sockets: &mut Sockets) -> ControlFlow<()>;

    /// When it wants its next turn even if nothing comes in; `None`: never. A
    /// worker that waits sleeps no longer than that.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}

/// One of the two.
pub(super) enum Program {
    /// On the stack's own sockets.
    App(Box<dyn App>),
    /// On the calls of `posix`, which may block: false ends it.
    Loop(Box<dyn FnMut() -> bool>),
}

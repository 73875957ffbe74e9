//! What moves the pure layers: pinned worker threads, the only clock, the rings
//! between threads, descriptors, and the sockets' any-thread face.

mod channel;
mod claim;
pub mod clock;
pub mod config;
mod datagrams;
pub mod descriptors;
mod desk;
mod directory;
mod epoll;
pub mod error;
mod exchange;
mod here;
mod hub;
mod inbox;
pub mod kernel;
mod late;
mod link;
mod losses;
mod mirror;
mod opening;
mod patience;
mod polling;
mod ports;
pub mod posix;
mod program;
pub mod ring;
pub mod sleep;
mod set;
mod shared;
mod start;
mod stock;
mod sync;
pub mod sys;
mod worker;
pub mod zero_copy;

pub use config::{Config, Mode, Wait};
pub use error::Error;
pub use losses::Losses;
pub use mirror::Mirror;
pub use program::App;
pub use start::{Runtime, Stopper, run};
pub use worker::Station;
pub(crate) use worker::{panicked, set_in_simulation};

#[cfg(test)]
mod tests;

//! What moves the pure layers: pinned worker threads, the only clock, the rings
//! between threads, descriptors, and the sockets' any-thread face.

pub mod clock;
pub mod config;
pub mod descriptors;
pub mod error;
pub mod kernel;
pub mod ring;
pub mod sleep;
mod sync;
pub mod sys;

pub use config::{Config, Mode, Wait};
pub use error::Error;

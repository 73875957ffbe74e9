//! What moves the pure layers: pinned worker threads, the only clock, the rings
//! between threads, descriptors, and the sockets' any-thread face.

pub mod ring;
pub mod sleep;
mod sync;
pub mod sys;

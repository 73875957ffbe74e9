//! TCP: one connection as a pure machine (RFC 9293). It knows no clock, no
//! table and no IP input: segments, calls and times come in as arguments, frames
//! go out through the transmit queue, and each step returns what is to be done.

#![forbid(unsafe_code)]

mod config;
mod congestion;
pub mod isn;
mod reset;
mod seq;
mod template;
pub mod time_wait;
mod types;

pub use config::{Config, ConnOptions};
pub use congestion::Algorithm;
pub use reset::reset_reply;
pub use template::{Link, Template};
pub use types::{Disposition, Env, Events, Flush, IcmpError, Info, Readiness, Reply, State};

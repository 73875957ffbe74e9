//! TCP: one connection as a pure machine (RFC 9293). It knows no clock, no
//! table and no IP input: segments, calls and times come in as arguments, frames
//! go out through the transmit queue, and each step returns what is to be done.

#![forbid(unsafe_code)]

mod ack;
mod assembler;
mod burst;
mod config;
mod congestion;
mod connection;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod cookie;
mod defer;
mod fast_open;
mod ecn;
mod edges;
mod flow;
mod extra;
mod few;
mod handshake;
mod icmp;
mod info;
mod input;
pub mod isn;
mod jumbo;
mod lone;
mod loss;
mod output;
mod pressure;
mod pacing;
mod path;
mod program;
mod quick;
mod rate;
mod recv_queue;
mod reset;
mod rtt;
mod sack;
mod search;
mod send_queue;
mod seq;
mod settings;
mod status;
mod template;
#[cfg(test)]
mod tests;
pub mod time_wait;
mod text;
mod timers;
mod tune;
mod types;
mod urgent;
mod user_timeout;
mod validate;

pub use config::{Config, ConnOptions, LossDetection};
pub use congestion::Algorithm;
pub use connection::Connection;
pub use defer::{seconds as deferral_seconds, transmissions as deferral_transmissions};
pub use fast_open::Learned;
pub use ecn::Mode as EcnMode;
pub use input::Plain;
pub use reset::reset_reply;
pub use search::MtuProbing;
pub use template::{Link, Template};
pub use types::{Discover, Disposition, Env, Events, Flush, IcmpError, Info, Readiness, Reply, State};

//! The C layer: the functions of `ringroad.h`.
//!
//! Thin: each function turns C's arguments into Rust's, asks whoever the
//! descriptor belongs to ([`target`]), and turns the answer back. No panic
//! leaves it, and what fails says so in `errno` ([`errno::guard`]).
//!
//! The header is generated from these files by `tests/header.rs`; the doc
//! comments here are the comments there.

mod address;
mod config;
mod control;
mod data;
mod epoll;
mod errno;
mod lent;
mod lifecycle;
mod message;
mod own;
mod poll;
mod sim;
mod socket;
mod target;
mod tell;
mod zero_copy;

pub use config::{RR_OFF, RR_ON, RR_TCP_UTO};
pub use control::*;
pub use data::*;
pub use epoll::*;
pub use errno::rr_strerror;
pub use lifecycle::*;
pub use poll::*;
pub use sim::*;
pub use socket::*;
pub use zero_copy::*;

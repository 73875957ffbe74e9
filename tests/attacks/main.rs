//! Attacks, each mounted on a whole stack: what the defence is for happens, and
//! nothing else does.

mod bed;
mod cookies;
mod congestion;
mod fast_open;
mod memory;
mod rules;
mod secrets;
mod reuse;

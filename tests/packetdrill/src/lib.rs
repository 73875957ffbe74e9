//! ringroad as the stack under test of packetdrill's shared-object mode:
//!
//! ```text
//! packetdrill --so_filename=libringroad_packetdrill.so --so_flags=KEY=VALUE,... SCRIPT
//! ```
//!
//! One simulated stack (`rr_sim_*` of ringroad.h) with raw IP in and out, and a
//! clock of its own: time passes only where packetdrill waits. Preloaded too
//! (`LD_PRELOAD`), the same library answers what packetdrill asks the C library
//! in place of this interface (see `preload.rs`).

mod calls;
mod flags;
mod interface;
mod machine;
mod preload;

pub use interface::{packetdrill_interface, packetdrill_interface_init};

//! ringroad: a TCP, UDP and IP stack in user space over AF_XDP.

pub mod arch;
pub mod device;
pub mod errno;
pub mod ffi;
pub mod frame;
pub mod rng;
pub mod socket;
pub mod stack;
pub mod tcp;
pub mod runtime;
pub mod telemetry;
pub mod time;
pub mod wire;

//! The kernel as a neighbour: its addresses, routes and neighbours by netlink,
//! its ports by sockets that hold them, its drivers by ethtool.
//!
//! The netlink messages are read and written here rather than by a crate: four
//! kinds of message and a dozen attributes are needed, some of them newer
//! (NTF_EXT_MANAGED) than what the crates know.

pub mod deferral;
pub mod ethtool;
pub mod firewall;
mod mirror;
pub mod napi;
mod netlink;
pub mod ports;

pub use mirror::{Change, LinkState, Netlink};
pub use ports::{PortBlock, Reservation, reserve_tcp, reserve_udp};

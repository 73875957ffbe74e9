//! Headers as they stand on the wire: checked views for reading, builders for
//! writing. Nothing here keeps state, and nothing panics on bytes from the wire.

#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod tcp_options;
pub mod trace;
pub mod udp;
pub mod vlan;

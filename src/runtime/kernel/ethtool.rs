//! What a driver says of its offloads (`ethtool -k`), and switching them.

use crate::device::xdp::{Interface, Query};
use std::io;

const GET_RX_CHECKSUM: u32 = 0x14;
const GET_TX_CHECKSUM: u32 = 0x16;
const GET_TSO: u32 = 0x1e;
const GET_GSO: u32 = 0x23;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const GET_GRO: u32 = 0x2b;
const FLAG_RX_VLAN: u32 = 1 << 8;
const FLAG_LRO: u32 = 1 << 15;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// Offloads that matter to a stack behind XDP. `None`: the driver does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Received checksums are verified by the card.
    pub rx_checksum: Option<bool>,
    /// Checksums of sent packets are left to the card.
    pub tx_checksum: Option<bool>,
    /// TCP segmentation is left to the card.
    pub tso: Option<bool>,
    /// Segmentation is put off as long as possible.
    pub gso: Option<bool>,
    /// Received packets are merged by the kernel.
    pub gro: Option<bool>,
    /// Received packets are merged by the card.
    pub lro: Option<bool>,
    /// The card takes VLAN tags out of received packets, where an XDP program
    /// does not see them.
    pub rx_vlan_stripping: Option<bool>,
}

fn get(query: &Query, cmd: u32) -> Option<u32> {
    let mut value = Value { cmd, data: 0 };
    // SAFETY: Value has the layout of struct ethtool_value, which all of these
    // commands take.
    unsafe { query.ethtool(&mut value) }.ok().map(|()| value.data)
}

/// Asks for the interface's offloads.
///
/// # Errors
/// There is no such interface.
pub fn offloads(interface: &str) -> crate::device::xdp::Result<Offloads> {
    Interface::query(interface)?;
    let query = Query::new(interface)?;
    let on = |cmd| get(&query, cmd).map(|n| n != 0);
    let flags = get(&query, GET_FLAGS);
    Ok(Offloads {
        rx_checksum: on(GET_RX_CHECKSUM),
        tx_checksum: on(GET_TX_CHECKSUM),
        tso: on(GET_TSO),
        gso: on(GET_GSO),
        gro: on(GET_GRO),
        lro: flags.map(|f| f & FLAG_LRO != 0),
        rx_vlan_stripping: flags.map(|f| f & FLAG_RX_VLAN != 0),
    })
}

/// Switches the stripping of VLAN tags from received frames.
///
/// # Errors
/// EOPNOTSUPP where the driver cannot, EPERM without CAP_NET_ADMIN.
pub fn set_rx_vlan_stripping(interface: &str, on: bool) -> io::Result<()> {
    let query = Query::new(interface).map_err(io::Error::other)?;
    let unsupported = || io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    let flags = get(&query, GET_FLAGS).ok_or_else(unsupported)?;
    let data = if on { flags | FLAG_RX_VLAN } else { flags & !FLAG_RX_VLAN };
    if data == flags {
        return Ok(());
    }
    let mut value = Value { cmd: SET_FLAGS, data };
    // SAFETY: Value has the layout of struct ethtool_value.
    unsafe { query.ethtool(&mut value) }?;
    match get(&query, GET_FLAGS) {
        Some(now) if now & FLAG_RX_VLAN == data & FLAG_RX_VLAN => Ok(()),
        _ => Err(unsupported()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_answers() {
        let lo = offloads("lo").unwrap();
        assert_eq!(lo.lro, Some(false));
        assert!(lo.gso.is_some());
        assert!(offloads("nosuchif0").is_err());
    }
}

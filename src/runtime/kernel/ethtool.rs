//! What a driver says of its offloads (`ethtool -k`).

use crate::device::xdp::{Interface, Query};

const GET_RX_CHECKSUM: u32 = 0x14;
const GET_TX_CHECKSUM: u32 = 0x16;
const GET_TSO: u32 = 0x1e;
const GET_GSO: u32 = 0x23;
const GET_GRO: u32 = 0x2b;

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

/// Asks for the interface's offloads.
///
/// # Errors
/// There is no such interface.
pub fn offloads(interface: &str) -> crate::device::xdp::Result<Offloads> {
    Interface::query(interface)?;
    let query = Query::new(interface)?;
    let on = |cmd| query.value(cmd).map(|n| n != 0);
    Ok(Offloads {
        rx_checksum: on(GET_RX_CHECKSUM),
        tx_checksum: on(GET_TX_CHECKSUM),
        tso: on(GET_TSO),
        gso: on(GET_GSO),
        gro: on(GET_GRO),
        lro: query.lro(),
        rx_vlan_stripping: query.rx_vlan_stripping(),
    })
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

//! Which firewall rules the kernel applies to packets that it receives or sends.
//!
//! Steered packets never meet them, in either direction: whoever relies on
//! them for a port that the stack takes over should know.

use super::netlink::{Message, Request, Socket, attributes};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;

const SUBSYSTEM: u16 = 10 << 8; // NFNL_SUBSYS_NFTABLES
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const FAMILY_NETDEV: u8 = 5;

/// A chain of rules that packets to or from this host go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// As `nft list chain` takes it: family, table, chain; or, for the older
    /// xtables, `iptables` and the table.
    pub name: String,
    /// Rules in it. Chains that it jumps to are not counted.
    pub rules: u32,
    /// It drops what no rule matched.
    pub drops: bool,
}

type Key = (u8, String, String);

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_string()
}

fn big_endian(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}

/// The chains that see packets before they are delivered to a socket, or after
/// a socket sent them, and that may drop them.
///
/// # Errors
/// The system's: above all EPERM, without CAP_NET_ADMIN.
pub fn chains() -> io::Result<Vec<Chain>> {
    let mut all = nftables()?;
    all.extend(["iptables", "ip6tables"].into_iter().flat_map(xtables));
    Ok(all)
}

fn nftables() -> io::Result<Vec<Chain>> {
    let mut socket = Socket::new(libc::NETLINK_NETFILTER, 0)?;
    let general = [libc::AF_UNSPEC as u8, 0, 0, 0]; // struct nfgenmsg
    let mut chains: BTreeMap<Key, Chain> = BTreeMap::new();
    let asked = socket.ask(Request::new(GET_CHAIN, libc::NLM_F_DUMP, &general), |message| {
        if let Some((key, chain)) = base_chain(message) {
            chains.insert(key, chain);
        }
    });
    match asked {
        // EINVAL and the like: a kernel without nftables.
        Err(why) if why.raw_os_error() != Some(libc::EPERM) => return Ok(Vec::new()),
        asked => asked?,
    }
    let rules = Request::new(GET_RULE, libc::NLM_F_DUMP, &general);
    socket.ask(rules, |message| {
        let Some(family) = message.body.first() else { return };
        let (mut table, mut name) = (String::new(), String::new());
        for (kind, value) in attributes(message.body.get(4..).unwrap_or_default()) {
            match kind {
                RULE_TABLE => table = text(value),
                RULE_CHAIN => name = text(value),
                _ => {}
            }
        }
        if let Some(chain) = chains.get_mut(&(*family, table, name)) {
            chain.rules += 1;
        }
    })?;
    Ok(chains.into_values().filter(|chain| chain.rules > 0 || chain.drops).collect())
}

/// A chain that hangs on a hook of packets for or from this host.
fn base_chain(message: Message<'_>) -> Option<(Key, Chain)> {
    let family = *message.body.first()?;
    let (mut table, mut name, mut hook, mut policy) = (String::new(), String::new(), None, 1);
    for (kind, value) in attributes(message.body.get(4..)?) {
        match kind {
            CHAIN_TABLE => table = text(value),
            CHAIN_NAME => name = text(value),
            CHAIN_HOOK => {
                hook = attributes(value)
                    .find(|(kind, _)| *kind == HOOK_NUMBER)
                    .and_then(|(_, v)| big_endian(v));
            }
            CHAIN_POLICY => policy = big_endian(value)?,
            _ => {}
        }
    }
    let hook = hook?;
    // prerouting, input, output, postrouting; not forward
    if family != FAMILY_NETDEV && !matches!(hook, 0 | 1 | 3 | 4) {
        return None;
    }
    let word = match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "",
    };
    let chain = Chain { name: format!("{word} {table} {name}"), rules: 0, drops: policy == 0 };
    Some(((family, table, name), chain))
}

/// `struct ipt_getinfo`.
#[repr(C)]
struct TableInfo {
    name: [u8; 32],
    hooks: u32,
    entries_at: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    size: u32,
}

/// The tables of the older iptables (not those that nftables emulates).
fn xtables(command: &'static str) -> Vec<Chain> {
    let (family, level, list) = match command {
        "iptables" => (libc::AF_INET, libc::IPPROTO_IP, "/proc/net/ip_tables_names"),
        _ => (libc::AF_INET6, libc::IPPROTO_IPV6, "/proc/net/ip6_tables_names"),
    };
    // Only tables that are in use are asked for: asking loads others.
    let names = std::fs::read_to_string(list).unwrap_or_default();
    let count = |name: &str| table_rules(family, level, name).unwrap_or(0);
    let all = names.lines().map(|name| (name, count(name)));
    all.filter(|(_, rules)| *rules > 0)
        .map(|(name, rules)| Chain { name: format!("{command} -t {name}"), rules, drops: false })
        .collect()
}

fn table_rules(family: i32, level: i32, name: &str) -> Option<u32> {
    const GET_INFO: i32 = 64; // IPT_SO_GET_INFO
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(family, kind, libc::IPPROTO_RAW) };
    if fd < 0 {
        return None;
    }
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid TableInfo.
    let mut info: TableInfo = unsafe { core::mem::zeroed() };
    let bytes = name.as_bytes();
    info.name.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let mut len = size_of::<TableInfo>() as u32;
    // SAFETY: the structure lives through the call and its size is given.
    let n = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            GET_INFO,
            (&raw mut info).cast(),
            &mut len,
        )
    };
    // Each hook has its policy as an entry, and the table an end mark.
    (n == 0).then(|| info.entries.saturating_sub(info.hooks.count_ones() + 1))
}

//! What the kernel asks of who loads the steering program, opens the sockets and
//! follows the host's neighbours.

use super::{Error, ErrorKind, Result};

/// A capability (capabilities(7)): its number and name, and what needs it.
type Capability = (u32, &'static str, &'static str);

/// Those that the start cannot do without. CAP_PERFMON: without it the kernel's
/// verifier takes no program that finds TCP's header behind IP options.
const NEEDED: [Capability; 4] = [
    (13, "CAP_NET_RAW", "the sockets"),
    (12, "CAP_NET_ADMIN", "the program, its maps and neighbours"),
    (39, "CAP_BPF", "the program and its maps"),
    (38, "CAP_PERFMON", "the program's way past IP options"),
];
/// It includes those of BPF.
const CAP_SYS_ADMIN: u32 = 21;

/// What to do where one is missing.
pub const REMEDY: &str = "run as root, or give the program CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON, \
     CAP_IPC_LOCK, and CAP_NET_BIND_SERVICE for ports below 1024";

/// This thread's effective capabilities, one bit for each; none where /proc is not
/// there.
pub fn effective() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// Which of those needed are not among `effective`, each with its purpose.
pub fn missing(effective: u64) -> Vec<String> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    let may = |bit: u32| has(bit) || bit >= 38 && has(CAP_SYS_ADMIN);
    let missing = NEEDED.iter().filter(|(bit, ..)| !may(*bit));
    missing.map(|(_, name, what)| format!("{name} ({what})")).collect()
}

/// Refuses to go on where the kernel would refuse, which says less clearly why.
pub(super) fn check() -> Result<()> {
    let effective = effective();
    let missing = missing(effective);
    // None at all: perhaps /proc is not there, and the kernel has to say it.
    if effective == 0 || missing.is_empty() {
        return Ok(());
    }
    let why = format!("missing: {}", missing.join(", "));
    Err(Error::new(ErrorKind::Privilege, "privileges", why, REMEDY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(u64::MAX).len(), 0);
        assert_eq!(missing(0).len(), 4);
        let without_bpf = missing(1 << 12 | 1 << 13 | 1 << 38);
        assert!(without_bpf.len() == 1 && without_bpf[0].starts_with("CAP_BPF"));
        assert_eq!(missing(1 << 12 | 1 << 13 | 1 << 21).len(), 0);
    }
}

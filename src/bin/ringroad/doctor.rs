//! `ringroad doctor`: what an interface and this host can do for the stack, and
//! what stands in its way.

use ringroad::device::xdp::{
    self, Addresses, Interface, MAX_CHAIN_MTU, MAX_PLAIN_MTU, Steering, XdpConfig, attached, features,
};
use ringroad::device::xdp::privileges::{self, effective, missing};
use ringroad::runtime::kernel::deferral::{Deferral, Places};
use ringroad::runtime::kernel::ethtool::{Offloads, offloads};
use ringroad::runtime::kernel::firewall;
use std::fmt;
use std::fs;
use std::process::ExitCode;

/// Look at an interface and say what ringroad can do with it.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The interface
    #[arg(short = 'i', long, value_name = "IFACE")]
    interface: String,
    /// Open the rings for a moment to see the real modes (some cards lose their
    /// link while the program is attached)
    #[arg(long)]
    probe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// One line of the report.
#[derive(Debug)]
struct Finding {
    level: Level,
    topic: &'static str,
    text: String,
    remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        write!(f, "{level:<8} {:<12} {}", self.topic, self.text)?;
        if !self.remedy.is_empty() {
            write!(f, "\n{:21} -> {}", "", self.remedy)?;
        }
        Ok(())
    }
}

fn ok(topic: &'static str, text: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, topic, text: text.into(), remedy: String::new() }
}

fn warning(topic: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, topic, text: text.into(), remedy: remedy.into() }
}

fn problem(topic: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Problem, topic, text: text.into(), remedy: remedy.into() }
}

/// Run the command. The exit status is 1 where a problem was found.
///
/// # Errors
/// None known; there only so that all commands look alike.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    let mut findings = vec![kernel(), jit(), capabilities(), lock_limit()];
    match Interface::query(&args.interface) {
        Ok(interface) => findings.extend(about_interface(&interface, args.probe)),
        Err(why) => findings.push(problem("interface", why.to_string(), "")),
    }
    findings.extend([huge_pages(), isolation(), firewall_rules(), local_programs()]);
    for finding in &findings {
        println!("{finding}");
    }
    let count = |level| findings.iter().filter(|f| f.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    println!("\n{}: {}, {}", args.interface, plural(problems, "problem"), plural(warnings, "warning"));
    Ok(if problems > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_string()
}

// --- the host ---------------------------------------------------------------

/// Major and minor number of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease");
    match version(&release) {
        Some(v) if v < (5, 11) => problem(
            "kernel",
            format!("Linux {release} is too old"),
            "use Linux 5.11 or later",
        ),
        Some(v) => {
            let lacks = [
                ((5, 16), "keeping neighbours fresh (5.16)"),
                ((6, 3), "drivers that say what they can (6.3)"),
                ((6, 6), "packets of several frames (6.6)"),
                ((6, 17), "sending more than 32 packets a call in copy mode (6.17)"),
            ];
            let lacks: Vec<_> = lacks.iter().filter(|(at, _)| v < *at).map(|(_, t)| *t).collect();
            let without = match lacks.is_empty() {
                true => String::new(),
                false => format!(", without {}", lacks.join(", ")),
            };
            ok("kernel", format!("Linux {release}{without}"))
        }
        None => warning("kernel", format!("a release that cannot be read ({release})"), ""),
    }
}

fn jit() -> Finding {
    match read("/proc/sys/net/core/bpf_jit_enable").as_str() {
        "0" => warning(
            "bpf",
            "the BPF compiler is off: the steering program is interpreted",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        "" => ok("bpf", "compiled, as far as can be seen"),
        _ => ok("bpf", "compiled"),
    }
}

const CAP_IPC_LOCK: u32 = 14;

fn capabilities() -> Finding {
    let missing = missing(effective());
    if missing.is_empty() {
        return ok("privileges", "CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON");
    }
    problem("privileges", format!("missing: {}", missing.join(", ")), privileges::REMEDY)
}

fn lock_limit() -> Finding {
    let needed = 8192u64 * 4096;
    if effective() >> CAP_IPC_LOCK & 1 == 1 {
        return ok("memory", "any amount may be locked (CAP_IPC_LOCK)");
    }
    // The hard limit: opening the rings raises the soft one to it.
    let Some(limit) = hard_lock_limit(&read("/proc/self/limits")) else {
        return ok("memory", "any amount may be locked");
    };
    let text = format!("{} KiB may be locked", limit / 1024);
    if limit >= needed {
        return ok("memory", text);
    }
    let remedy = "ulimit -l unlimited, or give CAP_IPC_LOCK, or use fewer frames";
    problem("memory", format!("{text}, a worker needs {} KiB", needed / 1024), remedy)
}

/// The hard limit in bytes in the text of `/proc/self/limits`; `None`: there is none.
fn hard_lock_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max locked memory"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn huge_pages() -> Finding {
    let info = read("/proc/meminfo");
    let value = |name: &str| {
        let line = info.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    match (value("HugePages_Free:"), value("Hugepagesize:")) {
        (0, _) => ok("hugepages", "none free; none are needed (vm.nr_hugepages: some save misses of the TLB)"),
        (free, size) => ok("hugepages", format!("{free} of {size} KiB free; frames go there if they fit")),
    }
}

fn isolation() -> Finding {
    let isolated = read("/sys/devices/system/cpu/isolated");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus == 1 {
        return warning("cpus", "there is one: workers share it with everything else", "");
    }
    if isolated.is_empty() {
        return warning(
            "cpus",
            format!("none of {cpus} is isolated: other programs lengthen the tail of latencies"),
            "boot with isolcpus=N nohz_full=N rcu_nocbs=N for each worker's cpu",
        );
    }
    ok("cpus", format!("{isolated} of {cpus} isolated"))
}

fn firewall_rules() -> Finding {
    match firewall::chains() {
        Err(why) => warning("firewall", format!("the rules cannot be read ({why})"), "run as root"),
        Ok(chains) if chains.is_empty() => ok("firewall", "no rules that ringroad would bypass"),
        Ok(chains) => {
            let list: Vec<_> = chains
                .iter()
                .map(|c| {
                    let policy = if c.drops { ", policy drop" } else { "" };
                    format!("{} ({}{policy})", c.name, plural(c.rules as usize, "rule"))
                })
                .collect();
            warning(
                "firewall",
                format!("steered packets bypass these rules: {}", list.join("; ")),
                "see that no port that ringroad takes over relies on them",
            )
        }
    }
}

fn local_programs() -> Finding {
    ok(
        "loopback",
        "programs on this host cannot reach a ringroad port, as loopback bypasses XDP; from another \
         network namespace they can",
    )
}

// --- the interface ----------------------------------------------------------

fn about_interface(interface: &Interface, probe: bool) -> Vec<Finding> {
    let mut findings = vec![link(interface)];
    if interface.loopback {
        return findings;
    }
    findings.extend([mtu(interface), queues(interface)]);
    let free = attached_program(interface);
    let usable = free.level == Level::Ok && interface.up;
    findings.push(free);
    if probe && usable {
        findings.extend(probe_modes(interface));
    } else {
        findings.extend(declared_modes(interface));
    }
    findings.extend(deferred_interrupts(interface));
    if let Ok(offloads) = offloads(&interface.name) {
        findings.extend(about_offloads(interface, &offloads));
    }
    findings
}

fn link(interface: &Interface) -> Finding {
    let name = &interface.name;
    let driver = match interface.driver.as_str() {
        "" => "a driver that does not say its name",
        driver => driver,
    };
    if interface.loopback {
        let remedy = "use an Ethernet interface, or a veth pair";
        return problem("interface", "ringroad cannot run on the loopback interface", remedy);
    }
    if !interface.up {
        return problem("interface", format!("{name} is down"), format!("ip link set dev {name} up"));
    }
    if !interface.running {
        return warning("interface", format!("{name} has no carrier"), "plug it in");
    }
    ok("interface", format!("{name} is up, driver {driver}"))
}

fn mtu(interface: &Interface) -> Finding {
    let (name, mtu) = (&interface.name, interface.mtu);
    if mtu > MAX_CHAIN_MTU {
        let remedy = format!("ip link set dev {name} mtu 9000");
        return problem("mtu", format!("{mtu} is more than {MAX_CHAIN_MTU}"), remedy);
    }
    if mtu <= MAX_PLAIN_MTU {
        return ok("mtu", mtu.to_string());
    }
    match features(interface.index) {
        Ok(Some(can)) if !can.multi_buffer => warning(
            "mtu",
            format!("{mtu} needs packets of several buffers, which the driver does not say that it has"),
            format!("ip link set dev {name} mtu {MAX_PLAIN_MTU}"),
        ),
        _ => ok("mtu", format!("{mtu}, in packets of several buffers")),
    }
}

fn queues(interface: &Interface) -> Finding {
    let n = interface.rx_queues;
    if n == 1 {
        return ok("queues", "1 receive queue, for one worker");
    }
    warning(
        "queues",
        format!("{n} receive queues: every one needs a worker"),
        format!("--workers {n}, or `ethtool -L {} rx 1` (or `combined 1`)", interface.name),
    )
}

fn attached_program(interface: &Interface) -> Finding {
    if let Err(why) = attached(interface.index) {
        return warning("xdp", why.to_string(), "");
    }
    match Steering::check_free(interface) {
        Ok(()) => ok("xdp", "no other XDP program is attached"),
        Err(why) => problem("xdp", why.to_string(), ""),
    }
}

/// What the driver itself says, where nothing is opened.
fn declared_modes(interface: &Interface) -> Vec<Finding> {
    let Ok(Some(features)) = features(interface.index) else {
        return vec![warning(
            "mode",
            "the driver does not say what it can",
            format!("ringroad doctor -i {} --probe opens it and looks", interface.name),
        )];
    };
    let mode = match features.native {
        true => ok("mode", "native XDP, the driver says"),
        false => warning(
            "mode",
            "generic XDP only: each packet becomes a socket buffer first",
            "use a driver with native XDP",
        ),
    };
    vec![mode, copy(features.zero_copy && features.native, "the driver says")]
}

fn copy(zero_copy: bool, source: &str) -> Finding {
    match zero_copy {
        true => ok("copy", format!("zero-copy, {source}")),
        false => warning(
            "copy",
            format!("the kernel copies each packet, {source}"),
            "nothing is wrong; a driver with zero-copy AF_XDP is faster",
        ),
    }
}

/// What is so when it is opened. No port is held, so no packet is taken.
fn probe_modes(interface: &Interface) -> Vec<Finding> {
    let mut config = XdpConfig::new(&interface.name, Addresses::Shared(Vec::new()));
    config.queues = (0..interface.rx_queues).collect();
    config.frames_per_queue = 1024;
    (config.rx_ring, config.tx_ring, config.fill_ring) = (256, 256, 256);
    config.tx_reserve = 0;
    match xdp::open(&config) {
        Err(why) => vec![problem("mode", why.to_string(), "")],
        Ok((steering, devices)) => {
            let mode = match steering.mode() {
                Some(xdp::Mode::Generic) => warning(
                    "mode",
                    "generic XDP, as opened: each packet becomes a socket buffer first",
                    "use a driver with native XDP",
                ),
                Some(mode) => ok("mode", format!("{mode} XDP, as opened")),
                None => problem("mode", "the program was not attached", ""),
            };
            vec![mode, copy(devices.iter().all(|(d, _)| d.zero_copy()), "as opened")]
        }
    }
}

/// Busy polling puts interrupts off; one that is killed cannot put them back.
fn deferred_interrupts(interface: &Interface) -> Option<Finding> {
    let left = Deferral::left_behind(&Places::default(), interface)?;
    Some(warning(
        "interrupts",
        format!("left by a ringroad that was killed, or had no privileges at its end: {left}"),
        format!("the next one on {0} puts it back, or write the old values to /sys/class/net/{0}/...", interface.name),
    ))
}

fn about_offloads(interface: &Interface, offloads: &Offloads) -> Vec<Finding> {
    let name = &interface.name;
    let mut findings = Vec::new();
    if offloads.lro == Some(true) {
        let text = "the card merges received packets (LRO), which XDP does not allow";
        findings.push(warning("offloads", text, format!("ethtool -K {name} lro off")));
    }
    if offloads.gro == Some(true) && interface.driver == "veth" {
        findings.push(ok("offloads", "GRO is on: it ends while a native program is attached"));
    }
    if offloads.rx_vlan_stripping == Some(true) {
        let text = "tags are taken out of received frames; ringroad switches that off";
        findings.push(ok("vlan", text));
    }
    if interface.driver == "veth" {
        findings.push(ok(
            "vlan",
            "VLAN tags of the other end are seen only if its tx-vlan-offload is off",
        ));
    }
    if interface.leaves_checksums_partial() {
        findings.push(warning(
            "checksums",
            format!(
                "{} hands over packets of senders on this host with unfinished checksums; \
                 ringroad accepts those unverified",
                interface.driver
            ),
            "on the sender's interface: ethtool -K IFACE tx off",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(version("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(version("6.1-rc2"), Some((6, 1)));
        assert_eq!(version("odd"), None);
    }

    #[test]
    fn the_hard_limit_counts() {
        let line = "Max open files 1 2 files\nMax locked memory         8388608    16777216  bytes";
        assert_eq!(hard_lock_limit(line), Some(16_777_216));
        assert_eq!(hard_lock_limit("Max locked memory 8388608 unlimited bytes"), None);
    }

    #[test]
    fn a_line_has_its_level_topic_and_remedy() {
        let line = problem("mtu", "9000 is too large", "make it smaller").to_string();
        assert!(line.starts_with("problem  mtu          9000 is too large\n"), "{line}");
        assert!(line.ends_with("-> make it smaller"), "{line}");
        assert_eq!(ok("mtu", "1500").to_string(), "ok       mtu          1500");
    }

    #[test]
    fn the_loopback_interface_is_a_problem() {
        let lo = Interface::query("lo").unwrap();
        assert_eq!(link(&lo).level, Level::Problem);
    }
}

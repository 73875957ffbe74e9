//! Test beds: two network namespaces and a veth pair each, made when first
//! needed and removed when dropped.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the server is reached, and the client.
pub const SERVER: &str = "10.77.0.1";
pub const CLIENT: &str = "10.77.0.2";
/// An address that the server's kernel does not have, for stacks that own theirs.
pub const OWNED: &str = "10.77.0.9";
pub const INTERFACE: &str = "veth0";

/// The bed that a piece of work needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    pub mtu: u32,
    /// Checksum, segmentation and receive offloads, as the kernel sets them up.
    pub offloads: bool,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MTU {}{}", self.mtu, if self.offloads { "" } else { ", offloads switched off" })
    }
}

/// What most work is done on.
pub const PLAIN: Kind = Kind { mtu: 1500, offloads: true };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    Client,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// One bed.
pub struct Bed {
    name: String,
    script: PathBuf,
}

/// Run a command to its end; what it printed, or what it said when it failed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(format!("{}: {said}", command.get_program().to_string_lossy()))
}

impl Bed {
    /// Make a bed whose name begins with `stem`.
    pub fn up(root: &Path, stem: &str, kind: Kind) -> Result<Self, String> {
        let name = format!("{stem}-{}{}", kind.mtu, if kind.offloads { "" } else { "n" });
        let bed = Self { name, script: root.join("scripts/netns") };
        run(bed.script("up").args(["--mtu", &kind.mtu.to_string()]))?;
        for side in [Side::Server, Side::Client] {
            if !kind.offloads {
                let all = ["-K", INTERFACE, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off"];
                run(bed.command(side, "ethtool").args(all))?;
            }
            // A connection for each request uses up many ports.
            let ports = "net.ipv4.ip_local_port_range=16384 65535";
            run(bed.command(side, "sysctl").args(["-qw", ports, "net.ipv4.tcp_max_syn_backlog=8192"]))?;
            run(bed.command(side, "sysctl").args(["-qw", "net.core.somaxconn=8192"]))?;
        }
        Ok(bed)
    }

    fn script(&self, action: &str) -> Command {
        let mut command = Command::new(&self.script);
        command.args([action, "--name", &self.name]);
        command
    }

    fn namespace(&self, side: Side) -> String {
        format!("{}-{}", self.name, side.name())
    }

    /// A command that will run on one side.
    pub fn command(&self, side: Side, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(side)]).arg(program.as_ref());
        command
    }

    /// A command on one side that stays on `core`.
    pub fn pinned(&self, side: Side, core: usize, program: impl AsRef<Path>) -> Command {
        let mut command = self.command(side, "taskset");
        command.args(["-c", &core.to_string()]).arg(program.as_ref());
        command
    }

    /// Tell the client's kernel the server's hardware address, once and for all.
    pub fn fix_neighbour(&self) -> Result<(), String> {
        let text = run(self.command(Side::Server, "cat").arg(format!("/sys/class/net/{INTERFACE}/address")))?;
        let entry = ["neigh", "replace", SERVER, "lladdr", text.trim(), "dev", INTERFACE, "nud", "permanent"];
        run(self.command(Side::Client, "ip").args(entry)).map(drop)
    }

    /// Each side's offloads, on a line.
    pub fn offloads(&self) -> String {
        let text = run(&mut self.script("info")).unwrap_or_default();
        let side = |line: &str| line.strip_prefix(&self.name)?.strip_prefix('-').map(str::trim).map(str::to_string);
        text.lines().filter_map(side).collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.script("down").status();
    }
}

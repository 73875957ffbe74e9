//! What was on the wire, as the kernel's side saw it, judged by tshark.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::{Bed, Program, Side, run, unique};

/// A running tcpdump on the side whose stack is the kernel's.
pub struct Capture {
    program: Program,
    file: PathBuf,
}

/// What no packet may be, whoever sent it, in tshark's words.
const WRONG_FIELDS: [&str; 6] = [
    "_ws.malformed",
    "ip.checksum.status == 0",
    "tcp.checksum.status == 0",
    "udp.checksum.status == 0",
    "icmp.checksum.status == 0",
    "_ws.expert.severity == error",
];

impl Capture {
    /// Capture up to `packets` packets on the client's side from now on.
    pub fn start(bed: &Bed, packets: u32) -> Self {
        Self::on(bed, Side::Client, packets)
    }

    /// As [`Capture::start`], on this side.
    pub fn on(bed: &Bed, side: Side, packets: u32) -> Self {
        Self::by(bed.command(side, "tcpdump"), "veth0", packets)
    }

    /// As [`Capture::start`], by this tcpdump, on this interface.
    pub fn by(mut command: Command, interface: &str, packets: u32) -> Self {
        let file = std::env::temp_dir().join(format!("{}.pcap", unique()));
        command.args(["-i", interface, "-s", "0", "-B", "65536", "-U", "--immediate-mode", "-Z", "root"]);
        command.args(["-c", &packets.to_string(), "-w"]).arg(&file);
        let mut program = Program::start(command);
        program.wait_for("listening on");
        Self { program, file }
    }

    /// Stop, and fail the test if any segment of `ours` is malformed or has a bad checksum.
    #[track_caller]
    pub fn check(&mut self, ours: &str) {
        self.stop();
        let seen = self.select(&format!("ip.src == {ours}"));
        assert!(!seen.trim().is_empty(), "the capture holds nothing of {ours}:\n{}", self.program.output());
        let wrong = format!("ip.src == {ours} && ({})", WRONG_FIELDS.join(" || "));
        // What is in a segment is the programs' own: by chance it looks like a protocol gone wrong.
        let bad = run(self.tshark().args(["-d", "tcp.port==1-65535,data", "-Y", &wrong]));
        assert!(bad.trim().is_empty(), "bad segments of {ours}:\n{bad}");
    }

    fn stop(&mut self) {
        // What was just sent may still be on its way into the file.
        thread::sleep(Duration::from_millis(200));
        self.program.signal(libc::SIGINT);
        self.program.end(Duration::from_secs(10));
    }

    /// One line for each packet that `filter` shows.
    #[track_caller]
    pub fn select(&self, filter: &str) -> String {
        run(self.tshark().args(["-Y", filter]))
    }

    fn tshark(&self) -> Command {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-r"]).arg(&self.file);
        for protocol in ["ip", "tcp", "udp"] {
            tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
        }
        tshark
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

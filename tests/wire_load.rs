//! `ringroad load` on a real wire: over the kernel's sockets and over our own
//! stack, against the kernel's servers and ours.

mod common;

use std::time::Duration;

use common::capture::Capture;
use common::peer::Echo;
use common::{Bed, Mode, SHARED, Side, run, run_failing, unique};
use ringroad::telemetry::latency::Report;

/// Run a load from the client's side; its report.
#[track_caller]
fn load(bed: &Bed, over: &[&str], to: &str, args: &[&str]) -> Report {
    let json = std::env::temp_dir().join(format!("{}.json", unique()));
    let mut command = bed.command(Side::Client, common::RINGROAD);
    command.args(["load", "--to", to, "--duration", "1", "--over"]).args(over).args(args).arg("--json").arg(&json);
    let said = run(&mut command);
    let report: Report = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let _ = std::fs::remove_file(&json);
    assert!(said.contains("percentile"), "{said}");
    assert!(report.requests > 0 && report.error_count() == 0, "{said}");
    report
}

const KERNEL: [&str; 1] = ["kernel"];
const STACK: [&str; 3] = ["stack", "-i", "veth0"];
const STACK_OWNED: [&str; 5] = ["stack", "-i", "veth0", "--address", "10.77.0.22/24"];

#[test]
fn over_the_kernel_against_the_kernel() {
    let bed = Bed::new();
    let _echo = Echo::start(&bed, Side::Server, 7);
    load(&bed, &KERNEL, "10.77.0.1:7", &["--connections", "8"]);
    let open = load(&bed, &KERNEL, "10.77.0.1:echo", &["--connections", "4", "--rate", "500", "--size", "1000"]);
    assert_eq!(open.requests + open.unanswered, 500, "an open loop keeps to its schedule");
}

#[test]
fn over_our_stack_against_the_kernel() {
    for over in [&STACK[..], &STACK_OWNED[..]] {
        let bed = Bed::new();
        let _echo = Echo::start(&bed, Side::Server, 7);
        let mut capture = Capture::on(&bed, Side::Server, 50_000);
        let ours = if over.len() > 3 { "10.77.0.22" } else { common::CLIENT };
        load(&bed, over, "10.77.0.1:7", &["--connections", "16"]);
        load(&bed, over, "10.77.0.1:7", &["--connections", "2", "--size", "100000"]);
        load(&bed, over, "10.77.0.1:7", &["--connections", "4", "--rate", "500"]);
        capture.check(ours);
    }
}

#[test]
fn both_ends_ours() {
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("echo", mode, &["--tcp", "echo", "--udp", "echo"]);
        let to = format!("{}:7", mode.address());
        load(&bed, &STACK, &to, &["--connections", "64"]);
        load(&bed, &STACK, &to, &["--proto", "udp", "--connections", "8"]);
        load(&bed, &KERNEL, &to, &["--connections", "64"]);
        load(&bed, &KERNEL, &to, &["--proto", "udp", "--connections", "8", "--size", "1400"]);
    }
}

/// Connections that the client's kernel has opened.
fn opened(bed: &Bed) -> u64 {
    let text = bed.shell(Side::Client, "grep ^Tcp: /proc/net/snmp");
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    let place = lines[0].iter().position(|name| *name == "ActiveOpens").unwrap();
    lines[1][place].parse().unwrap()
}

#[test]
fn one_shot_makes_a_connection_for_each_request() {
    let bed = Bed::new();
    let root = std::env::temp_dir().join(unique());
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("index.html"), "<h1>ringroad</h1>\n").unwrap();
    let server = bed.serve("http", Mode::Shared, &["--port", "80", "--root", root.to_str().unwrap()]);
    let args = ["--proto", "http", "--one-shot", "--connections", "4"];
    let before = opened(&bed);
    let report = load(&bed, &KERNEL, "10.77.0.1:80", &args);
    let connections = opened(&bed) - before;
    assert!(connections >= report.requests, "{connections} connections, {} requests", report.requests);
    load(&bed, &STACK, "10.77.0.1:80", &args);
    drop(server);
    let _ = std::fs::remove_dir_all(&root);
    let mut command = bed.command(Side::Client, common::RINGROAD);
    let said = run_failing(command.args(["load", "--to", "10.77.0.1:7", "--over", "kernel", "--proto", "udp", "--one-shot"]));
    assert!(said.contains("datagrams have no connections"), "{said}");
}

#[test]
fn files_hold_the_histogram() {
    let bed = Bed::new();
    let _echo = Echo::start(&bed, Side::Server, 7);
    let file = std::env::temp_dir().join(format!("{}.hgrm", unique()));
    let report = load(&bed, &KERNEL, "10.77.0.1:7", &["--histogram", file.to_str().unwrap()]);
    let text = std::fs::read_to_string(&file).unwrap();
    let _ = std::fs::remove_file(&file);
    // One that had no answer when the time was over is in it with as long as it had waited.
    let all = report.requests + report.unanswered;
    assert!(text.contains(&format!("Total count    = {all:12}]")), "{} answered: {text}", report.requests);
}

#[test]
fn a_server_that_is_not_there_is_said_plainly() {
    let bed = Bed::new();
    for over in [&KERNEL[..], &STACK[..]] {
        let mut command = bed.command(Side::Client, common::RINGROAD);
        let said = run_failing(command.args(["load", "--to", "10.77.0.1:7", "--duration", "1", "--over"]).args(over));
        assert!(said.contains("refused") && said.contains("start the server"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let mut command = bed.command(Side::Client, common::RINGROAD);
    let said = run_failing(command.args(["load", "--to", "10.77.0.1:7", "--over", "stack", "-i", "none0"]));
    assert!(said.contains("none0"), "{said}");
}

#[test]
fn the_server_ending_shows_as_errors_and_the_load_ends_in_time() {
    let bed = Bed::new();
    let mut server = bed.serve("echo", Mode::Shared, &["--tcp", "7"]);
    let mut command = bed.command(Side::Client, common::RINGROAD);
    command.args(["load", "--over", "kernel", "--to", &format!("{SHARED}:7"), "--duration", "3", "--connections", "4"]);
    let mut load = common::Program::start(command);
    std::thread::sleep(Duration::from_millis(1_500));
    server.kill();
    let (well, said) = load.end(Duration::from_secs(15));
    assert!(well && !said.contains("errors                   0"), "{said}");
}

//! `ringroad http` on a real wire against curl and wrk.

mod common;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use common::capture::Capture;
use common::peer::Bytes;
use common::{Bed, Mode, Side, run, unique};

/// A directory of files to serve, removed when dropped.
struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(unique());
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("index.html"), "<h1>ringroad</h1>\n").unwrap();
        fs::write(dir.join("sub/note.txt"), "a note\n").unwrap();
        Self(dir)
    }

    /// Adds a file of `megabytes` MB that no compression or repeat could fake; its SHA-256.
    fn add_big(&self, name: &str, megabytes: usize) -> String {
        let path = self.0.join(name);
        let mut file = fs::File::create(&path).unwrap();
        let (mut bytes, mut block) = (Bytes::new(9), vec![0; 1 << 20]);
        for _ in 0..megabytes {
            bytes.fill(&mut block);
            file.write_all(&block).unwrap();
        }
        sum(&run(Command::new("sha256sum").arg(&path)))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sum(line: &str) -> String {
    line.split_whitespace().next().unwrap_or("").to_string()
}

#[test]
fn curl_fetches_a_hundred_megabytes_with_the_right_sum() {
    let root = Root::new();
    let expected = root.add_big("big.bin", 100);
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("http", mode, &["--port", "http", "--root", root.path()]);
        let mut capture = Capture::start(&bed, 20_000);
        let url = format!("http://{}/big.bin", mode.address());
        let line = bed.shell(Side::Client, &format!("curl -sS --fail --max-time 60 {url} | sha256sum"));
        assert_eq!(sum(&line), expected, "{mode:?}");
        capture.check(mode.address());
    }
}

#[test]
fn curl_gets_what_http_promises() {
    let root = Root::new();
    let bed = Bed::new();
    let mut server = bed.serve("http", Mode::Shared, &["--port", "80", "--root", root.path()]);
    let curl = |args: &str| bed.shell(Side::Client, &format!("curl -sS --max-time 10 {args}"));
    let code = |args: &str| curl(&format!("-o /dev/null -w '%{{http_code}}' {args}"));
    assert_eq!(curl("http://10.77.0.1/"), "<h1>ringroad</h1>\n");
    assert_eq!(curl("--http1.0 http://10.77.0.1/sub/note.txt"), "a note\n");
    let head = curl("-I http://10.77.0.1/sub/note.txt");
    assert!(head.contains("200 OK") && head.contains("Content-Length: 7") && head.contains("text/plain"), "{head}");
    assert_eq!(curl("-r 2-5 http://10.77.0.1/sub/note.txt"), "note");
    assert_eq!(code("http://10.77.0.1/nothing"), "404");
    assert_eq!(code("-X DELETE http://10.77.0.1/"), "405");
    assert_eq!(code("-d x=y http://10.77.0.1/"), "405");
    assert_eq!(code("--path-as-is http://10.77.0.1/../../etc/passwd"), "403");
    assert_eq!(code("http://10.77.0.1/sub"), "301");
    // One connection carries several requests.
    let several = curl("-w '%{num_connects}\\n' -o /dev/null http://10.77.0.1/ -o /dev/null http://10.77.0.1/ -o /dev/null http://10.77.0.1/");
    assert_eq!(several.split_whitespace().collect::<Vec<_>>(), ["1", "0", "0"]);
    let raw = "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\nGET /sub/note.txt HTTP/1.0\\r\\n\\r\\n' | nc -w 5 10.77.0.1 80";
    let pipelined = bed.shell(Side::Client, raw);
    assert!(pipelined.find("ringroad</h1>") < pipelined.find("a note"), "{pipelined}");
    let bad = bed.shell(Side::Client, "printf 'nonsense\\r\\n\\r\\n' | nc -w 5 10.77.0.1 80");
    assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
    server.stop();
}

#[test]
fn wrk_sees_no_socket_errors() {
    let root = Root::new();
    for mode in Mode::BOTH {
        let bed = Bed::new();
        let _server = bed.serve("http", mode, &["--port", "80", "--root", root.path()]);
        let mut capture = Capture::start(&bed, 50_000);
        let said = bed.shell(Side::Client, &format!("wrk -t1 -c64 -d3 http://{}/", mode.address()));
        assert!(said.contains("Requests/sec") && !said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
        capture.check(mode.address());
    }
}

#[test]
fn our_load_drives_it_over_both() {
    let root = Root::new();
    let bed = Bed::new();
    let _server = bed.serve("http", Mode::Shared, &["--port", "80", "--root", root.path()]);
    for over in [&["kernel"][..], &["stack", "-i", "veth0"]] {
        let mut command = bed.command(Side::Client, common::RINGROAD);
        command.args(["load", "--to", "10.77.0.1:80/sub/note.txt", "--proto", "http"]);
        let said = run(command.args(["--duration", "1", "--connections", "8", "--over"]).args(over));
        assert!(said.contains("errors                   0"), "{said}");
    }
}

#[test]
fn many_slow_readers_share_the_server() {
    let root = Root::new();
    let expected = root.add_big("file.bin", 2);
    let bed = Bed::new();
    let _server = bed.serve("http", Mode::Shared, &["--port", "80", "--root", root.path()]);
    let line = "for i in $(seq 16); do \
        curl -sS --fail --max-time 60 --limit-rate 2M http://10.77.0.1/file.bin | sha256sum & done; wait";
    let sums = bed.shell(Side::Client, line);
    assert_eq!(sums.lines().count(), 16);
    assert!(sums.lines().all(|l| sum(l) == expected), "{sums}");
}

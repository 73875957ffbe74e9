//! The examples on a veth pair, against the kernel on the other side. Needs
//! root.

#[path = "bed/mod.rs"]
mod bed;
mod cc;

use bed::Bed;
use cc::{Link, compile};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program in the stack's namespace; killed if a test fails.
struct Running(Child);

impl Running {
    fn start(bed: &Bed, program: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &bed.ours]).arg(program).args(args).envs(env.iter().copied());
        command.env_remove("RINGROAD_WRITE_HEADER");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("the program starts"))
    }

    fn signal(&self, signal: i32) {
        // SAFETY: takes no pointers; the child has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, signal) };
    }

    /// Waits for its end.
    #[track_caller]
    fn end(mut self) -> Output {
        drop(self.0.stdin.take());
        let until = Instant::now() + PATIENCE;
        while self.0.try_wait().expect("it can be waited for").is_none() {
            if Instant::now() > until {
                self.signal(libc::SIGABRT);
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut child = self.0.try_wait().ok().flatten();
        let status = child.take().unwrap_or_else(|| self.0.wait().expect("it can be waited for"));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let _ = self.0.stdout.take().map(|mut o| o.read_to_end(&mut stdout));
        let _ = self.0.stderr.take().map(|mut e| e.read_to_end(&mut stderr));
        Output { status, stdout, stderr }
    }

    /// Waits for its end, which has to be a good one; what it printed.
    #[track_caller]
    fn succeed(self) -> String {
        let out = self.end();
        assert!(out.status.success(), "{}: {}", out.status, bed::text_of(&out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connects to the stack from the peer's side, again until it listens.
fn connect(port: u16) -> TcpStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect((Bed::OUR_IP, port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
                return stream;
            }
            Err(why) if Instant::now() > until => panic!("port {port}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Sends so many bytes, and checks that they come back, then the end.
fn echo(mut stream: TcpStream, bytes: usize) {
    let out: Vec<u8> = (0..bytes).map(|i| ((i * 31) >> 3) as u8).collect();
    let mut reader = stream.try_clone().expect("a second handle");
    let expected = out.clone();
    let reading = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        reader.read_exact(&mut got).expect("the echo");
        assert!(got == expected, "the echo differs");
        assert_eq!(reader.read(&mut [0]).expect("the end"), 0);
    });
    stream.write_all(&out).expect("the kernel takes it");
    stream.shutdown(std::net::Shutdown::Write).expect("half-close");
    reading.join().expect("the echo is whole");
}

/// The kernel as an echo server, at the peer's side, for so many connections.
fn kernel_echo(bed: &Bed, port: u16, connections: usize) -> std::thread::JoinHandle<()> {
    let (ready, listening) = std::sync::mpsc::channel();
    let server = bed.at_peer(move || {
        let listener = TcpListener::bind((Bed::PEER_IP, port)).expect("a listener");
        ready.send(()).expect("the test waits");
        let serve = |stream: TcpStream| {
            std::thread::spawn(move || {
                let (mut from, mut to) = (&stream, &stream);
                std::io::copy(&mut from, &mut to).map(|_| ())
            })
        };
        let accept = |_| serve(listener.accept().expect("a connection").0);
        let served: Vec<_> = (0..connections).map(accept).collect();
        for one in served {
            one.join().expect("no panic").expect("no error");
        }
    });
    listening.recv().expect("it listens");
    server
}

/// The kernel's traffic goes on.
fn ping(bed: &Bed) {
    let out = bed.in_peer("ping", &["-c", "1", "-W", "5", Bed::OUR_IP]);
    assert!(out.status.success(), "{}", bed::text_of(&out));
}

#[test]
fn the_epoll_example_serves_the_kernel() {
    let program = compile("cc", "examples/echo_server.c", Link::Shared, &["-std=gnu11", "-O2"]);
    let bed = Bed::new(1);
    let server = Running::start(&bed, &program, &[Bed::OUR_IF, "7"], &[]);
    bed.at_peer(|| {
        echo(connect(7), 1);
        let many: Vec<_> = (0..20).map(|i| (connect(7), 1000 * i + 1)).collect();
        let each = |(stream, bytes)| std::thread::spawn(move || echo(stream, bytes));
        let threads: Vec<_> = many.into_iter().map(each).collect();
        threads.into_iter().for_each(|t| t.join().expect("an echo"));
        echo(connect(7), 3_000_000);
    })
    .join()
    .expect("all echoes");
    ping(&bed);
    server.signal(libc::SIGTERM);
    server.succeed();
    ping(&bed);
}

#[test]
fn the_epoll_example_serves_on_an_address_of_its_own() {
    let program = compile("cc", "examples/echo_server.c", Link::Static, &["-std=gnu11", "-O2"]);
    let bed = Bed::new(1);
    let server = Running::start(&bed, &program, &[Bed::OUR_IF, "7", "10.7.0.9/24"], &[]);
    bed.at_peer(|| {
        let until = Instant::now() + PATIENCE;
        let stream = loop {
            match TcpStream::connect_timeout(&"10.7.0.9:7".parse().unwrap(), PATIENCE) {
                Ok(stream) => break stream,
                Err(why) => assert!(Instant::now() < until, "{why}"),
            }
        };
        echo(stream, 100_000);
    })
    .join()
    .expect("an echo");
    server.signal(libc::SIGINT);
    server.succeed();
}

#[test]
fn the_blocking_example_is_served_by_the_kernel() {
    let program = compile("cc", "examples/blocking_client.c", Link::Shared, &["-std=gnu11", "-O2"]);
    let bed = Bed::new(1);
    let server = kernel_echo(&bed, 7, 6);
    let client = Running::start(&bed, &program, &[Bed::OUR_IF, Bed::PEER_IP, "7", "6", "200"], &[]);
    assert_eq!(client.succeed(), "6 threads, 200 messages each, 0 failed\n");
    server.join().expect("the server saw no error");
    ping(&bed);
}

#[test]
fn posix_programs_become_ours_by_defines() {
    let flags = ["-std=gnu11", "-O2", "-DRINGROAD"];
    let server = compile("cc", "examples/posix_echo.c", Link::Shared, &flags);
    let client = compile("cc", "examples/posix_client.c", Link::Shared, &flags);
    let bed = Bed::new(1);
    let env = [("RINGROAD_INTERFACE", Bed::OUR_IF), ("RINGROAD_WAIT", "block")];

    let mut running = Running::start(&bed, &server, &["7"], &env);
    let mut line = String::new();
    let out = running.0.stdout.as_mut().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("a line");
    assert_eq!(line, "listening\n");
    bed.at_peer(|| (0..10).for_each(|i| echo(connect(7), 1 + 5000 * i))).join().expect("echoes");
    running.succeed(); // its standard input ends

    let echoing = kernel_echo(&bed, 9, 1);
    let mut running = Running::start(&bed, &client, &[Bed::PEER_IP, "9"], &env);
    let text = "a line for the wire\n".repeat(2000);
    let mut input = running.0.stdin.take().expect("piped");
    let said = text.clone();
    let mut output = running.0.stdout.take().expect("piped");
    let reading = std::thread::spawn(move || {
        let mut got = String::new();
        output.read_to_string(&mut got).map(|_| got)
    });
    input.write_all(said.as_bytes()).expect("it reads");
    drop(input);
    running.succeed();
    assert_eq!(reading.join().expect("no panic").expect("text"), text);
    echoing.join().expect("the server saw no error");
    ping(&bed);
}

#[test]
fn what_keeps_it_from_starting_is_said() {
    let program = compile("cc", "examples/echo_server.c", Link::Shared, &["-std=gnu11", "-O2"]);
    let bed = Bed::new(1);
    for (args, said) in [
        (["nothere0", "7"].as_slice(), "nothere0"),
        (&[Bed::OUR_IF, "7", "10.7.0.9"], "10.7.0.9"),
    ] {
        let out = Running::start(&bed, &program, args, &[]).end();
        assert_eq!(out.status.code(), Some(1));
        let text = bed::text_of(&out);
        assert!(text.starts_with("rr_init: ") && text.contains(said), "{text}");
    }
}

#[test]
fn the_running_stack_keeps_the_systems_rules() {
    let program = compile("cc", "tests/c/running.c", Link::Shared, &["-std=gnu11"]);
    let bed = Bed::new(1);
    let server = kernel_echo(&bed, 7, 3);
    let running = Running::start(&bed, &program, &[Bed::OUR_IF, Bed::PEER_IP], &[]);
    assert_eq!(running.succeed(), "ok\n");
    server.join().expect("the server saw no error");
    ping(&bed);
}

#[test]
fn the_rust_example_serves_the_kernel() {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "echo"]).status();
    assert!(built.expect("cargo runs").success());
    let mut target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target").to_owned();
    target.push("debug/examples/echo");
    let bed = Bed::new(1);
    let server = Running::start(&bed, &target, &[Bed::OUR_IF, "7"], &[]);
    bed.at_peer(|| (0..10).for_each(|i| echo(connect(7), 1 + 50_000 * i))).join().expect("echoes");
    server.signal(libc::SIGKILL); // the kernel gets its traffic back by itself
    assert!(!server.end().status.success());
    ping(&bed);
}

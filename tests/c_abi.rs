//! C programs against the header and both libraries, with the system's
//! compiler: the sizes and offsets of structs, and the calls in simulation.
//!
//! The libraries are built by `scripts/build-libs`; set `RINGROAD_LIBS_PROFILE`
//! to another profile than `release` to have them faster.

use core::mem::{offset_of, size_of};
use ringroad::ffi::{rr_config, rr_sim_config, rr_zc_frame};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> Output {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

/// Where the libraries lie, freshly built.
fn libs() -> &'static Path {
    static LIBS: OnceLock<PathBuf> = OnceLock::new();
    LIBS.get_or_init(|| {
        let profile = std::env::var("RINGROAD_LIBS_PROFILE").unwrap_or_else(|_| "release".into());
        let mut build = Command::new(root().join("scripts/build-libs"));
        let out = run(build.args(["--profile", &profile]));
        PathBuf::from(String::from_utf8(out.stdout).expect("a path").trim())
    })
}

/// A place for this process's programs.
fn scratch() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
    std::fs::create_dir_all(&dir).expect("a directory for C programs");
    dir
}

#[derive(Clone, Copy, Debug)]
enum Link {
    Shared,
    Static,
}

fn has(compiler: &str) -> bool {
    Command::new(compiler).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// Compiles a program, every warning an error.
fn compile(compiler: &str, source: &str, link: Link, extra: &[&str]) -> PathBuf {
    let libs = libs();
    let stem = source.replace(['/', '.'], "_");
    let program = scratch().join(format!("{stem}-{compiler}-{link:?}"));
    let mut cc = Command::new(compiler);
    cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-g"]).args(extra);
    cc.arg("-I").arg(root().join("include")).arg(root().join(source)).arg("-o").arg(&program);
    match link {
        Link::Shared => {
            cc.arg("-L").arg(libs.join("lib")).arg("-lringroad");
            cc.arg(format!("-Wl,-rpath,{}", libs.join("lib").display()));
        }
        Link::Static => {
            cc.arg(libs.join("lib/libringroad.a")).args(private_libs());
        }
    }
    run(cc.arg("-pthread"));
    program
}

/// What `ringroad.pc` says a static program needs besides.
fn private_libs() -> Vec<String> {
    let pc = std::fs::read_to_string(libs().join("lib/pkgconfig/ringroad.pc")).expect("the .pc");
    let line = pc.lines().find_map(|l| l.strip_prefix("Libs.private:")).expect("Libs.private");
    line.split_whitespace().map(str::to_owned).collect()
}

/// Compiles with both libraries and runs.
fn both(source: &str) {
    for link in [Link::Shared, Link::Static] {
        let program = compile("cc", source, link, &["-std=gnu11"]);
        let out = run(&mut Command::new(program));
        assert_eq!(String::from_utf8_lossy(&out.stdout), "ok\n", "{source} {link:?}");
    }
}

#[test]
fn structs_are_laid_out_alike() {
    let mut expected = String::new();
    macro_rules! lay {
        ($type:ident: $($field:ident)*) => {
            expected += &format!("{} {}\n", stringify!($type), size_of::<$type>());
            $(expected += &format!(
                "{}.{} {}\n",
                stringify!($type),
                stringify!($field),
                offset_of!($type, $field)
            );)*
        };
    }
    lay!(rr_config: workers interface address gateway cpus wait frames seed);
    lay!(rr_sim_config: raw_ip address gateway mac mtu neighbor_retry_ns fragment_timeout_ns
        tcp_send_buffer tcp_initial_rto_ns tcp_coalesce);
    lay!(rr_zc_frame: len id);
    for link in [Link::Shared, Link::Static] {
        let program = compile("cc", "tests/c/abi.c", link, &["-std=c11", "-pedantic"]);
        assert_eq!(String::from_utf8_lossy(&run(&mut Command::new(program)).stdout), expected);
    }
    if has("g++") {
        let program = compile("g++", "tests/c/abi.c", Link::Shared, &["-x", "c++", "-std=c++17"]);
        assert_eq!(String::from_utf8_lossy(&run(&mut Command::new(program)).stdout), expected);
    }
}

#[test]
fn tcp_in_simulation() {
    both("tests/c/sim_tcp.c");
}

#[test]
fn udp_in_simulation() {
    both("tests/c/sim_udp.c");
}

#[test]
fn epoll_in_simulation() {
    both("tests/c/sim_epoll.c");
}

#[test]
fn zero_copy_in_simulation() {
    both("tests/c/sim_zero_copy.c");
}

#[test]
fn errors_in_simulation() {
    both("tests/c/sim_errors.c");
}

#[test]
fn what_is_the_systems_goes_to_the_system() {
    both("tests/c/system.c");
}

#[test]
fn posix_programs_are_renamed() {
    both("tests/c/posix_names.c");
}

#[test]
fn the_shared_library_has_its_name_and_exports_the_headers_functions_only() {
    let so = libs().join("lib/libringroad.so");
    let dynamic = run(Command::new("readelf").arg("-d").arg(&so)).stdout;
    let dynamic = String::from_utf8_lossy(&dynamic);
    assert!(dynamic.contains("soname: [libringroad.so.0]"), "{dynamic}");
    let names = run(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(&so));
    let mut exported: Vec<String> = String::from_utf8_lossy(&names.stdout)
        .lines()
        .filter_map(|l| l.split(' ').next().map(str::to_owned))
        .collect();
    exported.sort();
    let header = std::fs::read_to_string(root().join("include/ringroad.h")).expect("the header");
    let code = header.lines().filter(|l| !l.trim_start().starts_with("//"));
    let mut declared: Vec<String> = code
        .filter_map(|l| l.split_once('(').and_then(|(head, _)| head.rsplit([' ', '*']).next()))
        .filter(|name| name.starts_with("rr_"))
        .map(str::to_owned)
        .collect();
    declared.sort();
    declared.dedup();
    assert_eq!(exported, declared);
}

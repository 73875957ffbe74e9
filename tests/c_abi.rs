//! C programs against the header and both libraries, with the system's
//! compiler: the sizes and offsets of structs, and the calls in simulation.

mod cc;

use cc::{Link, compile, has, libs, root, run};
use core::mem::{offset_of, size_of};
use ringroad::ffi::{rr_config, rr_sim_config, rr_zc_frame};
use std::process::Command;

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
fn urgent_data_in_simulation() {
    both("tests/c/sim_urgent.c");
}

#[test]
fn opening_with_data_and_new_settings_in_simulation() {
    both("tests/c/sim_fast_open.c");
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

//! Compiles the steering program and makes its skeleton.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = "bpf/steer.bpf.c";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    if let Err(why) = Command::new(&clang).arg("--version").output() {
        fail(&format!(
            "the steering program needs clang, and `{clang}` does not run ({why}). \
             On Debian: apt-get install clang llvm libelf-dev zlib1g-dev m4 make pkg-config \
             linux-libc-dev. Another clang is named by the environment variable CLANG."
        ));
    }
    let built = libbpf_cargo::SkeletonBuilder::new()
        .source(SOURCE)
        .clang(&clang)
        .clang_args(clang_args())
        .build_and_generate(out.join("steer.skel.rs"));
    if let Err(why) = built {
        fail(&format!("{SOURCE} does not compile: {why:?}"));
    }
}

/// `<asm/types.h>` lies in the folder of the host's architecture, where clang
/// does not look when its target is BPF.
fn clang_args() -> Vec<String> {
    let mut args = vec!["-Wall".to_string(), "-Werror".to_string(), "-mcpu=v3".to_string()];
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let folder = format!("/usr/include/{arch}-linux-gnu");
    if Path::new(&folder).is_dir() {
        args.push(format!("-I{folder}"));
    }
    args
}

fn fail(text: &str) -> ! {
    eprintln!("\nringroad: {text}\n");
    std::process::exit(1);
}

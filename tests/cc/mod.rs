//! The C libraries, built by `scripts/build-libs`, and programs compiled against
//! them with the system's compiler. Set `LIBS_PROFILE` to another
//! profile than `release` to have the libraries faster.

#![allow(dead_code)] // each test file uses a part of it

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The package's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a program that has to succeed.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
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
pub fn libs() -> &'static Path {
    static LIBS: OnceLock<PathBuf> = OnceLock::new();
    LIBS.get_or_init(|| {
        let profile = std::env::var("LIBS_PROFILE").unwrap_or_else(|_| "release".into());
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

/// Which library a program is linked with.
#[derive(Clone, Copy, Debug)]
pub enum Link {
    /// libringroad.so.
    Shared,
    /// libringroad.a.
    Static,
}

/// Whether there is such a compiler.
pub fn has(compiler: &str) -> bool {
    Command::new(compiler).arg("--version").output().is_ok_and(|o| o.status.success())
}

/// Compiles a program, every warning an error.
pub fn compile(compiler: &str, source: &str, link: Link, extra: &[&str]) -> PathBuf {
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

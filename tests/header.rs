//! `include/ringroad.h` is made from `src/ffi`. This test makes it anew and
//! compares; `RINGROAD_WRITE_HEADER=1 cargo test --test header` writes it.

use cbindgen::{Builder, Config, EnumConfig, ExportConfig, FunctionConfig, Language, Style};
use std::path::Path;

/// In the order of the header.
const SOURCES: [&str; 11] = [
    "errno.rs",
    "config.rs",
    "lifecycle.rs",
    "socket.rs",
    "data.rs",
    "control.rs",
    "poll.rs",
    "epoll.rs",
    "zero_copy.rs",
    "sim/config.rs",
    "sim/abi.rs",
];

const HEAD: &str = "\
/* ringroad: TCP, UDP and IP in user space over AF_XDP, with POSIX-shaped sockets.

   Each function has the arguments, the return value and the errno of the system's
   call whose name it has with rr_ before it, so that `#define socket rr_socket`
   and the like (ringroad_posix.h) make a program one of ringroad's. Descriptors
   are numbers of the process's own table; one that is not ringroad's may be given
   to any of these functions, which hand it to the system.

   Generated from src/ffi. Do not edit: RINGROAD_WRITE_HEADER=1 cargo test --test header

   Licence: MIT OR Apache-2.0 */";

const INCLUDES: &str = "
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#ifdef __cplusplus
extern \"C\" {
#endif

struct mmsghdr;

/* A simulated stack. */
struct rr_sim;

/* fcntl(2). Of ours: F_GETFL, F_SETFL (O_NONBLOCK), F_GETFD, F_SETFD, F_DUPFD,
   F_DUPFD_CLOEXEC, F_GETOWN, F_SETOWN (no effect); EINVAL for others. */
int rr_fcntl(int fd, int cmd, ...);

/* ioctl(2). Of ours: FIONREAD, FIONBIO, FIOCLEX, FIONCLEX; ENOTTY for others. */
int rr_ioctl(int fd, unsigned long request, ...);

#ifdef __cplusplus
}
#endif";

/// The system's structs, and the types that C calls by other names.
const STRUCTS: [&str; 9] = [
    "sockaddr", "iovec", "msghdr", "mmsghdr", "timespec", "timeval", "pollfd", "epoll_event", "rr_sim",
];

fn config() -> Config {
    let mut export = ExportConfig {
        exclude: vec!["rr_fcntl".into(), "rr_ioctl".into(), "rr_sim".into()],
        ..ExportConfig::default()
    };
    for name in STRUCTS {
        export.rename.insert(name.into(), format!("struct {name}"));
    }
    Config {
        language: Language::C,
        style: Style::Tag,
        cpp_compat: true,
        header: Some(HEAD.into()),
        include_guard: Some("RINGROAD_H".into()),
        no_includes: true,
        after_includes: Some(INCLUDES.into()),
        usize_is_size_t: true,
        line_length: 96,
        tab_width: 4,
        documentation_style: cbindgen::DocumentationStyle::C99,
        documentation_length: cbindgen::DocumentationLength::Full,
        export,
        function: FunctionConfig { sort_by: Some(cbindgen::SortKey::None), ..FunctionConfig::default() },
        enumeration: EnumConfig::default(),
        ..Config::default()
    }
}

fn generate(root: &Path) -> String {
    let mut builder = Builder::new().with_config(config());
    for source in SOURCES {
        builder = builder.with_src(root.join("src/ffi").join(source));
    }
    let mut out = Vec::new();
    builder.generate().expect("the C layer can be parsed").write(&mut out);
    tidy(&String::from_utf8(out).expect("a header is text"))
}

/// Leaves out of the comments what is for Rust: the promises of `# Safety`.
fn tidy(header: &str) -> String {
    let mut out = String::new();
    let mut safety = false;
    for line in header.lines() {
        let comment = line.trim_start().starts_with("//");
        safety = comment && (safety || line.trim() == "// # Safety");
        if !safety {
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out.replace("//\nint", "int").replace("//\nssize_t", "ssize_t")
}

#[test]
fn the_header_is_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/ringroad.h");
    let made = generate(root);
    if std::env::var_os("RINGROAD_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).expect("the header can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if made != committed {
        let line = made.lines().zip(committed.lines()).position(|(a, b)| a != b).unwrap_or(0);
        panic!(
            "include/ringroad.h is not what src/ffi says (from line {} on); write it anew with\n\
             RINGROAD_WRITE_HEADER=1 cargo test --test header",
            line + 1
        );
    }
}

//! What can go wrong between an interface and its rings.

use core::fmt;
use std::io;

/// The kind of a failure, for programs that act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// There is no such interface.
    NoInterface,
    /// The interface is down, or went away.
    Down,
    /// The configuration cannot be.
    Config,
    /// A privilege is missing.
    Privilege,
    /// A program that is not ours is attached.
    ForeignProgram {
        /// The program's id, as `bpftool prog show id` takes it.
        id: u32,
        /// Its name; empty where it has none.
        name: String,
    },
    /// Another ringroad steers this interface.
    AnotherRingroad {
        /// The process that holds it, where it can be seen.
        pid: Option<u32>,
    },
    /// A queue's socket is somebody else's.
    QueueBusy,
    /// The MTU is larger than a frame holds.
    Mtu,
    /// Memory, or the right to lock it, is missing.
    Memory,
    /// The kernel or the driver cannot do it.
    Unsupported,
    /// Anything else that the system refused.
    System,
}

/// Why a device could not be opened or steered: what failed, why, and what to do.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    why: String,
    remedy: String,
    source: Option<io::Error>,
}

/// What the functions of this module return.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// An error of `kind`: `what` failed, because of `why`; `remedy` is what a
    /// person can do about it (empty: nothing is known).
    pub fn new(
        kind: ErrorKind,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { kind, what: what.into(), why: why.into(), remedy: remedy.into(), source: None }
    }

    /// An error that the system reported, explained by its number.
    pub fn system(what: impl Into<String>, source: io::Error) -> Self {
        let (kind, remedy) = match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => (
                ErrorKind::Privilege,
                super::privileges::REMEDY,
            ),
            Some(libc::ENODEV | libc::ENXIO) => {
                (ErrorKind::NoInterface, "`ip link` lists the interfaces")
            }
            Some(libc::ENETDOWN) => (ErrorKind::Down, "bring it up with `ip link set dev … up`"),
            Some(libc::EBUSY) => (ErrorKind::QueueBusy, "end the program that holds it"),
            Some(libc::ENOBUFS | libc::ENOMEM) => (
                ErrorKind::Memory,
                "raise the lock limit (`ulimit -l unlimited`), give CAP_IPC_LOCK, or ask for \
                 fewer frames",
            ),
            Some(libc::EOPNOTSUPP) => {
                (ErrorKind::Unsupported, "`ringroad doctor` says what this interface can do")
            }
            _ => (ErrorKind::System, "`ringroad doctor` may say more"),
        };
        let mut error = Self::new(kind, what, source.to_string(), remedy);
        error.source = Some(source);
        error
    }

    /// The kind of failure.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The system's error number, where there was one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let error = Error::system("veth0: bind queue 1", io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(*error.kind(), ErrorKind::Privilege);
        let text = error.to_string();
        assert!(text.starts_with("veth0: bind queue 1: Operation not permitted"), "{text}");
        assert!(text.contains("; run as root"), "{text}");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
}

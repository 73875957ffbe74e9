//! Attaching the steering program, and finding out what is attached.

use super::error::{Error, ErrorKind, Result};
use super::interface::{Interface, Query};
use super::steer::{
    Addresses, FRAGS_PROGRAM_NAME, PROGRAM_NAME, Program, Protocol, SteerCounters,
};
use core::fmt;
use libbpf_rs::libbpf_sys;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU8, Ordering};
use std::sync::{Arc, Once, OnceLock};

const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where in the kernel the steering program is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// In the driver if it can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// After the driver made a socket buffer: slower, for every driver.
    Generic,
}

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// After the driver made a socket buffer.
    Generic,
    /// On the card itself.
    Offload,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offloaded",
        })
    }
}

/// A program that is attached to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The program's id (`bpftool prog show id ...`).
    pub id: u32,
    /// Its name, at most 15 characters; empty where it has none.
    pub name: String,
    /// Where it runs.
    pub mode: Mode,
}

impl Attached {
    /// True where it is a ringroad's.
    pub fn is_ringroad(&self) -> bool {
        self.name == PROGRAM_NAME || self.name == FRAGS_PROGRAM_NAME
    }

    /// The process that holds the program's link, if one does and it can be seen.
    pub fn holder(&self) -> Option<u32> {
        let wanted = format!("prog_id:\t{}", self.id);
        let processes = std::fs::read_dir("/proc").ok()?;
        let pids = processes.flatten().filter_map(|p| p.file_name().to_str()?.parse().ok());
        pids.into_iter().find(|pid: &u32| {
            let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            files.flatten().any(|file| {
                let is_link = std::fs::read_link(file.path())
                    .is_ok_and(|to| to.to_string_lossy().contains("bpf_link"));
                let number = file.file_name();
                is_link
                    && std::fs::read_to_string(format!(
                        "/proc/{pid}/fdinfo/{}",
                        number.to_string_lossy()
                    ))
                    .is_ok_and(|info| info.lines().any(|line| line == wanted))
            })
        })
    }

    fn refusal(&self, interface: &str) -> Error {
        if self.is_ringroad() {
            let pid = self.holder();
            let who = pid.map_or(String::new(), |pid| format!(" in process {pid}"));
            return Error::new(
                ErrorKind::AnotherRingroad { pid },
                interface,
                format!("another ringroad{who} steers this interface (program id {})", self.id),
                "end it first, or use another interface",
            );
        }
        let name = if self.name.is_empty() { "without a name" } else { &self.name };
        Error::new(
            ErrorKind::ForeignProgram { id: self.id, name: self.name.clone() },
            interface,
            format!(
                "another XDP program is attached (id {}, name {name}, {} mode)",
                self.id, self.mode
            ),
            format!(
                "detach it (`ip link set dev {interface} xdp off`, or end the program that \
                 holds it), or use another interface"
            ),
        )
    }
}

fn query(index: u32) -> Result<libbpf_sys::bpf_xdp_query_opts> {
    // SAFETY: all zeros is a valid bpf_xdp_query_opts.
    let mut query: libbpf_sys::bpf_xdp_query_opts = unsafe { core::mem::zeroed() };
    query.sz = size_of::<libbpf_sys::bpf_xdp_query_opts>() as _;
    // SAFETY: the options live through the call and carry their size.
    let n = unsafe { libbpf_sys::bpf_xdp_query(index as i32, 0, &mut query) };
    if n < 0 {
        let why = io::Error::from_raw_os_error(-n);
        return Err(Error::system("asking what XDP program is attached", why));
    }
    Ok(query)
}

/// What a driver says that it can (`netdev` generic netlink, Linux 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// It runs XDP programs and redirects for them.
    pub native: bool,
    /// It fills our frames itself.
    pub zero_copy: bool,
    /// It receives packets of several buffers.
    pub multi_buffer: bool,
}

/// What the driver of the interface of this number says that it can; `None`
/// where it says nothing (or the kernel is too old to ask).
///
/// # Errors
/// The interface is gone, or the system refuses.
pub fn features(index: u32) -> Result<Option<Features>> {
    const BASIC_AND_REDIRECT: u64 = 1 | 2;
    const ZERO_COPY: u64 = 8;
    const RX_SG: u64 = 32;
    let flags = query(index)?.feature_flags;
    Ok((flags != 0).then_some(Features {
        native: flags & BASIC_AND_REDIRECT == BASIC_AND_REDIRECT,
        zero_copy: flags & ZERO_COPY != 0,
        multi_buffer: flags & RX_SG != 0,
    }))
}

/// What XDP program is attached to the interface of this number, if one is.
///
/// # Errors
/// The interface is gone, or the system refuses.
pub fn attached(index: u32) -> Result<Option<Attached>> {
    let query = query(index)?;
    // XDP_ATTACHED_NONE, DRV, SKB, HW, MULTI
    let (id, mode) = match query.attach_mode {
        1 => (query.drv_prog_id.max(query.prog_id), Mode::Native),
        2 => (query.skb_prog_id.max(query.prog_id), Mode::Generic),
        3 => (query.hw_prog_id.max(query.prog_id), Mode::Offload),
        4 if query.drv_prog_id != 0 => (query.drv_prog_id, Mode::Native),
        4 if query.skb_prog_id != 0 => (query.skb_prog_id, Mode::Generic),
        4 => (query.hw_prog_id, Mode::Offload),
        _ => return Ok(None),
    };
    Ok(Some(Attached { id, name: program_name(id), mode }))
}

fn program_name(id: u32) -> String {
    // SAFETY: takes no pointers.
    let fd = unsafe { libbpf_sys::bpf_prog_get_fd_by_id(id) };
    if fd < 0 {
        return String::new();
    }
    // SAFETY: a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    program_info(&fd).map(|(_, name)| name).unwrap_or_default()
}

fn program_info(fd: &impl AsRawFd) -> Option<(u32, String)> {
    // SAFETY: all zeros is a valid bpf_prog_info.
    let mut info: libbpf_sys::bpf_prog_info = unsafe { core::mem::zeroed() };
    let mut len = size_of::<libbpf_sys::bpf_prog_info>() as u32;
    // SAFETY: the structure lives through the call and its length is given.
    let n = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd.as_raw_fd(), &mut info, &mut len) };
    if n < 0 {
        return None;
    }
    let name = info.name.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect();
    Some((info.id, name))
}

/// The steering of one interface. Clones share it; the last one detaches the
/// program, if [`Steering::detach`] or the drop of a device did not before.
///
/// The link to the interface dies with the process, however that ends.
#[derive(Clone)]
pub struct Steering(Arc<Inner>);

struct Inner {
    program: Program,
    /// The link's descriptor; -1: not attached.
    link: AtomicI32,
    /// 0: never attached; else 1 + `Mode`.
    mode: AtomicU8,
    /// The stripping of VLAN tags, which is on again when this is dropped.
    stripping: OnceLock<Stripping>,
}

/// Switches the stripping of VLAN tags on again when it is dropped. A killed
/// process leaves it off, which costs the kernel a little and changes nothing.
struct Stripping(Query);

impl Drop for Stripping {
    fn drop(&mut self) {
        let _ = self.0.set_rx_vlan_stripping(true); // it fails where the interface is gone
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        detach(&self.link);
        let this = core::ptr::from_ref(&self.link).cast_mut();
        for place in &LINKS {
            let gone = core::ptr::null_mut();
            let _ = place.compare_exchange(this, gone, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// The links of this process. A forked child has copies of their descriptors,
/// which would keep the programs attached when this process is killed; and a
/// child that tidies up would take its parent's program off.
static LINKS: [AtomicPtr<AtomicI32>; 16] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 16];

fn forget_in_children(link: &AtomicI32) {
    static WATCHED: Once = Once::new();
    // SAFETY: the function is there for ever, and does what may be done in a
    // forked child.
    WATCHED.call_once(|| _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) });
    let this = core::ptr::from_ref(link).cast_mut();
    for place in &LINKS {
        let free = core::ptr::null_mut();
        if place.compare_exchange(free, this, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

extern "C" fn in_child() {
    for place in &LINKS {
        // SAFETY: null, or a link that is taken out before it is freed.
        let Some(link) = (unsafe { place.load(Ordering::Acquire).as_ref() }) else { continue };
        let fd = link.swap(-1, Ordering::AcqRel);
        if fd >= 0 {
            // SAFETY: the child's copy, which nobody names any more.
            unsafe { libc::close(fd) };
        }
    }
}

fn detach(link: &AtomicI32) {
    let fd = link.swap(-1, Ordering::AcqRel);
    if fd < 0 {
        return;
    }
    // Detaching by name, so that a copy of the descriptor in a forked child
    // does not keep the program attached. It fails only where the interface is
    // gone, and then it is detached.
    // SAFETY: takes no pointers.
    let _ = unsafe { libbpf_sys::bpf_link_detach(fd) };
    // SAFETY: the swap made us the descriptor's only owner.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

impl Steering {
    /// Loads the program for queues `0 .. queues` without attaching it.
    /// `frags`: the variant for packets of several buffers.
    ///
    /// # Errors
    /// Missing privileges ([`privileges`](super::privileges)), or a kernel without XDP.
    pub fn load(queues: u32, frags: bool) -> Result<Self> {
        super::privileges::check()?;
        Ok(Self(Arc::new(Inner {
            program: Program::load(queues, frags)?,
            link: AtomicI32::new(-1),
            mode: AtomicU8::new(0),
            stripping: OnceLock::new(),
        })))
    }

    /// Refuses an interface that has an XDP program already.
    ///
    /// # Errors
    /// [`ErrorKind::ForeignProgram`] and [`ErrorKind::AnotherRingroad`] name it.
    pub fn check_free(interface: &Interface) -> Result<()> {
        match attached(interface.index)? {
            Some(program) => Err(program.refusal(&interface.name)),
            None => Ok(()),
        }
    }

    /// An XDP program does not see a VLAN tag that the card took out, and would
    /// take a tagged frame for one of ours. So the stripping goes off for as long
    /// as this lives.
    ///
    /// # Errors
    /// The driver cannot.
    pub fn stop_vlan_stripping(&self, interface: &Interface) -> Result<()> {
        let query = Query::new(&interface.name)?;
        if query.rx_vlan_stripping() != Some(true) {
            return Ok(());
        }
        query.set_rx_vlan_stripping(false).map_err(|why| {
            Error::new(
                ErrorKind::Unsupported,
                &interface.name,
                format!(
                    "it takes VLAN tags out of received frames, so that tagged ones could not \
                     be told from ours, and this cannot be switched off ({why})"
                ),
                "use another interface",
            )
        })?;
        let _ = self.0.stripping.set(Stripping(query));
        Ok(())
    }

    /// Attaches the program to the interface. Never displaces another program.
    ///
    /// # Errors
    /// As [`Steering::check_free`], or the driver refuses (and `how` leaves no
    /// other way).
    pub fn attach(&self, interface: &Interface, how: Attach) -> Result<Mode> {
        Self::check_free(interface)?;
        let native = match how {
            Attach::Auto | Attach::Native => self.link(interface, XDP_FLAGS_DRV_MODE),
            Attach::Generic => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        };
        let link = match (native, how) {
            (Ok(link), _) => Ok(link),
            (Err(why), Attach::Native) => Err(why),
            (Err(why), _) if taken(&why) => Err(why),
            (Err(_), _) => self.link(interface, XDP_FLAGS_SKB_MODE),
        };
        let link = link.map_err(|why| {
            if taken(&why) && let Err(named) = Self::check_free(interface) {
                return named; // somebody was faster
            }
            Error::system(format!("{}: attaching the steering program", interface.name), why)
        })?;
        // The truth, not what was asked for.
        let mode = match attached(interface.index)? {
            Some(program) => program.mode,
            None => {
                return Err(Error::new(
                    ErrorKind::Down,
                    &interface.name,
                    "the interface went away while the program was attached",
                    "",
                ));
            }
        };
        self.0.mode.store(1 + mode as u8, Ordering::Release);
        let old = self.0.link.swap(std::os::fd::IntoRawFd::into_raw_fd(link), Ordering::AcqRel);
        if old >= 0 {
            detach(&AtomicI32::new(old));
        } else {
            forget_in_children(&self.0.link);
        }
        Ok(mode)
    }

    fn link(&self, interface: &Interface, flags: u32) -> io::Result<OwnedFd> {
        // SAFETY: all zeros is a valid bpf_link_create_opts.
        let mut options: libbpf_sys::bpf_link_create_opts = unsafe { core::mem::zeroed() };
        options.sz = size_of::<libbpf_sys::bpf_link_create_opts>() as _;
        options.flags = flags;
        // SAFETY: the options live through the call and carry their size.
        let fd = unsafe {
            libbpf_sys::bpf_link_create(
                self.0.program.fd().as_raw_fd(),
                interface.index as i32,
                libbpf_sys::BPF_XDP,
                &options,
            )
        };
        if fd < 0 {
            return Err(io::Error::from_raw_os_error(-fd));
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Takes the program off the interface; frames then go to the kernel. Done
    /// before any socket is closed. No effect where it is not attached.
    pub fn detach(&self) {
        detach(&self.0.link);
    }

    /// True while the program is attached. The kernel takes it off when the
    /// interface is deleted.
    pub fn is_attached(&self) -> bool {
        let fd = self.0.link.load(Ordering::Acquire);
        if fd < 0 {
            return false;
        }
        // SAFETY: all zeros is a valid bpf_link_info.
        let mut info: libbpf_sys::bpf_link_info = unsafe { core::mem::zeroed() };
        let mut len = size_of::<libbpf_sys::bpf_link_info>() as u32;
        // SAFETY: the structure lives through the call and its length is given.
        let n = unsafe { libbpf_sys::bpf_link_get_info_by_fd(fd, &mut info, &mut len) };
        // SAFETY: for an XDP link the kernel wrote this member; else it is zero.
        n == 0 && unsafe { info.__bindgen_anon_1.xdp.ifindex } != 0
    }

    /// Where the program runs; `None` before it was attached.
    pub fn mode(&self) -> Option<Mode> {
        match self.0.mode.load(Ordering::Acquire) {
            1 => Some(Mode::Native),
            2 => Some(Mode::Generic),
            3 => Some(Mode::Offload),
            _ => None,
        }
    }

    /// The program's id in the kernel.
    pub fn program_id(&self) -> Option<u32> {
        program_info(&self.0.program.fd()).map(|(id, _)| id)
    }

    /// The program's name in the kernel.
    pub fn program_name(&self) -> &'static str {
        self.0.program.name()
    }

    /// Steers frames to this port to our rings, from now on: a plain memory
    /// write, no system call. The port has a count of users; what is held n
    /// times is to be released n times.
    #[inline]
    pub fn hold_port(&self, protocol: Protocol, port: u16) {
        self.0.program.port_users(protocol, port).fetch_add(1, Ordering::AcqRel);
    }

    /// Takes one user off the port; when the last is gone the kernel has it again.
    ///
    /// # Panics
    /// If nobody holds it (debug builds; a release build leaves it at none).
    #[inline]
    pub fn release_port(&self, protocol: Protocol, port: u16) {
        let users = self.0.program.port_users(protocol, port);
        let left = users.try_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        debug_assert!(left.is_ok(), "port {port} is released, but nobody holds it");
    }

    /// True while the port has a user.
    pub fn is_held(&self, protocol: Protocol, port: u16) -> bool {
        self.0.program.port_users(protocol, port).load(Ordering::Acquire) != 0
    }

    /// Steers for these addresses from now on, and no longer for others. (A few
    /// system calls: for changes of the interface's addresses, not per socket.)
    ///
    /// # Errors
    /// More than 256 addresses.
    pub fn set_addresses(&self, addresses: &Addresses) -> Result<()> {
        self.0.program.set_addresses(addresses)
    }

    /// Steers frames to this hardware address from now on.
    pub fn set_mac(&self, mac: [u8; 6]) {
        self.0.program.set_mac(mac);
    }

    /// Sends the frames of this queue to that AF_XDP socket.
    ///
    /// # Errors
    /// No such queue in the map, or not an AF_XDP socket.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        self.0.program.set_socket(queue, socket)
    }

    /// Sends the frames of this queue to the kernel again.
    pub fn clear_socket(&self, queue: u32) {
        self.0.program.clear_socket(queue);
    }

    /// How many frames went where, by reason.
    pub fn counters(&self) -> SteerCounters {
        self.0.program.counters()
    }

    /// Asks the kernel what the program does with this frame
    /// (BPF_PROG_TEST_RUN): the XDP action, and the frame afterwards.
    ///
    /// # Errors
    /// A frame shorter than 14 bytes, or no privilege.
    pub fn try_frame(&self, frame: &[u8]) -> io::Result<(u32, Vec<u8>)> {
        self.0.program.try_frame(frame)
    }
}

/// A program is there already (in this mode, or in the other).
fn taken(why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("program", &self.program_id())
            .field("mode", &self.mode())
            .field("attached", &self.is_attached())
            .finish()
    }
}

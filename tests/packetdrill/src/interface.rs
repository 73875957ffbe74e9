//! `struct packetdrill_interface`, as packetdrill 2.x declares it, and the
//! functions behind it: C's side of `machine.rs`.

use crate::calls;
use crate::machine::{self, Machine};
use crate::preload;
use core::ffi::{CStr, c_char, c_int, c_long, c_longlong, c_uint, c_ulong, c_void};
use libc::{epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval};

type User = *mut c_void;

macro_rules! interface {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        /// The functions that packetdrill calls, each with `userdata` first.
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs)] // each is the system call of its name
        pub struct packetdrill_interface {
            pub userdata: User,
            pub free: unsafe extern "C" fn(User),
            $(pub $name: unsafe extern "C" fn(User $(, $type)*) -> $result,)*
        }

        /// Functions of the interface, by name.
        mod functions {
            use super::*;
            $(pub(super) unsafe extern "C" fn $name(user: User $(, $arg: $type)*) -> $result {
                // SAFETY: packetdrill gives back the `userdata` that it got, and the
                // other arguments are as the system call of this name wants them.
                machine::shielded(user, |m| unsafe { calls::$name(m $(, $arg)*) }) as $result
            })*
        }

        impl packetdrill_interface {
            fn new(machine: Box<Machine>) -> Self {
                Self {
                    userdata: Box::into_raw(machine).cast(),
                    free: free_machine,
                    $($name: functions::$name,)*
                }
            }
        }
    };
}

// The order is the struct's. fcntl and ioctl are variadic in C; a third argument
// travels in the same register under the C ABIs of x86-64 and aarch64.
interface! {
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    bind(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int;
    listen(fd: c_int, backlog: c_int) -> c_int;
    accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int;
    connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int;
    read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t;
    readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t;
    recvfrom(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, addr: *mut sockaddr, addr_len: *mut socklen_t) -> ssize_t;
    recvmsg(fd: c_int, msg: *mut msghdr, flags: c_int) -> ssize_t;
    write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t;
    writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t;
    sendto(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, addr: *const sockaddr, addr_len: socklen_t) -> ssize_t;
    sendmsg(fd: c_int, msg: *const msghdr, flags: c_int) -> ssize_t;
    fcntl(fd: c_int, command: c_int, arg: c_ulong) -> c_int;
    ioctl(fd: c_int, request: c_ulong, arg: c_ulong) -> c_int;
    close(fd: c_int) -> c_int;
    shutdown(fd: c_int, how: c_int) -> c_int;
    getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int;
    setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int;
    poll(fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int;
    netdev_send(packet: *const c_void, len: size_t) -> c_int;
    netdev_receive(buf: *mut c_void, len: *mut size_t, time_us: *mut c_longlong) -> c_int;
    usleep(us: c_uint) -> c_int;
    gettimeofday(time: *mut timeval, zone: *mut c_void) -> c_int;
    epoll_create(size: c_int) -> c_int;
    epoll_ctl(set: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int;
    epoll_wait(set: c_int, events: *mut epoll_event, most: c_int, timeout_ms: c_int) -> c_int;
    pipe(ends: *mut c_int) -> c_int;
    splice(from: c_int, from_at: *mut loff_t, to: c_int, to_at: *mut loff_t, len: size_t, flags: c_uint) -> c_int;
}

unsafe extern "C" fn free_machine(user: User) {
    // SAFETY: packetdrill calls this once, last, with the `userdata` that it got.
    let machine = unsafe { Box::from_raw(user.cast::<Machine>()) };
    machine.end();
}

/// Fills in the interface with a fresh simulated stack, set up by the flags (
/// `flags.rs`). Wrong flags end the process, as packetdrill asks for no
/// result.
///
/// # Safety
/// `flags` is null or a string; `interface` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, interface: *mut packetdrill_interface) {
    let text = if flags.is_null() {
        ""
    } else {
        // SAFETY: the caller's promise.
        unsafe { CStr::from_ptr(flags) }.to_str().unwrap_or("flags that are not UTF-8")
    };
    preload::leave_alone_others();
    match Machine::new(text) {
        // SAFETY: the caller's promise.
        Ok(machine) => unsafe { interface.write(packetdrill_interface::new(machine)) },
        Err(why) => machine::die(&format!("--so_flags: {why}")),
    }
}

const _: () = assert!(size_of::<packetdrill_interface>() == 33 * size_of::<usize>());
const _: () = assert!(size_of::<c_long>() == size_of::<ssize_t>());

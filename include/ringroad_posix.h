/* Makes a program that is written for the system's sockets one of ringroad:
   include this after the system's headers, call rr_init before the first
   socket, and link with -lringroad. Descriptors that are not ringroad's (files,
   pipes, sockets of other families) are handed on to the system.

   The names are object-like, so that addresses of these functions are replaced
   too. A struct member or a method that is called `read`, `close` and so on is
   renamed alike throughout the file, which is harmless inside one program; where
   it is not (C++ with such methods in libraries), use the rr_ names instead. */
#ifndef RINGROAD_POSIX_H
#define RINGROAD_POSIX_H

/* First, so that what they declare keeps its own names. */
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ringroad.h"

#define socket rr_socket
#define bind rr_bind
#define listen rr_listen
#define accept rr_accept
#define accept4 rr_accept4
#define connect rr_connect
#define read rr_read
#define write rr_write
#define send rr_send
#define recv rr_recv
#define sendto rr_sendto
#define recvfrom rr_recvfrom
#define sendmsg rr_sendmsg
#define recvmsg rr_recvmsg
#define sendmmsg rr_sendmmsg
#define recvmmsg rr_recvmmsg
#define readv rr_readv
#define writev rr_writev
#define shutdown rr_shutdown
#define close rr_close
#define dup rr_dup
#define getsockopt rr_getsockopt
#define setsockopt rr_setsockopt
#define getsockname rr_getsockname
#define getpeername rr_getpeername
#define fcntl rr_fcntl
#define ioctl rr_ioctl
#define poll rr_poll
#define ppoll rr_ppoll
#define select rr_select
#define epoll_create rr_epoll_create
#define epoll_create1 rr_epoll_create1
#define epoll_ctl rr_epoll_ctl
#define epoll_wait rr_epoll_wait
#define epoll_pwait rr_epoll_pwait

#endif

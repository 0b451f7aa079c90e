/* cut_datagrams.c: preloaded, it gives one recvmmsg a small buffer once the file $CUT_DATAGRAMS is there
 * (and removes the file): the system then cuts what is longer, and says so (MSG_TRUNC). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SMALL 40 /* no QUIC packet with anything in it is as short */

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
             struct timespec *timeout) {
    const char *path = getenv("CUT_DATAGRAMS");
    struct iovec *first = messages[0].msg_hdr.msg_iov;
    size_t room = first->iov_len;
    char byte;
    if (path != NULL && access(path, F_OK) == 0 &&
        recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
        first->iov_len = SMALL;
        unlink(path);
    }
    int n = (int)syscall(SYS_recvmmsg, fd, messages, count, flags, timeout);
    first->iov_len = room;
    return n;
}

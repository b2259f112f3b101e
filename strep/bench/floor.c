/* The floor: what the kernel alone costs. Binds a UDP port, takes datagrams with recvmmsg, throws them away, and
 * wakes every WAIT microseconds to do so. Prints "port N" when it listens; at SIGTERM or SIGINT the number of datagrams,
 * the calls that brought them, and what the kernel dropped.
 *
 *     cc -O2 -o floor floor.c && ./floor [WAIT]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define ROWS 2048
#define WIDTH 2048

static volatile sig_atomic_t stop;
static void on_signal(int number) { (void)number; stop = 1; }

int main(int argc, char **argv)
{
    static unsigned char slab[ROWS][WIDTH];
    static struct mmsghdr messages[ROWS];
    static struct iovec vectors[ROWS];
    long wait_us = argc > 1 ? atol(argv[1]) : 2000;
    struct timespec wait = {0, wait_us * 1000};
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 128 << 20;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("floor: bind");
        return 4;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    getsockname(fd, (struct sockaddr *)&address, &length);
    for (int i = 0; i < ROWS; i++) {
        vectors[i].iov_base = slab[i];
        vectors[i].iov_len = WIDTH;
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);

    unsigned long long datagrams = 0, calls = 0;
    while (!stop) {
        int count = recvmmsg(fd, messages, ROWS, MSG_DONTWAIT, NULL);
        if (count > 0) {
            datagrams += count;
            calls++;
        } else if (count < 0 && errno != EAGAIN && errno != EINTR) {
            perror("floor: recvmmsg");
            return 1;
        }
        if (count < ROWS)
            nanosleep(&wait, NULL);
    }
    unsigned info[9] = {0};
    length = sizeof info;
    getsockopt(fd, SOL_SOCKET, 55 /* SO_MEMINFO */, info, &length);
    printf("datagrams %llu calls %llu dropped %u\n", datagrams, calls, info[8]);
    return 0;
}

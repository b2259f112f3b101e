/* What a compiled part could bring: the floor (strep/bench/floor.c) with the rest of the receive path written in C, as
 * plainly as it goes. Each packet: source address and time stamp from the kernel, both headers parsed, the stream looked
 * up in a hash table, counted, its jitter updated (RFC 3550 A.8), its payload copied into the stream's ring of 64 slots.
 * No probation, no holes, no duplicates, no limits: less than strep does. Speaks like the floor.
 *
 *     cc -O2 -o compiled compiled.c && ./compiled [WAIT] [edge]     edge: address and stamp only, nothing looked at
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define ROWS 4096
#define WIDTH 2048
#define STREAMS 32768 /* a power of two */
#define SLOTS 64
#define SLOT 256

struct stream {
    uint64_t hi, lo, tag;
    int64_t received, expected, last_arrival;
    uint32_t last_timestamp, ssrc;
    double jitter;
    uint16_t next;
    uint16_t length[SLOTS];
    uint8_t used;
};

static volatile sig_atomic_t stop;
static void on_signal(int number) { (void)number; stop = 1; }
static struct stream streams[STREAMS];
static uint8_t (*ring)[SLOTS][SLOT];

static struct stream *find(uint64_t hi, uint64_t lo, uint64_t tag)
{
    uint64_t hash = (hi ^ (lo * 0x9E3779B97F4A7C15u) ^ tag) * 0xD6E8FEB86659FD93u;
    for (uint64_t i = hash >> 40;; i++) {
        struct stream *s = &streams[i % STREAMS];
        if (!s->used) {
            s->used = 1;
            s->hi = hi;
            s->lo = lo;
            s->tag = tag;
            return s;
        }
        if (s->hi == hi && s->lo == lo && s->tag == tag)
            return s;
    }
}

static void take(const uint8_t *data, unsigned length, int64_t arrival)
{
    uint64_t hi, lo;
    uint32_t timestamp;
    uint16_t sequence;
    if (length < 36 || (data[0] & 0xFC) != 0xC4 || data[1] != 24 || (data[24] & 0xFF) != 0x80)
        return;
    memcpy(&hi, data + 8, 8);
    memcpy(&lo, data + 16, 8);
    memcpy(&sequence, data + 26, 2);
    memcpy(&timestamp, data + 28, 4);
    sequence = ntohs(sequence);
    timestamp = ntohl(timestamp);
    struct stream *s = find(hi, lo, data[0] & 3);
    if (s->received) {
        double change = fabs((arrival - s->last_arrival) * 8e-6 - (int32_t)(timestamp - s->last_timestamp));
        s->jitter += (change - s->jitter) / 16;
        s->expected += (uint16_t)(sequence - s->next) + 1;
    }
    s->received++;
    s->next = sequence + 1;
    s->last_arrival = arrival;
    s->last_timestamp = timestamp;
    unsigned slot = sequence % SLOTS, size = length - 36 < SLOT ? length - 36 : SLOT;
    s->length[slot] = size;
    memcpy(ring[s - streams][slot], data + 36, size);
}

int main(int argc, char **argv)
{
    static unsigned char slab[ROWS][WIDTH], control[ROWS][64];
    static struct mmsghdr messages[ROWS];
    static struct iovec vectors[ROWS];
    static struct sockaddr_in names[ROWS];
    long wait_us = argc > 1 ? atol(argv[1]) : 10000;
    int edge_only = argc > 2 && strcmp(argv[2], "edge") == 0;
    struct timespec wait = {0, wait_us * 1000};
    int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 128 << 20, on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;

    ring = calloc(STREAMS, sizeof *ring);
    if (fd < 0 || !ring || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("compiled: bind");
        return 4;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    getsockname(fd, (struct sockaddr *)&address, &length);
    for (int i = 0; i < ROWS; i++) {
        vectors[i].iov_base = slab[i];
        vectors[i].iov_len = WIDTH;
        messages[i].msg_hdr.msg_iov = &vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &names[i];
        messages[i].msg_hdr.msg_control = control[i];
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);

    unsigned long long datagrams = 0, calls = 0;
    int used = ROWS;
    while (!stop) {
        for (int i = 0; i < used; i++) {
            messages[i].msg_hdr.msg_namelen = sizeof names[i];
            messages[i].msg_hdr.msg_controllen = sizeof control[i];
        }
        int count = recvmmsg(fd, messages, ROWS, MSG_DONTWAIT, NULL);
        if (count < 0 && errno != EAGAIN && errno != EINTR) {
            perror("compiled: recvmmsg");
            return 1;
        }
        used = count > 0 ? count : 0;
        if (count > 0) {
            datagrams += count;
            calls++;
            for (int i = 0; i < count && !edge_only; i++) {
                struct timespec stamp = {0, 0};
                struct cmsghdr *c = CMSG_FIRSTHDR(&messages[i].msg_hdr);
                if (c)
                    memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
                take(slab[i], messages[i].msg_len, stamp.tv_sec * 1000000000ll + stamp.tv_nsec);
            }
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

/* A wall clock that somebody sets, for one process: LD_PRELOADed, it steps what the process reads of CLOCK_REALTIME and
   the stamps of what it receives, each by what had been set when it was made.
   STEPS: "AT:BY AT:BY ...", UNIX seconds at which the clock is set, and by how many. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define MOST 256
static double at[MOST];
static long by[MOST];
static int count = -1;

static void shift(struct timespec *t) {
    if (count < 0) {
        char *text = getenv("STEPS");
        int n = 0;
        while (text && *text && n < MOST) {
            at[n] = strtod(text, &text);
            by[n++] = strtol(text + 1, &text, 10);
            while (*text == ' ') text++;
        }
        count = n;
    }
    double now = t->tv_sec + t->tv_nsec * 1e-9;
    for (int i = 0; i < count; i++)
        if (now >= at[i]) t->tv_sec += by[i];
}

static void shift_stamp(struct msghdr *message) {
    struct cmsghdr *c;
    for (c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) shift((struct timespec *)CMSG_DATA(c));
}

int clock_gettime(clockid_t clock, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, t);
    if (!result && clock == CLOCK_REALTIME) shift(t);
    return result;
}

int recvmmsg(int s, struct mmsghdr *messages, unsigned n, int flags, struct timespec *timeout) {
    static int (*real)(int, struct mmsghdr *, unsigned, int, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "recvmmsg");
    int result = real(s, messages, n, flags, timeout);
    for (int i = 0; i < result; i++) shift_stamp(&messages[i].msg_hdr);
    return result;
}

ssize_t recvmsg(int s, struct msghdr *message, int flags) {
    static ssize_t (*real)(int, struct msghdr *, int);
    if (!real) real = dlsym(RTLD_NEXT, "recvmsg");
    ssize_t result = real(s, message, flags);
    if (result >= 0) shift_stamp(message);
    return result;
}

/* A model for benchmarks: an OpenAI-compatible endpoint that is never the bottleneck.
 *
 *   model PORT        listens on 127.0.0.1
 *
 *   POST .../chat/completions         streams an answer as it was last configured
 *   GET  /configure?chunks=400&interval_us=0&first_us=0
 *        chunks       parts of an answer; each holds the moment it was sent, "t=<CLOCK_MONOTONIC in ns>"
 *        interval_us  between two of them; 0 sends as fast as it is read
 *        first_us     from the request to the first one
 *   GET  /stats       {"calls", "active", "completed", "aborted", "cpu_s"}
 *
 * One thread and epoll. All current calls have the same interval, so a call that was just sent a chunk is mostly due
 * last. So the waiting calls are in one list, sorted by insertion from its end, without a heap or a timer per call.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_SIZE (1 << 16)    /* one request; doubled as long as one is longer */
#define OUT_SIZE (1 << 16)   /* what is made before it is sent */
#define EVENT_SIZE 1024      /* no event is longer */
#define SHARE (4 * OUT_SIZE) /* sent to one call before the others have their turn */

struct call {
    int fd, streaming, usage, last; /* last: all events are made */
    long sent, chunks, interval_us; /* as configured when it began */
    uint64_t due;                   /* 0: not in the queue */
    struct call *before, *after;
    char *in, *out;
    size_t in_size, in_length, out_length, out_sent;
};

static long chunks = 400, interval_us, first_us, calls, active, completed, aborted;
static struct call *first, *newest; /* the queue */
static int events;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the queue of calls that wait for the time of their next chunk ---- */

static void enqueue(struct call *c, uint64_t due) {
    struct call *before = newest;
    while (before && before->due > due) before = before->before;
    c->due = due;
    c->before = before;
    c->after = before ? before->after : first;
    if (c->after) c->after->before = c; else newest = c;
    if (before) before->after = c; else first = c;
}

static void dequeue(struct call *c) {
    if (!c->due) return;
    if (c->before) c->before->after = c->after; else first = c->after;
    if (c->after) c->after->before = c->before; else newest = c->before;
    c->due = 0;
}

/* ---- a connection ---- */

static void listen_for(struct call *c, uint32_t what) {
    struct epoll_event e = {.events = what | EPOLLRDHUP, .data.ptr = c};
    epoll_ctl(events, EPOLL_CTL_MOD, c->fd, &e);
}

static void hang_up(struct call *c) {
    dequeue(c);
    if (c->streaming) { active--; aborted++; }
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

/* Where the next event is written. Chunks are added only below OUT_SIZE: there is always room for the final events. */
static char *room(struct call *c) {
    if (!c->out) c->out = malloc(OUT_SIZE + 8 * EVENT_SIZE);
    return c->out + c->out_length;
}

static void event(struct call *c, const char *choices, const char *usage) {
    char data[EVENT_SIZE];
    int n = snprintf(data, sizeof data,
        "data: {\"id\":\"chatcmpl-CbenchCbenchCbenchCbench\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,"
        "\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\","
        "\"choices\":[%s]%s}\n\n", choices, usage);
    c->out_length += (size_t)sprintf(room(c), "%x\r\n%s\r\n", n, data);
}

static void chunk(struct call *c) {
    static const char *words[] = {"bet ", "on ", "Arsenal ", "to ", "win ", "the ", "derby ", "at "};
    char choice[256];
    snprintf(choice, sizeof choice,
        "{\"index\":0,\"delta\":{\"content\":\"%st=%llu \"},\"logprobs\":null,\"finish_reason\":null}",
        words[c->sent % 8], (unsigned long long)now());
    event(c, choice, c->usage ? ",\"usage\":null" : "");
    c->sent++;
}

static void ending(struct call *c) {
    char usage[128];
    event(c, "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}", c->usage ? ",\"usage\":null" : "");
    if (c->usage) {
        snprintf(usage, sizeof usage, ",\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":%ld,\"total_tokens\":%ld}",
                 c->chunks, c->chunks + 20);
        event(c, "", usage);
    }
    c->out_length += (size_t)sprintf(room(c), "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    c->last = 1;
}

/* Send the buffer. Returns 1 for all of it, 0 if the socket is full, -1 if the connection is gone. */
static int flush(struct call *c) {
    while (c->out_sent < c->out_length) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
        if (n > 0) c->out_sent += (size_t)n;
        else if (n < 0 && errno == EINTR) continue;
        else if (n < 0 && errno == EAGAIN) { listen_for(c, EPOLLIN | EPOLLOUT); return 0; }
        else { hang_up(c); return -1; }
    }
    c->out_length = c->out_sent = 0;
    return 1;
}

/* Returns -1 if the connection is gone. */
static int go_on(struct call *c) {
    if (c->interval_us == 0)
        for (size_t given = 0; !c->last && given < SHARE; given += OUT_SIZE) {
            while (!c->last && c->out_length < OUT_SIZE)
                if (c->sent < c->chunks) chunk(c); else ending(c);
            int state = flush(c);
            if (state <= 0) return state;
        }
    int state = flush(c);
    if (state <= 0) return state;
    if (!c->last) {
        if (c->interval_us == 0) listen_for(c, EPOLLIN | EPOLLOUT);
        return 0;
    }
    active--;
    completed++;
    c->streaming = 0;
    free(c->out); /* idle connections are many */
    c->out = NULL;
    listen_for(c, EPOLLIN);
    return 0;
}

static int due(struct call *c) {
    uint64_t was = c->due, step = (uint64_t)c->interval_us * 1000;
    dequeue(c);
    if (c->interval_us == 0) return go_on(c);
    if (c->out_length < OUT_SIZE) { /* else it does not read: it gets no more for now */
        if (c->sent < c->chunks) chunk(c); else ending(c);
    }
    /* Schedule the next chunk by the plan, so that delays do not add up; but make no burst after a long delay. */
    if (!c->last) enqueue(c, was + 10 * step > now() ? was + step : now() + step);
    return go_on(c);
}

/* ---- requests ---- */

static int reply(struct call *c, const char *body) {
    c->out_length += (size_t)sprintf(room(c),
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    return flush(c);
}

static int completion(struct call *c, const char *body) {
    calls++;
    active++;
    c->streaming = 1;
    c->last = 0;
    c->sent = 0;
    c->chunks = chunks;
    c->interval_us = interval_us;
    c->usage = strstr(body, "\"include_usage\"") != NULL;
    c->out_length += (size_t)sprintf(room(c),
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
        "x-request-id: req_0123456789abcdef0123456789abcdef\r\nopenai-version: 2020-10-01\r\n\r\n");
    event(c, "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"logprobs\":null,"
             "\"finish_reason\":null}", c->usage ? ",\"usage\":null" : "");
    if (first_us || c->interval_us) {
        enqueue(c, now() + (uint64_t)first_us * 1000);
        return flush(c);
    }
    return go_on(c);
}

static int request(struct call *c, const char *body) {
    char answer[256];
    if (!strncmp(c->in, "POST ", 5)) return completion(c, body);
    if (sscanf(c->in, "GET /configure?chunks=%ld&interval_us=%ld&first_us=%ld", &chunks, &interval_us, &first_us) == 3)
        return reply(c, "{}");
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    snprintf(answer, sizeof answer, "{\"calls\":%ld,\"active\":%ld,\"completed\":%ld,\"aborted\":%ld,\"cpu_s\":%.3f}",
             calls, active, completed, aborted,
             (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    return reply(c, answer);
}

static void readable(struct call *c) {
    ssize_t n;
    do {
        if (c->in_length + IN_SIZE > c->in_size) c->in = realloc(c->in, (c->in_size = c->in_size * 2 + IN_SIZE) + 1);
        n = recv(c->fd, c->in + c->in_length, c->in_size - c->in_length, 0);
        if (n > 0) c->in_length += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    if (n == 0 || errno != EAGAIN) { hang_up(c); return; }
    while (c->in_length && !c->streaming) {
        c->in[c->in_length] = 0;
        char *body = strstr(c->in, "\r\n\r\n");
        if (!body) return;
        *body = 0;
        const char *length = strcasestr(c->in, "\r\ncontent-length:");
        int in_chunks = strcasestr(c->in, "\r\ntransfer-encoding: chunked") != NULL;
        *body = '\r';
        body += 4;
        char *end = body + (length ? atol(length + 17) : 0);
        if (in_chunks) {
            if (!(end = strstr(body, "0\r\n\r\n"))) return;
            end += 5;
        }
        if (end > c->in + c->in_length) return;
        char behind = *end;
        *end = 0;
        if (request(c, body) < 0) return;
        *end = behind;
        c->in_length -= (size_t)(end - c->in);
        memmove(c->in, end, c->in_length);
    }
    if (!c->in_length) { free(c->in); c->in = NULL; c->in_size = 0; }
}

static void accept_all(int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct call *c = calloc(1, sizeof *c);
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = c};
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(events, EPOLL_CTL_ADD, fd, &e);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event e = {.events = EPOLLIN}, ready[256];
    struct rlimit files;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;

    if (argc != 2) { fprintf(stderr, "usage: model PORT\n"); return 2; }
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1000);      /* ns: the usual 50 µs would show in the latencies */
    prctl(PR_SET_PDEATHSIG, SIGTERM);    /* never outlives the benchmark */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
        perror("model");
        return 1;
    }
    events = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(events, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        struct timespec pause = {0, 0};
        if (first) {
            uint64_t left = now();
            left = first->due > left ? first->due - left : 0;
            pause = (struct timespec){(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
        }
        int n = epoll_pwait2(events, ready, 256, first ? &pause : NULL, NULL);
        for (int i = 0; i < n; i++) {
            struct call *c = ready[i].data.ptr;
            if (!c) accept_all(listener);
            else if (ready[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) hang_up(c);
            else if (ready[i].events & EPOLLIN) readable(c); /* what else is ready will be told again */
            else if (c->streaming) {
                if (c->interval_us) listen_for(c, EPOLLIN);
                go_on(c);
            } else if (flush(c) > 0) listen_for(c, EPOLLIN);
        }
        for (uint64_t moment = now(); first && first->due <= moment;) due(first);
    }
}

/* A load generator for benchmarks: opens SSE streams and measures when each part arrives.
 *
 *   load PORT PATH FILE [--NAME NUMBER ...]
 *
 * PATH holds {}, which is replaced by a conversation's id. FILE has one "id token" in each line.
 *
 *   --skip N          begin with this line of FILE: no question is answered twice
 *   --same 1          all of them open the first conversation
 *   --streams N       in all                      --at-once N      open at a time
 *   --per-second N    opened in a second at most; 0 is as fast as it goes
 *   --from S --until S  chunks count in this window only, in seconds after the start
 *   --timeout S       give up
 *   --hold 1          when all are connected say so in a line, keep them open, and end when standard input does
 *   --chunks 0        with --hold: connected is enough; N: each must have had N chunks
 *
 * Prints one JSON object. A stream is ok if it had status 200, an llm_complete and a clean end. Chunks are counted by
 * the moments that model.c wrote into them, so a server that puts several into one event does not count as slow.
 * Latencies: "connected" and "first" from the request to the first event and to the first chunk, "chunk" from the model.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
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

enum { HEAD, SIZE, EXTENSION, DATA, DATA_END, TRAILER }; /* where in the response */

struct stream {
    int fd, where, status, whole, number, connected, complete, over;
    size_t left;   /* of the HTTP chunk; in a trailer, the length of its line */
    char *line;    /* an unfinished line, or the head */
    size_t length, size;
    uint64_t asked;
    long chunks;
};

struct samples { uint32_t *us; size_t n, size; };

static struct options { const char *name; double value; } options[] = {
    {"skip", 0}, {"same", 0}, {"streams", 1}, {"at-once", 1}, {"per-second", 0}, {"from", 0}, {"until", 1e9},
    {"timeout", 60}, {"hold", 0}, {"chunks", 0}};
enum { SKIP, SAME, STREAMS, AT_ONCE, PER_SECOND, FROM, UNTIL, TIMEOUT, HOLD, CHUNKS };
#define OPTION(name) (options[name].value)

static const char *path;
static char **lines;
static long n_lines, started, finished, good, connected, had_chunks, chunks, in_window, events_seen, refused_status;
static uint64_t begun, ended, moment, bytes;
static struct samples to_connected, to_first, of_chunk;
static int events, port;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void sample(struct samples *s, uint64_t from) {
    if (s->n == s->size) s->us = realloc(s->us, (s->size = s->size * 2 + 1024) * sizeof *s->us);
    s->us[s->n++] = moment > from ? (uint32_t)((moment - from) / 1000) : 0;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print(const char *name, struct samples *s) {
    if (!s->n) { printf(",\"%s\":null", name); return; }
    qsort(s->us, s->n, sizeof *s->us, ascending);
    printf(",\"%s\":{\"n\":%zu,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u}", name, s->n, s->us[(s->n - 1) / 2],
           s->us[(size_t)((double)(s->n - 1) * 0.99)], s->us[s->n - 1]);
}

/* ---- the events of a stream ---- */

static void said(struct stream *s, const char *line, size_t length) {
    const char *end = line + length, *type = memmem(line, length, "\"type\":", 7);
    if (!type) return;
    type += 7;
    while (type < end && (*type == ' ' || *type == '"')) type++;
    events_seen++;
    if (!s->connected) {
        s->connected = 1;
        connected++;
        sample(&to_connected, s->asked);
    }
    if ((size_t)(end - type) > 12 && !memcmp(type, "llm_complete", 12)) { s->complete = 1; return; }
    if ((size_t)(end - type) < 9 || memcmp(type, "llm_chunk", 9)) return;
    double at = (double)(moment - begun) / 1e9;
    for (const char *t = type; (t = memmem(t, (size_t)(end - t), "t=", 2));) {
        uint64_t sent = 0;
        for (t += 2; t < end && *t >= '0' && *t <= '9'; t++) sent = sent * 10 + (uint64_t)(*t - '0');
        if (sent < 1000000) continue; /* not a moment */
        chunks++;
        if (++s->chunks == 1) sample(&to_first, s->asked);
        if (s->chunks == (long)OPTION(CHUNKS)) had_chunks++;
        if (at >= OPTION(FROM) && at <= OPTION(UNTIL)) { in_window++; sample(&of_chunk, sent); }
    }
}

static void body(struct stream *s, const char *data, size_t length) {
    const char *end = data + length, *line_end;
    for (; data < end; data = line_end + 1) {
        line_end = memchr(data, '\n', (size_t)(end - data));
        size_t n = (size_t)((line_end ? line_end : end) - data);
        if (line_end && !s->length) {
            if (n > 5 && !memcmp(data, "data:", 5)) said(s, data, n);
            continue;
        }
        if (s->length + n > s->size) s->line = realloc(s->line, s->size = 2 * (s->length + n));
        memcpy(s->line + s->length, data, n);
        s->length += n;
        if (!line_end) return;
        if (s->length > 5 && !memcmp(s->line, "data:", 5)) said(s, s->line, s->length);
        s->length = 0;
    }
}

static int hex(char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; }

/* HTTP chunks (RFC 9112, 7.1). */
static void dechunk(struct stream *s, const char *data, size_t length) {
    const char *end = data + length;
    while (data < end && !s->whole) switch (s->where) {
        case SIZE:
            if (*data == ';') s->where = EXTENSION;
            else if (*data == '\n') s->where = s->left ? DATA : TRAILER;
            else if (*data != '\r' && *data != ' ') s->left = s->left * 16 + (size_t)hex(*data);
            data++;
            break;
        case EXTENSION:
            if (*data++ == '\n') s->where = s->left ? DATA : TRAILER;
            break;
        case DATA: {
            size_t n = (size_t)(end - data) < s->left ? (size_t)(end - data) : s->left;
            body(s, data, n);
            data += n;
            s->left -= n;
            if (!s->left) s->where = DATA_END;
            break;
        }
        case DATA_END:
            if (*data++ == '\n') s->where = SIZE;
            break;
        default: /* the trailer ends with an empty line */
            if (*data == '\n') { s->whole = !s->left; s->left = 0; }
            else if (*data != '\r') s->left++;
            data++;
    }
}

/* ---- connections ---- */

static void finish(struct stream *s) {
    if (s->over) return;
    s->over = 1;
    finished++;
    ended = now();
    if (s->status == 200 && s->complete && s->whole) good++;
    else if (s->status != 200) refused_status = s->status;
    close(s->fd);
    free(s->line);
}

static void readable(struct stream *s) {
    static char data[1 << 18];
    ssize_t n = recv(s->fd, data, sizeof data, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { finish(s); return; }
    moment = now();
    bytes += (uint64_t)n;
    if (s->where != HEAD) dechunk(s, data, (size_t)n);
    else {
        if (s->length + (size_t)n >= s->size) s->line = realloc(s->line, s->size = s->length + (size_t)n + 1);
        memcpy(s->line + s->length, data, (size_t)n);
        s->line[s->length += (size_t)n] = 0;
        char *rest = strstr(s->line, "\r\n\r\n");
        if (!rest) return;
        sscanf(s->line, "HTTP/1.1 %d", &s->status);
        if (s->status != 200) { finish(s); return; }
        size_t behind = s->length - (size_t)(rest + 4 - s->line);
        memmove(data, rest + 4, behind);
        s->length = 0;
        s->where = SIZE;
        dechunk(s, data, behind);
    }
    if (s->whole) finish(s);
}

static void ask(struct stream *s) {
    char request[8192], *line = lines[(OPTION(SAME) ? 0 : (long)OPTION(SKIP) + s->number) % n_lines];
    const char *hole = strstr(path, "{}");
    int id = (int)strcspn(line, " ");
    int n = snprintf(request, sizeof request,
        "GET %.*s%.*s%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\nAuthorization: Bearer %s\r\n\r\n",
        (int)(hole - path), path, id, line, hole + 2, port, line + id + 1);
    s->asked = now();
    if (send(s->fd, request, (size_t)n, MSG_NOSIGNAL) != n) finish(s);
}

static void start(struct stream *s) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = s};
    int on = 1;
    address.sin_port = htons((uint16_t)port);
    s->number = (int)started++;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address)) { finish(s); return; } /* loopback: at once */
    epoll_ctl(events, EPOLL_CTL_ADD, s->fd, &e);
    ask(s);
}

static void read_file(const char *name) {
    FILE *file = fopen(name, "r");
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    if (!file) { perror(name); exit(2); }
    while ((n = getline(&line, &size, file)) > 0) {
        line[n - 1] = 0;
        lines = realloc(lines, (size_t)(n_lines + 1) * sizeof *lines);
        lines[n_lines++] = strdup(line);
    }
    fclose(file);
}

static void report(const char *state) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"state\":\"%s\",\"streams\":%ld,\"ok\":%ld,\"failed\":%ld,\"refused_with\":%ld,\"connected_streams\":%ld,"
           "\"chunks\":%ld,\"window_chunks\":%ld,\"events\":%ld,\"bytes\":%llu,\"elapsed_s\":%.6f,\"cpu_s\":%.3f",
           state, started, good, finished - good, refused_status, connected, chunks, in_window, events_seen,
           (unsigned long long)bytes, (double)((ended ? ended : now()) - begun) / 1e9,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    print("connected", &to_connected);
    print("first", &to_first);
    print("chunk", &of_chunk);
    printf("}\n");
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct epoll_event ready[256];
    struct rlimit files;
    if (argc < 4) { fprintf(stderr, "usage: load PORT PATH FILE [--NAME NUMBER ...]\n"); return 2; }
    port = atoi(argv[1]);
    path = argv[2];
    read_file(argv[3]);
    for (int i = 4; i + 1 < argc; i += 2) {
        size_t k = 0;
        while (k < sizeof options / sizeof *options && strcmp(options[k].name, argv[i] + 2)) k++;
        if (k == sizeof options / sizeof *options) { fprintf(stderr, "load: no option %s\n", argv[i]); return 2; }
        options[k].value = atof(argv[i + 1]);
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* never outlives the benchmark */
    prctl(PR_SET_TIMERSLACK, 1000);

    long n = (long)OPTION(STREAMS);
    struct stream *streams = calloc((size_t)n, sizeof *streams);
    events = epoll_create1(EPOLL_CLOEXEC);
    begun = now();
    double rate = OPTION(PER_SECOND);
    int holding = 0;
    while (finished < n) {
        double elapsed = (double)(now() - begun) / 1e9;
        if (!holding && elapsed > OPTION(TIMEOUT)) break;
        while (started < n && started - finished < (long)OPTION(AT_ONCE) && (!rate || (double)started <= elapsed * rate))
            start(&streams[started]);
        if (OPTION(HOLD) && !holding && started == n && (OPTION(CHUNKS) ? had_chunks : connected) + finished >= n) {
            report("holding");
            holding = 1;
        }
        struct pollfd in = {.fd = 0, .events = POLLIN};
        if (holding && poll(&in, 1, 0) > 0) break;
        /* In ms: until the next stream is due, or the next check of the time and of standard input. */
        int k = epoll_wait(events, ready, 256, started < n && rate ? 1 : 100);
        for (int i = 0; i < k; i++) readable(ready[i].data.ptr);
    }
    report(finished < n && !holding ? "timeout" : "done");
    return 0;
}

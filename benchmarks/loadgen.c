/*
 * loadgen - the load of zkpy's benchmarks, for any server that speaks ZooKeeper's client protocol.
 *
 * It has to be so light that the server is what is measured, on a machine where both share two
 * cores. So: one thread, epoll, and no decoding. A request is a copy of a frame encoded beforehand,
 * in which only the xid and the digits of the path change; of a reply only the length, the xid and
 * the error are read. The clock is read once per wake-up, not once per request.
 *
 *   load      gets, sets, creates, multis: each connection keeps `window` requests in flight
 *             (closed loop), or requests leave on a fixed schedule (open loop, --rate)
 *   watch     one node, one writer, `connections` watchers that watch again after each event
 *   sessions  opens `count` sessions, `parallel` connects at a time
 *
 * Prints one line of JSON. Exits with 2 when the measurement could not be made; replies with an
 * error and lost connections are counted in the result and are for the caller to judge.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
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

#define SECOND 1000000000LL             /* all times are int64_t nanoseconds */
#define GIVE_UP_AFTER (60 * SECOND)     /* without any progress: the server is stuck */

enum opcode { CREATE = 1, DELETE = 2, GET = 4, SET = 5, SYNC = 9, PING = 11, MULTI = 14, CLOSE = -11 };
enum { XID_EVENT = -1, XID_PING = -2 };
enum { MIX_GET, MIX_SET, MIX_CREATE, MIX_MULTI, MIX_KINDS, OTHER = MIX_KINDS };
static const char *const mix_name[MIX_KINDS] = { "get", "set", "create", "multi" };

/* ------------------------------------------------------------------------------- options */

static struct {
    const char *mode, *servers, *mix, *root, *create_root, *trace, *pids;
    long connections, window, bytes, nodes, parents, create_parents, batch, count, parallel;
    long timeout_ms;
    double seconds, warmup, rate;
    bool no_prepare, cleanup;
} option = {
    .mix = "get=1", .root = "/bench", .connections = 1, .window = 1, .bytes = 100, .nodes = 1000,
    .create_parents = 100, .batch = 10, .parallel = 32, .timeout_ms = 30000, .seconds = 3,
    .warmup = 1,
};

static const struct { const char *name; char type; void *value; const char *help; } option_table[] = {
    { "connections", 'n', &option.connections, "connections, or watchers (1)" },
    { "window", 'n', &option.window, "requests in flight per connection (1)" },
    { "mix", 's', &option.mix, "weights: get=90,set=10; also create and multi (get=1)" },
    { "bytes", 'n', &option.bytes, "size of a znode's data (100)" },
    { "nodes", 'n', &option.nodes, "znodes that get, set and multi choose from (1000)" },
    { "root", 's', &option.root, "their parent (/bench)" },
    { "parents", 'n', &option.parents, "spread them under that many ROOT/dNNN; 0: flat (0)" },
    { "create-root", 's', &option.create_root, "parent of what create makes (a new one per run)" },
    { "create-parents", 'n', &option.create_parents, "the same for create (100)" },
    { "batch", 'n', &option.batch, "sets in one multi (10)" },
    { "count", 'n', &option.count, "stop after that many requests, or sessions to open" },
    { "seconds", 'f', &option.seconds, "measured time (3)" },
    { "warmup", 'f', &option.warmup, "seconds before it, not measured; none with --count (1)" },
    { "rate", 'f', &option.rate, "send that many requests/s whatever comes back" },
    { "trace", 's', &option.trace, "file for 'sent latency' per request: ns since 1970, ns" },
    { "parallel", 'n', &option.parallel, "connects in flight while opening sessions (32)" },
    { "timeout-ms", 'n', &option.timeout_ms, "session timeout asked for (30000)" },
    { "pid", 's', &option.pids, "server process whose CPU time is measured; several: PID,PID" },
    { "no-prepare", 'b', &option.no_prepare, "the znodes are there already" },
    { "cleanup", 'b', &option.cleanup, "delete what create made, after the measurement" },
};
enum { OPTIONS = sizeof option_table / sizeof *option_table };

__attribute__((noreturn, format(printf, 1, 2)))
static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(2);
}

__attribute__((noreturn))
static void usage(void) {
    fputs("usage: loadgen load|watch|sessions HOST:PORT[,HOST:PORT...] [--option value]...\n", stderr);
    for (int i = 0; i < OPTIONS; i++)
        fprintf(stderr, "  --%-15s %s\n", option_table[i].name, option_table[i].help);
    exit(2);
}

static void parse_options(int count, char **words) {
    if (count < 3) usage();
    option.mode = words[1];
    option.servers = words[2];
    for (int i = 3; i < count; i++) {
        int found = 0;
        if (strncmp(words[i], "--", 2)) usage();
        while (found < OPTIONS && strcmp(words[i] + 2, option_table[found].name)) found++;
        if (found == OPTIONS) usage();
        void *value = option_table[found].value;
        if (option_table[found].type == 'b') { *(bool *)value = true; continue; }
        if (++i == count) usage();
        if (option_table[found].type == 's') { *(const char **)value = words[i]; continue; }
        char *end;
        if (option_table[found].type == 'n') *(long *)value = strtol(words[i], &end, 10);
        else *(double *)value = strtod(words[i], &end);
        if (*end || words[i][0] == '-') fail("--%s: %s", option_table[found].name, words[i]);
    }
    if (option.connections < 1 || option.window < 1 || option.nodes < 1 || option.batch < 1 ||
        option.parallel < 1 || option.nodes > 10000000 || option.count > 10000000 ||
        option.bytes > 1000000 || option.parents > 1000 || option.create_parents > 1000)
        fail("a number is out of range");
}

/* --------------------------------------------------------------- time, CPU, distributions */

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}
static int64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

struct usage { int64_t at, server_ns, own_ns; double busy, total; };

/* Of a process, threads that have ended included. Resolution: one tick, usually 10 ms. */
static int64_t process_cpu_ns(long pid) {
    char name[64], text[1024];
    snprintf(name, sizeof name, "/proc/%ld/stat", pid);
    FILE *file = fopen(name, "r");
    if (!file) fail("--pid %ld: %s", pid, strerror(errno));
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    const char *field = strrchr(text, ')');           /* the name before it can hold anything */
    for (int i = 0; field && i < 12; i++) field = strchr(field + 1, ' ');
    if (!field) fail("--pid %ld: unknown format of stat", pid);
    char *next;
    int64_t ticks = strtoll(field, &next, 10);
    ticks += strtoll(next, NULL, 10);
    return ticks * (SECOND / sysconf(_SC_CLK_TCK));
}

/* Of all members of an ensemble, where there are several. */
static int64_t servers_cpu_ns(void) {
    int64_t sum = 0;
    char *next;
    for (const char *at = option.pids; *at; at = next + (*next == ',')) {
        long pid = strtol(at, &next, 10);
        if (next == at) fail("--pid: %s", option.pids);
        sum += process_cpu_ns(pid);
    }
    return sum;
}

static struct usage take_usage(void) {
    struct usage u = { .own_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) };
    if (option.pids) u.server_ns = servers_cpu_ns();
    FILE *file = fopen("/proc/stat", "r");
    double v[8];
    if (file && fscanf(file, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", v, v + 1, v + 2, v + 3, v + 4,
                       v + 5, v + 6, v + 7) == 8) {
        for (int i = 0; i < 8; i++) u.total += v[i];
        u.busy = u.total - v[3] - v[4];               /* idle and iowait */
    }
    if (file) fclose(file);
    u.at = now_ns();
    return u;
}

static void print_usage(struct usage from, struct usage to, int64_t operations) {
    if (option.pids)
        printf(",\"server_cpu_s\":%.2f,\"server_cpu_us_per_op\":%.3f", (to.server_ns - from.server_ns) / 1e9,
               operations ? (to.server_ns - from.server_ns) / 1e3 / operations : 0);
    printf(",\"generator_cpu_s\":%.3f,\"machine_busy\":%.3f}\n", (to.own_ns - from.own_ns) / 1e9,
           to.total > from.total ? (to.busy - from.busy) / (to.total - from.total) : 0);
}

/* Buckets: exact below 256 ns, then 128 to an octave, so a value is off by at most 0.4 %. */
struct histogram { int64_t count, sum, max; uint32_t bucket[128 * 58]; };

static void add(struct histogram *h, int64_t ns) {
    uint64_t v = ns < 0 ? 0 : ns;
    int octave = 63 - __builtin_clzll(v | 1), shift = octave > 7 ? octave - 7 : 0;
    h->bucket[shift * 128 + (v >> shift)]++;
    h->count++;
    h->sum += v;
    if (ns > h->max) h->max = ns;
}

static double quantile_us(const struct histogram *h, double q) {
    int64_t rank = q * h->count, seen = 0;
    for (size_t i = 0; i < sizeof h->bucket / sizeof *h->bucket; i++)
        if ((seen += h->bucket[i]) > rank) {
            int shift = i < 256 ? 0 : i / 128 - 1;
            int64_t low = (int64_t)(i - shift * 128) << shift, middle = low + ((1LL << shift) >> 1);
            return (middle < h->max ? middle : h->max) / 1e3;
        }
    return h->max / 1e3;
}

static void print_histogram(const char *name, const struct histogram *h) {
    printf("\"%s\":{\"count\":%lld,\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}",
           name, (long long)h->count, h->count ? h->sum / 1e3 / h->count : 0, quantile_us(h, .5),
           quantile_us(h, .9), quantile_us(h, .99), quantile_us(h, .999), h->max / 1e3);
}

/* ------------------------------------------------------------------------ bytes and frames */

struct buffer { uint8_t *bytes; size_t start, end, capacity; };

/* Room for `size` more bytes at the end; the caller fills them. */
static uint8_t *reserve(struct buffer *b, size_t size) {
    if (b->start == b->end) b->start = b->end = 0;
    if (b->end + size > b->capacity && b->start) {
        memmove(b->bytes, b->bytes + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
    }
    if (b->end + size > b->capacity) {
        b->capacity = (b->end + size) * 2;
        if (!(b->bytes = realloc(b->bytes, b->capacity))) fail("out of memory");
    }
    b->end += size;
    return b->bytes + b->end - size;
}

static uint32_t load_int(const uint8_t *at) { uint32_t v; memcpy(&v, at, 4); return be32toh(v); }
static void store_int(uint8_t *at, uint32_t v) { v = htobe32(v); memcpy(at, &v, 4); }
static void put_int(struct buffer *b, uint32_t v) { store_int(reserve(b, 4), v); }
static void put_byte(struct buffer *b, uint8_t v) { *reserve(b, 1) = v; }
static void put_bytes(struct buffer *b, const void *bytes, size_t size) {
    put_int(b, size);
    if (size) memcpy(reserve(b, size), bytes, size);
}
static void put_string(struct buffer *b, const char *text) { put_bytes(b, text, strlen(text)); }
static void put_header(struct buffer *b, int opcode) { put_int(b, 0); put_int(b, 0); put_int(b, opcode); }
static void close_frame(struct buffer *b) { store_int(b->bytes, b->end - b->start - 4); }

static void put_decimal(uint8_t *at, int digits, uint64_t v) {
    while (digits--) { at[digits] = '0' + v % 10; v /= 10; }
}

/* Where znodes lie: ROOT/nNNNNNNN, or ROOT/dNNN/nNNNNNNN with the number spread over parents. */
struct layout { const char *root; size_t root_length; long parents; };
static struct layout existing, created;

static void set_node(const struct layout *l, uint8_t *path, uint64_t node) {
    path += l->root_length + 2;
    if (l->parents) {
        put_decimal(path, 3, node % l->parents);
        path += 5;
    }
    put_decimal(path, 7, node);
}
static void put_node_path(struct buffer *b, const struct layout *l) {
    char path[512];
    snprintf(path, sizeof path, "%s%s/n0000000", l->root, l->parents ? "/d000" : "");
    put_string(b, path);
}

/* A request encoded beforehand. `path` is where the text of its path starts. */
struct template { struct buffer frame; size_t path; };
static struct template get_template, set_template, create_template, delete_template, multi_template;
static size_t multi_stride;
static uint8_t *payload;

static void put_create_body(struct buffer *b, size_t bytes) {       /* what follows the path */
    put_bytes(b, payload, bytes);
    put_int(b, 1);                                                   /* ACL: world:anyone, all */
    put_int(b, 31);
    put_string(b, "world");
    put_string(b, "anyone");
    put_int(b, 0);                                                   /* persistent */
}

static void start_template(struct template *t, int opcode, const struct layout *layout) {
    put_header(&t->frame, opcode);
    t->path = t->frame.end + 4;
    put_node_path(&t->frame, layout);
}

static void make_templates(void) {
    payload = malloc(option.bytes + 1);
    for (long i = 0; i < option.bytes; i++) payload[i] = 'A' + i * 7 % 26;
    start_template(&get_template, GET, &existing);
    put_byte(&get_template.frame, 0);
    close_frame(&get_template.frame);
    start_template(&set_template, SET, &existing);
    put_bytes(&set_template.frame, payload, option.bytes);
    put_int(&set_template.frame, -1);
    close_frame(&set_template.frame);
    start_template(&create_template, CREATE, &created);
    put_create_body(&create_template.frame, option.bytes);
    close_frame(&create_template.frame);
    start_template(&delete_template, DELETE, &created);
    put_int(&delete_template.frame, -1);
    close_frame(&delete_template.frame);

    struct buffer *multi = &multi_template.frame;
    size_t body = set_template.frame.end - 12;
    multi_stride = 9 + body;                        /* MultiHeader: type, done, err */
    put_header(multi, MULTI);
    multi_template.path = 12 + 9 + set_template.path - 12;
    for (long i = 0; i < option.batch; i++) {
        put_int(multi, SET); put_byte(multi, 0); put_int(multi, -1);
        memcpy(reserve(multi, body), set_template.frame.bytes + 12, body);
    }
    put_int(multi, -1); put_byte(multi, 1); put_int(multi, -1);
    close_frame(multi);
}

/* ----------------------------------------------------------------------------- connections */

enum state { CLOSED, CONNECTING, HANDSHAKE, READY };
struct slot { int64_t sent; int kind; };
struct connection {
    int fd;
    enum state state;
    bool wants_writable;
    uint32_t sent, answered;            /* xids: 1..sent have left, 1..answered are back */
    struct slot *slots;                 /* of what is in flight, at xid & slot_mask */
    struct buffer in, out;
    int64_t opened;
};

/* What the running mode does when something arrives. */
struct mode {
    void (*ready)(struct connection *, int64_t now);
    void (*reply)(struct connection *, struct slot *, int error, int64_t now);
    void (*event)(struct connection *, int64_t now);
    void (*end_of_input)(struct connection *, int64_t now);
};
static struct mode mode;

static struct connection *connections;
static int epoll_fd;
static uint32_t slot_mask;
static long ready_connections;
static int64_t errors, disconnects, last_progress;
/* Of the servers. Connection n goes to the nth, and round again. */
enum { MOST_SERVERS = 16 };
static struct addrinfo *addresses[MOST_SERVERS];
static int address_count;

static void watch_socket(struct connection *c, int operation, bool writable) {
    struct epoll_event e = { EPOLLIN | (writable ? EPOLLOUT : 0), { .ptr = c } };
    if (epoll_ctl(epoll_fd, operation, c->fd, &e)) fail("epoll: %s", strerror(errno));
    c->wants_writable = writable;
}

static void lost(struct connection *c) {
    if (c->state == READY) ready_connections--;
    if (c->state != CLOSED) close(c->fd);
    c->state = CLOSED;
    errors += c->sent - c->answered;
    c->answered = c->sent;
    disconnects++;
}

static void flush(struct connection *c) {
    while (c->out.start < c->out.end) {
        ssize_t n = send(c->fd, c->out.bytes + c->out.start, c->out.end - c->out.start, MSG_NOSIGNAL);
        if (n >= 0) c->out.start += n;
        else if (errno == EAGAIN) break;
        else if (errno != EINTR) { lost(c); return; }
    }
    bool rest = c->out.start < c->out.end;
    if (rest != c->wants_writable) watch_socket(c, EPOLL_CTL_MOD, rest);
}

static void open_connection(struct connection *c) {
    int yes = 1;
    struct addrinfo *address = addresses[(c - connections) % address_count];
    c->opened = now_ns();
    if ((c->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    c->state = CONNECTING;
    if (connect(c->fd, address->ai_addr, address->ai_addrlen) && errno != EINPROGRESS) lost(c);
    else watch_socket(c, EPOLL_CTL_ADD, true);
}

static void send_connect_request(struct connection *c) {
    static const uint8_t no_password[16];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) { lost(c); return; }
    put_int(&c->out, 45);
    put_int(&c->out, 0);                               /* protocolVersion */
    put_int(&c->out, 0); put_int(&c->out, 0);          /* lastZxidSeen */
    put_int(&c->out, option.timeout_ms);
    put_int(&c->out, 0); put_int(&c->out, 0);          /* sessionId: a new one */
    put_bytes(&c->out, no_password, sizeof no_password);
    put_byte(&c->out, 0);                              /* readOnly */
    c->state = HANDSHAKE;
    flush(c);
}

/* Stamps the xid into the frame that starts at `frame` in the out buffer. */
static void track(struct connection *c, uint8_t *frame, int kind, int64_t now) {
    uint32_t xid = ++c->sent;
    store_int(frame + 4, xid);
    c->slots[xid & slot_mask] = (struct slot){ now, kind };
}
static uint8_t *copy_template(struct connection *c, const struct template *t) {
    uint8_t *frame = reserve(&c->out, t->frame.end);
    return memcpy(frame, t->frame.bytes, t->frame.end);
}
static long in_flight(const struct connection *c) { return c->sent - c->answered; }

static void take_reply(struct connection *c, const uint8_t *frame, uint32_t length, int64_t now) {
    int xid = load_int(frame), error = load_int(frame + 12);
    if (xid == XID_EVENT) { if (mode.event) mode.event(c, now); return; }
    if (xid == XID_PING) return;
    if (!in_flight(c) || (uint32_t)xid != c->answered + 1)
        fail("reply to xid %d, expected %u", xid, c->answered + 1);
    struct slot *slot = &c->slots[++c->answered & slot_mask];
    /* A multi that failed has no error in its header: its first result is an ErrorResult. */
    if (slot->kind == MIX_MULTI && !error && length >= 20 && load_int(frame + 16) == UINT32_MAX)
        error = -1;
    mode.reply(c, slot, error, now);
}

static void take_frames(struct connection *c, int64_t now) {
    while (c->state != CLOSED && c->in.end - c->in.start >= 4) {
        uint8_t *frame = c->in.bytes + c->in.start;
        uint32_t length = load_int(frame);
        if (c->in.end - c->in.start < length + 4) break;
        c->in.start += length + 4;
        if (length < 16) fail("a frame of %u bytes", length);
        if (c->state == READY) { take_reply(c, frame + 4, length, now); continue; }
        if ((int)load_int(frame + 8) <= 0) fail("the server refused a session");
        c->state = READY;
        ready_connections++;
        if (mode.ready) mode.ready(c, now);
    }
}

static void take_input(struct connection *c) {
    enum { CHUNK = 32768 };
    uint8_t *room = reserve(&c->in, CHUNK);
    ssize_t n = recv(c->fd, room, CHUNK, 0);
    c->in.end -= CHUNK - (n > 0 ? n : 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { lost(c); return; }
    last_progress = now_ns();
    take_frames(c, last_progress);
    if (c->state == READY && mode.end_of_input) mode.end_of_input(c, last_progress);
}

static void poll_sockets(int64_t timeout_ns) {
    struct epoll_event events[128];
    int ms = timeout_ns / 1000000;
    if (timeout_ns % 1000000) {         /* epoll_wait knows only milliseconds: too coarse for --rate */
        struct pollfd p = { epoll_fd, POLLIN, 0 };
        struct timespec t = { timeout_ns / SECOND, timeout_ns % SECOND };
        ppoll(&p, 1, &t, NULL);
        ms = 0;
    }
    int n = epoll_wait(epoll_fd, events, 128, ms);
    for (int i = 0; i < n; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->state == CONNECTING) { send_connect_request(c); continue; }
        if (c->state != CLOSED && events[i].events & EPOLLOUT) flush(c);
        if (c->state != CLOSED && events[i].events & ~EPOLLOUT) take_input(c);
    }
}

/* For waits that are no measurement: fails when the server is stuck or a connection is lost. */
static void poll_or_fail(const char *what) {
    poll_sockets(SECOND / 50);
    if (disconnects) fail("connection lost: %s", what);
    if (now_ns() - last_progress > GIVE_UP_AFTER) fail("no answer: %s", what);
}

static void open_all(long count) {
    last_progress = now_ns();
    for (long next = 0; ready_connections < count; poll_or_fail("opening sessions"))
        while (next < count && next - ready_connections < option.parallel)
            open_connection(&connections[next++]);
}

/* Ends the sessions, so that the next load finds the server without them. */
static void ignore_reply(struct connection *c, struct slot *s, int error, int64_t now) {
    (void)c, (void)s, (void)error, (void)now;
}
static int64_t close_all(long count) {
    mode = (struct mode){ .reply = ignore_reply };
    int64_t start = now_ns(), before = disconnects;
    for (long i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        if (c->state != READY) continue;
        size_t at = c->out.end - c->out.start;
        put_int(&c->out, 8); put_int(&c->out, 0); put_int(&c->out, CLOSE);
        track(c, c->out.bytes + c->out.start + at, OTHER, 0);
        flush(c);
    }
    long open = count;
    while (open && now_ns() - start < 20 * SECOND) {
        poll_sockets(SECOND / 50);
        open = 0;
        for (long i = 0; i < count; i++) open += connections[i].state == READY && in_flight(&connections[i]);
    }
    disconnects = before;               /* the server closes first: not a loss */
    return now_ns() - start;
}

/* -------------------------------------------------------------- znodes before and after a load */

static int64_t setup_left;
static bool may_exist(int error) { return error == 0 || error == -110; }
static void setup_reply(struct connection *c, struct slot *s, int error, int64_t now) {
    (void)c, (void)s, (void)now;
    setup_left--;
    if (!may_exist(error)) fail("error %d while znodes are prepared or deleted", error);
}

static void setup_wait(int64_t allowed) {
    while (setup_left > allowed) poll_or_fail("preparing or deleting znodes");
}

/* Spread over the connections only where the order does not matter. */
static void setup_send(struct connection *c, const struct buffer *frame, const struct layout *l, size_t path,
                       long node) {
    uint8_t *copy = memcpy(reserve(&c->out, frame->end), frame->bytes, frame->end);
    if (l) set_node(l, copy + path, node);
    track(c, copy, OTHER, 0);
    if (++setup_left % 32 == 0) flush(c);
    if (setup_left >= 256) { flush(c); setup_wait(128); }
}

static void setup_path(const char *path, int opcode) {
    struct buffer frame = { 0 };
    put_header(&frame, opcode);
    put_string(&frame, path);
    if (opcode == CREATE) put_create_body(&frame, 0);
    else if (opcode == DELETE) put_int(&frame, -1);
    close_frame(&frame);
    setup_send(&connections[0], &frame, NULL, 0, 0);
    free(frame.bytes);
}
static void setup_drain(void) {
    flush(&connections[0]);
    setup_wait(0);
}

static void make_root(const struct layout *l) {
    char path[512];
    snprintf(path, sizeof path, "%s", l->root);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        setup_path(path, CREATE);
        *slash = '/';
    }
    setup_path(path, CREATE);
    for (long i = 0; i < l->parents; i++) {
        snprintf(path, sizeof path, "%s/d%03ld", l->root, i);
        setup_path(path, CREATE);
    }
    setup_drain();
}

/* What one member has acknowledged, another may not have yet: wait until all have it. */
static void sync_all(long count) {
    struct buffer frame = { 0 };
    if (address_count == 1) return;
    put_header(&frame, SYNC);
    put_string(&frame, "/");
    close_frame(&frame);
    for (long i = 0; i < count; i++) {
        setup_send(&connections[i], &frame, NULL, 0, 0);
        flush(&connections[i]);
    }
    setup_wait(0);
    free(frame.bytes);
}

/* Every znode is created if it is not there, then gets this run's data. */
static void prepare(bool uses_existing, bool uses_created) {
    mode = (struct mode){ .reply = setup_reply };
    if (uses_existing) {
        struct template create = { 0 };
        make_root(&existing);
        start_template(&create, CREATE, &existing);
        put_create_body(&create.frame, 0);
        close_frame(&create.frame);
        for (long i = 0; i < option.nodes; i++) {
            setup_send(&connections[0], &create.frame, &existing, create.path, i);
            setup_send(&connections[0], &set_template.frame, &existing, set_template.path, i);
        }
        free(create.frame.bytes);
    }
    if (uses_created) make_root(&created);
    setup_drain();
    sync_all(option.connections);
}

static void delete_created(long count) {
    char path[512];
    mode = (struct mode){ .reply = setup_reply };
    for (long i = 0; i < count; i++)
        setup_send(&connections[0], &delete_template.frame, &created, delete_template.path, i);
    setup_drain();
    for (long i = 0; i < created.parents; i++) {
        snprintf(path, sizeof path, "%s/d%03ld", created.root, i);
        setup_path(path, DELETE);
    }
    setup_path(created.root, DELETE);
    setup_drain();
}

/* ------------------------------------------------------------------------------- mode: load */

struct sample { int64_t sent, latency; };

static struct {
    int weight[MIX_KINDS], weights;
    bool measuring, stopping;
    int64_t issued, answered, measured, created, skipped;
    int64_t next_due;
    struct histogram all, each[MIX_KINDS], late;
    struct sample *trace;
    size_t traced, trace_capacity;
} load;

/* Fixed seed: every run, and so every server, gets the same sequence of znodes. */
static uint32_t random_below(uint32_t limit) {
    static uint64_t state = 0x9E3779B97F4A7C15;
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state >> 32) * limit >> 32;
}

static int choose_kind(void) {
    int roll = random_below(load.weights), kind = 0;
    while ((roll -= load.weight[kind]) >= 0) kind++;
    return kind;
}

static void issue(struct connection *c, int64_t now) {
    int kind = choose_kind();
    uint8_t *frame;
    switch (kind) {
    case MIX_GET:
        frame = copy_template(c, &get_template);
        set_node(&existing, frame + get_template.path, random_below(option.nodes));
        break;
    case MIX_SET:
        frame = copy_template(c, &set_template);
        set_node(&existing, frame + set_template.path, random_below(option.nodes));
        break;
    case MIX_CREATE:
        frame = copy_template(c, &create_template);
        set_node(&created, frame + create_template.path, load.created++);
        break;
    default:
        frame = copy_template(c, &multi_template);
        for (long i = 0; i < option.batch; i++)
            set_node(&existing, frame + multi_template.path + i * multi_stride, random_below(option.nodes));
    }
    track(c, frame, kind, now);
    load.issued++;
}

static bool may_issue(void) { return !load.stopping && (!option.count || load.issued < option.count); }

static void fill_window(struct connection *c, int64_t now) {
    while (in_flight(c) < option.window && may_issue()) issue(c, now);
    if (!c->wants_writable) flush(c);
}

static void keep_sample(int64_t sent, int64_t latency) {
    if (load.traced == load.trace_capacity) {
        load.trace_capacity = load.trace_capacity ? load.trace_capacity * 2 : 4096;
        load.trace = realloc(load.trace, load.trace_capacity * sizeof *load.trace);
        if (!load.trace) fail("out of memory");
    }
    load.trace[load.traced++] = (struct sample){ sent, latency };
}

static void load_reply(struct connection *c, struct slot *slot, int error, int64_t now) {
    (void)c;
    load.answered++;
    if (!load.measuring) return;
    if (error) { errors++; return; }
    load.measured++;
    add(&load.all, now - slot->sent);
    if (slot->kind < MIX_KINDS) add(&load.each[slot->kind], now - slot->sent);
    if (option.trace) keep_sample(slot->sent, now - slot->sent);
}

/* Open loop: a request leaves when it is due, whether or not earlier ones are answered, so a
 * server that stalls gets the requests (and the latencies) it would get from real clients. */
static int64_t issue_due(int64_t now) {
    static long turn;
    int64_t interval = SECOND / option.rate;
    for (; load.next_due <= now && may_issue(); load.next_due += interval) {
        struct connection *c = &connections[turn++ % option.connections];
        if (c->state != READY) continue;
        if (in_flight(c) > (long)slot_mask) { load.skipped++; continue; }
        if (load.measuring) add(&load.late, now - load.next_due);
        issue(c, now);
        flush(c);
    }
    return load.next_due - now;
}

static void parse_mix(void) {
    char *text = strdup(option.mix), *rest = text;
    for (char *word; (word = strsep(&rest, ",")); ) {
        char *name = strsep(&word, "=");
        int kind = 0;
        while (kind < MIX_KINDS && strcmp(name, mix_name[kind])) kind++;
        if (kind == MIX_KINDS) fail("--mix: %s", name);
        load.weight[kind] = word ? atoi(word) : 1;
        load.weights += load.weight[kind];
    }
    free(text);
    if (load.weights < 1) fail("--mix: no weight");
}

static void write_trace(void) {
    int64_t to_1970 = clock_ns(CLOCK_REALTIME) - now_ns();
    FILE *file = fopen(option.trace, "w");
    if (!file) fail("%s: %s", option.trace, strerror(errno));
    for (size_t i = 0; i < load.traced; i++)
        fprintf(file, "%lld %lld\n", (long long)(load.trace[i].sent + to_1970), (long long)load.trace[i].latency);
    if (fclose(file)) fail("%s: %s", option.trace, strerror(errno));
}

/* Whoever runs a load may end it early: what was measured so far is printed. */
static volatile sig_atomic_t interrupted;
static void interrupt(int number) { (void)number; interrupted = 1; }

/* From the first request to the end of the measured time. Returns how it was at its start. */
static struct usage drive(void) {
    int64_t begin = now_ns(), warm_at = begin + (option.count ? 0 : option.warmup * SECOND);
    struct usage start = { 0 };
    load.next_due = begin;
    if (!option.rate)
        for (long i = 0; i < option.connections; i++) fill_window(&connections[i], now_ns());
    for (int64_t now = begin; ; now = now_ns()) {
        if (!load.measuring && now >= warm_at) {
            start = take_usage();
            load.measuring = true;
        }
        if (load.measuring && now - start.at >= option.seconds * SECOND) break;
        if (option.count && load.answered >= option.count) break;
        if (interrupted || !ready_connections || now - last_progress > GIVE_UP_AFTER) break;
        int64_t wait = SECOND / 100;
        if (option.rate && may_issue()) {
            int64_t due = issue_due(now);
            if (due < wait) wait = due < 1 ? 1 : due;
        }
        poll_sockets(wait);
    }
    return start;
}

static void run_load(void) {
    signal(SIGINT, interrupt);
    signal(SIGTERM, interrupt);
    parse_mix();
    open_all(option.connections);
    if (!option.no_prepare)
        prepare(load.weight[MIX_GET] || load.weight[MIX_SET] || load.weight[MIX_MULTI], load.weight[MIX_CREATE]);
    mode = (struct mode){ .reply = load_reply, .end_of_input = option.rate ? NULL : fill_window };
    struct usage start = drive(), end = take_usage();
    load.stopping = true;
    load.measuring = false;
    while (load.answered < load.issued && ready_connections && now_ns() - end.at < GIVE_UP_AFTER)
        poll_sockets(SECOND / 100);
    double seconds = (end.at - start.at) / 1e9;
    printf("{\"mode\":\"load\",\"mix\":\"%s\",\"connections\":%ld,\"window\":%ld,\"bytes\":%ld,\"seconds\":%.6f,"
           "\"operations\":%lld,\"operations_per_s\":%.1f,\"errors\":%lld,\"disconnects\":%lld,\"created\":%lld,",
           option.mix, option.connections, option.window, option.bytes, seconds, (long long)load.measured,
           load.measured / seconds, (long long)errors, (long long)disconnects, (long long)load.created);
    print_histogram("latency_us", &load.all);
    for (int i = 0; i < MIX_KINDS; i++)
        if (load.each[i].count) { putchar(','); print_histogram(mix_name[i], &load.each[i]); }
    if (option.rate) {
        printf(",\"skipped\":%lld,", (long long)load.skipped);
        print_histogram("late_us", &load.late);
    }
    print_usage(start, end, load.measured);
    if (option.trace) write_trace();
    if (option.cleanup && ready_connections) delete_created(load.created);
    close_all(option.connections);
}

/* ------------------------------------------------------------------------------ mode: watch */

static struct {
    struct template rearm;
    long events, armed;
    bool set_answered;
    int64_t set_sent, last_event, stalls;
} watch;

static void arm(struct connection *c, int64_t now) {
    track(c, copy_template(c, &watch.rearm), MIX_GET, now);
}
static void watch_event(struct connection *c, int64_t now) {
    watch.events++;
    watch.last_event = now;
    arm(c, now);
}
static void watch_reply(struct connection *c, struct slot *slot, int error, int64_t now) {
    (void)c, (void)now;
    if (error) errors++;
    if (slot->kind == MIX_SET) watch.set_answered = true;
    else watch.armed++;
}
static void watch_flush(struct connection *c, int64_t now) { (void)now; flush(c); }

/* Real clients ping when nothing comes; a server that then delivers what it held back has stalled. */
static void ping_all(void) {
    watch.stalls++;
    for (long i = 0; i <= option.connections; i++) {
        struct connection *c = &connections[i];
        put_int(&c->out, 8); put_int(&c->out, XID_PING); put_int(&c->out, PING);
        flush(c);
    }
}

static void watch_wait(bool with_set) {
    int64_t patience = now_ns() + 2 * SECOND, start = now_ns();
    while (watch.armed < option.connections ||
           (with_set && (!watch.set_answered || watch.events < option.connections))) {
        poll_sockets(SECOND / 50);
        if (disconnects) fail("connection lost while watching");
        int64_t now = now_ns();
        if (now - start > GIVE_UP_AFTER)
            fail("%ld events and %ld watches of %ld", watch.events, watch.armed, option.connections);
        if (now > patience) { ping_all(); patience = now + 2 * SECOND; }
    }
}

static void watch_round(struct connection *writer, const struct template *set) {
    watch.events = watch.armed = 0;
    watch.set_answered = false;
    watch.set_sent = now_ns();
    track(writer, copy_template(writer, set), MIX_SET, watch.set_sent);
    flush(writer);
    watch_wait(true);
}

static void run_watch(void) {
    static struct histogram last_event, round_time;
    struct connection *writer = &connections[option.connections];
    struct template set = { 0 };
    char path[512];
    snprintf(path, sizeof path, "%s/watched", option.root);
    put_header(&watch.rearm.frame, GET);
    put_string(&watch.rearm.frame, path);
    put_byte(&watch.rearm.frame, 1);
    close_frame(&watch.rearm.frame);
    put_header(&set.frame, SET);
    put_string(&set.frame, path);
    put_bytes(&set.frame, payload, option.bytes);
    put_int(&set.frame, -1);
    close_frame(&set.frame);

    open_all(option.connections + 1);
    mode = (struct mode){ .reply = setup_reply };
    make_root(&(struct layout){ path, strlen(path), 0 });
    sync_all(option.connections);
    mode = (struct mode){ .reply = watch_reply, .event = watch_event, .end_of_input = watch_flush };
    for (long i = 0; i < option.connections; i++) { arm(&connections[i], now_ns()); flush(&connections[i]); }
    watch_wait(false);

    int64_t begin = now_ns(), rounds = 0;
    while (now_ns() - begin < option.warmup * SECOND) watch_round(writer, &set);
    struct usage start = take_usage();
    watch.stalls = errors = 0;
    for (; now_ns() - start.at < option.seconds * SECOND; rounds++) {
        watch_round(writer, &set);
        add(&last_event, watch.last_event - watch.set_sent);
        add(&round_time, last_progress - watch.set_sent);
    }
    struct usage end = take_usage();
    double seconds = (end.at - start.at) / 1e9;
    int64_t delivered = rounds * option.connections;
    printf("{\"mode\":\"watch\",\"connections\":%ld,\"bytes\":%ld,\"seconds\":%.6f,\"rounds\":%lld,\"operations\":%lld,"
           "\"operations_per_s\":%.1f,\"errors\":%lld,\"disconnects\":%lld,\"stalls\":%lld,",
           option.connections, option.bytes, seconds, (long long)rounds, (long long)delivered, delivered / seconds,
           (long long)errors, (long long)disconnects, (long long)watch.stalls);
    print_histogram("latency_us", &round_time); putchar(',');
    print_histogram("last_event_us", &last_event);
    print_usage(start, end, delivered);
    close_all(option.connections + 1);
}

/* --------------------------------------------------------------------------- mode: sessions */

static struct histogram session_time;
static void session_ready(struct connection *c, int64_t now) { add(&session_time, now - c->opened); }

static void run_sessions(void) {
    mode = (struct mode){ .ready = session_ready, .reply = ignore_reply };
    struct usage start = take_usage();
    open_all(option.count);
    struct usage end = take_usage();
    double seconds = (end.at - start.at) / 1e9, closing = close_all(option.count) / 1e9;
    printf("{\"mode\":\"sessions\",\"parallel\":%ld,\"seconds\":%.6f,\"operations\":%ld,\"operations_per_s\":%.1f,"
           "\"errors\":%lld,\"disconnects\":%lld,\"closed_per_s\":%.1f,",
           option.parallel, seconds, option.count, option.count / seconds, (long long)errors, (long long)disconnects,
           option.count / closing);
    print_histogram("latency_us", &session_time);
    print_usage(start, end, option.count);
}

/* ------------------------------------------------------------------------------------- main */

static void resolve(void) {
    char *rest = strdup(option.servers), *all = rest;
    for (char *host; (host = strsep(&rest, ",")); address_count++) {
        char *colon = strrchr(host, ':');
        if (!colon) fail("HOST:PORT, not %s", host);
        if (address_count == MOST_SERVERS) fail("more than %d servers", MOST_SERVERS);
        *colon = 0;
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
        int error = getaddrinfo(host, colon + 1, &hints, &addresses[address_count]);
        if (error) fail("%s:%s: %s", host, colon + 1, gai_strerror(error));
    }
    free(all);
}

static void make_connections(long count, long most_in_flight) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    uint32_t slots = 16;
    while (slots < most_in_flight + 1) slots *= 2;
    slot_mask = slots - 1;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc(count, sizeof *connections);
    for (long i = 0; i < count; i++)
        if (!(connections[i].slots = calloc(slots, sizeof(struct slot)))) fail("out of memory");
}

int main(int count, char **words) {
    char fresh_root[64];
    parse_options(count, words);
    prctl(PR_SET_TIMERSLACK, 1);
    resolve();
    snprintf(fresh_root, sizeof fresh_root, "/bench/created%llx", (long long)clock_ns(CLOCK_REALTIME));
    if (!option.create_root) option.create_root = fresh_root;
    existing = (struct layout){ option.root, strlen(option.root), option.parents };
    created = (struct layout){ option.create_root, strlen(option.create_root), option.create_parents };
    if (existing.root_length > 400 || created.root_length > 400) fail("the root's path is too long");
    make_templates();
    if (!strcmp(option.mode, "load")) {
        /* The first connection also carries the preparation, 256 at a time. */
        make_connections(option.connections, option.rate ? 8191 : option.window > 256 ? option.window : 256);
        run_load();
    } else if (!strcmp(option.mode, "watch")) {
        make_connections(option.connections + 1, 15);
        run_watch();
    } else if (!strcmp(option.mode, "sessions") && option.count) {
        make_connections(option.count, 15);
        run_sessions();
    } else usage();
    return 0;
}

/* The load generator of the benchmarks: many SSH sessions of one kind against one SSH server that
 * forwards. What it can do, and with which options: run it without arguments.
 *
 * Every run goes through the same phases, so that whoever measures the server knows when to look:
 * it sets up, prints `ready`, waits for a line on its input, measures, prints one line of JSON, waits
 * for another line (or the end of its input) and leaves. */

#include "peer.h"
#include "tcp.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_THREADS 16

/* The first byte of a channel tells the device what to do with it. */
enum kind {
    KIND_ECHO = 'e',   /* send every byte back */
    KIND_SINK = 's',   /* swallow all, confirm the EOF by one byte */
    KIND_SOURCE = 'd', /* send stream_bytes() */
};

static struct options {
    const char *mode, *keys, *client_keys, *client_user, *out;
    struct server server;
    struct address publish, target;
    unsigned count, parallel, threads, channels, streams, bulk, listen_port, retry, pause;
    double seconds;
    uint64_t bytes;
    bool down;
} options = { .server = { .host = "127.0.0.1", .user = "bench" },
              .publish = { "", 22 },
              .count = 0,
              .parallel = 1,
              .threads = 2,
              .streams = 1,
              .seconds = 5,
              .bytes = 1u << 30 };

static struct loop loops[MAX_THREADS];
static struct peer *peers;
static unsigned npeers;

/* ---- Phases ---- */

static pthread_mutex_t phase_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t phase_moved = PTHREAD_COND_INITIALIZER;
static unsigned arrived; /* at the end of the phase, under phase_lock */

static void arrive(void)
{
    pthread_mutex_lock(&phase_lock);
    arrived++;
    pthread_cond_signal(&phase_moved);
    pthread_mutex_unlock(&phase_lock);
}

static void wait_for(unsigned n)
{
    pthread_mutex_lock(&phase_lock);
    while (arrived < n)
        pthread_cond_wait(&phase_moved, &phase_lock);
    arrived = 0;
    pthread_mutex_unlock(&phase_lock);
}

static void wait_for_line(void)
{
    int c;
    fflush(stdout);
    while ((c = getchar()) != '\n' && c != EOF)
        ;
}

static void ready(void)
{
    puts("ready");
    wait_for_line();
}

/* Not one by one, nor with a good-bye: the server has to live with that too. */
_Noreturn static void leave(void)
{
    wait_for_line();
    _exit(0);
}

/* ---- Latencies ---- */

static struct {
    uint64_t *ns;
    size_t n, space;
} latencies;

static void add_latency(uint64_t ns)
{
    if (latencies.n == latencies.space) {
        latencies.space = latencies.space > 0 ? 2 * latencies.space : 65536;
        latencies.ns = realloc(latencies.ns, latencies.space * sizeof(*latencies.ns));
        if (latencies.ns == NULL)
            die("out of memory");
    }
    latencies.ns[latencies.n++] = ns;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double percentile_us(double part)
{
    return latencies.n > 0 ? (double)latencies.ns[(size_t)(part * (double)(latencies.n - 1))] / 1000 : 0;
}

/* ---- Keys ---- */

static void write_keys(void)
{
    char path[4096], *text;
    ssh_key key;
    snprintf(path, sizeof(path), "%s/keys", options.out);
    FILE *private = fopen(path, "wx");
    snprintf(path, sizeof(path), "%s/keys.pub", options.out);
    FILE *public = fopen(path, "wx");
    if (private == NULL || public == NULL)
        die("%s: %s", path, strerror(errno));
    for (unsigned i = 0; i < options.count; i++) {
        if (ssh_pki_generate_key(SSH_KEYTYPE_ED25519, NULL, &key) != SSH_OK ||
            ssh_pki_export_privkey_base64(key, NULL, NULL, NULL, &text) != SSH_OK)
            die("cannot make a key");
        fputs(text, private);
        ssh_string_free_char(text);
        if (ssh_pki_export_pubkey_base64(key, &text) != SSH_OK)
            die("cannot make a key");
        fprintf(public, "ssh-ed25519 %s\n", text);
        ssh_string_free_char(text);
        ssh_key_free(key);
    }
    if (fclose(private) != 0 || fclose(public) != 0)
        die("%s: %s", options.out, strerror(errno));
}

/* The next PEM of a file; false if there is none, or none that fits. */
static bool read_pem(FILE *file, char *pem, size_t size)
{
    size_t len = 0;
    while (len + 1 < size && fgets(pem + len, (int)(size - len), file) != NULL) {
        if (strncmp(pem + len, "-----END", 8) == 0)
            return true;
        len += strlen(pem + len);
    }
    return false;
}

/* Up to `most` of the private keys in a file, one PEM after the other. */
static ssh_key *read_keys(const char *path, unsigned most, unsigned *n)
{
    char pem[4096];
    if (path == NULL)
        die("--keys and --client-keys name files with private keys");
    FILE *file = fopen(path, "r");
    if (file == NULL)
        die("%s: %s", path, strerror(errno));
    ssh_key *keys = calloc(most, sizeof(*keys));
    for (*n = 0; *n < most && read_pem(file, pem, sizeof(pem)); (*n)++)
        if (ssh_pki_import_privkey_base64(pem, NULL, NULL, NULL, &keys[*n]) != SSH_OK)
            die("%s: not a private key", path);
    fclose(file);
    if (*n == 0)
        die("%s: no private key", path);
    return keys;
}

/* ---- Sessions ---- */

static void on_lost(struct peer *peer)
{
    die("session %u: %s", peer->number, peer->error);
}

static void make_peers(unsigned n, const char *path)
{
    unsigned nkeys;
    ssh_key *keys = read_keys(path, n, &nkeys);
    npeers = n;
    peers = calloc(n, sizeof(*peers));
    for (unsigned i = 0; i < n; i++) {
        peers[i].loop = &loops[i % options.threads];
        peers[i].server = &options.server;
        peers[i].user = options.server.user;
        peers[i].key = keys[i % nkeys];
        peers[i].number = i;
        peers[i].on_gone = on_lost;
    }
}

/* Starts all peers of the loop. */
static void start_peers(void *arg)
{
    struct loop *loop = arg;
    for (unsigned i = 0; i < npeers; i++)
        if (peers[i].loop == loop)
            peer_start(&peers[i]);
}

static void start_loops(void)
{
    for (unsigned i = 0; i < options.threads; i++)
        loop_start(&loops[i]);
}

static void post_all(void (*fn)(void *loop))
{
    for (unsigned i = 0; i < options.threads; i++)
        loop_post(&loops[i], fn, &loops[i]);
}

/* ---- idle ---- */

static atomic_uint failed;

static void idle_lost(struct peer *peer)
{
    if (options.retry > 0)
        peer_start_later(peer, options.retry);
    else
        atomic_fetch_add(&failed, 1);
}

static void idle_up(struct peer *peer)
{
    if (peer->on_gone != idle_lost) /* for the first time */
        arrive();
    peer->on_gone = idle_lost;
}

static void idle_failed(struct peer *peer)
{
    if (options.retry > 0) {
        peer_start_later(peer, options.retry);
        return;
    }
    if (atomic_fetch_add(&failed, 1) < 5)
        fprintf(stderr, "load: session %u: %s\n", peer->number, peer->error);
    arrive();
}

static void idle(void)
{
    make_peers(options.count, options.keys);
    for (unsigned i = 0; i < npeers; i++) {
        peers[i].publish = &options.publish;
        peers[i].on_up = idle_up;
        peers[i].on_gone = idle_failed;
    }
    start_loops();
    ready();
    uint64_t begin = now_ns();
    post_all(start_peers);
    wait_for(npeers);
    printf("{\"count\": %u, \"failed\": %u, \"seconds\": %.3f}\n", npeers, atomic_load(&failed),
           (double)(now_ns() - begin) / 1e9);
    leave();
}

/* ---- login ---- */

static atomic_uint logins, begun;
static uint64_t deadline; /* ns; 0: as many as --count says */

static void login_next(struct peer *peer)
{
    bool more = deadline != 0 ? now_ns() < deadline : atomic_fetch_add(&begun, 1) < options.count;
    if (more)
        peer_start(peer);
    else
        arrive();
}

static void login_up(struct peer *peer)
{
    atomic_fetch_add(&logins, 1);
    peer->on_gone = login_next;
    peer_leave(peer);
}

static void login_failed(struct peer *peer)
{
    atomic_fetch_add(&failed, 1);
    login_next(peer);
}

static void login_start(void *arg)
{
    struct loop *loop = arg;
    for (unsigned i = 0; i < npeers; i++)
        if (peers[i].loop == loop)
            login_next(&peers[i]);
}

static void login(void)
{
    make_peers(options.parallel, options.keys);
    for (unsigned i = 0; i < npeers; i++) {
        peers[i].on_up = login_up;
        peers[i].on_gone = login_failed;
    }
    start_loops();
    ready();
    uint64_t begin = now_ns();
    deadline = options.count > 0 ? 0 : begin + (uint64_t)(options.seconds * 1e9);
    post_all(login_start);
    wait_for(npeers);
    double seconds = (double)(now_ns() - begin) / 1e9;
    printf("{\"logins\": %u, \"failed\": %u, \"seconds\": %.3f, \"per_second\": %.1f}\n",
           atomic_load(&logins), atomic_load(&failed), seconds, atomic_load(&logins) / seconds);
    leave();
}

/* ---- The device's side of a channel ---- */

static uint64_t stream_bytes(void)
{
    return options.bulk > 0 ? UINT64_MAX : options.bytes / options.streams;
}

static void device_received(struct lane *lane)
{
    uint64_t news = lane->in - lane->told;
    if (lane->kind == 0) {
        lane->kind = lane->told == 0 && lane->in == 1 ? lane->last : KIND_SINK;
        if (lane->kind == KIND_SOURCE)
            lane_send(lane, stream_bytes(), true);
    }
    if (lane->kind == KIND_ECHO)
        for (; news > 0; news--)
            lane_write_byte(lane, lane->last);
}

static void device_ended(struct lane *lane)
{
    if (lane->kind == KIND_SINK)
        lane_write_byte(lane, KIND_SINK);
    if (lane->kind != KIND_SOURCE)
        lane_close(lane);
}

static const struct lane_ops device_ops = { .received = device_received, .ended = device_ended };

static void device_open(struct lane *lane)
{
    lane->ops = &device_ops;
}

/* ---- A device and a client, joined ---- */

static struct peer *client;
static atomic_uint_fast64_t bulk_bytes;

static void pair_up(struct peer *peer)
{
    (void)peer;
    arrive();
}

static void start_one(void *peer)
{
    peer_start(peer);
}

/* The device on the first thread, the client on the last. */
static void make_pair(void)
{
    unsigned n;
    make_peers(2, options.keys);
    client = &peers[1];
    client->key = read_keys(options.client_keys, 1, &n)[0];
    client->user = options.client_user != NULL ? options.client_user : options.server.user;
    client->loop = &loops[options.threads - 1];
    peers[0].publish = &options.publish;
    peers[0].on_open = device_open;
    for (unsigned i = 0; i < 2; i++)
        peers[i].on_up = pair_up;
    start_loops();
    for (unsigned i = 0; i < 2; i++) {
        loop_post(peers[i].loop, start_one, &peers[i]);
        wait_for(1);
    }
}

static void bulk_opened(struct lane *lane)
{
    lane_write_byte(lane, options.down ? KIND_SOURCE : KIND_SINK);
    if (!options.down)
        lane_send(lane, UINT64_MAX, false);
}

/* Opens what is to be there beside the measurement. */
static void idle_opened(struct lane *lane)
{
    lane_write_byte(lane, KIND_ECHO);
}

static void idle_received(struct lane *lane)
{
    if (lane->in == 1)
        arrive();
}

static const struct lane_ops idle_ops = { .opened = idle_opened, .received = idle_received };

static void open_idle(void *arg)
{
    (void)arg;
    lane_open(client, &options.target, &idle_ops, NULL);
}

static void open_channels(void)
{
    for (unsigned i = 0; i < options.channels; i++) {
        loop_post(client->loop, open_idle, NULL);
        wait_for(1);
    }
}

/* ---- echo ---- */

static void echo_opened(struct lane *lane)
{
    lane->started = now_ns();
    lane_write_byte(lane, KIND_ECHO);
}

static void echo_received(struct lane *lane)
{
    uint64_t now = now_ns();
    if (now >= deadline) {
        arrive();
        return;
    }
    add_latency(now - lane->started);
    if (options.pause > 0) {
        usleep(options.pause * 1000); /* nothing else is to be done */
        now = now_ns();
    }
    lane->started = now;
    lane_write_byte(lane, KIND_ECHO);
}

static const struct lane_ops echo_ops = { .opened = echo_opened, .received = echo_received };

static void bulk_received(struct lane *lane)
{
    atomic_fetch_add(&bulk_bytes, lane->in - lane->told);
}

static const struct lane_ops bulk_ops = { .opened = bulk_opened, .received = bulk_received };

static void echo_start(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < options.bulk; i++)
        lane_open(client, &options.target, &bulk_ops, NULL);
    lane_open(client, &options.target, &echo_ops, NULL);
}

static void print_latencies(void)
{
    qsort(latencies.ns, latencies.n, sizeof(*latencies.ns), compare);
    printf("\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"max\": %.1f", percentile_us(0.5),
           percentile_us(0.9), percentile_us(0.99), percentile_us(1));
}

static void echo(void)
{
    make_pair();
    ready();
    uint64_t begin = now_ns();
    deadline = begin + (uint64_t)(options.seconds * 1e9);
    loop_post(client->loop, echo_start, NULL);
    wait_for(1);
    printf("{\"count\": %zu, ", latencies.n);
    print_latencies();
    printf(", \"seconds\": %.3f, \"bulk_bytes\": %" PRIuFAST64 "}\n", (double)(now_ns() - begin) / 1e9,
           atomic_load(&bulk_bytes));
    leave();
}

/* ---- open ---- */

static void open_next(void);

static void open_received(struct lane *lane)
{
    add_latency(now_ns() - lane->started);
    lane_close(lane);
}

static void open_closed(struct lane *lane)
{
    if (lane->in == 0)
        atomic_fetch_add(&failed, 1);
    open_next();
}

static const struct lane_ops open_ops = { .opened = idle_opened,
                                          .received = open_received,
                                          .closed = open_closed };

static void open_next(void)
{
    if (now_ns() < deadline)
        lane_open(client, &options.target, &open_ops, NULL);
    else
        arrive();
}

static void open_start(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < options.parallel; i++)
        open_next();
}

static void opens(void)
{
    make_pair();
    open_channels();
    ready();
    uint64_t begin = now_ns();
    deadline = begin + (uint64_t)(options.seconds * 1e9);
    loop_post(client->loop, open_start, NULL);
    wait_for(options.parallel);
    double seconds = (double)(now_ns() - begin) / 1e9;
    printf("{\"opens\": %zu, \"failed\": %u, \"seconds\": %.3f, \"per_second\": %.1f, ", latencies.n,
           atomic_load(&failed), seconds, (double)latencies.n / seconds);
    print_latencies();
    puts("}");
    leave();
}

/* ---- stream ---- */

static void up_opened(struct lane *lane)
{
    lane_write_byte(lane, KIND_SINK);
    lane_send(lane, stream_bytes(), true);
}

static void stream_closed(struct lane *lane)
{
    if (lane->in != (options.down ? stream_bytes() : 1))
        die("a stream ended early, after %" PRIu64 " bytes", lane->in);
    arrive();
}

static void down_opened(struct lane *lane)
{
    lane_write_byte(lane, KIND_SOURCE);
}

static void down_ended(struct lane *lane)
{
    lane_close(lane);
}

static const struct lane_ops up_ops = { .opened = up_opened, .closed = stream_closed };
static const struct lane_ops down_ops = { .opened = down_opened,
                                          .ended = down_ended,
                                          .closed = stream_closed };

static void stream_start(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < options.streams; i++)
        lane_open(client, &options.target, options.down ? &down_ops : &up_ops, NULL);
}

static void print_stream(uint64_t bytes, double seconds)
{
    printf("{\"bytes\": %" PRIu64 ", \"seconds\": %.3f, \"mib_per_second\": %.1f}\n", bytes, seconds,
           (double)bytes / seconds / 1048576);
}

static void stream(void)
{
    make_pair();
    ready();
    uint64_t begin = now_ns();
    loop_post(client->loop, stream_start, NULL);
    wait_for(options.streams);
    print_stream(stream_bytes() * options.streams, (double)(now_ns() - begin) / 1e9);
    leave();
}

static void tcp_stream(void)
{
    struct tcp_run run = { .host = options.server.host,
                           .port = options.server.port,
                           .listen_port = (uint16_t)options.listen_port,
                           .streams = options.streams,
                           .bytes = stream_bytes() };
    tcp_listen(&run);
    ready();
    uint64_t begin = now_ns();
    tcp_run(&run);
    print_stream(run.bytes * run.streams, (double)(now_ns() - begin) / 1e9);
    leave();
}

/* ---- The command line ---- */

static const struct mode {
    const char *name;
    void (*run)(void);
    const char *help;
} modes[] = {
    { "keys", write_keys, "--count N --out DIR: DIR/keys (private, PEM) and DIR/keys.pub (authorized_keys)" },
    { "idle", idle,
      "--count N [--publish NAME:PORT] [--retry MS]: log in and publish, all at once, and stay;\n"
      "                with --retry whoever fails or is lost tries again after MS" },
    { "login", login, "--parallel P (--seconds S | --count N): log in and leave, P at a time" },
    { "echo", echo,
      "--client-keys FILE --target NAME:PORT --seconds S [--bulk N [--direction D]] [--pause MS]:\n"
      "                one-byte round trips on one bridge, beside N bulk streams of the same sessions;\n"
      "                with pauses between them" },
    { "open", opens,
      "--client-keys FILE --target NAME:PORT --parallel P --seconds S [--channels N]:\n"
      "                open, echo a byte, close, P at a time, with N idle bridges open" },
    { "stream", stream,
      "--client-keys FILE --target NAME:PORT --streams N --bytes TOTAL [--direction up|down]:\n"
      "                bulk bytes from the client to the device, or back" },
    { "tcp-stream", tcp_stream,
      "--listen-port Q --streams N --bytes TOTAL: the same through a TCP proxy to Q" },
};

static void usage(void)
{
    fputs("usage: load MODE --port P --keys FILE [--publish NAME:PORT] [--host ADDR] [--user NAME]\n"
          "            [--client-user NAME] [--kex K] [--cipher C] [--mac M] [--threads T] [--spread] ...\n"
          "--spread takes another source address of 127.0.0.0/16 for each session.\n",
          stderr);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
        fprintf(stderr, "  %-11s %s\n", modes[i].name, modes[i].help);
    exit(2);
}

static void parse_address(const char *text, struct address *address)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof(address->host))
        die("%s: not NAME:PORT", text);
    snprintf(address->host, sizeof(address->host), "%.*s", (int)(colon - text), text);
    address->port = atoi(colon + 1);
}

enum type { TEXT, NUMBER, PORT, ADDRESS, SECONDS, BYTES, FLAG, DIRECTION };

static const struct {
    const char *name;
    enum type type;
    void *value;
} settings[] = {
    { "host", TEXT, &options.server.host },
    { "port", PORT, &options.server.port },
    { "user", TEXT, &options.server.user },
    { "kex", TEXT, &options.server.kex },
    { "cipher", TEXT, &options.server.cipher },
    { "mac", TEXT, &options.server.mac },
    { "spread", FLAG, &options.server.spread },
    { "keys", TEXT, &options.keys },
    { "client-keys", TEXT, &options.client_keys },
    { "client-user", TEXT, &options.client_user },
    { "out", TEXT, &options.out },
    { "publish", ADDRESS, &options.publish },
    { "target", ADDRESS, &options.target },
    { "count", NUMBER, &options.count },
    { "parallel", NUMBER, &options.parallel },
    { "threads", NUMBER, &options.threads },
    { "channels", NUMBER, &options.channels },
    { "streams", NUMBER, &options.streams },
    { "bulk", NUMBER, &options.bulk },
    { "listen-port", NUMBER, &options.listen_port },
    { "retry", NUMBER, &options.retry },
    { "pause", NUMBER, &options.pause },
    { "seconds", SECONDS, &options.seconds },
    { "bytes", BYTES, &options.bytes },
    { "direction", DIRECTION, &options.down },
};
#define NSETTINGS (sizeof(settings) / sizeof(*settings))

static void set(enum type type, void *value, const char *text)
{
    switch (type) {
    case TEXT:
        *(const char **)value = text;
        break;
    case NUMBER:
        *(unsigned *)value = (unsigned)strtoul(text, NULL, 10);
        break;
    case PORT:
        *(uint16_t *)value = (uint16_t)strtoul(text, NULL, 10);
        break;
    case ADDRESS:
        parse_address(text, value);
        break;
    case SECONDS:
        *(double *)value = atof(text);
        break;
    case BYTES:
        *(uint64_t *)value = strtoull(text, NULL, 10);
        break;
    case FLAG:
        *(bool *)value = true;
        break;
    case DIRECTION:
        *(bool *)value = strcmp(text, "down") == 0;
        break;
    }
}

static void parse(int argc, char **argv)
{
    struct option names[NSETTINGS + 1] = { 0 };
    for (size_t i = 0; i < NSETTINGS; i++)
        names[i] = (struct option){ settings[i].name, settings[i].type != FLAG, NULL, (int)i + 1 };
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (c == '?')
            usage();
        set(settings[c - 1].type, settings[c - 1].value, optarg);
    }
    if (optind != argc - 1 || options.threads < 1 || options.threads > MAX_THREADS || options.parallel < 1 ||
        options.streams < 1)
        usage();
    options.mode = argv[optind];
}

int main(int argc, char **argv)
{
    struct rlimit files;
    parse(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++)
        if (strcmp(options.mode, modes[i].name) == 0) {
            modes[i].run();
            return 0;
        }
    usage();
}

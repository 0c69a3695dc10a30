/*
 * Is this libssh safe for a relay? Each mode runs a client and a server of it against each other:
 *
 *   probe confirm   the client confirms a channel twice: the server must end the session
 *   probe leak      the client sends thousands of global requests: the server's heap must not grow
 *   probe tamper    a bit of an encrypted packet flips on its way to either: who gets it must end the session
 *
 * Exit status: 0 safe, 1 unsafe, 2 could not tell; one sentence on stderr. The server runs in the
 * main thread without blocking, as relayd does; the client blocks in a thread of its own.
 */
#include <fcntl.h>
#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_S 30
#define CHUNK 1000 /* bytes of channel data, of an address */
#define WARM_UP 500
#define REQUESTS 3000
#define GROWTH_MAX (256 * 1024)
#define WINDOW 32000 /* what libssh grants on a channel it accepts */

enum verdict { SAFE, UNSAFE, UNCLEAR, UNDECIDED };

struct pair {
    const char *cipher, *mac;                   /* NULL: as libssh likes */
    bool (*script)(struct pair *, ssh_session); /* the client's part, after login */
    enum verdict (*judge)(struct pair *);       /* asked after each pass of the server */
    int client_fd;
    ssh_session server;
    bool logged_in, opened, sent;
    ssh_channel channel; /* the server's end */
    int requests, keepalives;
    size_t heap, growth; /* when WARM_UP requests were answered; what REQUESTS more added */
    size_t delivered;    /* bytes of channel data */
    /* tamper: */
    int ends[2];                         /* of the relay: towards the client, towards the server */
    int from;                            /* the end whose chunk is damaged */
    int victim;                          /* the byte to damage, counted from the chunk's end */
    atomic_bool arm;                     /* set by the client: damage what comes next */
    atomic_bool damaged, taken, refused; /* the last two are the client's, about the server's chunk */
};

/* ---- the client ---- */

static bool login(struct pair *p, ssh_session s)
{
    bool config = false;

    ssh_options_set(s, SSH_OPTIONS_HOST, "probe");
    ssh_options_set(s, SSH_OPTIONS_USER, "probe");
    ssh_options_set(s, SSH_OPTIONS_PROCESS_CONFIG, &config);
    ssh_options_set(s, SSH_OPTIONS_FD, &p->client_fd);
    if (p->cipher != NULL) {
        ssh_options_set(s, SSH_OPTIONS_CIPHERS_C_S, p->cipher);
        ssh_options_set(s, SSH_OPTIONS_CIPHERS_S_C, p->cipher);
    }
    if (p->mac != NULL) {
        ssh_options_set(s, SSH_OPTIONS_HMAC_C_S, p->mac);
        ssh_options_set(s, SSH_OPTIONS_HMAC_S_C, p->mac);
    }
    return ssh_connect(s) == SSH_OK && ssh_userauth_none(s, NULL) == SSH_AUTH_SUCCESS;
}

/* Plays the script, then holds the connection until the server ends it: what the server sees as the
 * end of the connection is its own judgement, or a client that could not play its part. */
static void *client_main(void *arg)
{
    struct pair *p = arg;
    ssh_session s = ssh_new();
    int fd = dup(p->client_fd); /* libssh closes its own */
    char sink[4096];

    if (!login(p, s) || !p->script(p, s))
        shutdown(fd, SHUT_RDWR);
    while (recv(fd, sink, sizeof(sink), 0) > 0)
        ;
    ssh_free(s);
    close(fd);
    return NULL;
}

/* Takes the server's chunk first: by then the server's window is anything but the one confirmed. */
static bool confirm_twice(struct pair *p, ssh_session s)
{
    char data[CHUNK];
    ssh_message m = ssh_message_get(s);
    ssh_channel ch;
    bool done = false;

    (void)p;
    if (m == NULL || ssh_message_subtype(m) != SSH_CHANNEL_FORWARDED_TCPIP)
        return false;
    ch = ssh_message_channel_request_open_reply_accept(m);
    if (ch != NULL && ssh_channel_read(ch, data, sizeof(data), 0) > 0)
        done = ssh_message_channel_request_open_reply_accept(m) != NULL;
    ssh_message_free(m);
    return done && ssh_send_keepalive(s) == SSH_OK;
}

static bool ask_often(struct pair *p, ssh_session s)
{
    char address[CHUNK + 1];

    (void)p;
    memset(address, 'a', CHUNK);
    address[CHUNK] = '\0';
    for (int i = 0; i < WARM_UP + REQUESTS; i++)
        if (ssh_channel_listen_forward(s, address, 1, NULL) != SSH_ERROR ||
            ssh_get_error_code(s) != SSH_REQUEST_DENIED)
            return false;
    return true;
}

static bool send_damaged(struct pair *p, ssh_session s)
{
    char data[CHUNK] = { 0 };
    ssh_channel ch = ssh_channel_new(s);

    if (ch == NULL || ssh_channel_open_forward(ch, "probe", 22, "127.0.0.1", 1) != SSH_OK)
        return false;
    p->arm = true;
    return ssh_channel_write(ch, data, sizeof(data)) == CHUNK;
}

/* The server sends a chunk on each channel that is opened. */
static bool take_damaged(struct pair *p, ssh_session s)
{
    char data[CHUNK];
    ssh_channel ch = ssh_channel_new(s);
    int n;

    p->arm = true;
    if (ch == NULL || ssh_channel_open_forward(ch, "probe", 22, "127.0.0.1", 1) != SSH_OK)
        return false;
    n = ssh_channel_read(ch, data, sizeof(data), 0);
    p->taken = n > 0;
    p->refused = n == SSH_ERROR && ssh_get_error_code(s) == SSH_FATAL;
    return true;
}

/* ---- the server ---- */

static bool is_dead(ssh_session s)
{
    return ssh_get_fd(s) == -1 || (ssh_get_status(s) & (SSH_CLOSED | SSH_CLOSED_ERROR)) != 0;
}

/* After a violation libssh leaves the socket open; after the client's end it does not. */
static bool has_refused(ssh_session s)
{
    return ssh_get_fd(s) != -1 && (ssh_get_status(s) & SSH_CLOSED_ERROR) != 0;
}

static enum verdict judge_confirm(struct pair *p)
{
    if (p->keepalives > 0) /* it follows the second confirmation */
        return UNSAFE;
    if (!has_refused(p->server) || !p->sent)
        return UNDECIDED;
    return ssh_channel_window_size(p->channel) == WINDOW ? UNSAFE : SAFE;
}

static enum verdict judge_leak(struct pair *p)
{
    if (p->requests < WARM_UP + REQUESTS)
        return UNDECIDED;
    if (p->heap == 0) /* not the C library's allocator */
        return UNCLEAR;
    return p->growth > GROWTH_MAX ? UNSAFE : SAFE;
}

static enum verdict judge_received(struct pair *p)
{
    if (p->delivered > 0)
        return UNSAFE;
    return has_refused(p->server) && p->damaged ? SAFE : UNDECIDED;
}

static enum verdict judge_sent(struct pair *p)
{
    if (p->taken)
        return UNSAFE;
    return p->refused && p->damaged ? SAFE : UNDECIDED;
}

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

/* Bytes allocated: by the main thread, so by the server; by all under a sanitizer. */
static size_t heap_in_use(void)
{
    struct mallinfo2 info;

    if (__sanitizer_get_current_allocated_bytes != NULL)
        return __sanitizer_get_current_allocated_bytes();
    info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void on_global_request(ssh_session s, ssh_message m, void *arg)
{
    struct pair *p = arg;
    size_t heap = heap_in_use();

    (void)s;
    if (ssh_message_subtype(m) == SSH_GLOBAL_REQUEST_KEEPALIVE)
        p->keepalives++;
    else if (++p->requests == WARM_UP)
        p->heap = heap;
    else if (p->requests > WARM_UP && heap > p->heap)
        p->growth = heap - p->heap;
    ssh_message_reply_default(m);
}

static int on_data(ssh_session s, ssh_channel ch, void *data, uint32_t len, int is_err, void *arg)
{
    struct pair *p = arg;

    (void)s, (void)ch, (void)data, (void)is_err;
    p->delivered += len;
    return (int)len;
}

static void on_open_response(ssh_session s, ssh_channel ch, bool ok, void *arg)
{
    struct pair *p = arg;

    (void)s, (void)ch;
    p->opened = ok;
}

static void answer(struct pair *p, ssh_message m, ssh_channel_callbacks callbacks)
{
    switch (ssh_message_type(m)) {
    case SSH_REQUEST_SERVICE:
        ssh_message_service_reply_success(m);
        break;
    case SSH_REQUEST_AUTH:
        ssh_message_auth_reply_success(m, 0);
        p->logged_in = true;
        break;
    case SSH_REQUEST_CHANNEL_OPEN:
        p->channel = ssh_message_channel_request_open_reply_accept(m);
        ssh_set_channel_callbacks(p->channel, callbacks);
        p->opened = true;
        break;
    default:
        ssh_message_reply_default(m);
    }
    ssh_message_free(m);
}

/* Sends a chunk on the channel, which for confirm it opens itself. */
static void serve_channel(struct pair *p, ssh_channel_callbacks callbacks)
{
    static const char data[CHUNK];

    if (p->judge == judge_confirm && p->logged_in && p->channel == NULL) {
        p->channel = ssh_channel_new(p->server);
        ssh_set_channel_callbacks(p->channel, callbacks);
        ssh_channel_open_reverse_forward(p->channel, "probe", 22, "127.0.0.1", 1);
    }
    if (p->opened && !p->sent)
        p->sent = ssh_channel_write(p->channel, data, sizeof(data)) == CHUNK;
}

static enum verdict serve(struct pair *p)
{
    struct ssh_channel_callbacks_struct callbacks = { .userdata = p,
                                                      .channel_data_function = on_data,
                                                      .channel_open_response_function = on_open_response };
    time_t end = time(NULL) + TIMEOUT_S;
    enum verdict verdict = UNDECIDED;

    ssh_callbacks_init(&callbacks);
    while (verdict == UNDECIDED && !is_dead(p->server) && time(NULL) < end) {
        struct pollfd pfd = { .fd = ssh_get_fd(p->server), .events = POLLIN };
        ssh_message m;

        poll(&pfd, 1, 100);
        while ((m = ssh_message_get(p->server)) != NULL)
            answer(p, m, &callbacks);
        if (p->judge != judge_received && !is_dead(p->server))
            serve_channel(p, &callbacks);
        verdict = p->judge(p);
    }
    return verdict == UNDECIDED ? UNCLEAR : verdict;
}

/* Plays one pair to its end. The server's session is freed here, its callbacks' storage is ours. */
static enum verdict play(struct pair *p, int server_fd)
{
    struct ssh_callbacks_struct callbacks = { .userdata = p, .global_request_function = on_global_request };
    ssh_bind bind = ssh_bind_new();
    ssh_key key = NULL;
    bool config = false;
    pthread_t client;
    enum verdict verdict = UNCLEAR;

    p->server = ssh_new();
    ssh_callbacks_init(&callbacks);
    ssh_bind_options_set(bind, SSH_BIND_OPTIONS_PROCESS_CONFIG, &config);
    if (ssh_pki_generate_key(SSH_KEYTYPE_ED25519, NULL, &key) == SSH_OK)
        ssh_bind_options_set(bind, SSH_BIND_OPTIONS_IMPORT_KEY, key);
    fcntl(server_fd, F_SETFL, O_NONBLOCK);
    pthread_create(&client, NULL, client_main, p);
    if (ssh_bind_accept_fd(bind, p->server, server_fd) == SSH_OK) {
        ssh_set_blocking(p->server, 0);
        ssh_set_callbacks(p->server, &callbacks);
        if (ssh_handle_key_exchange(p->server) != SSH_ERROR)
            verdict = serve(p);
    } else {
        close(server_fd);
    }
    ssh_free(p->server); /* closes the socket: the client leaves */
    ssh_bind_free(bind);
    pthread_join(client, NULL);
    return verdict;
}

/* ---- the modes ---- */

static void make_sockets(int fds[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0)
        return;
    perror("probe: socketpair");
    exit(UNCLEAR);
}

static enum verdict plain(bool (*script)(struct pair *, ssh_session), enum verdict (*judge)(struct pair *))
{
    struct pair p = { .script = script, .judge = judge };
    int fds[2];

    make_sockets(fds);
    p.client_fd = fds[0];
    return play(&p, fds[1]);
}

static enum verdict confirm(void)
{
    return plain(confirm_twice, judge_confirm);
}

static enum verdict leak(void)
{
    return plain(ask_often, judge_leak);
}

/* Copies one chunk from an end of the relay to the other, damaged if it is the armed one. */
static bool pass_on(struct pair *p, int from)
{
    unsigned char chunk[65536];
    ssize_t n = recv(p->ends[from], chunk, sizeof(chunk), 0);

    if (n <= 0)
        return false;
    if (from == p->from && n > CHUNK && p->arm && !p->damaged) {
        chunk[n - p->victim] ^= 1;
        p->damaged = true;
    }
    return send(p->ends[1 - from], chunk, (size_t)n, 0) == n;
}

static void *relay_main(void *arg)
{
    struct pair *p = arg;
    struct pollfd pfd[2] = { { .fd = p->ends[0], .events = POLLIN }, { .fd = p->ends[1], .events = POLLIN } };
    bool up = true;

    while (up && poll(pfd, 2, -1) > 0)
        for (int i = 0; i < 2; i++)
            if (pfd[i].revents != 0)
                up = up && pass_on(p, i);
    close(p->ends[0]);
    close(p->ends[1]);
    return NULL;
}

static enum verdict tamper_with(const char *cipher, const char *mac, int from, int victim)
{
    struct pair p = { .script = from == 0 ? send_damaged : take_damaged,
                      .judge = from == 0 ? judge_received : judge_sent,
                      .cipher = cipher,
                      .mac = mac,
                      .from = from,
                      .victim = victim };
    int near[2], far[2];
    pthread_t relay;
    enum verdict verdict;

    make_sockets(near);
    make_sockets(far);
    p.client_fd = near[0];
    p.ends[0] = near[1];
    p.ends[1] = far[0];
    pthread_create(&relay, NULL, relay_main, &p);
    verdict = play(&p, far[1]);
    pthread_join(relay, NULL);
    if (verdict != SAFE)
        fprintf(stderr, "probe: %s %s, from the %s, byte %d from the end\n", cipher, mac != NULL ? mac : "",
                from == 0 ? "client" : "server", victim);
    return verdict;
}

static enum verdict tamper(void)
{
    static const char *const suites[][2] = {
        { "aes128-gcm@openssh.com", NULL },
        { "aes256-gcm@openssh.com", NULL },
        { "chacha20-poly1305@openssh.com", NULL },
        { "aes256-ctr", "hmac-sha2-256-etm@openssh.com" },
        { "aes256-ctr", "hmac-sha2-512-etm@openssh.com" },
        { "aes128-ctr", "hmac-sha2-256" },
        { "aes128-ctr", "hmac-sha2-512" },
    };
    static const int victims[] = { 1, CHUNK / 2 }; /* in the tag, in the text */
    enum verdict worst = SAFE;

    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
        for (int j = 0; j < 4 && worst != UNSAFE; j++) {
            enum verdict verdict = tamper_with(suites[i][0], suites[i][1], j / 2, victims[j % 2]);

            if (verdict != SAFE)
                worst = verdict;
        }
    return worst;
}

static const struct mode {
    const char *name;
    enum verdict (*run)(void);
    const char *safe, *unsafe;
} modes[] = {
    { "confirm", confirm, "a second confirmation of a channel ends the session",
      "a peer can confirm an open channel again and replace its window and maximum packet" },
    { "leak", leak, "global requests leave nothing behind", "each global request leaks its address" },
    { "tamper", tamper, "a damaged packet ends the session", "a damaged packet is delivered" },
};

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    ssh_init();
    for (size_t i = 0; argc == 2 && i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(argv[1], modes[i].name) == 0) {
            const struct mode *m = &modes[i];
            enum verdict verdict = m->run();

            fprintf(stderr, "probe: libssh %s: %s\n", ssh_version(0),
                    verdict == SAFE     ? m->safe
                    : verdict == UNSAFE ? m->unsafe
                                        : "the two ends did not get far enough to tell");
            return (int)verdict;
        }
    fprintf(stderr, "usage: probe confirm|leak|tamper\n");
    return UNCLEAR;
}

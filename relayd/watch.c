#include "relayd/watch.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <utlist.h>

/* A little early, so that what TCP rounds up does not make it late. */
static unsigned patience_of_tcp(unsigned dead_ms)
{
    return dead_ms - dead_ms / 18;
}

/* Keepalive probes an idle connection, TCP_USER_TIMEOUT bounds unacknowledged data and a window that
 * stays shut. Linux gives an idle peer up at the first probe after TCP_USER_TIMEOUT: the seventh here.
 * Failing to set one is no reason to refuse the peer. */
void watch_socket(int fd, unsigned dead_ms)
{
    int on = 1, timeout = (int)patience_of_tcp(dead_ms), seconds = (int)(dead_ms / 1000);
    int idle = seconds >= 3 ? seconds / 3 : 1, interval = seconds >= 11 ? seconds / 11 : 1, count = 7;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

/* A stopped process looks like this: its kernel acknowledges all, and nothing comes back. */
static bool owes_answer(const struct session *session)
{
    const struct channel *channel;
    if (session_parked(session))
        return true;
    DL_FOREACH(session->channels, channel)
        if (chan_owes(channel))
            return true;
    return false;
}

/* The peer has had a second more for what it owes. */
static void count_silence(struct session *session)
{
    unsigned patience = session->loop->config->open_timeout / 1000;
    patience = patience > 0 ? patience : 1;
    session->silent++;
    if (session->silent >= patience + LIMIT_ANSWER) {
        session_close(session, REASON_peer_silent, "it was asked and did not answer");
    } else if (session->silent >= patience) {
        sshio_ask(session->ssh);
        session_touch(session);
    }
}

static void record_duplicate(struct session *session, const struct publication *publication)
{
    const char *other = publication->endpoint->publications->session->address;
    struct audit_event event = { .kind = EVENT_duplicate_publisher,
                                 .object = publication->endpoint->key,
                                 .peer = other };
    session_log_event(
        session, LOG_LEVEL_WARN, &event,
        "%s is served by a newer session from %s, and this one lives: do two hosts have one key?",
        publication->endpoint->key, other);
    session_event(session, &event);
}

/* A standby whose host is dead, as after a power cut, does not answer. */
static void check_doubted(struct session *session)
{
    struct publication *publication;
    if (session->doubted == 0 || session_parked(session))
        return;
    if (session->doubted-- > LIMIT_ANSWER) {
        session_log(session, LOG_LEVEL_DEBUG, "is asked whether it lives beside a newer session");
        session->doubted_at = session->socket.in_bytes;
        sshio_ask(session->ssh);
        session_touch(session);
    } else if (session->socket.in_bytes != session->doubted_at) {
        session->doubted = 0;
        DL_FOREACH2(session->publications, publication, of_next)
            if (publication->endpoint->publications != publication)
                break;
        if (publication != NULL)
            record_duplicate(session, publication);
    }
}

static void tick(struct session *session)
{
    unsigned since_ack, dead = patience_of_tcp(session->dead_peer_timeout);
    bool delivered = sshio_delivered(session->ssh, &since_ack), owes = owes_answer(session);
    session->tick_due = false;
    session_log_refusals(session);
    /* What has not arrived cannot be answered; a peer that takes nothing is TCP_USER_TIMEOUT's. */
    if (session->socket.in_bytes != session->heard_at || !delivered || !owes)
        session->silent = 0;
    else
        count_silence(session);
    if (!delivered && since_ack >= dead)
        session_close(session, REASON_peer_silent, "nothing that it was sent arrives");
    check_doubted(session);
    session->heard_at = session->socket.in_bytes;
    session->sent_at = session->socket.out_bytes;
    if (!delivered || owes || session->doubted > 0)
        session_watch(session);
}

/* While a rekey of ours waits for the peer, libssh keeps without limit what answers its packets, and
 * tells nobody (libssh.md, 11). If nothing has gone out for long, a packet of our own shows it. */
static void check_parked(struct session *session)
{
    uint64_t out = session->raw.out_packets;
    if (out != session->mute_out) {
        session->mute_out = out;
        session->mute_in = session->raw.in_packets;
    }
    if (session->raw.in_packets - session->mute_in < LIMIT_PARKED)
        return;
    ssh_send_ignore(session->ssh, "");
    session_touch(session);
    if (session->raw.out_packets == out)
        session_close(session, REASON_protocol_error, "it does not finish a key exchange");
}

void watch_serve(struct session *session)
{
    if (session->state != SESSION_UP || !sshio_alive(session->ssh))
        return;
    if (session->tick_due)
        tick(session);
    if (session->state == SESSION_UP && sshio_alive(session->ssh))
        check_parked(session);
}

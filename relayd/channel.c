#include "relayd/channel.h"

#include "relayd/session.h"

#include <assert.h>
#include <stdlib.h>
#include <utlist.h>

#define CHUNK_MAX 65536u    /* bytes of one write */
#define FIRST_CHUNK_MAX 256 /* of the first: the packet size of the peer, which is not known, may be 1 */

/* ---- What libssh calls: record, and nothing else ---- */

static void record(struct channel *channel, unsigned news)
{
    channel->news |= news;
    chan_mark(channel);
}

static int on_data(ssh_session ssh, ssh_channel which, void *data, uint32_t len, int is_stderr, void *arg)
{
    struct channel *channel = arg;
    (void)ssh, (void)which;
    if (is_stderr)
        return (int)len; /* forwards have no second stream: dropped */
    chan_mark(channel);
    if (channel->state == CHANNEL_CLOSING)
        return 0; /* taking would send a window adjust behind our CLOSE */
    return (int)channel->ops->receive(channel, data, len);
}

static void on_eof(ssh_session ssh, ssh_channel which, void *arg)
{
    (void)ssh, (void)which;
    record(arg, NEWS_EOF);
}

static void on_close(ssh_session ssh, ssh_channel which, void *arg)
{
    (void)ssh, (void)which;
    record(arg, NEWS_CLOSE);
}

static void on_open_response(ssh_session ssh, ssh_channel which, bool is_success, void *arg)
{
    (void)ssh, (void)which;
    record(arg, is_success ? NEWS_CONFIRMED : NEWS_REFUSED);
}

static void on_agent_request(ssh_session ssh, ssh_channel which, void *arg)
{
    struct channel *channel = arg;
    (void)ssh, (void)which;
    session_refuse(channel->session, EVENT_request, "auth-agent-req@openssh.com", REASON_not_supported, NULL);
}

/* ---- Life ---- */

static struct channel *chan_new(struct session *session, ssh_channel ssh, const struct channel_ops *ops,
                                void *owner, enum channel_state state)
{
    struct channel *channel = ssh != NULL ? calloc(1, sizeof(*channel)) : NULL;
    if (channel == NULL)
        return NULL;
    channel->session = session;
    channel->ssh = ssh;
    channel->ops = ops;
    channel->owner = owner;
    channel->state = state;
    channel->callbacks.userdata = channel;
    channel->callbacks.channel_data_function = on_data;
    channel->callbacks.channel_eof_function = on_eof;
    channel->callbacks.channel_close_function = on_close;
    channel->callbacks.channel_open_response_function = on_open_response;
    channel->callbacks.channel_auth_agent_req_function = on_agent_request;
    ssh_callbacks_init(&channel->callbacks);
    if (ssh_set_channel_callbacks(ssh, &channel->callbacks) != SSH_OK) {
        free(channel);
        return NULL;
    }
    DL_APPEND(session->channels, channel);
    session->nchannels++;
    return channel;
}

struct channel *chan_adopt(struct session *session, ssh_channel ssh, const struct channel_ops *ops,
                           void *owner)
{
    struct channel *channel = chan_new(session, ssh, ops, owner, CHANNEL_OPEN);
    if (channel == NULL && ssh != NULL)
        ssh_channel_free(ssh);
    return channel;
}

struct channel *chan_open_forward(struct session *session, const struct channel_ops *ops, void *owner,
                                  const char *address, uint16_t port, const char *origin,
                                  uint16_t origin_port)
{
    ssh_channel ssh = ssh_channel_new(session->ssh);
    struct channel *channel = chan_new(session, ssh, ops, owner, CHANNEL_OPENING);
    if (channel == NULL) {
        if (ssh != NULL)
            ssh_channel_free(ssh);
        return NULL;
    }
    /* Called once, whatever it returns: the answer, or the death of the session, comes as news. */
    ssh_channel_open_reverse_forward(ssh, address, port, origin, origin_port);
    session_touch(session);
    session_watch(session);
    return channel;
}

static void forget(struct channel *channel)
{
    struct session *session = channel->session;
    if (channel->in_work)
        session_unlist_work(channel);
    DL_DELETE(session->channels, channel);
    session->nchannels--;
    free(channel);
}

/* Only when the peer knows of no such channel any more, and never inside a callback. */
static void release(struct channel *channel)
{
    ssh_remove_channel_callbacks(channel->ssh, &channel->callbacks);
    ssh_channel_free(channel->ssh);
    session_touch(channel->session);
    forget(channel);
}

void chan_lose(struct channel *channel)
{
    channel->ops->lose(channel);
    forget(channel);
}

/* ---- Channels that nobody owns ---- */

static size_t orphan_receive(struct channel *channel, const void *data, size_t len)
{
    (void)channel, (void)data, (void)len;
    return 0;
}

/* An opening channel must not be freed: a late confirmation would leave the peer's open for ever. */
static bool orphan_serve(struct channel *channel)
{
    if (channel->state == CHANNEL_OPENING && (channel->news & NEWS_CONFIRMED) != 0)
        channel->state = CHANNEL_OPEN;
    if (channel->state == CHANNEL_OPEN)
        chan_close(channel);
    return false;
}

static void orphan_lose(struct channel *channel)
{
    (void)channel;
}

static const struct channel_ops orphan_ops = { orphan_receive, orphan_serve, orphan_lose };

void chan_abandon(struct channel *channel)
{
    channel->ops = &orphan_ops;
    channel->owner = NULL;
    chan_mark(channel);
}

/* ---- Work ---- */

void chan_mark(struct channel *channel)
{
    if (!channel->in_work)
        session_list_work(channel);
    session_mark(channel->session);
}

static bool is_over(const struct channel *channel)
{
    if ((channel->news & NEWS_REFUSED) != 0)
        return channel->state == CHANNEL_OPENING && channel->ops == &orphan_ops;
    return channel->state == CHANNEL_CLOSING && (channel->news & NEWS_CLOSE) != 0 &&
           channel->ops == &orphan_ops;
}

void chan_serve(struct channel *channel)
{
    struct session *session = channel->session;
    if (!sshio_alive(session->ssh))
        return;
    if (channel->state == CHANNEL_OPENING && (channel->news & (NEWS_CONFIRMED | NEWS_CLOSE)) == NEWS_CLOSE) {
        session_close(session, REASON_protocol_error, "CLOSE for a channel that is not open");
        return;
    }
    bool more = channel->ops->serve(channel);
    if (session->state == SESSION_DEAD)
        return;
    if (is_over(channel))
        release(channel);
    else if (more && !channel->in_work)
        session_list_work(channel);
}

bool chan_owes(const struct channel *channel)
{
    if (channel->state == CHANNEL_OPENING)
        return (channel->news & (NEWS_CONFIRMED | NEWS_REFUSED)) == 0;
    return channel->state == CHANNEL_CLOSING && (channel->news & NEWS_CLOSE) == 0;
}

/* ---- Bytes ---- */

typedef int write_call(ssh_channel ssh, const void *data, uint32_t len);

static size_t write_by(write_call *call, struct channel *channel, const void *data, size_t len)
{
    struct session *session = channel->session;
    if (channel->state != CHANNEL_OPEN || !session_may_write(session))
        return 0;
    size_t window = ssh_channel_window_size(channel->ssh);
    /* Four times as much each time, so that a size that is too small shows in a few packets. */
    uint64_t trusted = FIRST_CHUNK_MAX + 3 * channel->written;
    size_t max = trusted < CHUNK_MAX ? (size_t)trusted : CHUNK_MAX;
    len = len < max ? len : max;
    len = len < window ? len : window;
    if (len == 0)
        return 0;

    uint64_t packets = session->raw.out_packets;
    int rc = call(channel->ssh, data, (uint32_t)len);
    packets = session->raw.out_packets - packets;
    session_touch(session);
    if (rc < 0) {
        if ((channel->news & NEWS_CLOSE) == 0 && sshio_alive(session->ssh))
            session_close(session, REASON_protocol_error, ssh_get_error(session->ssh));
        return 0;
    }
    if (rc > 0 && packets == 0)
        session_park(session);
    /* A peer with a tiny maximum packet would have us make a packet of every byte. Others that went out
     * answer what has come in: by this call, or while a rekey kept the answers back. */
    if (packets > (uint64_t)rc / 1024 + 8 + session->raw.in_packets - session->mute_in)
        session_close(session, REASON_protocol_error, "the maximum packet is too small");
    channel->written += (uint64_t)rc;
    return (size_t)rc;
}

size_t chan_write(struct channel *channel, const void *data, size_t len)
{
    return write_by(ssh_channel_write, channel, data, len);
}

size_t chan_write_stderr(struct channel *channel, const void *data, size_t len)
{
    return write_by(ssh_channel_write_stderr, channel, data, len);
}

/* ssh_channel_read_timeout() with bytes in the buffer neither polls nor calls back; all others do. */
size_t chan_read_held(struct channel *channel, void *data, size_t size)
{
    int n = ssh_channel_read_timeout(channel->ssh, data, (uint32_t)size, 0, 0);
    session_touch(channel->session);
    return n > 0 ? (size_t)n : 0;
}

void chan_send_eof(struct channel *channel)
{
    if (sshio_alive(channel->session->ssh))
        ssh_channel_send_eof(channel->ssh);
    session_touch(channel->session);
}

/* With unsent output the first call sends only EOF. */
void chan_close(struct channel *channel)
{
    assert(channel->state == CHANNEL_OPEN);
    channel->state = CHANNEL_CLOSING;
    if (sshio_alive(channel->session->ssh) && ssh_channel_close(channel->ssh) == SSH_AGAIN &&
        sshio_alive(channel->session->ssh))
        ssh_channel_close(channel->ssh);
    session_touch(channel->session);
    session_watch(channel->session);
}

#ifndef RELAYD_SSHIO_H
#define RELAYD_SSHIO_H

#include "relayd/reason.h"
#include "relayd/source.h"

#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h>
#include <stdbool.h>

/* libssh's set-up, and the few things that are asked of every session. */

/* The relay's host key: made on the first start. */
struct host_key {
    char path[512];
    char fingerprint[64];
    char line[256]; /* "ssh-ed25519 AAAA...", as in known_hosts behind the host */
};

/* Loads DIR/ssh_host_ed25519_key or makes it (0600). -1 with a reason. */
int sshio_host_key(const char *dir, struct host_key *key, struct failure *failure);

/* One for each worker: it is not thread-safe. NULL with a reason. */
ssh_bind sshio_bind_new(const char *host_key_path, struct failure *failure);

/* Starts the server side on a connected, non-blocking socket, which the session then owns. NULL on
 * error; the socket is then closed. */
ssh_session sshio_accept(ssh_bind bind, int fd, ssh_counter socket_counter, ssh_counter raw_counter,
                         uint64_t rekey_bytes);

/* False once the session is over. libssh may end it in any call that reads or writes. */
bool sshio_alive(ssh_session ssh);

/* True while libssh has bytes that the socket did not take. */
bool sshio_write_pending(ssh_session ssh);

/* True if the peer's kernel has acknowledged all that was written. *since_ack: ms since it last
 * acknowledged anything. */
bool sshio_delivered(ssh_session ssh, unsigned *since_ack);

/* The address and the port to which the peer has connected, as people write them. */
void sshio_local(ssh_session ssh, char address[SOURCE_TEXT_SIZE], uint16_t *port);

/* Asks the peer for a sign of life (keepalive@openssh.com). Reads. */
void sshio_ask(ssh_session ssh);

/* Tells the peer why and ends the session; what is still unsent is dropped. */
void sshio_disconnect(ssh_session ssh, const char *why);

const char *sshio_version(void); /* version and origin of libssh */

#endif

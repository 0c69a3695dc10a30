#ifndef RELAYD_PUBKEY_H
#define RELAYD_PUBKEY_H

#include "relayd/reason.h"

#include <libssh/libssh.h>

/* A public key in the form in which the registry keeps it. */
struct pubkey {
    char *blob;           /* base64 of the whole key, as in authorized_keys; owned */
    char type[48];        /* "ssh-ed25519" */
    char fingerprint[64]; /* "SHA256:..." */
    char digest[9];       /* the first eight hex digits of the key's SHA-256 */
    char comment[128];    /* what stood behind the key; as it came, cut to size */
};

/* Reads a line of authorized_keys or of a .pub file (options in front are refused). 0, or -1 with a
 * sentence that says what to do; key must be cleared in either case. */
int pubkey_parse(const char *line, struct pubkey *key, struct failure *failure);

/* The same from a key that libssh holds; -1 if relayd takes no such key (certificates, DSA, short
 * RSA) or memory ran out. The comment is left empty. */
int pubkey_from_ssh(ssh_key ssh, struct pubkey *key, struct failure *failure);

void pubkey_clear(struct pubkey *key);

#endif

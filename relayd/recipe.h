#ifndef RELAYD_RECIPE_H
#define RELAYD_RECIPE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a stock ssh is set up for this relay: what `config` prints. Pure. */

/* Where the relay is reached. */
struct place {
    char host[256]; /* an IPv6 address without brackets */
    uint16_t port;
};

/* Reads a public-address, as the configuration has checked it: HOST or HOST:PORT. */
void place_parse(const char *address, struct place *place);

/* What known_hosts calls it: [HOST]:PORT, or the bare host if the port is 22. */
void place_known_hosts(const struct place *place, char *out, size_t size);

/* For whom, and what it may do. Borrowed. */
struct recipe {
    const char *name, *tenant, *fingerprint;
    const struct place *place;
    bool guessed;            /* nobody has said where users reach the relay */
    const char *host_key;    /* "ssh-ed25519 AAAA..." */
    const json_t *endpoints; /* rows of `ls` */
    bool everything;         /* a client's: it may reach port 22 of every name */
};

/* The parts, for programs. New reference, NULL when out of memory. */
json_t *recipe_client(const struct recipe *recipe);
json_t *recipe_device(const struct recipe *recipe);

/* The same as one file with comments; for a client an ssh_config. The caller frees it; NULL when out of
 * memory. It is as wide as it is. */
char *recipe_text(const json_t *parts, unsigned columns);

#endif

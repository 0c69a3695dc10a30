#ifndef RELAYD_SOURCE_H
#define RELAYD_SOURCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Whom a connection is laid to: an IPv4 address, or the /64 of an IPv6 one. A /64 is what one subscriber
 * gets, and each of its machines takes as many addresses in it as it likes. Pure. */
struct source {
    uint8_t family;     /* 4, 6, or 0: nobody, what it does is not counted */
    uint8_t address[8]; /* the first bytes; those behind an IPv4 address are 0 */
};

#define SOURCE_TEXT_SIZE 64

/* An IPv4 address in IPv6 (::ffff:0:0/96) is an IPv4 one, and so is what a NAT64 has
 * translated (64:ff9b::/96). */
struct source source_of(const struct sockaddr *address);

/* "192.0.2.1" or "2001:db8::/64". */
void source_text(const struct source *source, char out[SOURCE_TEXT_SIZE]);

/* The address as people write it, an IPv4 one without ::ffff:, and its port. */
void source_address(const struct sockaddr *address, char out[SOURCE_TEXT_SIZE], uint16_t *port);

/* A range of addresses. */
struct network {
    uint8_t family; /* 4 or 6 */
    uint8_t bits;
    uint8_t address[16];
};

/* "192.0.2.0/24", "2001:db8::/32", or one address. -1: it is none, or has bits behind its prefix. */
int network_parse(const char *text, struct network *network);

/* A translated address is in the networks of IPv6 alone: what it was before, the translator says. */
bool network_contains(const struct network *network, const struct sockaddr *address);

#endif

#ifndef RELAYD_PROXY_H
#define RELAYD_PROXY_H

#include "relayd/name.h"

#include <stddef.h>
#include <stdint.h>

/* The header by which the service behind an endpoint learns who connects: version 2 of the PROXY protocol
 * (HAProxy, doc/proxy-protocol.txt, 2.2). Pure.
 *
 * The source is the client's address. An endpoint has no address: the destination is the one at which the
 * client reached the relay, with the endpoint's port. Three TLVs tell the names. */
#define PROXY_TLV_AUTHORITY 0x02 /* the endpoint's name, without its port */
#define PROXY_TLV_PRINCIPAL 0xE0 /* the client's name */
#define PROXY_TLV_TENANT 0xE1    /* the name of the tenant */

struct proxy {
    const char *address; /* the client's, as source_address() has it */
    const char *local;   /* where that reached the relay, likewise */
    uint16_t port;       /* the client's */
    uint16_t endpoint_port;
    const char *endpoint, *principal, *tenant; /* names */
};

#define PROXY_SIZE (16 + 36 + 3 * (3 + NAME_SIZE - 1)) /* the longest header */

/* Writes the header; returns its length. */
size_t proxy_header(const struct proxy *proxy, unsigned char out[PROXY_SIZE]);

#endif

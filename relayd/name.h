#ifndef RELAYD_NAME_H
#define RELAYD_NAME_H

#include "relayd/reason.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names of tenants, principals and endpoints (docs/DESIGN.md, "Names"): labels of 1 to 63 of
 * [a-z0-9_-] joined by dots, 253 bytes at most, no label with a leading '-', the last label neither
 * all digits nor `localhost`. Canonical names are in lower case. */
#define NAME_SIZE 254 /* with the NUL */

bool name_valid(const char *name);        /* canonical form only */
bool name_valid_tenant(const char *name); /* one label */

/* The canonical form of what a peer sent: lower case, one trailing `.TENANT` stripped. Returns
 * REASON_none or REASON_bad_name. */
enum reason name_canonical(const char *raw, const char *tenant, char out[NAME_SIZE]);

/* True for the spellings that a client's `-R PORT:...` may send for "my own name" (D2). */
bool name_is_loopback(const char *raw);

/* True if name is owner or below it: web.raspi is under raspi. */
bool name_is_under(const char *name, const char *owner);

/* The rest of the name behind its first label, or NULL: web.raspi -> raspi. Borrowed. */
const char *name_parent(const char *name);

/* Takes "name:port" apart, as we write endpoints. False if it is none. */
bool name_of_endpoint(const char *endpoint, char name[NAME_SIZE], uint16_t *port);

/* Makes a valid name from free text such as a key's comment; false if nothing usable is in it. */
bool name_from_text(const char *text, char out[NAME_SIZE]);

#endif

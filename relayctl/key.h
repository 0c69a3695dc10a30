#ifndef RELAYCTL_KEY_H
#define RELAYCTL_KEY_H

#include <jansson.h>

/* Turns what the user gave as KEY into the text of a public key: the words themselves, the content
 * of a file, or standard input for "-". A private key is refused here, before it leaves the
 * machine's memory. A new reference, or NULL after a sentence on stderr. */
json_t *key_read(const char *given);

#endif

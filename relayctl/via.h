#ifndef RELAYCTL_VIA_H
#define RELAYCTL_VIA_H

#include <jansson.h>

/* The same commands over SSH, for administrators of a tenant: relayd runs what `ssh DEST COMMAND` asks for.
 */

/* The ssh to run, unless RELAYCTL_SSH or --ssh names another. */
#define VIA_SSH "ssh"

/* HOST:PORT without ssh://, which ssh would take for the name of a host; an IPv6 address is none. */
int via_has_bare_port(const char *dest);

/* Runs `ssh DEST LINE` and waits for its end; ssh: the program with its options, quoted as in a shell, which
 * is not used. A new reference to an answer as ctl_exchange() has it, or NULL after a sentence on stderr. */
json_t *via_exchange(const char *ssh, const char *dest, const char *line);

/* Before another try: relayd holds back who comes too often. */
void via_wait(void);

#endif

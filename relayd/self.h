#ifndef RELAYD_SELF_H
#define RELAYD_SELF_H

#include "relayd/command.h"

/* What every key may ask about itself, over SSH: the session steps of the commands. */
command_session_step self_help;
command_session_step self_whoami;
command_session_step self_ls;
command_session_step self_config;

/* What the session's principal may be, as of now: ROLE_DEVICE, ROLE_CLIENT, with ROLE_TENANT if it is an
 * administrator of its tenant. */
unsigned self_roles(const struct session *session);

/* The result of help for people. */
command_text self_help_text;

/* The lines that greet a shell: who you are, what you may do, what is online. New reference. */
json_t *self_greeting(struct session *session);

#endif

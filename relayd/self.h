#ifndef RELAYD_SELF_H
#define RELAYD_SELF_H

#include "relayd/command.h"

/* What every key may ask about itself, over SSH: the session steps of the commands. */
command_session_step self_help;
command_session_step self_whoami;
command_session_step self_ls;
command_session_step self_config;

/* ROLE_DEVICE or ROLE_CLIENT. */
unsigned self_role(const struct session *session);

/* The lines that greet a shell: who you are, what you may do, what is online. New reference. */
json_t *self_greeting(struct session *session);

#endif

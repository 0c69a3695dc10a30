#ifndef RELAYD_WHY_H
#define RELAYD_WHY_H

#include "relayd/command.h"

/* The command `why`: what was refused to whoever asks, newest first, as the audit trail has it. It tells the
 * reason that the peer was given, never more. */
command_store_step why_read;
command_text why_text;

#endif

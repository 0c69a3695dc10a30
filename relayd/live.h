#ifndef RELAYD_LIVE_H
#define RELAYD_LIVE_H

#include "relayd/command.h"

/* The live steps of the commands: on the tenant's worker, or on every worker in turn. */
command_live_step live_apply;
command_live_step live_limit;
command_live_step live_list_tenants;
command_live_step live_list_principals;
command_live_step live_list_endpoints;
command_live_step live_list_sessions;
command_live_step live_list_bridges;
command_live_step live_show;
command_live_step live_status;
command_live_step live_disconnect;
command_live_step live_host_key;

#endif

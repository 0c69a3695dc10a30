#ifndef RELAYD_REGISTRY_H
#define RELAYD_REGISTRY_H

#include "relayd/command.h"

/* The store steps of the commands: each runs on the keeper's thread, inside a transaction that is
 * committed if it returns 0 and rolled back otherwise. They check all that they are given; what
 * they change is told to the live step in the request. */
command_store_step registry_add_tenant;
command_store_step registry_remove_tenant;
command_store_step registry_add_device;
command_store_step registry_add_client;
command_store_step registry_add_key;
command_store_step registry_set_admin;
command_store_step registry_remove_device;
command_store_step registry_remove_client;
command_store_step registry_remove_key;
command_store_step registry_remove_pending;
command_store_step registry_remove_endpoint;
command_store_step registry_rename;
command_store_step registry_allow;
command_store_step registry_disallow;
command_store_step registry_move_endpoint;
command_store_step registry_set_endpoint;
command_store_step registry_limit;
command_store_step registry_find_tenant;
command_store_step registry_list_tenants;
command_store_step registry_list_devices;
command_store_step registry_list_clients;
command_store_step registry_list_keys;
command_store_step registry_list_pending;
command_store_step registry_list_endpoints;
command_store_step registry_show;
command_store_step registry_events;
command_store_step registry_status;

#endif

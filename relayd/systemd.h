#ifndef RELAYD_SYSTEMD_H
#define RELAYD_SYSTEMD_H

/* What relayd and its service manager tell each other, sd_notify(3) and sd_listen_fds(3). Without a
 * manager, or built without libsystemd, nothing is said and nothing is passed. */

#define SYSTEMD_FIRST_FD 3 /* of the sockets that are passed */

/* How many sockets were passed, from SYSTEMD_FIRST_FD on; -1 if what the manager says is not sound. Once,
 * before there are threads. */
int systemd_sockets(void);

/* Each with a line for `systemctl status`. Any thread. */
void systemd_ready(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* also after a reload */
void systemd_reloading(void);
void systemd_stopping(void);

#endif

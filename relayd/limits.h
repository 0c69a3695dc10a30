#ifndef RELAYD_LIMITS_H
#define RELAYD_LIMITS_H

/* What libssh leaves to us to bound (docs/DESIGN.md, "libssh"). */
#define LIMIT_CHANNELS 1000            /* of one session, closing ones included */
#define LIMIT_ENDPOINTS 1000           /* that one session publishes */
#define LIMIT_HISTORY 256              /* rows under a device's own name that are kept */
#define LIMIT_NOTES 32                 /* refusals waiting to be told to one peer */
#define LIMIT_LOGIN_ATTEMPTS 30        /* keys tried in one login, questions included */
#define LIMIT_LOGIN_BYTES 65536        /* that a peer may send before it has logged in */
#define LIMIT_WRITES_BEHIND 65536      /* rows waiting for the keeper */
#define LIMIT_CONNECTIONS_WAITING 4096 /* accepted sockets waiting for one worker */
#define LIMIT_CONTROL_CONNECTIONS 64
#define LIMIT_DESCRIPTOR_RESERVE 64 /* descriptors that sessions leave to everything else */

#endif

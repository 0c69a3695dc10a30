#ifndef RELAYD_EXCHANGE_H
#define RELAYD_EXCHANGE_H

#include "relayd/command.h"

#include <event2/event_struct.h>

/* One who waits for a request: a connection of the control socket, or a console. It has one request under
 * way at a time, and is answered once: with the outcome, or, if that takes too long, with what is known
 * then. All calls belong to the one thread that it lives on. */
struct exchange;

/* failure is set, or result is; both are borrowed. The exchange may begin anew. */
typedef void exchange_answer(struct exchange *exchange, const struct failure *failure, json_t *result);

struct exchange {
    struct request *request; /* under way; borrowed, for it comes back to this thread before it is freed */
    struct event timer;
    exchange_answer *answer;
};

void exchange_init(struct exchange *exchange, struct event_base *base, exchange_answer *answer);

/* Waits for the request from now on, which the caller sends to the keeper. None may be under way. */
void exchange_begin(struct exchange *exchange, struct request *request);

/* Nobody waits any more. What is under way goes on, and its outcome is only logged. */
void exchange_leave(struct exchange *exchange);

/* A request is back: logs its outcome, answers who waits, and frees it. */
void exchange_end(struct request *request);

#endif

#include "relayd/exchange.h"

#include "relayd/event.h"
#include "relayd/log.h"

#include <event2/event.h>

#define APPLY_TIMEOUT_S 5 /* after which a stored change is reported as not applied */
#define BATCH_RATE 5000   /* lines that have a second more */

/* It takes too long. What has not been begun never will be; of the rest we say what is known. */
static enum reason give_up(struct request *request)
{
    enum request_progress progress = REQUEST_QUEUED;
    if (atomic_compare_exchange_strong(&request->progress, &progress, REQUEST_CANCELLED))
        return request->command->steps->changes ? REASON_store_unavailable : REASON_timeout;
    return progress == REQUEST_STORED && request->command->steps->changes ? REASON_durable_not_applied
                                                                          : REASON_timeout;
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct exchange *exchange = arg;
    struct failure failure = { 0 };
    (void)fd, (void)what;
    enum reason reason = give_up(exchange->request);
    fail(&failure, reason, "%s", reason_sentence(reason));
    exchange_leave(exchange);
    exchange->answer(exchange, &failure, NULL);
}

void exchange_init(struct exchange *exchange, struct event_base *base, exchange_answer *answer)
{
    exchange->request = NULL;
    exchange->answer = answer;
    evtimer_assign(&exchange->timer, base, on_timeout, exchange);
}

void exchange_begin(struct exchange *exchange, struct request *request)
{
    size_t lines = json_array_size(json_object_get(request->args, "batch"));
    struct timeval delay = { .tv_sec = APPLY_TIMEOUT_S + (time_t)(lines / BATCH_RATE) };
    exchange->request = request;
    request->exchange = exchange;
    evtimer_add(&exchange->timer, &delay);
}

void exchange_leave(struct exchange *exchange)
{
    evtimer_del(&exchange->timer);
    if (exchange->request != NULL)
        exchange->request->exchange = NULL;
    exchange->request = NULL;
}

/* ---- The outcome ---- */

static void log_change(const struct request *request, const struct log_subject *subject)
{
    const char *status = json_string_value(json_object_get(request->result, "status"));
    const char *name = json_string_value(json_object_get(request->result, "name"));
    char text[COMMAND_TEXT_SIZE];
    command_describe(request, text);
    log_write(LOG_LEVEL_INFO, subject, "control: %s: %s %s; closed %u sessions and %u bridges", text,
              status != NULL ? status : "done", name != NULL ? name : "", request->closed_sessions,
              request->closed_bridges);
}

/* Also if nobody waits for it any more: what was done is done. */
static void log_outcome(const struct request *request)
{
    const struct actor *actor = &request->actor;
    struct log_subject subject = {
        .tenant = request->tenant,
        .principal = actor->session != 0 ? actor->principal : NULL,
        .session = actor->session,
        .address = actor->address,
        .event = event_code(EVENT_command),
    };
    if (request->failure.reason != REASON_none) {
        subject.reason = reason_code(request->failure.reason);
        log_write(LOG_LEVEL_INFO, &subject, "control: %s refused: %s: %s", request->command->words,
                  reason_code(request->failure.reason), request->failure.text);
    } else if (request->command->steps->changes && command_had_effect(request)) {
        log_change(request, &subject);
    }
}

void exchange_end(struct request *request)
{
    struct exchange *exchange = request->exchange;
    log_outcome(request);
    if (exchange != NULL) {
        exchange_leave(exchange);
        exchange->answer(exchange, &request->failure, request->result);
    }
    request_free(request);
}

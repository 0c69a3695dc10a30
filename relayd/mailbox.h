#ifndef RELAYD_MAILBOX_H
#define RELAYD_MAILBOX_H

#include <stddef.h>

/* A bounded queue into a thread: any thread posts, the owner takes. An eventfd tells the owner's
 * event loop. Ownership of a mail moves with it. */
enum mail_kind {
    MAIL_CONNECTION, /* struct connection: an accepted socket, to a worker that logs in */
    MAIL_SESSION,    /* struct session: logged in, to its tenant's worker */
    MAIL_REQUEST,    /* struct request: a command on its way */
    MAIL_ANSWER,     /* struct request: back at the session's worker */
    MAIL_SEEN,       /* struct seen: something to write behind, to the keeper */
    MAIL_FORGET,     /* struct forget: rows to take back, to the keeper */
    MAIL_ENROL,      /* struct enrolment: a key that waits to be approved, to the keeper */
    MAIL_STOP,       /* struct mail alone: the thread is to end */
};

/* The first member of whatever is mailed. */
struct mail {
    enum mail_kind kind;
    struct mail *next;
};

struct mailbox;

/* limit: mails that may wait; NULL when out of memory or descriptors. */
struct mailbox *mailbox_new(size_t limit);

/* Frees the box; it must be empty. */
void mailbox_free(struct mailbox *mailbox);

/* The descriptor that is readable while mail waits. */
int mailbox_fd(const struct mailbox *mailbox);

/* 0, or -1 if the box is full: the mail stays the caller's. */
int mailbox_post(struct mailbox *mailbox, struct mail *mail) __attribute__((warn_unused_result));

/* For mail whose number is bounded elsewhere (sessions, requests): never refused. */
void mailbox_post_always(struct mailbox *mailbox, struct mail *mail);

/* How many wait in it. Any thread. */
size_t mailbox_waiting(struct mailbox *mailbox);

/* Takes up to max mails, oldest first; NULL if there is none. The descriptor stays readable if
 * more wait. */
struct mail *mailbox_take(struct mailbox *mailbox, size_t max);

#endif

/* Load at a fixed rate: new connections in turn on all ports, and messages in turn on open connections.
 *
 * The schedule does not depend on the proxy: a connection or message that waits delays no other one, and its time counts from
 * the moment when it was due, so that a late proxy (or a late generator) is seen in all that was due meanwhile. Each line on
 * stdin is answered with the times since the previous one.
 */
#define _GNU_SOURCE
#include "client.h"
#include "common.h"

#include <errno.h>
#include <math.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define MOST_WAITING 4096 /* new connections at a time */
#define MOST_SENT 1024    /* messages without an answer on one connection */

struct timed {
    struct connection connection; /* first: a pointer to one is a pointer to the other */
    int is_open;                  /* it stays, and carries messages */
    uint64_t sent, answered;
    double *due;           /* of messages, by number modulo MOST_SENT */
    uint64_t *numbers;
};

struct paced {
    struct peer peer;
    in_port_t first, ports;
    int epoll;
    struct timed *open, *fresh;
    size_t open_count;
    double connection_rate, message_rate, start;
    uint64_t connections, messages; /* begun */
    uint64_t failed;
    struct durations opened, echoed;
    double late; /* the longest delay of this program itself */
};

static void point_at(struct paced *paced, uint64_t number)
{
    paced->peer.address.sin_port = htons((uint16_t)(paced->first + number % paced->ports));
}

static void fail(struct paced *paced, struct timed *timed, const char *what)
{
    if (timed->is_open)
        die_tls(what);
    paced->failed++;
    hang_up(&timed->connection);
}

static void on_handshake(struct paced *paced, struct timed *timed)
{
    struct connection *connection = &timed->connection;
    int result = shake_hands(connection);
    if (result == FAILED || (result == 1 && !send_message(connection, connection->expected, 1)))
        fail(paced, timed, "handshake");
}

static void begin_connection(struct paced *paced, double due)
{
    uint64_t number = paced->connections++;
    struct timed *timed = &paced->fresh[number % MOST_WAITING];
    if (timed->connection.state != IDLE)
        die("%d new connections wait", MOST_WAITING);
    point_at(paced, number);
    timed->connection.began = due;
    timed->connection.expected = letter(number);
    dial(&paced->peer, &timed->connection);
    watch(paced->epoll, &timed->connection, EPOLLIN);
    timed->connection.state = HANDSHAKING;
    on_handshake(paced, timed);
}

static void expect_next(struct timed *timed)
{
    struct connection *connection = &timed->connection;
    connection->expected = pattern_at(timed->numbers[timed->answered % MOST_SENT] * 67);
    connection->size = MESSAGE;
    connection->got = 0;
}

static void begin_message(struct paced *paced, double due)
{
    uint64_t number = paced->messages++;
    struct timed *timed = &paced->open[number % paced->open_count];
    if (timed->sent - timed->answered == MOST_SENT)
        die("%d messages of one connection wait", MOST_SENT);
    timed->due[timed->sent % MOST_SENT] = due;
    timed->numbers[timed->sent % MOST_SENT] = number;
    if (timed->sent++ == timed->answered)
        expect_next(timed);
    if (write_some(&timed->connection, pattern_at(number * 67), MESSAGE) != MESSAGE)
        die_tls("write of one message");
}

static void on_open(struct paced *paced, struct timed *timed)
{
    while (timed->answered < timed->sent) {
        int result = take_answer(&timed->connection);
        if (result == BLOCKED)
            return;
        if (result != 1)
            die_tls("read of one message");
        note(&paced->echoed, now() - timed->due[timed->answered++ % MOST_SENT]);
        if (timed->answered < timed->sent)
            expect_next(timed);
    }
    unsigned char byte;
    if (read_some(&timed->connection, &byte, 1) != BLOCKED)
        die("a connection was closed, or something came back that was not sent");
}

static void on_fresh(struct paced *paced, struct timed *timed)
{
    struct connection *connection = &timed->connection;
    if (connection->state == HANDSHAKING) {
        on_handshake(paced, timed);
        return;
    }
    int result = connection->state == WAITING ? take_answer(connection) : is_closed(connection);
    if (result == BLOCKED)
        return;
    if (connection->state == CLOSING || result != 1) {
        if (connection->state == CLOSING)
            hang_up(connection);
        else
            fail(paced, timed, "read");
        return;
    }
    note(&paced->opened, now() - connection->began);
    connection->state = CLOSING;
    if (!send_end(connection))
        fail(paced, timed, "shutdown");
}

static void on_event(struct paced *paced, struct timed *timed)
{
    ERR_clear_error();
    errno = 0;
    if (timed->is_open)
        on_open(paced, timed);
    else
        on_fresh(paced, timed);
}

static void report(struct paced *paced)
{
    char line[64];
    if (!fgets(line, sizeof line, stdin))
        exit(0);
    double when = now();
    for (size_t i = 0; i < MOST_WAITING; i++)
        if (paced->fresh[i].connection.state != IDLE && when - paced->fresh[i].connection.began > PATIENCE_SECONDS)
            die("no answer within %d s", PATIENCE_SECONDS);
    printf("PACED %.4f %llu %zu", paced->late * 1e3, (unsigned long long)paced->failed, paced->opened.count);
    print_percentiles(&paced->opened);
    printf(" %zu", paced->echoed.count);
    print_percentiles(&paced->echoed);
    printf("\n");
    fflush(stdout);
    paced->late = 0;
    paced->failed = 0;
}

/* When the event of this number is due, if there are so many per second. */
static double due_time(const struct paced *paced, uint64_t number, double rate)
{
    return rate > 0 ? paced->start + (double)number / rate : INFINITY;
}

static struct timespec time_until(double due)
{
    double left = fmin(fmax(due - now(), 0.0), 1.0);
    return (struct timespec){(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
}

static void begin_due(struct paced *paced)
{
    for (int i = 0; i < EVENTS; i++) {
        double connection_due = due_time(paced, paced->connections, paced->connection_rate);
        double message_due = due_time(paced, paced->messages, paced->message_rate);
        double due = fmin(connection_due, message_due), when = now();
        if (due > when)
            return;
        paced->late = fmax(paced->late, when - due);
        if (connection_due <= message_due)
            begin_connection(paced, due);
        else
            begin_message(paced, due);
    }
}

static void __attribute__((noreturn)) run(struct paced *paced)
{
    paced->start = now();
    for (;;) {
        begin_due(paced);
        double next = fmin(due_time(paced, paced->connections, paced->connection_rate),
                           due_time(paced, paced->messages, paced->message_rate));
        struct timespec wait = time_until(next);
        struct epoll_event events[EVENTS];
        int ready = epoll_pwait2(paced->epoll, events, EVENTS, &wait, NULL);
        if (ready < 0 && errno != EINTR)
            die("epoll_pwait2: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                on_event(paced, events[i].data.ptr);
            else
                report(paced);
        }
    }
}

static void open_connection(struct paced *paced, size_t number)
{
    struct timed *timed = &paced->open[number];
    point_at(paced, number);
    timed->due = calloc(MOST_SENT, sizeof *timed->due);
    timed->numbers = calloc(MOST_SENT, sizeof *timed->numbers);
    if (!timed->due || !timed->numbers)
        die("out of memory");
    open_blocking(&paced->peer, &timed->connection);
    greet(&timed->connection, letter(number));
    timed->is_open = 1;
    watch(paced->epoll, &timed->connection, EPOLLIN);
}

void run_paced(const struct peer *peer, unsigned ports, size_t open_count, double connections_per_second,
               double messages_per_second)
{
    struct paced paced = {.peer = *peer, .first = ntohs(peer->address.sin_port), .ports = (in_port_t)ports};
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = NULL};
    prctl(PR_SET_TIMERSLACK, 1000); /* ns: by default a wait lasts 50 us longer than asked for */
    paced.connection_rate = connections_per_second;
    paced.message_rate = open_count ? messages_per_second : 0;
    paced.open_count = open_count;
    paced.epoll = epoll_create1(EPOLL_CLOEXEC);
    paced.open = calloc(open_count + 1, sizeof *paced.open);
    paced.fresh = calloc(MOST_WAITING, sizeof *paced.fresh);
    if (!paced.open || !paced.fresh)
        die("out of memory");
    for (size_t i = 0; i < open_count; i++)
        open_connection(&paced, i);
    setvbuf(stdin, NULL, _IONBF, 0); /* or lines would hide from epoll in its buffer */
    if (epoll_ctl(paced.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &wish) < 0)
        die("epoll_ctl: %s", strerror(errno));
    printf("READY %zu\n", open_count);
    fflush(stdout);
    run(&paced);
}

/* Load at a fixed rate on many listeners: new connections in turn, and messages on one open connection per listener.
 *
 * What it measures does not depend on how fast the proxy answers: a connection that waits delays no other one. Each line on
 * stdin is answered with the durations since the previous one.
 */
#define _GNU_SOURCE
#include "client.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 64
#define MOST_WAITING 4096 /* new connections at a time */

struct timed {
    struct connection connection; /* first: a pointer to one is a pointer to the other */
    double began;                 /* 0: it waits for nothing */
    int is_open;                  /* it stays, and carries messages */
};

struct durations {
    double *values;
    size_t count, room;
};

struct paced {
    struct peer peer;
    in_port_t first, ports;
    int epoll;
    struct timed *open, *fresh;
    uint64_t connections, messages; /* begun */
    struct durations opened, echoed;
    double late; /* the longest delay of this program itself */
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void note(struct durations *durations, double seconds)
{
    if (durations->count == durations->room) {
        durations->room = durations->room ? 2 * durations->room : 1024;
        durations->values = realloc(durations->values, durations->room * sizeof(double));
        if (!durations->values)
            die("out of memory");
    }
    durations->values[durations->count++] = seconds;
}

static int compare(const void *one, const void *other)
{
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

/* Count, median, 99th percentile and maximum, in milliseconds. */
static void print_durations(struct durations *durations)
{
    size_t count = durations->count;
    qsort(durations->values, count, sizeof(double), compare);
    if (count)
        printf(" %zu %.3f %.3f %.3f", count, durations->values[count / 2] * 1e3, durations->values[count * 99 / 100] * 1e3,
               durations->values[count - 1] * 1e3);
    else
        printf(" 0 0 0 0");
    durations->count = 0;
}

static void point_at(struct paced *paced, uint64_t number)
{
    paced->peer.address.sin_port = htons((uint16_t)(paced->first + number % paced->ports));
}

static void watch(struct paced *paced, struct timed *timed)
{
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = timed};
    int fd = timed->connection.fd;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(paced->epoll, EPOLL_CTL_ADD, fd, &wish) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void send_text(struct timed *timed, size_t size, uint64_t number)
{
    struct connection *connection = &timed->connection;
    connection->size = size;
    connection->got = 0;
    memcpy(connection->expected, pattern_at(number * 67), MESSAGE);
    if (!timed->is_open)
        connection->expected[0] = (unsigned char)('a' + number % 26); /* the backend's echo */
    if (SSL_write(connection->ssl, connection->expected, (int)size) != (int)size)
        die_tls("write");
    connection->state = WAITING;
}

static void on_handshake(struct timed *timed, uint64_t number)
{
    int result = SSL_connect(timed->connection.ssl);
    if (result == 1) {
        check_handshake(timed->connection.ssl);
        send_text(timed, 1, number);
    } else if (SSL_get_error(timed->connection.ssl, result) != SSL_ERROR_WANT_READ) {
        die_tls("handshake");
    }
}

static void begin_connection(struct paced *paced)
{
    uint64_t number = paced->connections++;
    struct timed *timed = &paced->fresh[number % MOST_WAITING];
    if (timed->connection.ssl)
        die("%d new connections wait", MOST_WAITING);
    point_at(paced, number);
    timed->began = now();
    dial(&paced->peer, &timed->connection);
    watch(paced, timed);
    timed->connection.state = HANDSHAKING;
    on_handshake(timed, number);
}

static void begin_message(struct paced *paced)
{
    uint64_t number = paced->messages++;
    struct timed *timed = &paced->open[number % paced->ports];
    if (timed->connection.state == WAITING)
        return; /* the one before is not back yet, and its duration grows */
    timed->began = now();
    send_text(timed, MESSAGE, number);
}

/* Read what has come; 1 if all of it is here. */
static int take_answer(struct connection *connection)
{
    int count = SSL_read(connection->ssl, connection->seen + connection->got, (int)(connection->size - connection->got));
    if (count <= 0) {
        if (SSL_get_error(connection->ssl, count) != SSL_ERROR_WANT_READ)
            die_tls("read");
        return 0;
    }
    connection->got += (size_t)count;
    if (connection->got == connection->size && memcmp(connection->seen, connection->expected, connection->size))
        die("wrong bytes came back");
    return connection->got == connection->size;
}

static void on_close(struct timed *timed)
{
    unsigned char byte;
    int count = SSL_read(timed->connection.ssl, &byte, 1);
    if (count > 0)
        die("more came back than was sent");
    int error = SSL_get_error(timed->connection.ssl, count);
    if (error == SSL_ERROR_ZERO_RETURN)
        hang_up(&timed->connection);
    else if (error != SSL_ERROR_WANT_READ)
        die_tls("close");
}

static void on_event(struct paced *paced, struct timed *timed)
{
    struct connection *connection = &timed->connection;
    ERR_clear_error();
    errno = 0;
    if (connection->state == HANDSHAKING) {
        on_handshake(timed, (uint64_t)(timed - paced->fresh));
    } else if (connection->state == WAITING) {
        if (!take_answer(connection))
            return;
        note(timed->is_open ? &paced->echoed : &paced->opened, now() - timed->began);
        connection->state = timed->is_open ? IDLE : CLOSING;
        if (!timed->is_open && (SSL_shutdown(connection->ssl) < 0 || shutdown(connection->fd, SHUT_WR) < 0))
            die_tls("shutdown");
    } else if (connection->state == CLOSING) {
        on_close(timed);
    } else {
        die("a connection was closed, or something came back that was not sent");
    }
}

static void report(struct paced *paced)
{
    char line[64];
    if (!fgets(line, sizeof line, stdin))
        exit(0);
    double when = now();
    for (size_t i = 0; i < MOST_WAITING; i++)
        if (paced->fresh[i].connection.ssl && when - paced->fresh[i].began > PATIENCE_SECONDS)
            die("no answer within %d s", PATIENCE_SECONDS);
    printf("PACED %.3f", paced->late * 1e3);
    print_durations(&paced->opened);
    print_durations(&paced->echoed);
    printf("\n");
    fflush(stdout);
    paced->late = 0;
}

static void __attribute__((noreturn)) run(struct paced *paced, double connections_per_second, double messages_per_second)
{
    double start = now();
    uint64_t first_connection = paced->connections;
    for (;;) {
        double when = now() - start;
        double connection_due = (double)(paced->connections - first_connection) / connections_per_second;
        double message_due = (double)paced->messages / messages_per_second;
        double due = connection_due < message_due ? connection_due : message_due;
        if (due <= when) {
            paced->late = when - due > paced->late ? when - due : paced->late;
            if (connection_due <= when)
                begin_connection(paced);
            if (message_due <= when)
                begin_message(paced);
        }
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(paced->epoll, events, EVENTS, due <= when ? 0 : 1 + (int)((due - when) * 1e3));
        if (ready < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr)
                on_event(paced, events[i].data.ptr);
            else
                report(paced);
        }
    }
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("RLIMIT_NOFILE: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void run_paced(const struct peer *peer, unsigned ports, double connections_per_second, double messages_per_second)
{
    struct paced paced = {.peer = *peer, .first = ntohs(peer->address.sin_port), .ports = (in_port_t)ports};
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = NULL};
    raise_descriptor_limit();
    paced.epoll = epoll_create1(EPOLL_CLOEXEC);
    paced.open = calloc(ports, sizeof *paced.open);
    paced.fresh = calloc(MOST_WAITING, sizeof *paced.fresh);
    if (!paced.open || !paced.fresh)
        die("out of memory");
    for (unsigned i = 0; i < ports; i++) {
        point_at(&paced, i);
        open_blocking(&paced.peer, &paced.open[i].connection);
        greet(&paced.open[i].connection, (unsigned char)('a' + i % 26));
        paced.open[i].is_open = 1;
        watch(&paced, &paced.open[i]);
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* or lines would hide from epoll in its buffer */
    if (epoll_ctl(paced.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &wish) < 0)
        die("epoll_ctl: %s", strerror(errno));
    printf("READY %u\n", ports);
    fflush(stdout);
    run(&paced, connections_per_second, messages_per_second);
}

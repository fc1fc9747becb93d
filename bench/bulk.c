/* Many connections at the same time, half of them uploads and half downloads, each as fast as it can. */
#define _GNU_SOURCE
#include "client.h"
#include "common.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

struct stream {
    struct connection connection; /* first: a pointer to one is a pointer to the other */
    char mode;                    /* 'U' or 'D' */
    int has_ended;                /* its upload */
    uint64_t position, moved;
    unsigned char answer[ANSWER];
    size_t answered;
};

struct bulk {
    int epoll;
    uint64_t share; /* bytes per connection */
    size_t open;
};

static unsigned char buffer[RECORD];

static void want(struct bulk *bulk, struct stream *stream, uint32_t events)
{
    struct epoll_event wish = {.events = events, .data.ptr = stream};
    if (epoll_ctl(bulk->epoll, EPOLL_CTL_MOD, stream->connection.fd, &wish) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void finish(struct bulk *bulk, struct stream *stream)
{
    hang_up(&stream->connection);
    bulk->open--;
}

/* One record per event, so that all connections make progress. */
static void push(struct bulk *bulk, struct stream *stream)
{
    uint64_t left = bulk->share - stream->moved;
    size_t size = left < RECORD ? (size_t)left : RECORD;
    int count = size ? write_some(&stream->connection, pattern_at(stream->position + stream->moved), size) : 0;
    if (count == BLOCKED)
        return;
    if (count < 0)
        die_tls("write");
    stream->moved += (uint64_t)count;
    if (stream->moved < bulk->share)
        return;
    stream->has_ended = 1;
    want(bulk, stream, EPOLLIN);
}

static void take_verdict(struct bulk *bulk, struct stream *stream)
{
    int count = read_some(&stream->connection, stream->answer + stream->answered, ANSWER - stream->answered);
    if (count == BLOCKED)
        return;
    if (count <= 0)
        die_tls("read");
    stream->answered += (size_t)count;
    if (stream->answered < ANSWER)
        return;
    if (stream->answer[0] != 'K' || take_u64(stream->answer + 1) != bulk->share)
        die("upload: the backend saw %s bytes", stream->answer[0] == 'K' ? "too few" : "wrong");
    finish(bulk, stream);
}

static void pull(struct bulk *bulk, struct stream *stream)
{
    int count = read_some(&stream->connection, buffer, sizeof buffer);
    if (count == BLOCKED)
        return;
    if (count <= 0) { /* some proxies end without close_notify; the number of bytes decides */
        if (stream->moved != bulk->share)
            die("download: %llu bytes of %llu came", (unsigned long long)stream->moved, (unsigned long long)bulk->share);
        finish(bulk, stream);
        return;
    }
    if (!is_pattern(buffer, stream->position + stream->moved, (size_t)count))
        die("download: wrong bytes within %d after byte %llu", count, (unsigned long long)stream->moved);
    stream->moved += (uint64_t)count;
}

static void on_event(struct bulk *bulk, struct stream *stream)
{
    ERR_clear_error();
    errno = 0;
    if (stream->mode == 'D') {
        do /* what OpenSSL holds already causes no event */
            pull(bulk, stream);
        while (stream->connection.ssl && SSL_pending(stream->connection.ssl));
    } else if (stream->has_ended) {
        take_verdict(bulk, stream);
    } else {
        push(bulk, stream);
    }
}

static void open_stream(struct bulk *bulk, const struct peer *peer, struct stream *stream, size_t number)
{
    unsigned char head[HEAD];
    stream->mode = number % 2 ? 'D' : 'U';
    stream->position = number * 7919;
    head[0] = (unsigned char)stream->mode;
    put_u64(head + 1, bulk->share);
    put_u64(head + 9, stream->position);
    open_blocking(peer, &stream->connection);
    if (stream->mode == 'U') /* a download begins when the head is there */
        write_blocking(&stream->connection, head, sizeof head);
    if (stream->connection.ssl)
        SSL_set_mode(stream->connection.ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

static void start_stream(struct bulk *bulk, struct stream *stream)
{
    unsigned char head[HEAD] = {'D'};
    put_u64(head + 1, bulk->share);
    put_u64(head + 9, stream->position);
    if (stream->mode == 'D')
        write_blocking(&stream->connection, head, sizeof head);
    watch(bulk->epoll, &stream->connection, stream->mode == 'D' ? EPOLLIN : EPOLLOUT);
}

double run_streams(const struct peer *peer, uint64_t total, size_t count, void (*ready)(SSL *))
{
    struct bulk bulk = {epoll_create1(EPOLL_CLOEXEC), total / count, count};
    struct stream *streams = calloc(count, sizeof *streams);
    if (!streams)
        die("out of memory");
    for (size_t i = 0; i < count; i++)
        open_stream(&bulk, peer, &streams[i], i);
    ready(streams[0].connection.ssl);
    double start = now();
    for (size_t i = 0; i < count; i++)
        start_stream(&bulk, &streams[i]);
    while (bulk.open) {
        struct epoll_event events[EVENTS];
        int found = epoll_wait(bulk.epoll, events, EVENTS, PATIENCE_SECONDS * 1000);
        if (found == 0)
            die("no progress within %d s", PATIENCE_SECONDS);
        if (found < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < found; i++)
            on_event(&bulk, events[i].data.ptr);
    }
    return now() - start;
}

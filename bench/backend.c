/* The plain service behind the proxy: one thread, one epoll, a mode per connection chosen by its first byte.
 *
 * a-z  echo, that byte included
 * U    sink: the head's count is what will come; then, or at an earlier half-close, the answer says whether every byte was right
 * D    source: sends the head's count of bytes and closes
 *
 * A connection may begin with a header of the PROXY protocol, version 2, which is passed over.
 */
#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 64
#define FIXED 16 /* bytes of the PROXY protocol's header before those that its last two count */

struct client {
    int fd;
    char mode;
    unsigned char head[HEAD];
    size_t have, seen, length; /* of the head; of the PROXY protocol's header, and of its part behind FIXED */
    uint64_t count, position, moved;
    int is_wrong, is_answered;
};

static unsigned char buffer[SPAN];

static void finish(struct client *client)
{
    close(client->fd);
    free(client);
}

/* Small answers only: what does not fit at once is waited for. */
static int write_all(int fd, const unsigned char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = write(fd, bytes, size);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            if (poll(&room, 1, PATIENCE_SECONDS * 1000) == 0)
                die("backend: nobody reads for %d s", PATIENCE_SECONDS);
            continue;
        }
        if (sent < 0)
            return 0;
        bytes += sent;
        size -= (size_t)sent;
    }
    return 1;
}

static void answer(struct client *client)
{
    unsigned char text[ANSWER];
    if (client->is_answered)
        return;
    client->is_answered = 1;
    text[0] = client->is_wrong || client->moved != client->count ? 'X' : 'K';
    put_u64(text + 1, client->moved);
    write_all(client->fd, text, sizeof text);
}

/* Whether the connection goes on. */
static int pour(struct client *client)
{
    while (client->moved < client->count) {
        uint64_t left = client->count - client->moved;
        size_t size = left < SPAN ? (size_t)left : SPAN;
        ssize_t sent = write(client->fd, pattern_at(client->position + client->moved), size);
        if (sent < 0)
            return errno == EAGAIN;
        client->moved += (uint64_t)sent;
    }
    return 0;
}

static int start_pouring(struct client *client, int epoll)
{
    struct epoll_event wish = {.events = EPOLLOUT, .data.ptr = client};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &wish) < 0)
        die("backend: epoll_ctl: %s", strerror(errno));
    return pour(client);
}

static void check(struct client *client, const unsigned char *bytes, size_t size)
{
    if (!is_pattern(bytes, client->position + client->moved, size))
        client->is_wrong = 1;
    client->moved += size;
}

/* How many of the first bytes belong to the PROXY protocol's header, which alone begins with a carriage return. */
static size_t skip_header(struct client *client, const unsigned char *bytes, size_t size)
{
    size_t at = 0;
    if (client->seen == 0 && bytes[0] != '\r')
        return 0;
    for (; at < size && client->seen < FIXED + client->length; at++, client->seen++)
        if (client->seen == FIXED - 2 || client->seen == FIXED - 1)
            client->length = client->length << 8 | bytes[at];
    return at;
}

static int take(struct client *client, const unsigned char *bytes, size_t size, int epoll)
{
    if (!client->mode) {
        size_t header = skip_header(client, bytes, size);
        if (header == size)
            return 1;
        bytes += header;
        size -= header;
        client->mode = (char)bytes[0];
    }
    if (client->mode >= 'a' && client->mode <= 'z')
        return write_all(client->fd, bytes, size);
    if (client->mode != 'U' && client->mode != 'D')
        return 0; /* the load generator finds its connection closed */
    while (size > 0 && client->have < HEAD) {
        client->head[client->have++] = *bytes++;
        size--;
        if (client->have == HEAD) {
            client->count = take_u64(client->head + 1);
            client->position = take_u64(client->head + 9);
            if (client->mode == 'D')
                return start_pouring(client, epoll);
        }
    }
    if (size > 0)
        check(client, bytes, size);
    if (client->mode == 'U' && client->moved >= client->count && client->have == HEAD)
        answer(client);
    return 1;
}

static int on_event(struct client *client, int epoll)
{
    if (client->mode == 'D' && client->have == HEAD)
        return pour(client);
    ssize_t size = read(client->fd, buffer, sizeof buffer);
    if (size > 0)
        return take(client, buffer, (size_t)size, epoll);
    if (size < 0)
        return errno == EAGAIN;
    if (client->mode == 'U' && client->have == HEAD)
        answer(client);
    return 0;
}

static void on_connection(int listener, int epoll)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        die("backend: accept: %s", strerror(errno));
    set_nodelay(fd);
    struct client *client = calloc(1, sizeof *client);
    if (!client)
        die("backend: out of memory");
    client->fd = fd;
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &wish) < 0)
        die("backend: epoll_ctl: %s", strerror(errno));
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 1024) < 0)
        die("backend: cannot listen on 127.0.0.1:%d: %s", port, strerror(errno));
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die("backend: getsockname: %s", strerror(errno));
    printf("LISTENING %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

int serve_backend(int port)
{
    int listener = listen_on(port);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &wish) < 0)
        die("backend: epoll: %s", strerror(errno));
    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            die("backend: epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (!client)
                on_connection(listener, epoll);
            else if (!on_event(client, epoll))
                finish(client);
        }
    }
}

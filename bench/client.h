/* One TLS client connection and the blocking steps with it; every failure ends the program. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <netinet/in.h>
#include <openssl/ssl.h>

#define MESSAGE 64

enum state { IDLE, HANDSHAKING, WAITING, CLOSING };

struct peer {
    SSL_CTX *context;
    struct sockaddr_in address;
};

struct connection {
    int fd;
    SSL *ssl;
    enum state state;
    unsigned char expected[MESSAGE], seen[MESSAGE];
    size_t size, got;
};

void die_tls(const char *what) __attribute__((noreturn));
SSL_CTX *make_context(const char *certificate, const char *key, const char *authorities);
void dial(const struct peer *peer, struct connection *connection);
void hang_up(struct connection *connection);
void check_handshake(SSL *ssl);
void write_blocking(struct connection *connection, const unsigned char *bytes, size_t size);
void read_blocking(struct connection *connection, unsigned char *bytes, size_t size);
void greet(struct connection *connection, unsigned char byte);
void open_blocking(const struct peer *peer, struct connection *connection);

void run_paced(const struct peer *peer, unsigned ports, double connections_per_second, double messages_per_second)
    __attribute__((noreturn));

#endif

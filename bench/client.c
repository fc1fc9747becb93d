#define _GNU_SOURCE
#include "client.h"

#include "common.h"

#include <errno.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

void die_tls(const char *what)
{
    int system_error = errno;
    unsigned long error = ERR_get_error();
    die("%s: %s", what, error ? ERR_error_string(error, NULL) : system_error ? strerror(system_error) : "end of file");
}

SSL_CTX *make_context(const char *certificate, const char *key, const char *authorities)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) || !SSL_CTX_set1_groups_list(context, "X25519"))
        die_tls("context");
    if (!SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256")) /* one for all peers, whatever each prefers */
        die_tls("cipher");
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        die_tls(certificate);
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        die_tls(key);
    if (SSL_CTX_load_verify_locations(context, authorities, NULL) != 1)
        die_tls(authorities);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    return context;
}

/* Connects and waits for it; a loopback connect is only ever slow when the proxy's backlog is full. */
void dial(const struct peer *peer, struct connection *connection)
{
    struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&peer->address, sizeof peer->address) < 0)
        die("connect: %s", strerror(errno));
    set_nodelay(fd);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    connection->fd = fd;
    connection->ssl = SSL_new(peer->context);
    if (!connection->ssl || !SSL_set_fd(connection->ssl, fd))
        die_tls("connection");
}

void hang_up(struct connection *connection)
{
    SSL_free(connection->ssl);
    close(connection->fd);
    connection->ssl = NULL;
    connection->state = IDLE;
}

void check_handshake(SSL *ssl)
{
    if (SSL_session_reused(ssl))
        die("a session was resumed, and a full handshake was wanted");
    if (SSL_get_verify_result(ssl) != X509_V_OK)
        die("the server's chain does not verify");
}

void write_blocking(struct connection *connection, const unsigned char *bytes, size_t size)
{
    if (SSL_write(connection->ssl, bytes, (int)size) != (int)size)
        die_tls("write");
}

void read_blocking(struct connection *connection, unsigned char *bytes, size_t size)
{
    for (size_t got = 0; got < size;) {
        int count = SSL_read(connection->ssl, bytes + got, (int)(size - got));
        if (count <= 0)
            die_tls("read");
        got += (size_t)count;
    }
}

void greet(struct connection *connection, unsigned char byte)
{
    unsigned char back;
    write_blocking(connection, &byte, 1);
    read_blocking(connection, &back, 1);
    if (back != byte)
        die("wrong byte: sent 0x%02x, got 0x%02x back", byte, back);
}

void open_blocking(const struct peer *peer, struct connection *connection)
{
    dial(peer, connection);
    if (SSL_connect(connection->ssl) != 1)
        die_tls("handshake");
    check_handshake(connection->ssl);
}

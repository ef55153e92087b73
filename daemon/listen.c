#include "daemon/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 512, FIRST_PASSED = 3 /* SD_LISTEN_FDS_START */ };

static bool is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET) return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static int port_of(int fd)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	if (getsockname(fd, (struct sockaddr *)&address, &size) != 0) return 0;
	/* The port is at the same place in both families. */
	return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

static enum status open_one(const struct addrinfo *info, const char *text, struct sockets *sockets, struct error *err)
{
	int on = 1;
	if (sockets->n == MAX_SOCKETS) return error_set(err, STATUS_INVALID, "--listen: more than %d addresses", MAX_SOCKETS);
	int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) return error_errno(err, "--listen %s", text);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (info->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
		enum status status = error_errno(err, "--listen %s", text);
		close(fd);
		return status;
	}
	sockets->loopback = (sockets->n == 0 || sockets->loopback) && is_loopback(info->ai_addr);
	if (sockets->n == 0) sockets->port = port_of(fd);
	sockets->fds[sockets->n++] = fd;
	return STATUS_OK;
}

static enum status inherit_one(int fd, struct sockets *sockets, struct error *err)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address, length = sizeof(int);
	int listening = 0;
	if (getsockname(fd, (struct sockaddr *)&address, &size) != 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0)
		return error_errno(err, "descriptor %d of $LISTEN_FDS", fd);
	if (!listening || (address.ss_family != AF_INET && address.ss_family != AF_INET6))
		return error_set(err, STATUS_INVALID, "descriptor %d of $LISTEN_FDS is no listening TCP socket", fd);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
		return error_errno(err, "descriptor %d of $LISTEN_FDS", fd);
	sockets->loopback = (sockets->n == 0 || sockets->loopback) && is_loopback((struct sockaddr *)&address);
	if (sockets->n == 0) sockets->port = port_of(fd);
	sockets->fds[sockets->n++] = fd;
	return STATUS_OK;
}

enum status listen_inherit(struct sockets *sockets, struct error *err)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	if (!pid || !count || strtol(pid, NULL, 10) != getpid()) return STATUS_OK;
	long n = strtol(count, NULL, 10);
	if (n < 0 || n > MAX_SOCKETS)
		return error_set(err, STATUS_INVALID, "$LISTEN_FDS is '%.20s': 0 to %d sockets can be passed on", count,
				 MAX_SOCKETS);
	for (int fd = FIRST_PASSED; fd < FIRST_PASSED + n; fd++)
		TRY(inherit_one(fd, sockets, err));
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	return STATUS_OK;
}

/* Splits at the last colon, and takes the brackets off an IPv6 address. */
static bool split(const char *text, char *host, size_t room, const char **ret_port)
{
	const char *colon = strrchr(text, ':');
	if (!colon || !colon[1]) return false;
	const char *begin = text, *end = colon;
	if (*begin == '[') {
		if (end[-1] != ']') return false;
		begin++;
		end--;
	} else if (memchr(begin, ':', (size_t)(end - begin))) {
		return false;
	}
	if (begin == end || (size_t)(end - begin) >= room) return false;
	memcpy(host, begin, (size_t)(end - begin));
	host[end - begin] = 0;
	*ret_port = colon + 1;
	return true;
}

enum status listen_open(const char *address, struct sockets *sockets, struct error *err)
{
	char host[256];
	const char *port;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
	if (!split(address, host, sizeof host, &port))
		return error_set(err, STATUS_INVALID, "--listen %s: must be HOST:PORT, IPv6 addresses in brackets", address);
	int failed = getaddrinfo(host, port, &hints, &found);
	if (failed) return error_set(err, STATUS_INVALID, "--listen %s: %s", address, gai_strerror(failed));
	enum status status = STATUS_OK;
	for (const struct addrinfo *info = found; info && !status; info = info->ai_next)
		status = open_one(info, address, sockets, err);
	freeaddrinfo(found);
	return status;
}

enum status listen_keep(const int *fds, size_t n, struct sockets *ret, struct error *err)
{
	ret->n = 0;
	for (size_t i = 0; i < n; i++) {
		/* Above the places they are passed on in, which may be taken now. */
		int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_PASSED + MAX_SOCKETS);
		if (fd < 0) {
			enum status status = error_errno(err, "a listening socket");
			listen_close(ret);
			return status;
		}
		ret->fds[ret->n++] = fd;
	}
	return STATUS_OK;
}

void listen_pass_on(const struct sockets *sockets)
{
	char text[16];
	int next = FIRST_PASSED;
	for (size_t i = 0; i < sockets->n; i++)
		if (dup2(sockets->fds[i], next) >= 0) next++; /* without close-on-exec */
	close_range((unsigned)next, ~0u, 0);
	snprintf(text, sizeof text, "%d", next - FIRST_PASSED);
	setenv("LISTEN_FDS", text, 1);
	snprintf(text, sizeof text, "%d", (int)getpid());
	setenv("LISTEN_PID", text, 1);
}

void listen_close(struct sockets *sockets)
{
	for (size_t i = 0; i < sockets->n; i++)
		close(sockets->fds[i]);
	sockets->n = 0;
}

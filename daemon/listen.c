#include "daemon/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"

enum { BACKLOG = 512, FIRST_PASSED = 3 /* SD_LISTEN_FDS_START */ };

static bool is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_UNIX) return true;
	if (address->sa_family == AF_INET) return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

static int port_of(int fd)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address;
	if (getsockname(fd, (struct sockaddr *)&address, &size) != 0 || address.ss_family == AF_UNIX) return 0;
	/* The port is at the same place in both families. */
	return ntohs(((struct sockaddr_in *)&address)->sin_port);
}

static void add(int fd, const struct sockaddr *address, struct sockets *sockets)
{
	sockets->loopback = (sockets->n == 0 || sockets->loopback) && is_loopback(address);
	if (!sockets->port) sockets->port = port_of(fd);
	sockets->fds[sockets->n++] = fd;
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
	add(fd, info->ai_addr, sockets);
	return STATUS_OK;
}

/* ---- Unix sockets --------------------------------------------------------------------------------------------------------- */

static const char unix_prefix[] = "unix:";

static bool unix_address(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	return snprintf(ret->sun_path, sizeof ret->sun_path, "%s", path) < (int)sizeof ret->sun_path;
}

/* Is it a socket that nobody listens to? */
static bool is_dead(const char *path)
{
	struct sockaddr_un address;
	struct stat file;
	if (lstat(path, &file) != 0 || !S_ISSOCK(file.st_mode) || !unix_address(path, &address)) return false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool refused = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno == ECONNREFUSED;
	if (fd >= 0) close(fd);
	return refused;
}

static enum status check_place(const char *text, const char *path, struct error *err)
{
	struct stat file;
	if (lstat(path, &file) != 0) return errno == ENOENT ? STATUS_OK : error_errno(err, "--listen %s", text);
	if (!S_ISSOCK(file.st_mode)) return error_set(err, STATUS_EXISTS, "--listen %s: what is there is no socket", text);
	return is_dead(path) ? STATUS_OK : error_set(err, STATUS_EXISTS, "--listen %s: another process listens there", text);
}

/* It gets its name when it listens, and lets everybody connect: who may do what is found out then. */
static enum status bind_path(int fd, const char *text, const char *path, struct error *err)
{
	const mode_t everybody = 0666;
	struct sockaddr_un address;
	char made[sizeof address.sun_path + 8];
	snprintf(made, sizeof made, "%s.new", path);
	if (!unix_address(made, &address))
		return error_set(err, STATUS_INVALID, "--listen %s: the path is longer than %zu characters", text,
				 sizeof address.sun_path - sizeof ".new");
	TRY(check_place(text, made, err));
	unlink(made);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) return error_errno(err, "--listen %s", text);
	if (chmod(made, everybody) == 0 && listen(fd, BACKLOG) == 0 && rename(made, path) == 0) return STATUS_OK;
	enum status status = error_errno(err, "--listen %s", text);
	unlink(made);
	return status;
}

static enum status open_path(const char *text, struct sockets *sockets, struct error *err)
{
	const char *path = text + strlen(unix_prefix);
	if (path[0] != '/') return error_set(err, STATUS_INVALID, "--listen %s: must be unix:/PATH", text);
	if (sockets->n == MAX_SOCKETS) return error_set(err, STATUS_INVALID, "--listen: more than %d addresses", MAX_SOCKETS);
	TRY(check_place(text, path, err));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) return error_errno(err, "--listen %s", text);
	enum status status = bind_path(fd, text, path, err);
	if (status)
		close(fd);
	else
		add(fd, &(struct sockaddr){.sa_family = AF_UNIX}, sockets);
	return status;
}

void listen_remove(const char *address)
{
	const char *path = address + strlen(unix_prefix);
	if (text_starts_with(address, unix_prefix) && is_dead(path)) unlink(path);
}

/* ---- what was passed on --------------------------------------------------------------------------------------------------- */

static enum status inherit_one(int fd, struct sockets *sockets, struct error *err)
{
	struct sockaddr_storage address;
	socklen_t size = sizeof address, length = sizeof(int);
	int listening = 0;
	if (getsockname(fd, (struct sockaddr *)&address, &size) != 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0)
		return error_errno(err, "descriptor %d of $LISTEN_FDS", fd);
	sa_family_t family = address.ss_family;
	if (!listening || (family != AF_INET && family != AF_INET6 && family != AF_UNIX))
		return error_set(err, STATUS_INVALID, "descriptor %d of $LISTEN_FDS is no listening TCP or Unix socket", fd);
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
		return error_errno(err, "descriptor %d of $LISTEN_FDS", fd);
	add(fd, (struct sockaddr *)&address, sockets);
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
	if (text_starts_with(address, unix_prefix)) return open_path(address, sockets, err);
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
	if (!split(address, host, sizeof host, &port))
		return error_set(err, STATUS_INVALID, "--listen %s: must be HOST:PORT, IPv6 addresses in brackets, or unix:/PATH",
				 address);
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

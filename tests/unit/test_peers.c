/* Deadlines of connections: of one that waits for a request, alone and in a crowd, of one that has an answer to take, and of one
 * whose client is gone. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/peers.h"

enum { CROWD = 3, CROWDED_SECONDS = 1, LONG = 3600, SOON_MS = 20000 };

struct client {
	int ours, theirs;
	struct peer *peer;
};

static struct peers *create(void)
{
	struct peers *peers;
	struct error err;
	assert_int_equal(peers_create(CROWD, CROWDED_SECONDS, &peers, &err), STATUS_OK);
	return peers;
}

static struct client come(struct peers *peers, int seconds)
{
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	return (struct client){pair[0], pair[1], peer_add(peers, pair[1], seconds)};
}

static void go(struct peers *peers, struct client *client)
{
	peer_remove(peers, client->peer);
	close(client->ours);
	close(client->theirs);
}

/* Is it shut down, now or within that time? */
static bool is_shut(const struct client *client, int milliseconds)
{
	struct pollfd event = {.fd = client->ours, .events = POLLIN};
	return poll(&event, 1, milliseconds) == 1;
}

static void test_a_crowd_makes_way(void **state)
{
	(void)state;
	struct peers *peers = create();
	struct client silent = come(peers, LONG), answered = come(peers, LONG), kept = come(peers, LONG);
	peer_set_deadline(peers, answered.peer, LONG);
	peer_set_deadline(peers, kept.peer, 0);
	assert_true(is_shut(&silent, SOON_MS));
	assert_false(is_shut(&answered, 0));
	assert_false(is_shut(&kept, 0));
	peer_wait(peers, kept.peer, LONG); /* its answer has been taken */
	assert_true(is_shut(&kept, SOON_MS));
	assert_false(is_shut(&answered, 0));
	go(peers, &silent);
	go(peers, &answered);
	go(peers, &kept);
	peers_free(peers);
}

static void test_the_few_may_wait(void **state)
{
	(void)state;
	struct peers *peers = create();
	struct client silent = come(peers, LONG), late = come(peers, 2 * CROWDED_SECONDS + 1);
	assert_true(is_shut(&late, SOON_MS)); /* by its deadline */
	assert_false(is_shut(&silent, 0));
	go(peers, &silent);
	go(peers, &late);
	peers_free(peers);
}

/* Is the server's end shut down as well, now or within that time? */
static bool is_cut(const struct client *client, int milliseconds)
{
	struct pollfd event = {.fd = client->theirs}; /* POLLHUP alone */
	return poll(&event, 1, milliseconds) == 1;
}

static void test_who_is_gone_is_noticed(void **state)
{
	(void)state;
	struct peers *peers = create();
	struct client gone = come(peers, LONG), unread = come(peers, LONG);
	assert_int_equal(send(unread.ours, "G", 1, 0), 1);
	assert_int_equal(shutdown(unread.ours, SHUT_WR), 0);
	assert_int_equal(shutdown(gone.ours, SHUT_WR), 0);
	assert_true(is_cut(&gone, SOON_MS));
	assert_false(is_cut(&unread, 0)); /* the server has still to read what it sent */
	char byte;
	assert_int_equal(recv(unread.theirs, &byte, 1, 0), 1);
	assert_true(is_cut(&unread, SOON_MS));
	go(peers, &gone);
	go(peers, &unread);
	peers_free(peers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_crowd_makes_way), cmocka_unit_test(test_the_few_may_wait),
					   cmocka_unit_test(test_who_is_gone_is_noticed)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

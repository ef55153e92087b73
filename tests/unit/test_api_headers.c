/* Content negotiation, host and origin checks, tokens, query parameters, and the route table, without a socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/http.h"

static void test_accept(void **state)
{
	(void)state;
	const char *json = "application/json";
	assert_int_equal(accept_quality(NULL, json), 1000);
	assert_int_equal(accept_quality("", json), 1000);
	assert_int_equal(accept_quality("*/*", json), 1000);
	assert_int_equal(accept_quality("application/*;q=0.5", json), 500);
	assert_int_equal(accept_quality("Application/JSON", json), 1000);
	assert_int_equal(accept_quality("text/html, application/json;q=0.25", json), 250);
	assert_int_equal(accept_quality("text/html", json), 0);
	assert_int_equal(accept_quality("*/*;q=0.1, application/json ; q=0", json), 0);
	assert_int_equal(accept_quality("application/json;q=0, */*", json), 0);
	assert_int_equal(accept_quality("application/json;charset=utf-8;q=0.125", json), 125);
	assert_int_equal(accept_quality("application/jsonx, application/jso", json), 0);
	assert_int_equal(accept_quality("application/json;q=x", json), 0);
	assert_int_equal(accept_quality(",,, */* ;q=1", json), 1000);
}

static void test_media_type(void **state)
{
	(void)state;
	assert_true(media_type_is("application/json", "application/json"));
	assert_true(media_type_is(" Application/Json ; charset=utf-8", "application/json"));
	assert_false(media_type_is("application/json5", "application/json"));
	assert_false(media_type_is("text/plain; application/json", "application/json"));
}

static void test_loopback(void **state)
{
	(void)state;
	const char *loopback[] = {"localhost",         "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8642",
				  "127.255.255.255:1", "[::1]",        "[::1]:8642"};
	const char *others[] = {
		"",     "example.com",     "127.0.0.1.example.com", "localhost.example.com", "10.0.0.1", "[::2]:80",
		"[::1", "localhost:80:80", "localhost:8o",          "127.0.0.1@evil",        "1270.0.1", "127.0.0.0.1",
		"::1",  "[::1]evil",       "127.example.0.1:80"};
	for (size_t i = 0; i < sizeof loopback / sizeof *loopback; i++)
		if (!host_is_loopback(loopback[i])) fail_msg("%s is loopback", loopback[i]);
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (host_is_loopback(others[i])) fail_msg("%s is not loopback", others[i]);
}

static void test_origin(void **state)
{
	(void)state;
	assert_true(origin_is_host("http://localhost:8642", "localhost:8642"));
	assert_true(origin_is_host("https://besad.example", "besad.example"));
	assert_false(origin_is_host("http://localhost:8642", "localhost:8643"));
	assert_false(origin_is_host("null", "localhost"));
	assert_false(origin_is_host("http://localhost", NULL));
	assert_false(origin_is_host("localhost", "localhost"));
}

static void test_numbers(void **state)
{
	(void)state;
	int64_t value = -1;
	assert_true(number_parse("0", 10, &value));
	assert_int_equal(value, 0);
	assert_true(number_parse("9007199254740992", (int64_t)1 << 53, &value));
	assert_int_equal(value, (int64_t)1 << 53);
	const char *wrong[] = {"", " 1", "1 ", "-1", "+1", "1.0", "0x1", "11", "1e1", "99999999999999999999999", "\xd9\xa1"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		if (number_parse(wrong[i], 10, &value)) fail_msg("'%s' is no number up to 10", wrong[i]);
}

static void test_time(void **state)
{
	(void)state;
	char text[32];
	time_format(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
	time_format(1709210096007, text);
	assert_string_equal(text, "2024-02-29T12:34:56.007Z");
	time_format(4102444799999, text);
	assert_string_equal(text, "2099-12-31T23:59:59.999Z");
}

/* ---- routes --------------------------------------------------------------------------------------------------------------- */

static const char id[] = "01hzzzzzzz0123456789abcdef";

struct expected {
	const char *method, *path;
	unsigned status; /* 0: the checks pass */
	const char *allow;
};

static unsigned check(struct request *request, struct response *response)
{
	*response = (struct response){0};
	bool passed = router_check(request, response);
	assert_true(passed == (response->status == 0));
	return response->status;
}

static void test_routes(void **state)
{
	(void)state;
	const struct expected cases[] = {
		{"GET", "/", 0, NULL},
		{"HEAD", "/v1/jobs", 0, NULL},
		{"GET", "/v1/jobs/", 404, NULL},
		{"GET", "/v1/jobs//events", 404, NULL},
		{"GET", "/v1", 404, NULL},
		{"GET", "", 404, NULL},
		{"GET", "/v1/jobs/01hzzzzzzz0123456789abcdef", 0, NULL},
		{"GET", "/v1/jobs/01hzzzzzzz0123456789abcdef/events", 0, NULL},
		{"GET", "/v1/jobs/01hzzzzzzz0123456789abcdef/other", 404, NULL},
		{"PUT", "/v1/jobs", 405, "GET, HEAD, POST"},
		{"DELETE", "/v1/jobs", 405, "GET, HEAD, POST"},
		{"POST", "/v1/jobs/01hzzzzzzz0123456789abcdef", 405, "GET, HEAD, DELETE"},
		{"GET", "/v1/jobs/01hzzzzzzz0123456789abcdef/cancel", 405, "POST"},
		{"OPTIONS", "/metrics", 405, "GET, HEAD"},
		{"HEAD", "/v1/jobs/01hzzzzzzz0123456789abcdef/retry", 405, "POST"},
	};
	struct api_config config = {0};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct request request = {.config = &config, .method = cases[i].method, .path = cases[i].path};
		struct response response;
		unsigned status = check(&request, &response);
		if (status != cases[i].status) fail_msg("%s %s: %u", cases[i].method, cases[i].path, status);
		if (cases[i].allow) assert_string_equal(response.headers[0].value, cases[i].allow);
		response_clear(&response);
	}
}

static void test_path_id(void **state)
{
	(void)state;
	struct api_config config = {0};
	struct response response;
	struct request request = {.config = &config, .method = "GET", .path = "/v1/jobs/01hzzzzzzz0123456789abcdef/report"};
	assert_int_equal(check(&request, &response), 0);
	assert_string_equal(request.id, id);
	request.path = "/v1/jobs/no-id";
	assert_int_equal(check(&request, &response), 0);
	assert_string_equal(request.id, "");
	router_run(&request, &response);
	assert_int_equal(response.status, 404);
	response_clear(&response);
}

static struct tokens *parse(const char *text)
{
	struct tokens *tokens = NULL;
	struct error err;
	if (tokens_parse(text, "FILE", &tokens, &err)) fail_msg("%s", err.message);
	return tokens;
}

static void test_authentication(void **state)
{
	(void)state;
	struct api_config config = {.tokens = parse("0123456789abcdef")};
	struct response response;
	struct request request = {.config = &config, .method = "GET", .path = "/v1/jobs", .host = "example.com"};
	assert_int_equal(check(&request, &response), 401);
	assert_string_equal(response.headers[0].name, "WWW-Authenticate");
	response_clear(&response);
	request.path = "/not/there";
	assert_int_equal(check(&request, &response), 401);
	response_clear(&response);
	const char *open[] = {"/", "/main.js", "/style.css", "/healthz", "/readyz", "/openapi.yaml"};
	for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
		request.path = open[i];
		assert_int_equal(check(&request, &response), 0);
	}
	request.path = "/metrics";
	const char *wrong[] = {"Bearer 0123456789abcdee", "Bearer", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer "};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		request.authorization = wrong[i];
		assert_int_equal(check(&request, &response), 401);
		response_clear(&response);
	}
	request.authorization = "bearer 0123456789abcdef";
	assert_int_equal(check(&request, &response), 0);
	tokens_free(config.tokens);
}

static void test_roles(void **state)
{
	(void)state;
	struct api_config config = {
		.tokens = parse("r read reader-0123456789\ns submit submitter-0123456789\na admin admin-0123456789ab\n")};
	static const struct {
		const char *method, *path;
		unsigned read, submit; /* 0: the checks pass */
	} cases[] = {
		{"GET", "/v1/jobs", 0, 0},
		{"HEAD", "/v1/gc", 0, 0},
		{"GET", "/metrics", 0, 0},
		{"GET", "/v1/jobs/01hzzzzzzz0123456789abcdef/events", 0, 0},
		{"POST", "/v1/jobs", 403, 0},
		{"POST", "/v1/estimate", 403, 0},
		{"DELETE", "/v1/jobs/01hzzzzzzz0123456789abcdef", 403, 0},
		{"POST", "/v1/studies/01hzzzzzzz0123456789abcdef/cancel", 403, 0},
		{"POST", "/v1/gc", 403, 403},
		{"POST", "/healthz", 405, 405},
		{"GET", "/", 0, 0},
	};
	static const char *const bearers[] = {"Bearer reader-0123456789", "Bearer submitter-0123456789",
					      "Bearer admin-0123456789ab"};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		for (int who = 0; who < 3; who++) {
			struct response response;
			struct request request = {.config = &config, .method = cases[i].method, .path = cases[i].path};
			request.authorization = bearers[who];
			unsigned status = check(&request, &response);
			unsigned wanted = who == 0                 ? cases[i].read
					  : who == 1               ? cases[i].submit
					  : cases[i].submit == 403 ? 0
								   : cases[i].submit;
			if (status != wanted) fail_msg("%s %s %d: %u", cases[i].method, cases[i].path, who, status);
			if (status == 403) assert_non_null(strstr(response.body, i == 8 ? "the role admin" : "the role submit"));
			response_clear(&response);
		}
	tokens_free(config.tokens);
}

static void test_hosts_and_origins(void **state)
{
	(void)state;
	struct api_config open = {0}, guarded = {.tokens = parse("0123456789abcdef")};
	struct response response;
	struct request request = {.config = &open, .method = "GET", .path = "/", .host = "evil.example"};
	assert_int_equal(check(&request, &response), 403);
	response_clear(&response);
	request.config = &guarded;
	assert_int_equal(check(&request, &response), 0);
	tokens_free(guarded.tokens);

	request = (struct request){.config = &open, .method = "POST", .path = "/v1/jobs", .host = "localhost:1"};
	request.origin = "http://localhost:1";
	assert_int_equal(check(&request, &response), 0);
	const char *foreign[] = {"null", "http://localhost:2", "http://evil.example", "file://"};
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
		request.origin = foreign[i];
		assert_int_equal(check(&request, &response), 403);
		response_clear(&response);
	}
	request.method = "GET";
	assert_int_equal(check(&request, &response), 0);
}

static void test_negotiation_and_query(void **state)
{
	(void)state;
	struct api_config config = {0};
	struct response response;
	struct request request = {.config = &config, .method = "GET", .path = "/v1/jobs", .accept = "text/html"};
	assert_int_equal(check(&request, &response), 406);
	response_clear(&response);
	request.accept = NULL;
	request.n_query = 1;
	request.query[0].key = "limit";
	request.query[0].value = "3";
	assert_int_equal(check(&request, &response), 0);
	request.query[0].value = NULL;
	assert_int_equal(check(&request, &response), 400);
	response_clear(&response);
	request.query[0].key = "what";
	request.query[0].value = "3";
	assert_int_equal(check(&request, &response), 400);
	assert_non_null(strstr(response.body, "\"parameter\":\"what\""));
	response_clear(&response);
	request.query[0].key = "limit";
	request.query[1] = request.query[0];
	request.n_query = 2;
	assert_int_equal(check(&request, &response), 400);
	assert_non_null(strstr(response.body, "twice"));
	response_clear(&response);
	for (int i = 0; i < MAX_QUERY; i++)
		request.query[i] = request.query[0];
	request.n_query = MAX_QUERY + 1;
	assert_int_equal(check(&request, &response), 400);
	response_clear(&response);
}

static void test_ranges(void **state)
{
	(void)state;
	static const struct {
		const char *header;
		int64_t size;
		enum range range;
		int64_t first, bytes;
	} cases[] = {
		{NULL, 10, RANGE_WHOLE, 0, 0},
		{"bytes=0-3", 10, RANGE_PART, 0, 4},
		{"Bytes=9-9", 10, RANGE_PART, 9, 1},
		{"bytes=4-", 10, RANGE_PART, 4, 6},
		{"bytes=4-99", 10, RANGE_PART, 4, 6},
		{"bytes=-3", 10, RANGE_PART, 7, 3},
		{"bytes=-99", 10, RANGE_PART, 0, 10},
		{"bytes=10-", 10, RANGE_OUTSIDE, 0, 0},
		{"bytes=-0", 10, RANGE_OUTSIDE, 0, 0},
		{"bytes=0-", 0, RANGE_OUTSIDE, 0, 0},
		{"bytes=-1", 0, RANGE_OUTSIDE, 0, 0},
		{"bytes=3-2", 10, RANGE_WHOLE, 0, 0},
		{"bytes=0-1,4-5", 10, RANGE_WHOLE, 0, 0},
		{"bytes=-", 10, RANGE_WHOLE, 0, 0},
		{"bytes=", 10, RANGE_WHOLE, 0, 0},
		{"bytes=a-b", 10, RANGE_WHOLE, 0, 0},
		{"bytes= 0-1", 10, RANGE_WHOLE, 0, 0},
		{"bytes=0-99999999999999999999", 10, RANGE_WHOLE, 0, 0},
		{"lines=0-1", 10, RANGE_WHOLE, 0, 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int64_t first = 0, bytes = 0;
		if (range_find(cases[i].header, cases[i].size, &first, &bytes) != cases[i].range || first != cases[i].first ||
		    bytes != cases[i].bytes)
			fail_msg("%s of %d: from %d, %d bytes", cases[i].header, (int)cases[i].size, (int)first, (int)bytes);
	}
}

static void test_names_in_paths(void **state)
{
	(void)state;
	struct api_config config = {0};
	struct response response;
	struct request request = {
		.config = &config, .method = "GET", .path = "/v1/jobs/01hzzzzzzz0123456789abcdef/artifacts/a/b.json"};
	assert_int_equal(check(&request, &response), 0);
	assert_string_equal(request.id, "01hzzzzzzz0123456789abcdef");
	assert_string_equal(request.name, "a/b.json");
	request.path = "/v1/jobs/01hzzzzzzz0123456789abcdef/artifacts";
	assert_int_equal(check(&request, &response), 0);
	assert_null(request.name);
	request.path = "/v1/jobs/01hzzzzzzz0123456789abcdef/artifacts/";
	assert_int_equal(check(&request, &response), 404);
	response_clear(&response);
}

static void test_body_types(void **state)
{
	(void)state;
	struct api_config config = {0};
	const struct {
		const char *type, *origin, *encoding;
		unsigned status; /* 400: it was taken, but an empty body is no JSON */
	} cases[] = {
		{"application/json", NULL, NULL, 400},
		{"application/json; charset=utf-8", "http://localhost", NULL, 400},
		{NULL, NULL, NULL, 400},
		{"application/x-www-form-urlencoded", NULL, NULL, 400},
		{NULL, "http://localhost", NULL, 415},
		{"application/x-www-form-urlencoded", "http://localhost", NULL, 415},
		{"text/plain", NULL, NULL, 415},
		{"multipart/form-data; boundary=x", NULL, NULL, 415},
		{"application/json", NULL, "gzip", 415},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct response response;
		struct request request = {.config = &config,
					  .method = "POST",
					  .path = "/v1/jobs",
					  .host = "localhost",
					  .content_type = cases[i].type,
					  .origin = cases[i].origin,
					  .content_encoding = cases[i].encoding};
		assert_int_equal(check(&request, &response), 0);
		router_run(&request, &response);
		if (response.status != cases[i].status) fail_msg("case %zu: %u", i, response.status);
		response_clear(&response);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accept),
		cmocka_unit_test(test_media_type),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_origin),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_path_id),
		cmocka_unit_test(test_authentication),
		cmocka_unit_test(test_roles),
		cmocka_unit_test(test_hosts_and_origins),
		cmocka_unit_test(test_negotiation_and_query),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_names_in_paths),
		cmocka_unit_test(test_body_types),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "ctl/watch.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "ctl/stream.h"
#include "ctl/text.h"
#include "ctl/view.h"

enum { POLL_MILLISECONDS = 200, DEFAULT_COLUMNS = 80 };
static const double redraw_seconds = 0.1, refresh_seconds = 2, first_pause = 0.25, longest_pause = 5;

static volatile sig_atomic_t interrupted; /* the number of the signal */

struct watch {
	struct client *client;
	const char *id;
	enum watch_style style;
	double patience;
	struct view view;
	bool ended;     /* the stream said so */
	bool bar_shown; /* the cursor stands behind a bar */
	bool disconnected;
	double drawn, refreshed, contact; /* when, in monotonic seconds */
	double pause;                     /* before the next try to connect */
};

enum watch_style watch_style_for_output(void)
{
	const char *terminal = getenv("TERM");
	bool dumb = terminal && strcmp(terminal, "dumb") == 0;
	return isatty(STDOUT_FILENO) && !dumb ? WATCH_BAR : WATCH_LINES;
}

/* ---- output ------------------------------------------------------------------------------------------------------------- */

static void erase_bar(struct watch *watch)
{
	if (!watch->bar_shown) return;
	fputs("\r\033[K", stdout);
	fflush(stdout);
	watch->bar_shown = false;
}

static size_t columns(void)
{
	struct winsize size;
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : DEFAULT_COLUMNS;
}

static void draw_bar(struct watch *watch)
{
	struct buffer bar = {0};
	if (watch->style != WATCH_BAR || watch->ended) return;
	if (watch->disconnected)
		buffer_printf(&bar, "%.*s", (int)columns() - 1, "besad does not answer; trying again");
	else
		view_bar(&watch->view, columns() - 1, &bar); /* the last column stays free: some terminals wrap there */
	printf("\r%s\033[K", bar.data ? bar.data : "");
	fflush(stdout);
	buffer_free(&bar);
	watch->bar_shown = true;
	watch->drawn = monotonic_seconds();
}

static void note(struct watch *watch, const char *what, const char *why)
{
	erase_bar(watch);
	fprintf(stderr, "besactl: %s%s%s\n", what, why ? ": " : "", why ? why : "");
}

static void take_event(void *context, const char *type, const char *id, const char *text, size_t size)
{
	struct watch *watch = context;
	struct buffer line = {0};
	struct error err;
	cJSON *event;
	(void)id;
	if (json_parse(text, size, "an event", &event, &err)) return; /* of a newer besad: data in another form */
	if (watch->style == WATCH_EVENTS) {
		text_put(stdout, text);
		putchar('\n');
	}
	if (strcmp(type, "end") == 0) {
		watch->ended = true;
	} else if (view_take_event(&watch->view, type, cJSON_GetObjectItemCaseSensitive(event, "data"), &line) &&
		   (watch->style == WATCH_LINES || watch->style == WATCH_BAR)) {
		erase_bar(watch);
		printf("%s\n", line.data ? line.data : "");
	}
	buffer_free(&line);
	cJSON_Delete(event);
}

/* ---- interruption ------------------------------------------------------------------------------------------------------- */

static void interrupt(int number)
{
	interrupted = number;
}

static void catch_signals(void (*handler)(int))
{
	struct sigaction action = {.sa_handler = handler};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

/* Ends as the signal would have ended it, which is what a shell wants to see. */
static void die_of_signal(struct watch *watch)
{
	erase_bar(watch);
	fprintf(stderr, "besactl: the job goes on; to follow it again: besactl watch %s\n", watch->id);
	fflush(stdout);
	catch_signals(SIG_DFL);
	raise((int)interrupted);
}

static void wait_seconds(double seconds)
{
	struct timespec time = {.tv_sec = (time_t)seconds, .tv_nsec = (long)(fmod(seconds, 1) * 1e9)};
	if (!interrupted) nanosleep(&time, NULL);
}

/* ---- following ---------------------------------------------------------------------------------------------------------- */

/* GET /v1/jobs/{id}, without a word about failures. */
static void get_job(struct watch *watch, struct reply *ret)
{
	char path[128];
	snprintf(path, sizeof path, "/v1/jobs/%s", watch->id);
	client_call(watch->client, &(struct call){.method = "GET", .path = path}, ret);
}

/* The job's own progress has what events lack: phase, fraction, time left. */
static void refresh_bar(struct watch *watch)
{
	struct reply reply;
	if (watch->style != WATCH_BAR) return;
	if (monotonic_seconds() - watch->refreshed >= refresh_seconds) {
		get_job(watch, &reply);
		if (reply.status == 200 && reply.json) view_take_job(&watch->view, reply.json);
		reply_clear(&reply);
		watch->refreshed = monotonic_seconds();
	}
	if (monotonic_seconds() - watch->drawn >= redraw_seconds) draw_bar(watch);
}

static void take_contact(struct watch *watch, const struct stream *stream)
{
	if (!stream_alive(stream)) return;
	if (watch->disconnected) note(watch, "connected again", NULL);
	watch->disconnected = false;
	watch->contact = monotonic_seconds();
	watch->pause = first_pause;
}

/* Waits, longer each time, for another try. False when the daemon was silent for too long. */
static bool pause_for_retry(struct watch *watch, const char *why)
{
	if (!watch->disconnected) note(watch, "lost the connection, trying again", why);
	watch->disconnected = true;
	if (monotonic_seconds() - watch->contact > watch->patience) {
		note(watch, "the daemon was silent for too long", why);
		return false;
	}
	draw_bar(watch);
	wait_seconds(watch->pause * (0.75 + 0.5 * drand48())); /* so that many watchers do not come back at once */
	watch->pause = fmin(2 * watch->pause, longest_pause);
	return true;
}

/* Anything but a stream came back. The job itself will be refused for the same reason, with a problem that says it. */
static enum exit_code explain_refusal(struct watch *watch, const struct stream *stream)
{
	struct reply reply;
	erase_bar(watch);
	get_job(watch, &reply);
	enum exit_code code = reply_check(watch->client, &reply);
	reply_clear(&reply);
	if (code != EXIT_OK) return code;
	fprintf(stderr, "besactl: no event stream (HTTP status %ld): %s\n", stream_status(stream), stream_failure(stream));
	return EXIT_PROTOCOL;
}

static enum exit_code follow_events(struct watch *watch, struct stream *stream)
{
	struct error err;
	enum stream_state state = STREAM_OPEN;
	if (stream_connect(stream, &err)) {
		note(watch, err.message, NULL);
		return EXIT_USAGE;
	}
	while (!watch->ended && !interrupted) {
		state = stream_poll(stream, POLL_MILLISECONDS);
		take_contact(watch, stream);
		if (watch->ended || interrupted) break;
		if (state == STREAM_OPEN) {
			refresh_bar(watch);
		} else if (state == STREAM_REFUSED && stream_status(stream) != 503) {
			return explain_refusal(watch, stream);
		} else if (!pause_for_retry(watch, stream_failure(stream))) {
			return EXIT_UNREACHABLE;
		} else if (stream_connect(stream, &err)) {
			note(watch, err.message, NULL);
			return EXIT_USAGE;
		}
	}
	return EXIT_OK;
}

/* The job as it is after its end event. */
static enum exit_code fetch_job(struct watch *watch, cJSON **ret_job)
{
	struct reply reply;
	for (;;) {
		get_job(watch, &reply);
		if ((reply.status != 0 && reply.status != 503) || interrupted) break;
		if (!pause_for_retry(watch, reply.status ? "it is not ready" : reply.failure)) break;
		reply_clear(&reply);
	}
	enum exit_code code = reply_check(watch->client, &reply);
	if (code == EXIT_OK)
		*ret_job = reply.json;
	else
		reply_clear(&reply);
	return code;
}

enum exit_code job_exit_code(const cJSON *job)
{
	const char *state = text_member_or(job, "state", "");
	return strcmp(state, "failed") == 0 ? EXIT_FAILED : strcmp(state, "cancelled") == 0 ? EXIT_CANCELLED : EXIT_OK;
}

static bool is_final(const cJSON *job)
{
	static const char *const unfinished[] = {"queued", "running", "cancelling", "pausing", "paused"};
	const char *state = text_member_or(job, "state", "");
	for (size_t i = 0; i < sizeof unfinished / sizeof *unfinished; i++)
		if (strcmp(state, unfinished[i]) == 0) return false;
	return true;
}

enum exit_code watch_job(struct client *client, const char *id, enum watch_style style, double patience, cJSON **ret_job)
{
	struct watch watch = {.client = client, .id = id, .style = style, .patience = patience, .pause = first_pause};
	struct stream *stream = NULL;
	struct error err;
	char path[128];
	cJSON *job;
	snprintf(path, sizeof path, "/v1/jobs/%s", id);
	enum exit_code code = client_get(client, path, &job);
	if (code != EXIT_OK) return code;
	view_init(&watch.view);
	view_take_job(&watch.view, job);
	if (stream_create(client, id, take_event, &watch, &stream, &err)) {
		cJSON_Delete(job);
		fprintf(stderr, "besactl: %s\n", err.message);
		return EXIT_USAGE;
	}
	srand48((long)getpid());
	watch.contact = watch.refreshed = monotonic_seconds();
	catch_signals(interrupt);
	/* A job that somebody queued again right after its end is not at its end. */
	do {
		cJSON_Delete(job);
		job = NULL;
		watch.ended = false;
		code = follow_events(&watch, stream);
		if (code == EXIT_OK && !interrupted) code = fetch_job(&watch, &job);
	} while (code == EXIT_OK && !interrupted && !is_final(job));
	if (interrupted) die_of_signal(&watch);
	catch_signals(SIG_DFL);
	erase_bar(&watch);
	stream_free(stream);
	if (code != EXIT_OK) return code;
	code = job_exit_code(job);
	*ret_job = job;
	return code;
}

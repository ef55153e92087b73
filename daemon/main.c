#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/json.h"
#include "daemon/archive.h"
#include "daemon/backup.h"
#include "daemon/bench.h"
#include "daemon/export.h"
#include "daemon/generate.h"
#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/run.h"
#include "daemon/serve.h"
#include "engine/spec/schema.h"
#include "engine/spec/sections.h"

enum { EXIT_USAGE = 2 };

/* Of the signals that end a process. */
static void mask_signals(int how)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(how, &signals, NULL);
}

/* The main thread waits for the blocked ones with sigtimedwait; every other thread inherits the mask. */
static void set_signals(void)
{
	mask_signals(SIG_BLOCK);
	/* A closed pipe and a file that has reached its limit are errors of the write, not the end of the process. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
}

/* A thread that waits at the end of a parallel region of OpenMP (archives, generating) spins first, by libgomp's default for
 * milliseconds. Where another process has taken the core of the thread it waits for, that is most of the time: when jobs computed
 * in such regions, one measured 19 s with short spins and 173 s with the default beside a busy compiler, and no slower alone.
 * libgomp reads its settings when it is loaded, so the program starts itself once more. */
static void shorten_spins(char **argv)
{
	if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
	setenv("GOMP_SPINCOUNT", "4000", 1);
	execv("/proc/self/exe", argv); /* where it cannot, besad is only slower */
}

static int print_schema(void)
{
	cJSON *schema = spec_schema(&spec_top);
	char *text = json_ran_out() ? NULL : cJSON_Print(schema);
	bool done = text && puts(text) >= 0 && fflush(stdout) == 0;
	if (!done) log_error("%s", text ? "the schema cannot be written" : "no memory for the schema");
	cJSON_free(text);
	cJSON_Delete(schema);
	return done ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* A signal ends these at once, unless they ask for it: they have nothing to keep, and what is not whole has not got its name. */
static int run_tool(const struct options *options)
{
	mask_signals(SIG_UNBLOCK);
	switch (options->command) {
	case COMMAND_BENCH:
		return bench(options);
	case COMMAND_EXPORT:
		return export_model(options);
	case COMMAND_BACKUP:
		return backup(options);
	case COMMAND_CHECK:
		return check(options);
	case COMMAND_RESTORE:
		return restore(options);
	case COMMAND_GENERATE:
		return generate(options);
	default:
		return archive(options);
	}
}

int main(int argc, char **argv)
{
	struct options options;
	struct error err;
	int result = EXIT_SUCCESS;
	shorten_spins(argv);
	set_signals();
	json_heed_memory();
	if (options_parse(argc, argv, &options, &err)) {
		log_error("%s", err.message);
		result = EXIT_USAGE;
	} else if (options.command == COMMAND_HELP) {
		fputs(options_help, stdout);
	} else if (options.command == COMMAND_VERSION) {
		puts("besad " BESAD_VERSION);
	} else if (options.command == COMMAND_SCHEMA) {
		result = print_schema();
	} else if (options.command == COMMAND_RUN) {
		result = run(&options);
	} else if (options.command == COMMAND_SERVE) {
		result = serve(&options);
	} else {
		result = run_tool(&options);
	}
	options_free(&options);
	if (result == EXIT_SUCCESS && (fflush(stdout) != 0 || ferror(stdout))) {
		log_error("standard output: what was to be told is not there whole");
		result = EXIT_FAILURE;
	}
	if (result == SERVE_AGAIN) {
		execv("/proc/self/exe", argv);
		log_error("besad cannot start itself again; whoever started it may");
		return EXIT_FAILURE;
	}
	return result;
}

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/log.h"
#include "daemon/options.h"
#include "daemon/run.h"
#include "daemon/serve.h"

enum { EXIT_USAGE = 2 };

/* The main thread waits for the blocked ones with sigtimedwait; every other thread inherits the mask. */
static void set_signals(void)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	/* A closed pipe and a file that has reached its limit are errors of the write, not the end of the process. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
}

int main(int argc, char **argv)
{
	struct options options;
	struct error err;
	int result = EXIT_SUCCESS;
	set_signals();
	if (options_parse(argc, argv, &options, &err)) {
		log_error("%s", err.message);
		result = EXIT_USAGE;
	} else if (options.command == COMMAND_HELP) {
		fputs(options_help, stdout);
	} else if (options.command == COMMAND_VERSION) {
		puts("besad " BESAD_VERSION);
	} else if (options.command == COMMAND_RUN) {
		result = run(&options);
	} else {
		result = serve(&options);
	}
	options_free(&options);
	return result;
}

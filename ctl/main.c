/* besactl: the command-line client of besad. */
#include <locale.h>
#include <stdio.h>

#include "ctl/command.h"

static enum exit_code run(const struct options *options)
{
	static const struct {
		enum command command;
		command_fn *run;
	} commands[] = {
		{COMMAND_SUBMIT, command_submit},   {COMMAND_WATCH, command_watch},
		{COMMAND_LIST, command_list},       {COMMAND_SHOW, command_show},
		{COMMAND_REPORT, command_report},   {COMMAND_COMPARE, command_compare},
		{COMMAND_CANCEL, command_cancel},   {COMMAND_RETRY, command_retry},
		{COMMAND_RM, command_rm},           {COMMAND_MODELS, command_models},
		{COMMAND_DATA, command_data},       {COMMAND_INFO, command_info},
		{COMMAND_LOG, command_log},         {COMMAND_ARTIFACTS, command_artifacts},
		{COMMAND_PAUSE, command_pause},     {COMMAND_RESUME, command_resume},
		{COMMAND_GC, command_gc},           {COMMAND_STUDY, command_study},
		{COMMAND_AUDIT, command_audit},     {COMMAND_DRAIN, command_drain},
		{COMMAND_UNDRAIN, command_undrain},
	};
	struct client *client;
	struct error err;
	enum exit_code code = EXIT_USAGE;
	if (client_open(options->url, options->token_file, options->ca_file, &client, &err)) {
		fprintf(stderr, "besactl: %s\n", err.message);
		return EXIT_USAGE;
	}
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (commands[i].command == options->command) code = commands[i].run(client, options);
	client_close(client);
	return code;
}

int main(int argc, char **argv)
{
	struct options options;
	setlocale(LC_CTYPE, "");
	setvbuf(stdout, NULL, _IOLBF, 0); /* lines go through a pipe as they come */
	enum exit_code code = options_parse(argc, argv, &options);
	if (code != EXIT_OK) return code;
	if (options.help) {
		options_help();
	} else if (options.version) {
		puts("besactl " BESAD_VERSION);
	} else if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		fprintf(stderr, "besactl: libcurl does not start\n");
		return EXIT_USAGE;
	} else {
		code = run(&options);
		curl_global_cleanup();
	}
	if (fflush(stdout) || ferror(stdout)) {
		perror("besactl: standard output");
		if (code == EXIT_OK) code = EXIT_USAGE;
	}
	return code;
}

#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "daemon/token_file.h"
#include "engine/export/export.h"

enum {
	MIN_TOKEN = 16,
	MAX_TOKEN = 4096,
	DEFAULT_QUEUE_LIMIT = 1000,
	DEFAULT_MAX_ATTEMPTS = 5,
	DEFAULT_RETRY_AFTER = 60,
	DEFAULT_SERVE_IDLE = 300,
	DEFAULT_MAX_TOKENS = 128,
	MAX_QUEUE = 1000000,
	MAX_LIMITS_FILE = 65536
};
static const int64_t default_keep_replaced = 86400, default_min_free = 256 << 20, max_time = INT64_C(1) << 40,
		     max_retry_after = 30 * 86400;

const char options_help[] =
	"usage: besad [serve] [option]...\n"
	"       besad run [option]... JOB.json\n"
	"       besad bench [--simulate] [--threads N] [--json] MODEL\n"
	"       besad generate [option]... MODEL\n"
	"       besad pack [--coded] [--threads N] MODEL_DIR ARCHIVE_DIR\n"
	"       besad unpack [--threads N] ARCHIVE_DIR MODEL_DIR\n"
	"       besad verify [--threads N] ARCHIVE_DIR\n"
	"       besad export [--type TYPE] MODEL_DIR FILE.gguf\n"
	"       besad backup [--state-dir DIR] [--json] BACKUP\n"
	"       besad check [--state-dir DIR] [--json] [BACKUP]\n"
	"       besad restore [--state-dir DIR] [--json] BACKUP\n"
	"       besad schema\n"
	"\n"
	"besad makes large language models sparse. `serve` answers HTTP and works through a queue of jobs;\n"
	"`run` does one job without HTTP and, killed and started again, goes on where it was;\n"
	"`bench` says what the zeros of a model are worth; `generate` has a model continue a text; `schema` prints what a job may "
	"say, as a JSON schema;\n"
	"`pack` makes an archive of a model directory, in which zeros take no room, `unpack` restores every\n"
	"file of it bit for bit, and `verify` compares its checksums;\n"
	"`export` writes a model directory as one GGUF file, for llama.cpp;\n"
	"`backup` copies the state directory, also while besad runs; `check` says whether it, or a backup, is\n"
	"whole, and `restore` puts a backup into a state directory that has none of besad's state.\n"
	"\n"
	"  --model-root DIR        where models lie; may be repeated, searched in order\n"
	"  --data-root DIR         where calibration and evaluation data lie; may be repeated\n"
	"  --output-root DIR       where pruned models go\n"
	"  --calibration FILE      calibration data of jobs that name none\n"
	"  --backend auto|cpu|cuda what computes; auto takes a CUDA device if there is one\n"
	"  --threads N             threads of the CPU backend (default: all that may be used)\n"
	"  --device-memory SIZE    cap on device memory, as in 20G (default: all there is)\n"
	"  --checkpoint-every TIME blocks are saved as they are done, or several at once, TIME after the last ones, as in 60s;\n"
	"                          those since are done again after a crash (default 0 on the CPU, 60s on a device)\n"
	"  --keep-replaced TIME    how long an output that was overwritten is kept aside, as in 90m, 24h, 7d or 0\n"
	"                          (default 24h)\n"
	"  --help, --version\n"
	"\n"
	"serve:\n"
	"  --listen HOST:PORT      address to answer on (default 127.0.0.1:8642); [::1]:8642 for IPv6; may be repeated;\n"
	"                          port 0 takes a free one; what is not loopback needs --token-file;\n"
	"           unix:/PATH     a Unix socket: root, and whom besad runs as, may do everything there; others are users and\n"
	"                          groups of --token-file\n"
	"                          sockets that systemd passes on stand in for it\n"
	"  --state-dir DIR         queue and checkpoints (default $STATE_DIRECTORY, $XDG_STATE_HOME/besad or\n"
	"                          ~/.local/state/besad)\n"
	"  --token-file FILE       requests must bear the token in its first line, or one of those in its lines NAME ROLE TOKEN\n"
	"                          (read, submit, admin), or come from user:WHO or group:WHO in its place through a Unix socket;\n"
	"                          read again on SIGHUP\n"
	"  --tls-cert FILE         answer https with this certificate, in PEM, and those that it was signed by behind it ...\n"
	"  --tls-key FILE          ... and its key; both are read again on SIGHUP\n"
	"  --no-seccomp            keep system calls that besad never needs (default: they fail, for besad and for --on-finish)\n"
	"  --queue-limit N         jobs that may wait (default 1000)\n"
	"  --min-free SIZE         with less room on the disk of the state directory or of the output root no job is accepted and\n"
	"                          none begins; with less on that of the state directory the running one waits (default 256M)\n"
	"  --keep-succeeded TIME   forget jobs that succeeded longer ago, as in 30d; outputs stay (default: never)\n"
	"  --keep-failed TIME      forget jobs that failed or were cancelled longer ago, with their checkpoints and unfinished\n"
	"                          outputs, as in 7d (default: never)\n"
	"  --max-state-bytes SIZE  forget the jobs that ended first while database, checkpoints and unfinished outputs take more,\n"
	"                          as in 200G; outputs stay, and so does what is not finished (default: no bound)\n"
	"  --max-attempts N        a job that besad dies of N times in a row, with no block finished in between, has failed\n"
	"                          (default 5; 0: it is tried for ever)\n"
	"  --retry-failed N        a job that fails by what may pass (codes io, no_space, backend) is tried again, N times in a "
	"row with\n"
	"                          no block finished in between (default 0)\n"
	"  --retry-after TIME      how long before the first of these; twice as long before each next one, up to an hour (default "
	"60s)\n"
	"  --limits-file FILE      JSON, as in {\"queue\": 50}: goes before --queue-limit; read again on SIGHUP\n"
	"  --port-file FILE        write the port there once it is open\n"
	"  --notify-host HOST      jobs may ask for a web address there to be told of their end; may be repeated\n"
	"  --notify-key-file FILE  sign that with the key in its first line\n"
	"  --on-finish PROGRAM     run it at the end of every job, with the job's id and state as arguments\n"
	"  --serve-models          have models below the model roots and the output root continue texts: POST /v1/completions and\n"
	"                          /v1/chat/completions, as OpenAI's API has them (default: refused)\n"
	"  --serve-memory SIZE     what the one model that is loaded, and its text, may take (default: half of the machine's "
	"memory)\n"
	"  --serve-idle TIME       how long it is kept when nobody asks for it (default 5m)\n"
	"\n"
	"run (paths are relative to the current directory unless roots are given):\n"
	"  --checkpoint-dir DIR    events and checkpoints (default: beside the output, removed at the end)\n"
	"  --scores-dir DIR        keeps what dense models gave for later runs there (default: found anew each time)\n"
	"  --json                  print the result as JSON on standard output\n"
	"\n"
	"bench (times the products of a token with all linears of a model, dense and with zeros left out):\n"
	"  --simulate              instead: cycles on a simulated accelerator, with the zeros and without\n"
	"  --json                  print the figures as JSON\n"
	"\n"
	"generate (the text goes to standard output as it is made, how fast it was to standard error):\n"
	"  --prompt TEXT           what is continued (default: what is on standard input)\n"
	"  --chat                  the prompt is a user's message, for the model's chat template\n"
	"  --max-tokens N          at most so many (default 128)\n"
	"  --temperature T         0, the default, takes the most likely token; more draws one\n"
	"  --top-p P               of the most likely ones that have P of the probability together (default 1: of all)\n"
	"  --seed N                of what is drawn (default 0)\n"
	"  --precision bf16|f32    of the products (default bf16)\n"
	"  --dense, --sparse       zeros are multiplied, or left out, everywhere (default: left out of matrices that have 30 % of "
	"them;\n"
	"                          f32 multiplies them)\n"
	"  --json                  print text, tokens and figures as JSON, at the end\n"
	"\n"
	"pack, unpack (the directory that is made must not be there yet):\n"
	"  --coded                 exponents are coded too: about a third smaller still (quantized: a fifth)\n"
	"\n"
	"export (the file must not be there yet):\n"
	"  --type TYPE             of the weights: f16 (the default), q8_0, q4_0 or q4_1\n"
	"\n"
	"Exit status of run, bench and generate: 0 done, 1 failed, 2 the job or the command line is wrong, 128 + n stopped by "
	"signal n.\n"
	"Exit status of pack, unpack, verify, export, backup, check and restore: 0 done, 1 failed or damaged, 2 the command line\n"
	"is wrong.\n";

enum {
	OPTION_MODEL_ROOT = 256,
	OPTION_DATA_ROOT,
	OPTION_OUTPUT_ROOT,
	OPTION_CALIBRATION,
	OPTION_BACKEND,
	OPTION_THREADS,
	OPTION_DEVICE_MEMORY,
	OPTION_CHECKPOINT_EVERY,
	OPTION_KEEP_REPLACED,
	OPTION_LISTEN,
	OPTION_STATE_DIR,
	OPTION_TOKEN_FILE,
	OPTION_TLS_CERT,
	OPTION_TLS_KEY,
	OPTION_NO_SECCOMP,
	OPTION_QUEUE_LIMIT,
	OPTION_MIN_FREE,
	OPTION_KEEP_SUCCEEDED,
	OPTION_KEEP_FAILED,
	OPTION_MAX_STATE_BYTES,
	OPTION_MAX_ATTEMPTS,
	OPTION_RETRY_FAILED,
	OPTION_RETRY_AFTER,
	OPTION_LIMITS_FILE,
	OPTION_PORT_FILE,
	OPTION_NOTIFY_HOST,
	OPTION_NOTIFY_KEY_FILE,
	OPTION_ON_FINISH,
	OPTION_SERVE_MODELS,
	OPTION_SERVE_MEMORY,
	OPTION_SERVE_IDLE,
	OPTION_CHECKPOINT_DIR,
	OPTION_SCORES_DIR,
	OPTION_JSON,
	OPTION_SIMULATE,
	OPTION_PROMPT,
	OPTION_CHAT,
	OPTION_MAX_TOKENS,
	OPTION_TEMPERATURE,
	OPTION_TOP_P,
	OPTION_SEED,
	OPTION_PRECISION,
	OPTION_DENSE,
	OPTION_SPARSE,
	OPTION_CODED,
	OPTION_TYPE,
	OPTION_HELP,
	OPTION_VERSION,
};

#define COMMON_OPTIONS                                                                                                             \
	{"model-root", required_argument, NULL, OPTION_MODEL_ROOT}, {"data-root", required_argument, NULL, OPTION_DATA_ROOT},      \
		{"output-root", required_argument, NULL, OPTION_OUTPUT_ROOT},                                                      \
		{"calibration", required_argument, NULL, OPTION_CALIBRATION},                                                      \
		{"backend", required_argument, NULL, OPTION_BACKEND}, {"threads", required_argument, NULL, OPTION_THREADS},        \
		{"device-memory", required_argument, NULL, OPTION_DEVICE_MEMORY},                                                  \
		{"checkpoint-every", required_argument, NULL, OPTION_CHECKPOINT_EVERY},                                            \
		{"keep-replaced", required_argument, NULL, OPTION_KEEP_REPLACED}, {"help", no_argument, NULL, OPTION_HELP},        \
	{                                                                                                                          \
		"version", no_argument, NULL, OPTION_VERSION                                                                       \
	}

static const struct option serve_options[] = {
	COMMON_OPTIONS,
	{"listen", required_argument, NULL, OPTION_LISTEN},
	{"state-dir", required_argument, NULL, OPTION_STATE_DIR},
	{"token-file", required_argument, NULL, OPTION_TOKEN_FILE},
	{"tls-cert", required_argument, NULL, OPTION_TLS_CERT},
	{"tls-key", required_argument, NULL, OPTION_TLS_KEY},
	{"no-seccomp", no_argument, NULL, OPTION_NO_SECCOMP},
	{"queue-limit", required_argument, NULL, OPTION_QUEUE_LIMIT},
	{"keep-succeeded", required_argument, NULL, OPTION_KEEP_SUCCEEDED},
	{"keep-failed", required_argument, NULL, OPTION_KEEP_FAILED},
	{"min-free", required_argument, NULL, OPTION_MIN_FREE},
	{"max-state-bytes", required_argument, NULL, OPTION_MAX_STATE_BYTES},
	{"max-attempts", required_argument, NULL, OPTION_MAX_ATTEMPTS},
	{"retry-failed", required_argument, NULL, OPTION_RETRY_FAILED},
	{"retry-after", required_argument, NULL, OPTION_RETRY_AFTER},
	{"limits-file", required_argument, NULL, OPTION_LIMITS_FILE},
	{"port-file", required_argument, NULL, OPTION_PORT_FILE},
	{"notify-host", required_argument, NULL, OPTION_NOTIFY_HOST},
	{"notify-key-file", required_argument, NULL, OPTION_NOTIFY_KEY_FILE},
	{"on-finish", required_argument, NULL, OPTION_ON_FINISH},
	{"serve-models", no_argument, NULL, OPTION_SERVE_MODELS},
	{"serve-memory", required_argument, NULL, OPTION_SERVE_MEMORY},
	{"serve-idle", required_argument, NULL, OPTION_SERVE_IDLE},
	{0},
};

static const struct option run_options[] = {
	COMMON_OPTIONS,
	{"checkpoint-dir", required_argument, NULL, OPTION_CHECKPOINT_DIR},
	{"scores-dir", required_argument, NULL, OPTION_SCORES_DIR},
	{"json", no_argument, NULL, OPTION_JSON},
	{0},
};

static const struct option bench_options[] = {
	{"simulate", no_argument, NULL, OPTION_SIMULATE}, {"threads", required_argument, NULL, OPTION_THREADS},
	{"json", no_argument, NULL, OPTION_JSON},         {"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},   {0},
};

static const struct option generate_options[] = {
	{"prompt", required_argument, NULL, OPTION_PROMPT},
	{"chat", no_argument, NULL, OPTION_CHAT},
	{"max-tokens", required_argument, NULL, OPTION_MAX_TOKENS},
	{"temperature", required_argument, NULL, OPTION_TEMPERATURE},
	{"top-p", required_argument, NULL, OPTION_TOP_P},
	{"seed", required_argument, NULL, OPTION_SEED},
	{"precision", required_argument, NULL, OPTION_PRECISION},
	{"dense", no_argument, NULL, OPTION_DENSE},
	{"sparse", no_argument, NULL, OPTION_SPARSE},
	{"threads", required_argument, NULL, OPTION_THREADS},
	{"json", no_argument, NULL, OPTION_JSON},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{0},
};

static const struct option pack_options[] = {
	{"coded", no_argument, NULL, OPTION_CODED},
	{"threads", required_argument, NULL, OPTION_THREADS},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{0},
};
static const struct option *const unpack_options = pack_options + 1;

static const struct option export_options[] = {
	{"type", required_argument, NULL, OPTION_TYPE},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{0},
};

static const struct option backup_options[] = {
	{"state-dir", required_argument, NULL, OPTION_STATE_DIR},
	{"json", no_argument, NULL, OPTION_JSON},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{0},
};

/* ---- values --------------------------------------------------------------------------------------------------------------- */

static enum status parse_number(const char *option, const char *text, int64_t low, int64_t high, int64_t *ret, struct error *err)
{
	char *end;
	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (errno || end == text || *end || value < low || value > high)
		return error_set(err, STATUS_INVALID, "%s '%s': must be a number from %lld to %lld", option, text, (long long)low,
				 (long long)high);
	*ret = value;
	return STATUS_OK;
}

static enum status parse_size(const char *option, const char *text, size_t *ret, struct error *err)
{
	unsigned long long size;
	if (!text_read_size(text, &size))
		return error_set(err, STATUS_INVALID, "%s '%s': must be a size in bytes, as in 20G", option, text);
	*ret = (size_t)size;
	return STATUS_OK;
}

static enum status parse_room(const char *option, const char *text, int64_t *ret, struct error *err)
{
	size_t size = 0;
	TRY(parse_size(option, text, &size, err));
	if (size > INT64_MAX) return error_set(err, STATUS_INVALID, "%s '%s': is too large", option, text);
	*ret = (int64_t)size;
	return STATUS_OK;
}

/* A time in seconds, or with m, h or d behind it in minutes, hours or days. */
static enum status parse_time(const char *option, const char *text, int64_t *ret, struct error *err)
{
	static const char units[] = "smhd";
	static const int64_t seconds[] = {1, 60, 3600, 86400};
	char *end;
	errno = 0;
	long long value = strtoll(text, &end, 10);
	const char *unit = *end ? strchr(units, *end) : units;
	if (errno || end == text || !unit || (*end && end[1]) || value < 0 || value > max_time / seconds[unit - units])
		return error_set(err, STATUS_INVALID, "%s '%s': must be a time, as in 90m, 24h or 7d", option, text);
	*ret = value * seconds[unit - units];
	return STATUS_OK;
}

static enum status parse_fraction(const char *option, const char *text, double low, double high, double *ret, struct error *err)
{
	char *end;
	double value = strtod(text, &end);
	if (end == text || *end || !(value >= low && value <= high))
		return error_set(err, STATUS_INVALID, "%s '%s': must be a number from %g to %g", option, text, low, high);
	*ret = value;
	return STATUS_OK;
}

static enum status real_path(const char *option, const char *path, char **ret, struct error *err)
{
	char *real = realpath(path, NULL);
	if (!real) return error_errno(err, "%s %s", option, path);
	*ret = real;
	return STATUS_OK;
}

static enum status real_directory(const char *option, const char *path, char **ret, struct error *err)
{
	struct stat info;
	char *real = NULL;
	TRY(real_path(option, path, &real, err));
	if (stat(real, &info) == 0 && S_ISDIR(info.st_mode)) {
		*ret = real;
		return STATUS_OK;
	}
	free(real);
	return error_set(err, STATUS_INVALID, "%s %s: not a directory", option, path);
}

/* Adds a directory to a NULL-terminated list. */
static enum status add_root(const char *option, const char *path, char ***list, struct error *err)
{
	size_t count = 0;
	while (*list && (*list)[count])
		count++;
	char **longer = realloc(*list, (count + 2) * sizeof *longer);
	if (!longer) return error_set(err, STATUS_NO_MEMORY, "no memory for %s", option);
	*list = longer;
	longer[count] = longer[count + 1] = NULL;
	return real_directory(option, path, &longer[count], err);
}

static enum status set_directory(const char *option, const char *path, char **field, struct error *err)
{
	char *real = NULL;
	TRY(real_directory(option, path, &real, err));
	free(*field);
	*field = real;
	return STATUS_OK;
}

/* Makes the directory where it is not there yet. */
static enum status make_directory(const char *option, const char *path, char **field, struct error *err)
{
	TRY(directory_make(path, err));
	return set_directory(option, path, field, err);
}

/* Specs, events and checkpoints are nobody else's. One that is there already is as its owner wants it. */
static enum status make_state_dir(const char *path, struct options *options, struct error *err)
{
	if (options->command == COMMAND_BACKUP || options->command == COMMAND_CHECK)
		return set_directory("--state-dir", path, &options->state_dir, err);
	bool made = !path_exists(path);
	TRY(make_directory("--state-dir", path, &options->state_dir, err));
	return made && chmod(options->state_dir, 0700) != 0 ? error_errno(err, "--state-dir %s", path) : STATUS_OK;
}

enum status options_read_token(const char *path, char **field, struct error *err)
{
	char *text;
	size_t bytes;
	TRY(file_slurp(path, MAX_TOKEN, &text, &bytes, err));
	size_t length = strcspn(text, "\r\n");
	text[length] = 0;
	bool fits = length >= MIN_TOKEN;
	for (size_t i = 0; i < length; i++)
		fits = fits && text[i] > 0x20 && text[i] < 0x7f;
	if (!fits) {
		free(text);
		return error_set(err, STATUS_INVALID, "%s: the first line must be a token of at least %d printable characters",
				 path, MIN_TOKEN);
	}
	free(*field);
	*field = text;
	return STATUS_OK;
}

static enum status parse_backend(const char *text, enum backend_choice *ret, struct error *err)
{
	static const char *const names[] = {"auto", "cpu", "cuda"};
	for (int i = 0; i < 3; i++)
		if (strcmp(text, names[i]) == 0) {
			*ret = (enum backend_choice)i;
			return STATUS_OK;
		}
	return error_set(err, STATUS_INVALID, "--backend '%s': must be auto, cpu or cuda", text);
}

static enum status add_listen(const char *text, struct options *options, struct error *err)
{
	if (options->n_listen == MAX_LISTEN) return error_set(err, STATUS_INVALID, "--listen: more than %d addresses", MAX_LISTEN);
	options->listen[options->n_listen++] = text;
	return STATUS_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

static enum status parse_export_type(const char *text, enum export_type *ret, struct error *err)
{
	for (int i = 0; export_type_names[i]; i++)
		if (strcmp(text, export_type_names[i]) == 0) {
			*ret = (enum export_type)i;
			return STATUS_OK;
		}
	return error_set(err, STATUS_INVALID, "--type must be f16, q8_0, q4_0 or q4_1, not '%s'", text);
}

static enum status parse_precision(const char *text, enum dtype *ret, struct error *err)
{
	if (strcmp(text, "bf16") != 0 && strcmp(text, "f32") != 0)
		return error_set(err, STATUS_INVALID, "--precision must be bf16 or f32, not '%s'", text);
	*ret = strcmp(text, "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
	return STATUS_OK;
}

static enum status choose_matrices(enum matrix_choice choice, struct options *options, struct error *err)
{
	if (options->decoder.choice != MATRIX_AUTO && options->decoder.choice != choice)
		return error_set(err, STATUS_INVALID, "--dense and --sparse exclude each other");
	options->decoder.choice = choice;
	return STATUS_OK;
}

/* What is said of how a text is generated. */
static enum status parse_generate_option(int option, const char *value, struct options *options, struct error *err)
{
	int64_t number = 0;
	switch (option) {
	case OPTION_PROMPT:
		options->prompt = value;
		return STATUS_OK;
	case OPTION_CHAT:
		options->chat = true;
		return STATUS_OK;
	case OPTION_MAX_TOKENS:
		return parse_number("--max-tokens", value, 1, INT32_MAX, &options->max_tokens, err);
	case OPTION_TEMPERATURE:
		return parse_fraction("--temperature", value, 0, 100, &options->sampling.temperature, err);
	case OPTION_TOP_P:
		return parse_fraction("--top-p", value, 0, 1, &options->sampling.top_p, err);
	case OPTION_SEED:
		TRY(parse_number("--seed", value, 0, INT64_MAX, &number, err));
		options->sampling.seed = (uint64_t)number;
		return STATUS_OK;
	case OPTION_PRECISION:
		return parse_precision(value, &options->decoder.type, err);
	case OPTION_DENSE:
		return choose_matrices(MATRIX_DENSE, options, err);
	default:
		return choose_matrices(MATRIX_SPARSE, options, err);
	}
}

static enum status parse_option(int option, const char *value, struct options *options, struct error *err)
{
	int64_t number = 0;
	if (option >= OPTION_PROMPT && option <= OPTION_SPARSE) return parse_generate_option(option, value, options, err);
	switch (option) {
	case OPTION_MODEL_ROOT:
		return add_root("--model-root", value, &options->roots.model, err);
	case OPTION_DATA_ROOT:
		return add_root("--data-root", value, &options->roots.data, err);
	case OPTION_OUTPUT_ROOT:
		return make_directory("--output-root", value, &options->roots.output, err);
	case OPTION_CALIBRATION:
		free(options->roots.calibration);
		options->roots.calibration = NULL;
		return real_path("--calibration", value, &options->roots.calibration, err);
	case OPTION_BACKEND:
		return parse_backend(value, &options->backend, err);
	case OPTION_THREADS:
		TRY(parse_number("--threads", value, 1, 4096, &number, err));
		options->threads = (int)number;
		return STATUS_OK;
	case OPTION_DEVICE_MEMORY:
		return parse_size("--device-memory", value, &options->device_memory, err);
	case OPTION_CHECKPOINT_EVERY:
		return parse_time("--checkpoint-every", value, &options->save_every, err);
	case OPTION_KEEP_REPLACED:
		return parse_time("--keep-replaced", value, &options->keep_replaced, err);
	case OPTION_LISTEN:
		return add_listen(value, options, err);
	case OPTION_STATE_DIR:
		return make_state_dir(value, options, err);
	case OPTION_TOKEN_FILE:
		tokens_free(options->tokens);
		options->tokens = NULL;
		TRY(token_file_read(value, &options->tokens, err));
		free(options->token_file);
		options->token_file = realpath(value, NULL);
		return options->token_file ? STATUS_OK : error_errno(err, "--token-file %s", value);
	case OPTION_TLS_CERT:
		options->tls_cert = value;
		return STATUS_OK;
	case OPTION_TLS_KEY:
		options->tls_key = value;
		return STATUS_OK;
	case OPTION_NO_SECCOMP:
		options->no_seccomp = true;
		return STATUS_OK;
	case OPTION_QUEUE_LIMIT:
		return parse_number("--queue-limit", value, 1, MAX_QUEUE, &options->queue_limit, err);
	case OPTION_KEEP_SUCCEEDED:
		return parse_time("--keep-succeeded", value, &options->keep_succeeded, err);
	case OPTION_KEEP_FAILED:
		return parse_time("--keep-failed", value, &options->keep_failed, err);
	case OPTION_MIN_FREE:
		return parse_room("--min-free", value, &options->min_free, err);
	case OPTION_MAX_STATE_BYTES:
		return parse_room("--max-state-bytes", value, &options->max_state_bytes, err);
	case OPTION_MAX_ATTEMPTS:
		return parse_number("--max-attempts", value, 0, MAX_QUEUE, &options->max_attempts, err);
	case OPTION_RETRY_FAILED:
		return parse_number("--retry-failed", value, 0, MAX_QUEUE, &options->retry_failed, err);
	case OPTION_RETRY_AFTER:
		TRY(parse_time("--retry-after", value, &options->retry_after, err));
		if (options->retry_after <= max_retry_after) return STATUS_OK;
		return error_set(err, STATUS_INVALID, "--retry-after '%s': must be at most 30d", value);
	case OPTION_NOTIFY_HOST:
		if (options->n_notify_hosts == MAX_NOTIFY_HOSTS)
			return error_set(err, STATUS_INVALID, "--notify-host: more than %d hosts", MAX_NOTIFY_HOSTS);
		options->notify_hosts[options->n_notify_hosts++] = value;
		return STATUS_OK;
	case OPTION_NOTIFY_KEY_FILE:
		return options_read_token(value, &options->notify_key, err);
	case OPTION_ON_FINISH:
		free(options->on_finish);
		options->on_finish = realpath(value, NULL);
		if (!options->on_finish || access(options->on_finish, X_OK) != 0) return error_errno(err, "--on-finish %s", value);
		return STATUS_OK;
	case OPTION_SERVE_MODELS:
		options->serve_models = true;
		return STATUS_OK;
	case OPTION_SERVE_MEMORY:
		return parse_room("--serve-memory", value, &options->serve_memory, err);
	case OPTION_SERVE_IDLE:
		return parse_time("--serve-idle", value, &options->serve_idle, err);
	case OPTION_LIMITS_FILE:
		free(options->limits_file);
		options->limits_file = realpath(value, NULL);
		return options->limits_file ? STATUS_OK : error_errno(err, "--limits-file %s", value);
	case OPTION_PORT_FILE:
		options->port_file = value;
		return STATUS_OK;
	case OPTION_CHECKPOINT_DIR:
		return make_directory("--checkpoint-dir", value, &options->checkpoint_dir, err);
	case OPTION_SCORES_DIR:
		return make_directory("--scores-dir", value, &options->scores_dir, err);
	case OPTION_CODED:
		options->coded = true;
		return STATUS_OK;
	case OPTION_TYPE:
		return parse_export_type(value, &options->export_type, err);
	case OPTION_JSON:
		options->json = true;
		return STATUS_OK;
	case OPTION_SIMULATE:
		options->simulate = true;
		return STATUS_OK;
	case OPTION_HELP:
		options->command = COMMAND_HELP;
		return STATUS_OK;
	default:
		options->command = COMMAND_VERSION;
		return STATUS_OK;
	}
}

static enum status default_state_dir(struct options *options, struct error *err)
{
	char path[PATH_MAX];
	const char *systemd = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	if (systemd && *systemd)
		snprintf(path, sizeof path, "%.*s", (int)strcspn(systemd, ":"), systemd);
	else if (xdg && *xdg == '/')
		snprintf(path, sizeof path, "%s/besad", xdg);
	else if (home && *home == '/')
		snprintf(path, sizeof path, "%s/.local/state/besad", home);
	else
		return error_set(err, STATUS_INVALID, "--state-dir is needed");
	return make_state_dir(path, options, err);
}

enum status options_read_limits(const char *path, int64_t *queue_limit, struct error *err)
{
	cJSON *json;
	int64_t queue = *queue_limit;
	TRY(json_read_place(&PLACE(path), NULL, MAX_LIMITS_FILE, &json, err));
	enum status status = STATUS_OK;
	if (!cJSON_IsObject(json)) status = error_set(err, STATUS_INVALID, "%s: must be an object", path);
	for (const cJSON *item = status ? NULL : json->child; item && !status; item = item->next)
		if (strcmp(item->string, "queue") != 0)
			status = error_set(err, STATUS_INVALID, "%s: unknown limit '%.64s'; there is 'queue'", path, item->string);
	if (!status) status = json_get_int(json, path, "queue", 1, MAX_QUEUE, &queue, err);
	cJSON_Delete(json);
	if (!status) *queue_limit = queue;
	return status;
}

static enum status complete_serve(struct options *options, struct error *err)
{
	if (options->limits_file) TRY(options_read_limits(options->limits_file, &options->queue_limit, err));
	if (!options->roots.model) return error_set(err, STATUS_INVALID, "--model-root is needed");
	if (!options->roots.output) return error_set(err, STATUS_INVALID, "--output-root is needed");
	if (!options->roots.data) {
		options->roots.data = calloc(1, sizeof *options->roots.data);
		if (!options->roots.data) return error_set(err, STATUS_NO_MEMORY, "no memory for the options");
	}
	if (!options->tls_cert != !options->tls_key)
		return error_set(err, STATUS_INVALID, "--tls-cert and --tls-key need each other");
	if (!options->serve_memory) options->serve_memory = sysconf(_SC_PHYS_PAGES) / 2 * sysconf(_SC_PAGESIZE);
	if (!options->n_listen) options->listen[options->n_listen++] = "127.0.0.1:8642";
	return options->state_dir ? STATUS_OK : default_state_dir(options, err);
}

/* Whoever runs a job by hand may read what they may read: relative paths in the current directory, absolute ones anywhere. */
static enum status complete_run(struct options *options, struct error *err)
{
	char ***lists[] = {&options->roots.model, &options->roots.data};
	for (int i = 0; i < 2; i++) {
		if (*lists[i]) continue;
		TRY(add_root("the root directory", "/", lists[i], err));
		if (!options->roots.here) TRY(set_directory("the current directory", ".", &options->roots.here, err));
	}
	return options->roots.output ? STATUS_OK : set_directory("the current directory", ".", &options->roots.output, err);
}

static const struct {
	const char *name;
	enum command command;
	const struct option *options;
	const char *operands[3]; /* what must be named, and nothing else may be */
} commands[] = {
	{"serve", COMMAND_SERVE, serve_options, {NULL}}, /* the default */
	{"run", COMMAND_RUN, run_options, {"a job file"}},
	{"bench", COMMAND_BENCH, bench_options, {"a model directory"}},
	{"generate", COMMAND_GENERATE, generate_options, {"a model directory"}},
	{"pack", COMMAND_PACK, pack_options, {"a model directory", "the archive's directory"}},
	{"unpack", COMMAND_UNPACK, unpack_options, {"an archive's directory", "the model's directory"}},
	{"verify", COMMAND_VERIFY, unpack_options, {"an archive's directory"}},
	{"export", COMMAND_EXPORT, export_options, {"a model directory", "the file's name"}},
	{"backup", COMMAND_BACKUP, backup_options, {"the backup's directory"}},
	{"check", COMMAND_CHECK, backup_options, {"a backup's directory"}},
	{"restore", COMMAND_RESTORE, backup_options, {"a backup's directory"}},
};

static size_t find_command(const char *name)
{
	for (size_t i = 1; name && i < sizeof commands / sizeof *commands; i++)
		if (strcmp(name, commands[i].name) == 0) return i;
	return 0;
}

static enum status complete(struct options *options, char *const *operands, struct error *err)
{
	switch (options->command) {
	case COMMAND_RUN:
		options->job_file = operands[0];
		return complete_run(options, err);
	case COMMAND_BENCH:
		options->model_dir = operands[0];
		return STATUS_OK;
	case COMMAND_GENERATE:
		options->model_dir = operands[0];
		if (options->decoder.type == DTYPE_F32 && options->decoder.choice == MATRIX_SPARSE)
			return error_set(err, STATUS_INVALID, "--sparse needs --precision bf16: products in f32 are dense");
		return STATUS_OK;
	case COMMAND_PACK:
	case COMMAND_UNPACK:
	case COMMAND_VERIFY:
	case COMMAND_EXPORT:
		options->from = operands[0];
		options->to = operands[1]; /* NULL behind the last one */
		return STATUS_OK;
	case COMMAND_BACKUP:
		options->to = operands[0];
		return options->state_dir ? STATUS_OK : default_state_dir(options, err);
	case COMMAND_CHECK:
	case COMMAND_RESTORE:
		options->from = operands[0];
		if (options->state_dir || (options->command == COMMAND_CHECK && options->from)) return STATUS_OK;
		return default_state_dir(options, err);
	default:
		return complete_serve(options, err);
	}
}

enum status options_parse(int argc, char **argv, struct options *ret, struct error *err)
{
	int option;
	if (argc == 2 && strcmp(argv[1], "schema") == 0) {
		*ret = (struct options){.command = COMMAND_SCHEMA};
		return STATUS_OK;
	}
	size_t found = find_command(argv[1]);
	*ret = (struct options){.command = commands[found].command,
				.queue_limit = DEFAULT_QUEUE_LIMIT,
				.min_free = default_min_free,
				.keep_succeeded = -1,
				.keep_failed = -1,
				.max_state_bytes = -1,
				.max_attempts = DEFAULT_MAX_ATTEMPTS,
				.retry_after = DEFAULT_RETRY_AFTER,
				.serve_idle = DEFAULT_SERVE_IDLE,
				.keep_replaced = default_keep_replaced,
				.max_tokens = DEFAULT_MAX_TOKENS,
				.sampling = {.top_p = 1},
				.decoder = {.type = DTYPE_BF16},
				.save_every = -1};
	if (found || (argc > 1 && strcmp(argv[1], commands[0].name) == 0)) {
		argv++;
		argc--;
	}
	while ((option = getopt_long(argc, argv, ":", commands[found].options, NULL)) != -1) {
		if (option == '?') return error_set(err, STATUS_INVALID, "unknown option %s; see besad --help", argv[optind - 1]);
		if (option == ':') return error_set(err, STATUS_INVALID, "%s needs a value; see besad --help", argv[optind - 1]);
		TRY(parse_option(option, optarg, ret, err));
		if (ret->command == COMMAND_HELP || ret->command == COMMAND_VERSION) return STATUS_OK;
	}
	int wanted = 0, given = argc - optind;
	while (commands[found].operands[wanted])
		wanted++;
	if (given < wanted && ret->command != COMMAND_CHECK /* which has the state directory */)
		return error_set(err, STATUS_INVALID, "%s needs %s; see besad --help", commands[found].name,
				 commands[found].operands[given]);
	if (given > wanted) return error_set(err, STATUS_INVALID, "what is '%s'? See besad --help", argv[optind + wanted]);
	return complete(ret, argv + optind, err);
}

static void free_list(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

void options_free(struct options *options)
{
	free_list(options->roots.model);
	free_list(options->roots.data);
	free(options->roots.output);
	free(options->roots.calibration);
	free(options->roots.here);
	free(options->state_dir);
	free(options->token_file);
	free(options->limits_file);
	tokens_free(options->tokens);
	free(options->notify_key);
	free(options->on_finish);
	free(options->checkpoint_dir);
	free(options->scores_dir);
	*options = (struct options){0};
}

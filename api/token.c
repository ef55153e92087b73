#include "api/token.h"

#include <ctype.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "api/user.h"
#include "base/text.h"

enum { MIN_TOKEN = 16, MAX_TOKENS = 256, MAX_WORDS = 6 };

static const char blanks[] = " \t";

struct token {
	char *text;
	enum { BY_TOKEN, BY_USER, BY_GROUP } kind;
	id_t id; /* of the user, or the group */
	struct holder holder;
};

struct tokens {
	pthread_mutex_t lock;
	struct token *list;
	size_t count;
	unsigned version;
};

static _Atomic uint64_t serials;

static const char *const role_names[] = {"none", "read", "submit", "admin"};

const char *role_name(enum role role)
{
	return role_names[role];
}

static enum role role_parse(const char *text)
{
	for (int i = ROLE_READ; i <= ROLE_ADMIN; i++)
		if (strcmp(text, role_names[i]) == 0) return (enum role)i;
	return ROLE_NONE;
}

static void list_free(struct token *list, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		explicit_bzero(list[i].text, strlen(list[i].text));
		free(list[i].text);
	}
	free(list);
}

void tokens_free(struct tokens *tokens)
{
	if (!tokens) return;
	pthread_mutex_destroy(&tokens->lock);
	list_free(tokens->list, tokens->count);
	free(tokens);
}

/* ---- the file ------------------------------------------------------------------------------------------------------------ */

static bool is_token(const char *text)
{
	size_t length = strlen(text);
	bool fits = length >= MIN_TOKEN;
	for (size_t i = 0; i < length; i++)
		fits = fits && text[i] > 0x20 && text[i] < 0x7f;
	return fits;
}

static bool is_name(const char *text)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t length = strlen(text);
	return length > 0 && length < TOKEN_NAME_BYTES && strspn(text, letters) == length;
}

static bool find_id(const char *name, bool group, id_t *ret)
{
	char room[1 << 20]; /* a group may have many members */
	struct passwd user, *found_user = NULL;
	struct group members, *found_group = NULL;
	size_t length = strlen(name);
	if (length > 0 && length <= 10 && strspn(name, "0123456789") == length && strtoull(name, NULL, 10) < UINT32_MAX) {
		*ret = (id_t)strtoul(name, NULL, 10);
		return true;
	}
	if (group)
		getgrnam_r(name, &members, room, sizeof room, &found_group);
	else
		getpwnam_r(name, &user, room, sizeof room, &found_user);
	if (!found_user && !found_group) return false;
	*ret = group ? members.gr_gid : user.pw_uid;
	return true;
}

/* What stands in place of a token; NULL, or what is wrong with it. */
static const char *read_kind(struct token *token)
{
	bool group = text_starts_with(token->text, "group:");
	if (!group && !text_starts_with(token->text, "user:")) return NULL;
	token->kind = group ? BY_GROUP : BY_USER;
	if (!find_id(strchr(token->text, ':') + 1, group, &token->id))
		return group ? "there is no such group" : "there is no such user";
	if (token->id == USER_NOBODY) return "nobody's id, 65534, stands for all that are not known, and cannot be let in";
	return NULL;
}

/* Copies its text. */
static enum status add(struct tokens *tokens, const struct token *new, struct error *err)
{
	char *copy = strdup(new->text);
	struct token *list = copy ? realloc(tokens->list, (tokens->count + 1) * sizeof *list) : NULL;
	if (list) tokens->list = list;
	if (!list) {
		free(copy);
		return error_set(err, STATUS_NO_MEMORY, "no memory for a token");
	}
	struct token *token = &list[tokens->count++];
	*token = *new;
	token->text = copy;
	token->holder.serial = atomic_fetch_add(&serials, 1) + 1;
	return STATUS_OK;
}

/* NULL, or what is wrong. */
static const char *take_bytes(const char *text, struct holder *holder)
{
	unsigned long long size;
	if (!isdigit((unsigned char)*text) || !text_read_size(text, &size) || !size || size > INT64_MAX)
		return "max-bytes must be a size, as in 200G";
	if (holder->max_bytes) return "a limit is there twice";
	holder->max_bytes = (int64_t)size;
	return NULL;
}

/* NULL, or what is wrong with an option of a line. */
static const char *take_option(const char *word, struct holder *holder)
{
	const struct {
		const char *name;
		int64_t *value;
	} options[] = {{"max-queued=", &holder->max_queued}, {"max-per-day=", &holder->max_per_day}};
	static const char bytes[] = "max-bytes=";
	if (text_starts_with(word, bytes)) return take_bytes(word + strlen(bytes), holder);
	for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
		if (!text_starts_with(word, options[i].name)) continue;
		const char *digits = word + strlen(options[i].name);
		size_t length = strlen(digits);
		bool number = length > 0 && length <= 9 && strspn(digits, "0123456789") == length;
		long value = number ? strtol(digits, NULL, 10) : 0;
		if (value <= 0) return "a limit must be a whole number from 1 to 999999999";
		if (*options[i].value) return "a limit is there twice";
		*options[i].value = value;
		return NULL;
	}
	return "behind the token there may be max-queued=N, max-per-day=N and max-bytes=SIZE";
}

/* NULL, or what is wrong. */
static const char *check_line(const struct tokens *tokens, char *const *words, size_t n, struct token *ret)
{
	struct holder *holder = &ret->holder;
	if (n < 3) return "must be NAME ROLE TOKEN, or all of the file one token of at least 16 printable characters";
	if (!is_name(words[0])) return "a name has up to 64 letters, digits, '.', '_' and '-'";
	holder->role = role_parse(words[1]);
	if (!holder->role) return "the role must be read, submit or admin";
	ret->text = words[2];
	const char *wrong = read_kind(ret);
	if (wrong) return wrong;
	if (ret->kind == BY_TOKEN && !is_token(words[2])) return "a token has at least 16 printable characters";
	for (size_t i = 0; i < tokens->count; i++) {
		if (strcmp(tokens->list[i].holder.name, words[0]) == 0) return "the name is there twice";
		if (strcmp(tokens->list[i].text, words[2]) == 0) return "the token is there twice";
	}
	if (tokens->count == MAX_TOKENS) return "there are more than 256 tokens";
	strcpy(holder->name, words[0]);
	for (size_t i = 3; i < n; i++) {
		wrong = take_option(words[i], holder);
		if (wrong) return wrong;
	}
	return NULL;
}

static size_t split(char *line, char *words[MAX_WORDS + 1])
{
	size_t n = 0;
	char *rest = line;
	for (char *word; n <= MAX_WORDS && (word = strtok_r(n ? NULL : line, blanks, &rest)); n++)
		words[n] = word;
	return n;
}

static enum status parse_line(struct tokens *tokens, char *line, int number, const char *path, struct error *err)
{
	struct token token = {0};
	char *words[MAX_WORDS + 1];
	size_t n = split(line, words);
	if (n == 0 || words[0][0] == '#') return STATUS_OK;
	const char *wrong = n > MAX_WORDS ? "there are too many words" : check_line(tokens, words, n, &token);
	if (wrong) return error_set(err, STATUS_INVALID, "%s: line %d: %s", path, number, wrong);
	return add(tokens, &token, err);
}

/* Ends the line at `text` and returns the next one, NULL where it was the last. */
static char *cut_line(char *text)
{
	char *end = text + strcspn(text, "\r\n");
	if (!*end) return NULL;
	char *next = end + (end[0] == '\r' && end[1] == '\n' ? 2 : 1);
	*end = 0;
	return *next ? next : NULL;
}

static bool names_a_role(const char *line)
{
	char role[8] = "";
	const char *word = line + strspn(line, blanks);
	word += strcspn(word, blanks);
	word += strspn(word, blanks);
	size_t length = strcspn(word, " \t\r\n");
	if (line[strspn(line, blanks)] == '#' || length >= sizeof role) return false;
	memcpy(role, word, length);
	return role_parse(role) != ROLE_NONE;
}

/* Is the first line a token, and what follows it of no concern, as it always was? A comment that looks like a token is one where
 * nothing follows. */
static enum status parse_alone(struct tokens *tokens, const char *text, const char *path, bool *ret, struct error *err)
{
	size_t length = strcspn(text, "\r\n");
	const char *rest = text + length + strspn(text + length, "\r\n \t");
	char *line = strndup(text, length);
	if (!line) return error_set(err, STATUS_NO_MEMORY, "no memory for a token");
	enum status status = STATUS_OK;
	*ret = is_token(line) && (line[0] != '#' || !*rest);
	for (const char *next = rest; *ret && !status && *next; next += strcspn(next, "\n"), next += *next == '\n')
		if (names_a_role(next))
			status = error_set(err, STATUS_INVALID, "%s: line 1: with others, a token needs a name and a role", path);
	if (*ret && !status && (text_starts_with(line, "user:") || text_starts_with(line, "group:")))
		status = error_set(err, STATUS_INVALID, "%s: line 1: a user or a group needs a name and a role", path);
	if (*ret && !status)
		status = add(tokens, &(struct token){.text = line, .holder = {.name = "token", .role = ROLE_ADMIN}}, err);
	explicit_bzero(line, length);
	free(line);
	return status;
}

static enum status parse_lines(struct tokens *tokens, const char *text, const char *path, struct error *err)
{
	enum status status = STATUS_OK;
	char *copy = strdup(text), *line = copy;
	if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory for the tokens");
	for (int number = 1; line && !status; number++) {
		char *next = cut_line(line);
		status = parse_line(tokens, line, number, path, err);
		line = next;
	}
	explicit_bzero(copy, strlen(text));
	free(copy);
	if (!status && tokens->count == 0)
		status =
			error_set(err, STATUS_INVALID,
				  "%s: has no token: the first line must be one of at least %d printable characters, or lines NAME "
				  "ROLE TOKEN",
				  path, MIN_TOKEN);
	return status;
}

enum status tokens_parse(const char *text, const char *path, struct tokens **ret, struct error *err)
{
	struct tokens *tokens = calloc(1, sizeof *tokens);
	bool alone;
	if (!tokens) return error_set(err, STATUS_NO_MEMORY, "no memory for the tokens");
	pthread_mutex_init(&tokens->lock, NULL);
	enum status status = parse_alone(tokens, text, path, &alone, err);
	if (!status && !alone) status = parse_lines(tokens, text, path, err);
	if (status)
		tokens_free(tokens);
	else
		*ret = tokens;
	return status;
}

/* ---- use ----------------------------------------------------------------------------------------------------------------- */

void tokens_replace(struct tokens *tokens, struct tokens *by)
{
	pthread_mutex_lock(&tokens->lock);
	struct token *old = tokens->list;
	size_t count = tokens->count;
	for (size_t i = 0; i < by->count; i++)
		for (size_t j = 0; j < count; j++)
			if (strcmp(by->list[i].text, old[j].text) == 0 && strcmp(by->list[i].holder.name, old[j].holder.name) == 0)
				by->list[i].holder.serial = old[j].holder.serial;
	tokens->list = by->list;
	tokens->count = by->count;
	tokens->version++;
	pthread_mutex_unlock(&tokens->lock);
	by->list = old;
	by->count = count;
	tokens_free(by);
}

static bool same(const char *token, const char *given)
{
	size_t n = strlen(given), length = strlen(token);
	unsigned difference = n != length;
	for (size_t i = 0; i < length; i++)
		difference |= (unsigned char)token[i] ^ (unsigned char)(i < n ? given[i] : 0);
	return difference == 0;
}

bool tokens_find(struct tokens *tokens, const char *given, struct holder *ret)
{
	bool found = false;
	pthread_mutex_lock(&tokens->lock);
	for (size_t i = 0; i < tokens->count; i++) {
		if (tokens->list[i].kind != BY_TOKEN || !same(tokens->list[i].text, given)) continue;
		*ret = tokens->list[i].holder;
		found = true;
	}
	pthread_mutex_unlock(&tokens->lock);
	return found;
}

static bool stands_for(const struct token *token, const struct user *user)
{
	bool stands = token->kind == BY_USER && user->uid != USER_NOBODY && token->id == user->uid;
	for (size_t i = 0; token->kind == BY_GROUP && i < user->n_groups; i++)
		stands |= token->id == user->groups[i];
	return stands;
}

bool tokens_find_user(struct tokens *tokens, const struct user *user, struct holder *ret)
{
	bool found = false;
	pthread_mutex_lock(&tokens->lock);
	for (size_t i = 0; i < tokens->count && !found; i++) {
		found = stands_for(&tokens->list[i], user);
		if (found) *ret = tokens->list[i].holder;
	}
	pthread_mutex_unlock(&tokens->lock);
	return found;
}

bool tokens_hold(struct tokens *tokens, uint64_t serial)
{
	bool found = serial == TOKEN_OPERATOR;
	pthread_mutex_lock(&tokens->lock);
	for (size_t i = 0; i < tokens->count; i++)
		found |= tokens->list[i].holder.serial == serial;
	pthread_mutex_unlock(&tokens->lock);
	return found;
}

unsigned tokens_version(struct tokens *tokens)
{
	pthread_mutex_lock(&tokens->lock);
	unsigned version = tokens->version;
	pthread_mutex_unlock(&tokens->lock);
	return version;
}

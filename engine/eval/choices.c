#include "engine/eval/choices.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/eval/windows.h"

/* Requests that run together are padded to the longest of them, which is at most this much longer than the shortest, or so many
 * tokens. */
static const double LONGER = 1.25;
enum { LONGER_TOKENS = 8 };

/* ---- token ids -------------------------------------------------------------------------------------------------------------- */

static size_t spaces_at_end(const char *text)
{
	size_t length = strlen(text), n = 0;
	while (n < length && strchr(" \t\r\n\f\v", text[length - 1 - n]))
		n++;
	return n;
}

static enum status encode_whole(const struct choice *choice, const struct tokenizer *tokenizer, int32_t **ret, size_t *ret_count,
				size_t *ret_context, struct error *err)
{
	size_t context_bytes = strlen(choice->context) - spaces_at_end(choice->context);
	size_t length = strlen(choice->context) + strlen(choice->continuation);
	int32_t *context;
	char *whole = malloc(length + 1);
	if (!whole) return error_set(err, STATUS_NO_MEMORY, "no memory for a question");
	memcpy(whole, choice->context, strlen(choice->context));
	memcpy(whole + strlen(choice->context), choice->continuation, strlen(choice->continuation) + 1);
	enum status status = tokenizer_encode(tokenizer, whole, length, ret, ret_count, err);
	if (!status) {
		status = tokenizer_encode(tokenizer, whole, context_bytes, &context, ret_context, err);
		free(status ? *ret : context);
	}
	free(whole);
	return status;
}

/* Takes `ids`, `count` of them, `context` of these the context's. */
static enum status add_request(struct requests *requests, int32_t *ids, size_t count, size_t context, int64_t max_length,
			       int32_t filler, struct request_ids request, struct error *err)
{
	size_t front = context ? 0 : 1; /* of a filler */
	size_t cut = count + front > (size_t)max_length ? count + front - (size_t)max_length : 0;
	if (count <= context)
		return error_set(err, STATUS_INVALID, "question %" PRId64 ", choice %d: no tokens are left behind the context's",
				 request.question, request.choice);
	if (cut >= context + front)
		return error_set(err, STATUS_INVALID, "question %" PRId64 ", choice %d: longer than the model's %" PRId64 " tokens",
				 request.question, request.choice, max_length);
	request.length = (int64_t)(count + front - cut);
	request.context = (int64_t)(context + front - cut);
	request.ids = malloc((size_t)request.length * sizeof *ids);
	if (!request.ids) return error_set(err, STATUS_NO_MEMORY, "no memory for a question");
	if (front) request.ids[0] = filler;
	memcpy(request.ids + front, ids + cut, (count - cut) * sizeof *ids);
	requests->items[requests->count++] = request;
	return STATUS_OK;
}

static int shorter_first(const void *a, const void *b)
{
	const struct request_ids *x = a, *y = b;
	if (x->length != y->length) return x->length < y->length ? -1 : 1;
	if (x->question != y->question) return x->question < y->question ? -1 : 1;
	return x->choice - y->choice;
}

enum status requests_encode(const struct questions *questions, const struct tokenizer *tokenizer, int64_t max_length,
			    struct requests *ret, struct error *err)
{
	struct requests requests = {.questions = questions->count};
	int64_t count = 0;
	int32_t bos = tokenizer_bos(tokenizer);
	enum status status = STATUS_OK;
	for (int64_t q = 0; q < questions->count; q++)
		count += questions->items[q].n;
	requests.items = calloc((size_t)count + 1, sizeof *requests.items);
	if (!requests.items) return error_set(err, STATUS_NO_MEMORY, "no memory for %" PRId64 " questions", questions->count);
	for (int64_t q = 0; q < questions->count && !status; q++) {
		for (int c = 0; c < questions->items[q].n && !status; c++) {
			int32_t *ids;
			size_t n, context;
			status = encode_whole(&questions->items[q].choices[c], tokenizer, &ids, &n, &context, err);
			if (status) break;
			status = add_request(&requests, ids, n, context, max_length, bos < 0 ? 0 : bos,
					     (struct request_ids){.question = q, .choice = c}, err);
			free(ids);
		}
	}
	if (status) {
		requests_free(&requests);
		return status;
	}
	qsort(requests.items, (size_t)requests.count, sizeof *requests.items, shorter_first);
	*ret = requests;
	return STATUS_OK;
}

void requests_free(struct requests *requests)
{
	for (int64_t i = 0; i < requests->count; i++)
		free(requests->items[i].ids);
	free(requests->items);
	*requests = (struct requests){0};
}

/* The end of the group that begins at `first`. */
static int64_t group_end(const struct requests *requests, int64_t first)
{
	double longest =
		fmax((double)requests->items[first].length * LONGER, (double)(requests->items[first].length + LONGER_TOKENS));
	int64_t end = first + 1;
	while (end < requests->count && (double)requests->items[end].length <= longest)
		end++;
	return end;
}

int64_t requests_work(const struct requests *requests)
{
	int64_t work = 0;
	for (int64_t first = 0, end; first < requests->count; first = end) {
		end = group_end(requests, first);
		work += (end - first) * requests->items[end - 1].length;
	}
	return work;
}

/* ---- scores ----------------------------------------------------------------------------------------------------------------- */

struct taker {
	const struct request_ids *group;
	const struct questions *questions;
	int64_t *first; /* of each question, where its choices begin in `sums` */
	double *sums;   /* log-probabilities of the continuations */
};

static void take(void *context, int64_t index, const double *logprobs, int64_t n)
{
	struct taker *taker = context;
	const struct request_ids *request = &taker->group[index];
	double sum = 0;
	(void)n; /* what is behind the request's own length is padding */
	for (int64_t t = request->context; t < request->length; t++)
		sum += logprobs[t - 1];
	taker->sums[taker->first[request->question] + request->choice] = sum;
}

static enum status score_group(const struct model *model, struct backend *backend, enum dtype type, struct taker *taker,
			       int64_t count, const atomic_bool *stop, struct progress *progress, struct error *err)
{
	int64_t length = taker->group[count - 1].length;
	struct sequences windows = {.count = count, .length = length};
	windows.ids = calloc((size_t)(count * length), sizeof *windows.ids);
	if (!windows.ids) return error_set(err, STATUS_NO_MEMORY, "no memory for %" PRId64 " requests", count);
	for (int64_t i = 0; i < count; i++)
		memcpy(windows.ids + i * length, taker->group[i].ids, (size_t)taker->group[i].length * sizeof *windows.ids);
	const struct window_set set = {&windows, take, taker};
	enum status status = windows_evaluate(model, backend, type, &set, 1, stop, progress, err);
	sequences_free(&windows);
	return status;
}

static double share_and_error(int64_t right, int64_t n, double *ret_stderr)
{
	double p = (double)right / (double)n;
	*ret_stderr = n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : 0;
	return p;
}

/* The choice with the largest log-probability, divided by what `divisor` says of it. */
static int pick(const struct question *question, const double *sums, int64_t (*divisor)(const struct choice *))
{
	int best = 0;
	for (int c = 1; c < question->n; c++)
		if (sums[c] / (double)divisor(&question->choices[c]) > sums[best] / (double)divisor(&question->choices[best]))
			best = c;
	return best;
}

static int64_t by_nothing(const struct choice *choice)
{
	(void)choice;
	return 1;
}

static int64_t by_characters(const struct choice *choice)
{
	return choice->characters;
}

static int64_t by_bytes(const struct choice *choice)
{
	return choice->bytes;
}

static void judge(const struct taker *taker, struct score *ret, int *answers)
{
	static int64_t (*const divisors[])(const struct choice *) = {by_nothing, by_characters, by_bytes};
	enum { WAYS = sizeof divisors / sizeof *divisors };
	int64_t right[WAYS] = {0}, n = taker->questions->count;
	for (int64_t q = 0; q < n; q++)
		for (int way = 0; way < WAYS; way++) {
			const struct question *question = &taker->questions->items[q];
			int best = pick(question, taker->sums + taker->first[q], divisors[way]);
			right[way] += best == question->answer;
			if (answers) answers[WAYS * q + way] = best;
		}
	ret->questions = n;
	ret->acc = share_and_error(right[0], n, &ret->acc_stderr);
	ret->acc_norm = share_and_error(right[1], n, &ret->acc_norm_stderr);
	ret->acc_bytes = share_and_error(right[2], n, &ret->acc_bytes_stderr);
}

enum status choices_score(const struct model *model, struct backend *backend, enum dtype type, const struct questions *questions,
			  const struct requests *requests, const atomic_bool *stop, struct progress *progress, struct score *ret,
			  int *answers, struct error *err)
{
	struct taker taker = {.questions = questions};
	taker.first = calloc((size_t)questions->count + 1, sizeof *taker.first);
	taker.sums = calloc((size_t)requests->count + 1, sizeof *taker.sums);
	enum status status =
		taker.first && taker.sums ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for a task's scores");
	for (int64_t q = 1; q < questions->count && !status; q++)
		taker.first[q] = taker.first[q - 1] + questions->items[q - 1].n;
	for (int64_t first = 0, end; first < requests->count && !status; first = end) {
		end = group_end(requests, first);
		taker.group = requests->items + first;
		status = score_group(model, backend, type, &taker, end - first, stop, progress, err);
	}
	if (!status) judge(&taker, ret, answers);
	free(taker.first);
	free(taker.sums);
	return status;
}

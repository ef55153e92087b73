/* Encodes records of text for compare_tokenizers.py: encode_text TOKENIZER RECORDS IDS [REPEATS] TOKENIZER is a tokenizer.json
 * or a model directory. RECORDS holds for each text its length as a little-endian uint32 and its bytes; IDS gets for each the
 * count of its ids and the ids, all uint32. Prints the ids' count, the seconds of the fastest of REPEATS rounds, and the id in
 * front of a text or -1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/json.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"

struct encoder {
	struct tokenizer_json *parts;
	struct tokenizer *tokenizer;
};

static void check(enum status status, const struct error *err)
{
	if (status == STATUS_OK) return;
	fprintf(stderr, "%s: %s\n", status_name(status), err->message);
	exit(1);
}

static void load(struct encoder *encoder, const char *path)
{
	struct error err;
	size_t length = strlen(path);
	if (length < 5 || strcmp(path + length - 5, ".json") != 0) {
		check(tokenizer_load(&PLACE(path), INT32_MAX, NULL, &encoder->tokenizer, &err), &err);
		return;
	}
	char *json;
	size_t bytes;
	check(file_slurp(path, 1 << 28, &json, &bytes, &err), &err);
	cJSON *tree;
	check(json_parse(json, bytes, path, &tree, &err), &err);
	check(tokenizer_json_load(tree, NULL, false, path, &encoder->parts, &err), &err);
	cJSON_Delete(tree);
	free(json);
}

/* Encodes all records, to `out` unless it is NULL, and returns the count of ids. */
static size_t encode_all(const struct encoder *encoder, const char *records, size_t size, FILE *out)
{
	size_t total = 0;
	for (size_t at = 0; at + 4 <= size;) {
		uint32_t bytes, count;
		memcpy(&bytes, records + at, 4);
		at += 4;
		if (bytes > size - at) {
			fprintf(stderr, "the records end in the middle of one\n");
			exit(1);
		}
		int32_t *ids;
		size_t n;
		struct error err;
		if (encoder->parts)
			check(tokenizer_json_encode(encoder->parts, records + at, bytes, &ids, &n, &err), &err);
		else
			check(tokenizer_encode(encoder->tokenizer, records + at, bytes, &ids, &n, &err), &err);
		at += bytes;
		total += n;
		count = (uint32_t)n;
		if (out && (fwrite(&count, 4, 1, out) != 1 || fwrite(ids, 4, n, out) != n)) {
			perror("write");
			exit(1);
		}
		free(ids);
	}
	return total;
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: encode_text TOKENIZER RECORDS IDS [REPEATS]\n");
		return 2;
	}
	struct encoder encoder = {0};
	load(&encoder, argv[1]);
	char *records;
	size_t size, total = 0;
	struct error err;
	check(file_slurp(argv[2], (size_t)1 << 32, &records, &size, &err), &err);
	FILE *out = fopen(argv[3], "wb");
	if (!out) {
		perror(argv[3]);
		return 1;
	}
	double best = 1e300;
	int repeats = argc > 4 ? atoi(argv[4]) : 1;
	for (int i = 0; i < repeats; i++) {
		struct timespec start, end;
		clock_gettime(CLOCK_MONOTONIC, &start);
		total = encode_all(&encoder, records, size, i == 0 && repeats == 1 ? out : NULL);
		clock_gettime(CLOCK_MONOTONIC, &end);
		double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
		if (seconds < best) best = seconds;
	}
	if (fclose(out) != 0) {
		perror(argv[3]);
		return 1;
	}
	int32_t bos = encoder.parts ? tokenizer_json_bos(encoder.parts) : tokenizer_bos(encoder.tokenizer);
	printf("%zu %.6f %d\n", total, best, bos);
	free(records);
	tokenizer_json_free(encoder.parts);
	tokenizer_free(encoder.tokenizer);
	return 0;
}

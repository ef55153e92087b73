/* How long it takes to bring hidden states from memory to a disk (engine/prune/stream.h), by 1, 2, 4 and 8 threads: stream_save
 * DIRECTORY [MIB]. Prints {"mib": …, "seconds": {"1": …}, "disk": …}: the best of three, in turn; "disk" is one plain write and
 * fsync of as much. MIB is 4096 where it is not given: 128 sequences of 2048 tokens of a 7B model. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "engine/prune/stream.h"

enum { RUNS = 3, ROW_BYTES = 1 << 20 };

static void check(enum status status, const struct error *err)
{
	if (status == STATUS_OK) return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

static double save(const struct stream *stream, const char *path, int threads)
{
	struct error err;
	double start = monotonic_seconds();
	check(stream_save(stream, path, threads, &err), &err);
	double seconds = monotonic_seconds() - start;
	unlink(path);
	return seconds;
}

static double write_plainly(const struct stream *stream, const char *path, size_t bytes)
{
	struct error err;
	struct file file;
	double start = monotonic_seconds();
	check(file_create(path, (int64_t)bytes, &file, &err), &err);
	check(file_write(&file, stream->device, bytes, 0, &err), &err);
	check(file_sync(&file, &err), &err);
	double seconds = monotonic_seconds() - start;
	file_close(&file);
	unlink(path);
	return seconds;
}

int main(int argc, char **argv)
{
	static const int threads[] = {1, 2, 4, 8};
	enum { CHOICES = sizeof threads / sizeof *threads };
	char path[4096];
	struct error err;
	struct backend *backend;
	struct stream stream;
	double best[CHOICES], disk = 1e9;
	long mib = argc > 2 ? strtol(argv[2], NULL, 10) : 4096;
	if (argc < 2 || mib < 1 || snprintf(path, sizeof path, "%s/stream_save.bin", argv[1]) >= (int)sizeof path) {
		fprintf(stderr, "usage: stream_save DIRECTORY [MIB]\n");
		return 2;
	}
	check(backend_cpu_create(1, &backend, &err), &err);
	check(stream_create(backend, mib, 1, ROW_BYTES / sizeof(float), 1, &stream, &err), &err);
	size_t bytes = (size_t)mib * ROW_BYTES;
	for (size_t i = 0; i < bytes / sizeof(uint32_t); i++)
		((uint32_t *)stream.device)[i] = (uint32_t)(i * 2654435761u);
	for (int i = 0; i < CHOICES; i++)
		best[i] = 1e9;
	for (int run = 0; run < RUNS; run++) {
		for (int i = 0; i < CHOICES; i++) {
			double seconds = save(&stream, path, threads[i]);
			if (seconds < best[i]) best[i] = seconds;
		}
		double seconds = write_plainly(&stream, path, bytes);
		if (seconds < disk) disk = seconds;
	}
	printf("{\"mib\": %ld, \"seconds\": {", mib);
	for (int i = 0; i < CHOICES; i++)
		printf("%s\"%d\": %.3f", i ? ", " : "", threads[i], best[i]);
	printf("}, \"disk\": %.3f}\n", disk);
	stream_release(&stream);
	backend_destroy(backend);
	return 0;
}

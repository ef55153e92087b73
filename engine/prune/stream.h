/* Hidden states of all calibration (or evaluation) sequences between two blocks: F32 [sequences · tokens, hidden]. They live on
 * the device when they fit, else in host memory, from where a batch at a time goes up and down: the next one while the last is
 * computed with. */
#ifndef BESAD_ENGINE_STREAM_H
#define BESAD_ENGINE_STREAM_H

#include "engine/compute/backend.h"

struct stream {
	struct backend *backend;
	int64_t sequences, tokens, hidden;
	void *device;               /* NULL when the stream is on the host */
	float *host;                /* NULL when it is on the device */
	struct tensor staging[2];   /* device room for two batches, when the stream is on the host */
	int turn;                   /* which of them was given out last */
	int64_t ahead, ahead_count; /* sequences that are on their way into the other one; a count of 0 for none */
};

/* On the device, or, where it does not fit, on the host. `batch` is the most sequences that are asked for at once. */
enum status stream_create(struct backend *, int64_t sequences, int64_t tokens, int64_t hidden, int64_t batch, struct stream *ret,
			  struct error *err);
enum status stream_create_on_host(struct backend *, int64_t sequences, int64_t tokens, int64_t hidden, int64_t batch,
				  struct stream *ret, struct error *err);
void stream_release(struct stream *);

/* Device tensor [count · tokens, hidden] for sequences first …: with their values where `load` is set, else for writing. Valid
 * until the next call for this stream. Fills backend->error. */
enum status stream_batch(struct stream *, int64_t first, int64_t count, bool load, struct tensor *ret);

/* Brings `count` sequences, wherever they are in the stream, one behind the other into a device tensor. Fills backend->error. */
enum status stream_gather(struct stream *, const int64_t *sequences, int64_t count, struct tensor to);

/* Stores a device tensor, one from stream_batch or another, as sequences first …. Fills backend->error. */
enum status stream_store(struct stream *, int64_t first, int64_t count, struct tensor values);

/* How large a stream's file is. */
int64_t stream_file_bytes(int64_t sequences, int64_t tokens, int64_t hidden);

/* Writes the whole stream to a file durably (under a temporary name, fsync, rename), by `threads` threads, and reads it back;
 * the sizes must agree, and the checksum, else it is STATUS_INVALID. Saving may go on beside operations that do not write to the
 * stream; those that wrote to it must have been waited for. It uses the backend's side_download. */
enum status stream_save(const struct stream *, const char *path, int threads, struct error *err);
enum status stream_load(struct stream *, const char *path, struct error *err);

#endif

#include "base/sha256.h"

#include <stdio.h>
#include <stdlib.h>

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

enum { DIGEST = 32, CHUNK = 1 << 20 };

static void print(const unsigned char digest[DIGEST], char ret[SHA256_TEXT])
{
	for (int i = 0; i < DIGEST; i++)
		snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

static enum status failed(int code, struct error *err)
{
	return error_set(err, STATUS_INTERNAL, "cannot make a SHA-256: %s", gnutls_strerror(code));
}

enum status sha256_bytes(const void *bytes, size_t count, char ret[SHA256_TEXT], struct error *err)
{
	unsigned char digest[DIGEST];
	int code = gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, count, digest);
	if (code) return failed(code, err);
	print(digest, ret);
	return STATUS_OK;
}

enum status sha256_file_stoppable(const struct file *file, int64_t bytes, const atomic_bool *stop, char ret[SHA256_TEXT],
				  struct error *err)
{
	unsigned char digest[DIGEST];
	gnutls_hash_hd_t hash = NULL;
	char *chunk = malloc(CHUNK);
	if (!chunk) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", file->path);
	int code = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256);
	enum status status = STATUS_OK;
	if (code) { /* it lacks nothing but memory */
		status = error_set(err, STATUS_NO_MEMORY, "no memory for a SHA-256: %s", gnutls_strerror(code));
		hash = NULL; /* what was given and freed again */
	}
	for (int64_t at = 0; status == STATUS_OK && at < bytes; at += CHUNK) {
		size_t n = bytes - at < CHUNK ? (size_t)(bytes - at) : CHUNK;
		if (stop && atomic_load(stop)) status = error_set(err, STATUS_CANCELLED, "stopped");
		if (status == STATUS_OK) status = file_read(file, chunk, n, at, err);
		if (status == STATUS_OK && (code = gnutls_hash(hash, chunk, n))) status = failed(code, err);
	}
	free(chunk);
	if (hash) gnutls_hash_deinit(hash, digest);
	TRY(status);
	print(digest, ret);
	return STATUS_OK;
}

enum status sha256_file(const struct file *file, int64_t bytes, char ret[SHA256_TEXT], struct error *err)
{
	return sha256_file_stoppable(file, bytes, NULL, ret, err);
}

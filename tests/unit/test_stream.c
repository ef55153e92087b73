/* Hidden states between two blocks: what is stored is what comes back, in any order of batches, where they live on a device, on the
 * host because a device has no room for them, or on the CPU; and so by way of a file. */
#include "tests/unit/scratch.h"

#include "engine/prune/stream.h"
#include "tests/unit/discrete.h"

enum { SEQUENCES = 11, TOKENS = 3, HIDDEN = 5, BATCH = 4, EACH = TOKENS * HIDDEN, ALL = SEQUENCES * EACH };

enum where { ON_CPU, ON_DEVICE, ON_HOST, PLACES };
static const char *const names[] = {"on the CPU", "on a device", "on the host"};

static float value(int64_t sequence, int i, int version)
{
	return (float)(sequence * 100 + i) + (float)version * 10000;
}

static struct backend *make_backend(struct scratch *s, enum where where)
{
	struct backend *backend;
	SUCCEEDS(backend_cpu_create(1, &backend, &s->err));
	/* The whole has no room in the small one; two batches have. */
	if (where != ON_CPU) discrete_backend(backend, where == ON_DEVICE ? 1 << 20 : ALL * sizeof(float) - 1);
	return backend;
}

static void create(struct scratch *s, struct backend *backend, enum where where, struct stream *stream)
{
	SUCCEEDS(stream_create(backend, SEQUENCES, TOKENS, HIDDEN, BATCH, stream, &s->err));
	assert_int_equal(stream->host != NULL, where == ON_HOST);
	assert_int_equal(stream->device == NULL, where == ON_HOST);
}

static void store(struct stream *stream, int64_t first, int64_t count, int version)
{
	struct tensor batch;
	assert_int_equal(stream_batch(stream, first, count, false, &batch), STATUS_OK);
	assert_int_equal(batch.rows, count * TOKENS);
	for (int64_t s = 0; s < count; s++)
		for (int i = 0; i < EACH; i++)
			((float *)batch.data)[s * EACH + i] = value(first + s, i, version);
	assert_int_equal(stream_store(stream, first, count, batch), STATUS_OK);
}

static void expect(struct stream *stream, int64_t first, int64_t count, const int *versions)
{
	struct tensor batch;
	assert_int_equal(stream_batch(stream, first, count, true, &batch), STATUS_OK);
	assert_int_equal(batch.rows, count * TOKENS);
	for (int64_t s = 0; s < count; s++)
		for (int i = 0; i < EACH; i++) {
			float is = ((float *)batch.data)[s * EACH + i], should = value(first + s, i, versions[first + s]);
			if (is != should)
				fail_msg("sequence %d, element %d: %g, not %g", (int)(first + s), i, (double)is, (double)should);
		}
}

static void store_all(struct stream *stream, int *versions, int version)
{
	for (int64_t first = 0; first < SEQUENCES; first += BATCH) {
		int64_t count = SEQUENCES - first < BATCH ? SEQUENCES - first : BATCH;
		store(stream, first, count, version);
		for (int64_t s = first; s < first + count; s++)
			versions[s] = version;
	}
}

/* One batch behind the other, in which case the next is on its way; anywhere; and what was on its way is written meanwhile. */
static void check_batches(struct scratch *s, enum where where)
{
	struct backend *backend = make_backend(s, where);
	struct stream stream;
	int versions[SEQUENCES];
	create(s, backend, where, &stream);
	store_all(&stream, versions, 1);
	for (int64_t first = 0; first < SEQUENCES; first += BATCH)
		expect(&stream, first, SEQUENCES - first < BATCH ? SEQUENCES - first : BATCH, versions);
	unsigned random = 12345;
	for (int step = 0; step < 500; step++) {
		random = random * 1103515245 + 12345;
		int64_t count = 1 + (random >> 16) % BATCH, first = (random >> 20) % (SEQUENCES - count + 1);
		if (random >> 30 & 1) {
			store(&stream, first, count, step + 2);
			for (int64_t i = first; i < first + count; i++)
				versions[i] = step + 2;
		} else {
			expect(&stream, first, count, versions);
			if (first + 2 * count <= SEQUENCES && random >> 29 & 1) expect(&stream, first + count, count, versions);
		}
	}
	stream_release(&stream);
	stream_release(&stream); /* what is released is as it was never made */
	backend_destroy(backend);
}

static void check_gather(struct scratch *s, enum where where)
{
	static const int64_t wanted[] = {7, 0, 10, 7};
	struct backend *backend = make_backend(s, where);
	struct stream stream;
	int versions[SEQUENCES];
	float room[4 * EACH], other[EACH];
	create(s, backend, where, &stream);
	store_all(&stream, versions, 3);
	assert_int_equal(stream_gather(&stream, wanted, 4, tensor_make(room, 4 * TOKENS, HIDDEN, DTYPE_F32)), STATUS_OK);
	for (int w = 0; w < 4; w++)
		for (int i = 0; i < EACH; i++)
			assert_true(room[w * EACH + i] == value(wanted[w], i, 3));
	/* From memory that is none of the stream's. */
	for (int i = 0; i < EACH; i++)
		other[i] = value(10, i, 4);
	assert_int_equal(stream_store(&stream, 10, 1, tensor_make(other, TOKENS, HIDDEN, DTYPE_F32)), STATUS_OK);
	versions[10] = 4;
	expect(&stream, 8, 3, versions);
	stream_release(&stream);
	backend_destroy(backend);
}

static void test_batches(void **state)
{
	for (enum where where = ON_CPU; where < PLACES; where++) {
		print_message("%s\n", names[where]);
		check_batches(*state, where);
		check_gather(*state, where);
	}
}

/* ---- files ------------------------------------------------------------------------------------------------------------------- */

/* What is saved from anywhere can be gone on with anywhere. */
static void test_files(void **state)
{
	struct scratch *s = *state;
	char path[200];
	snprintf(path, sizeof path, "%s/hidden.bin", s->directory);
	for (enum where from = ON_CPU; from < PLACES; from++)
		for (enum where to = ON_CPU; to < PLACES; to++) {
			struct backend *backend = make_backend(s, from);
			struct stream stream;
			struct file file;
			int versions[SEQUENCES];
			create(s, backend, from, &stream);
			store_all(&stream, versions, (int)from + 5);
			expect(&stream, 0, 2, versions);
			SUCCEEDS(stream_save(&stream, path, 3, &s->err));
			stream_release(&stream);
			backend_destroy(backend);
			SUCCEEDS(file_open_read(path, &file, &s->err));
			assert_int_equal(file.size, stream_file_bytes(SEQUENCES, TOKENS, HIDDEN));
			file_close(&file);

			backend = make_backend(s, to);
			create(s, backend, to, &stream);
			int before[SEQUENCES];
			store_all(&stream, before, 1);
			expect(&stream, 0, 2, before); /* the next are on their way, and no longer what is wanted */
			SUCCEEDS(stream_load(&stream, path, &s->err));
			expect(&stream, 2, 2, versions);
			for (int64_t i = 0; i < SEQUENCES; i++)
				expect(&stream, i, 1, versions);
			stream_release(&stream);
			backend_destroy(backend);
		}
}

/* A byte of the file is another: the first of the header, of its sizes, of the checksum and of the data; and a file that is cut. */
static void test_damage(void **state)
{
	struct scratch *s = *state;
	static const struct {
		int64_t at;
		const char *says;
	} cases[] = {
		{0, "hidden.bin: not the hidden states of 11 × 3 × 5 that this job needs"},
		{8, "hidden.bin: not the hidden states of 11 × 3 × 5 that this job needs"},
		{32, "hidden.bin: is damaged: its checksum is "},
		{-1, "hidden.bin: is damaged: its checksum is "},
	};
	char path[200], *bytes;
	size_t size;
	snprintf(path, sizeof path, "%s/hidden.bin", s->directory);
	for (enum where where = ON_CPU; where < PLACES; where++) {
		struct backend *backend = make_backend(s, where);
		struct stream stream;
		int versions[SEQUENCES];
		create(s, backend, where, &stream);
		store_all(&stream, versions, 1);
		FAILS(STATUS_NOT_FOUND, "no-file.bin", stream_load(&stream, "no-file.bin", &s->err));
		SUCCEEDS(stream_save(&stream, path, 1, &s->err));
		SUCCEEDS(file_slurp(path, 1 << 20, &bytes, &size, &s->err));
		for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
			size_t at = cases[i].at < 0 ? size - 1 : (size_t)cases[i].at;
			bytes[at] ^= 1;
			scratch_write(s, "hidden.bin", bytes, size);
			FAILS(STATUS_INVALID, cases[i].says, stream_load(&stream, path, &s->err));
			bytes[at] ^= 1;
		}
		scratch_write(s, "hidden.bin", bytes, size - 1);
		FAILS(STATUS_IO, "hidden.bin ends at byte 723, 1 bytes short", stream_load(&stream, path, &s->err));
		scratch_write(s, "hidden.bin", bytes, size); /* an earlier besad wrote no checksum, and '1' */
		bytes[7] = '1';
		memset(bytes + 32, 0, 4);
		scratch_write(s, "hidden.bin", bytes, size);
		SUCCEEDS(stream_load(&stream, path, &s->err));
		free(bytes);
		stream_release(&stream);
		backend_destroy(backend);
	}
}

/* ---- no memory --------------------------------------------------------------------------------------------------------------- */

static void test_no_room(void **state)
{
	struct scratch *s = *state;
	struct backend *backend;
	struct stream stream = {0};
	SUCCEEDS(backend_cpu_create(1, &backend, &s->err));
	FAILS(STATUS_NO_MEMORY, "4611686018427387904 sequences of hidden states are too many",
	      stream_create(backend, INT64_C(1) << 62, TOKENS, HIDDEN, BATCH, &stream, &s->err));
	FAILS(STATUS_NO_MEMORY, "4611686018427387904 sequences of hidden states are too many",
	      stream_create_on_host(backend, INT64_C(1) << 62, TOKENS, HIDDEN, BATCH, &stream, &s->err));
	FAILS(STATUS_NO_MEMORY, "hidden states of 1099511627776 sequences of 3 tokens: ",
	      stream_create(backend, INT64_C(1) << 40, TOKENS, HIDDEN, BATCH, &stream, &s->err));
	discrete_backend(backend, BATCH * EACH * sizeof(float));
	size_t before = backend->memory.now;
	FAILS(STATUS_NO_MEMORY, "hidden states of 11 sequences of 3 tokens: alloc: no memory for 240 bytes of the device",
	      stream_create(backend, SEQUENCES, TOKENS, HIDDEN, BATCH, &stream, &s->err));
	assert_int_equal(backend->memory.now, before); /* the first of both batches was there */
	assert_null(stream.backend);
	backend_destroy(backend);
}

/* ---- a device that is lost --------------------------------------------------------------------------------------------------- */

static enum status lose_upload(struct backend *backend, void *device, const void *host, size_t bytes)
{
	(void)device, (void)host, (void)bytes;
	return error_set(&backend->error, STATUS_BACKEND, "the device is lost");
}

static enum status lose_wait(struct backend *backend)
{
	return error_set(&backend->error, STATUS_BACKEND, "the device is lost");
}

static enum status lose_side_download(struct backend *backend, void *host, const void *device, size_t bytes, struct error *err)
{
	(void)backend, (void)host, (void)device, (void)bytes;
	return error_set(err, STATUS_BACKEND, "the device is lost");
}

static void test_lost_device(void **state)
{
	struct scratch *s = *state;
	static const int64_t wanted[] = {1};
	char path[200];
	float room[EACH];
	snprintf(path, sizeof path, "%s/hidden.bin", s->directory);
	for (enum where where = ON_DEVICE; where < PLACES; where++) {
		struct backend *backend = make_backend(s, where);
		struct backend_ops *ops = &backend->checked, here = *ops;
		struct stream stream;
		struct tensor batch;
		int versions[SEQUENCES];
		create(s, backend, where, &stream);
		store_all(&stream, versions, 1);
		SUCCEEDS(stream_save(&stream, path, 1, &s->err));
		if (where == ON_HOST) {
			ops->upload = lose_upload;
			assert_int_equal(stream_batch(&stream, 6, 2, true, &batch), STATUS_BACKEND);
			assert_int_equal(stream_gather(&stream, wanted, 1, tensor_make(room, TOKENS, HIDDEN, DTYPE_F32)),
					 STATUS_BACKEND);
			ops->upload = here.upload;
			ops->fetch = lose_upload;
			assert_int_equal(stream_batch(&stream, 0, 2, true, &batch), STATUS_BACKEND);
			ops->fetch = here.fetch;
			for (int i = 0; i < 3; i++) {
				expect(&stream, 0, 2, versions); /* and the next are on their way */
				ops->fetched = lose_wait;
				if (i == 0) assert_int_equal(stream_batch(&stream, 2, 2, true, &batch), STATUS_BACKEND);
				if (i == 1) FAILS(STATUS_BACKEND, "the device is lost", stream_load(&stream, path, &s->err));
				if (i == 2)
					assert_int_equal(stream_store(&stream, 3, 1, tensor_rows(batch, 0, TOKENS)),
							 STATUS_BACKEND);
				ops->fetched = here.fetched;
			}
			expect(&stream, 0, 2, versions);
		} else {
			ops->upload = lose_upload;
			FAILS(STATUS_BACKEND, "the device is lost", stream_load(&stream, path, &s->err));
			ops->upload = here.upload;
			ops->copy = lose_upload;
			assert_int_equal(stream_gather(&stream, wanted, 1, tensor_make(room, TOKENS, HIDDEN, DTYPE_F32)),
					 STATUS_BACKEND);
			ops->copy = here.copy;
			ops->side_download = lose_side_download;
			FAILS(STATUS_BACKEND, "the device is lost", stream_save(&stream, path, 3, &s->err));
			ops->side_download = here.side_download;
			SUCCEEDS(stream_load(&stream, path, &s->err)); /* what was saved before is there still */
		}
		stream_release(&stream);
		backend_destroy(backend);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_batches), SCRATCH_TEST(test_files), SCRATCH_TEST(test_damage),
					   SCRATCH_TEST(test_no_room), SCRATCH_TEST(test_lost_device)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

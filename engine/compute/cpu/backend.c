/* The CPU backend: creation, the choice of kernels, memory. */
#include <cpuid.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <oneapi/dnnl/dnnl.h>

#include "engine/compute/cpu/cpu.h"
#include "engine/compute/cpu_isa.h"
#include "engine/compute/dry.h"

enum { ALIGNMENT = 256, LARGE_PAGE = 2 << 20 };

/* More than the machine has is refused here: the kernel may promise it all the same. */
static void *allocate(size_t bytes)
{
	size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
	bool large = bytes >= LARGE_PAGE;
	void *memory;
	if (bytes > machine || posix_memalign(&memory, large ? LARGE_PAGE : ALIGNMENT, bytes ? bytes : 1)) return NULL;
	if (large) (void)madvise(memory, bytes, MADV_HUGEPAGE); /* where the system has none, small ones do */
	return memory;
}

static size_t rounded(size_t bytes)
{
	return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* How many bytes an allocation was counted with stands before it, in a place of the size of the alignment. */
static enum status cpu_alloc(struct backend *backend, size_t bytes, void **ret)
{
	char *memory = bytes > SIZE_MAX - 2 * ALIGNMENT ? NULL
		       : backend->dry                   ? dry_take(backend->dry, rounded(bytes), true)
							: allocate(ALIGNMENT + bytes);
	if (!memory) return error_set(&backend->error, STATUS_NO_MEMORY, "alloc: no memory for %zu bytes", bytes);
	if (!backend->dry) {
		*(size_t *)(void *)memory = rounded(bytes);
		memory += ALIGNMENT;
	}
	memory_add(&backend->memory, rounded(bytes));
	*ret = memory;
	return STATUS_OK;
}

static void cpu_release(struct backend *backend, void *memory)
{
	if (!memory) return;
	if (backend->dry) {
		backend->memory.now -= dry_give(backend->dry, memory);
		return;
	}
	char *whole = (char *)memory - ALIGNMENT;
	backend->memory.now -= *(size_t *)(void *)whole;
	free(whole);
}

static enum status cpu_upload(struct backend *backend, void *device, const void *host, size_t bytes)
{
	(void)backend;
	if (bytes) memcpy(device, host, bytes);
	return STATUS_OK;
}

static enum status cpu_side_copy(struct backend *backend, void *to, const void *from, size_t bytes, struct error *err)
{
	(void)err;
	return cpu_upload(backend, to, from, bytes);
}

static enum status cpu_zero(struct backend *backend, void *device, size_t bytes)
{
	(void)backend;
	if (bytes) memset(device, 0, bytes);
	return STATUS_OK;
}

static enum status cpu_sync(struct backend *backend)
{
	(void)backend;
	return STATUS_OK;
}

static enum status cpu_memory(struct backend *backend, size_t *ret_free, size_t *ret_total)
{
	FILE *file = fopen("/proc/meminfo", "re");
	if (!file) return error_errno(&backend->error, "memory: /proc/meminfo");
	unsigned long long total = 0, available = 0;
	char line[256];
	while (fgets(line, sizeof line, file)) {
		sscanf(line, "MemTotal: %llu kB", &total);
		sscanf(line, "MemAvailable: %llu kB", &available);
	}
	fclose(file);
	if (!total) return error_set(&backend->error, STATUS_BACKEND, "memory: /proc/meminfo has no MemTotal");
	*ret_free = (size_t)available * 1024;
	*ret_total = (size_t)total * 1024;
	return STATUS_OK;
}

enum status cpu_scratch(struct cpu_backend *cpu, const char *operation, size_t bytes, void **ret)
{
	struct backend *backend = &cpu->base;
	if (bytes > cpu->scratch_size) {
		enum status status;
		cpu_release(backend, cpu->scratch);
		cpu->scratch = NULL;
		cpu->scratch_size = 0;
		status = cpu_alloc(backend, bytes, &cpu->scratch);
		if (status != STATUS_OK)
			return error_set(&backend->error, status, "%s: no memory for %zu bytes of scratch", operation, bytes);
		cpu->scratch_size = bytes;
	}
	*ret = cpu->scratch;
	return STATUS_OK;
}

/* Without memory for a crew, on this thread. The crew is of the thread that computes: it gives it its niceness. */
void cpu_run(struct cpu_backend *cpu, int64_t n, int64_t chunk, crew_work *work, const void *context)
{
	if (!cpu->crew) cpu->crew = crew_create(cpu->base.threads);
	if (cpu->crew)
		crew_run(cpu->crew, n, chunk, work, context);
	else if (n)
		work(context, (struct share){0, n, 0});
}

static void cpu_destroy(struct backend *backend)
{
	struct cpu_backend *cpu = cpu_of(backend);
	crew_free(cpu->crew);
	cpu_matmul_release(cpu);
	cpu_release(backend, cpu->scratch);
	dry_free(backend->dry);
	free(cpu);
}

static enum status cpu_dry(struct backend *, size_t capacity, struct backend **ret);

static void set_operations(struct backend_ops *ops)
{
	ops->destroy = cpu_destroy;
	ops->alloc = cpu_alloc;
	ops->release = cpu_release;
	ops->upload = cpu_upload;
	ops->download = cpu_upload;
	ops->side_upload = cpu_side_copy;
	ops->side_download = cpu_side_copy;
	ops->alloc_host = cpu_alloc;
	ops->release_host = cpu_release;
	ops->copy = cpu_upload;
	ops->zero = cpu_zero;
	ops->sync = cpu_sync;
	ops->memory = cpu_memory;
	ops->dry = cpu_dry;
	cpu_attention_operations(ops);
	cpu_compensate_operations(ops);
	cpu_gradient_operations(ops);
	cpu_layer_operations(ops);
	cpu_learn_operations(ops);
	cpu_matmul_operations(ops);
	cpu_prune_operations(ops);
	cpu_quantize_operations(ops);
	cpu_route_operations(ops);
	cpu_solve_operations(ops);
}

/* The capacity is not kept: what the machine lacks it may swap. */
static enum status cpu_dry(struct backend *backend, size_t capacity, struct backend **ret)
{
	struct cpu_backend *cpu = calloc(1, sizeof *cpu);
	struct dry *dry = calloc(1, sizeof *dry);
	if (!cpu || !dry) {
		free(cpu);
		free(dry);
		return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for a dry run");
	}
	*cpu = (struct cpu_backend){
		.base = *backend, .kernels = cpu_of(backend)->kernels, .bf16_kernels = cpu_of(backend)->bf16_kernels};
	dry->capacity = capacity;
	cpu->base.memory = cpu->base.host = (struct memory_count){0, 0};
	cpu->base.dry = dry;
	dry_operations(&cpu->base.unchecked);
	backend_check_operations(&cpu->base);
	*ret = &cpu->base;
	return STATUS_OK;
}

#define KERNELS(isa)                                                                                                               \
	{                                                                                                                          \
#isa, &layer_kernels_##isa, &route_kernels_##isa, &attention_kernels_##isa, &prune_kernels_##isa,                  \
			&compensate_kernels_##isa, &product_kernels_##isa, &gradient_kernels_##isa, &learn_kernels_##isa,          \
			&solve_kernels_##isa, &quantize_kernels_##isa                                                              \
	}
static const struct cpu_kernels kernels_v2 = KERNELS(v2), kernels_v3 = KERNELS(v3), kernels_v4 = KERNELS(v4);

/* The best that the processor runs and may be used. */
static const struct cpu_kernels *choose_kernels(void)
{
	int most = cpu_isa_most();
	__builtin_cpu_init();
	if (most >= 4 && __builtin_cpu_supports("x86-64-v4")) return &kernels_v4;
	if (most >= 3 && __builtin_cpu_supports("x86-64-v3")) return &kernels_v3;
	if (__builtin_cpu_supports("x86-64-v2")) return &kernels_v2;
	return NULL;
}

/* Whether oneDNN multiplies bf16 in hardware here: AVX512_BF16 or AMX, and not masked by its environment. */
static bool has_native_bf16(void)
{
	switch (dnnl_get_effective_cpu_isa()) {
	case dnnl_cpu_isa_avx512_core_bf16:
	case dnnl_cpu_isa_avx512_core_amx:
		return true;
	default:
		return false;
	}
}

static void name_device(struct cpu_backend *cpu)
{
	unsigned words[12] = {0};
	char brand[sizeof words + 1] = "x86-64";
	if (__get_cpuid_max(0x80000000, NULL) >= 0x80000004) {
		for (unsigned i = 0; i < 3; i++)
			__get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2], &words[4 * i + 3]);
		memcpy(brand, words, sizeof words);
		brand[sizeof words] = '\0';
	}
	snprintf(cpu->base.device, sizeof cpu->base.device, "%s, %d thread%s, x86-64-%s%s", brand + strspn(brand, " "),
		 cpu->base.threads, cpu->base.threads == 1 ? "" : "s", cpu->kernels->isa, cpu->base.native_bf16 ? ", bf16" : "");
}

enum status backend_cpu_create(int threads, struct backend **ret, struct error *err)
{
	const struct cpu_kernels *kernels = choose_kernels();
	if (!kernels) return error_set(err, STATUS_UNSUPPORTED, "this processor lacks the x86-64-v2 instructions (SSE4.2)");
	if (threads < 0) return error_set(err, STATUS_INVALID, "%d threads", threads);
	struct cpu_backend *cpu = calloc(1, sizeof *cpu);
	if (!cpu) return error_set(err, STATUS_NO_MEMORY, "no memory for the CPU backend");
	cpu->kernels = kernels;
	set_operations(&cpu->base.unchecked);
	backend_check_operations(&cpu->base);
	cpu->base.name = "cpu";
	cpu->base.unified = true;
	cpu->base.native_bf16 = has_native_bf16();
	cpu->bf16_kernels = cpu->base.native_bf16 && kernels == &kernels_v4;
	cpu->base.threads = threads ? threads : omp_get_max_threads();
	name_device(cpu);
	*ret = &cpu->base;
	return STATUS_OK;
}

/* What called: the addresses on the stack, each as its distance from where its module lies, so that they are the same in each
 * process of one program. */
#ifndef BESAD_TESTS_FAULTS_STACKS_H
#define BESAD_TESTS_FAULTS_STACKS_H

#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { STACK_DEPTH = 64 };

struct frame {
	const char *module; /* "" for the program itself */
	uintptr_t at;
};

struct stack {
	struct frame frames[STACK_DEPTH];
	int depth;
	uint64_t hash;
};

static inline struct frame frame_of(void *address)
{
	struct dl_find_object found;
	if (_dl_find_object(address, &found) != 0) return (struct frame){"?", 0};
	const char *name = found.dlfo_link_map->l_name ? found.dlfo_link_map->l_name : "";
	return (struct frame){name, (uintptr_t)address - (uintptr_t)found.dlfo_map_start};
}

/* Without this library's own frames, and with each of a recursion once. The first call takes memory. */
static inline void stack_read(struct stack *ret)
{
	void *addresses[STACK_DEPTH];
	struct dl_find_object own, found;
	int count = backtrace(addresses, STACK_DEPTH);
	bool known = _dl_find_object((void *)(uintptr_t)stack_read, &own) == 0;
	ret->depth = 0;
	ret->hash = 1469598103934665603u;
	for (int i = 0; i < count; i++) {
		if (known && _dl_find_object(addresses[i], &found) == 0 && found.dlfo_map_start == own.dlfo_map_start) continue;
		bool again = false;
		for (int k = 0; k < i && !again; k++)
			again = addresses[k] == addresses[i];
		if (again) continue;
		struct frame frame = frame_of(addresses[i]);
		ret->frames[ret->depth++] = frame;
		ret->hash = (ret->hash ^ frame.at) * 1099511628211u;
	}
}

/* "HASH module+0xdistance module+0x..." */
static inline int stack_print(const struct stack *stack, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size, "%016llx", (unsigned long long)stack->hash);
	for (int i = 0; i < stack->depth && used < size; i++) {
		const char *slash = strrchr(stack->frames[i].module, '/');
		used += (size_t)snprintf(text + used, size - used, " %s+0x%llx", slash ? slash + 1 : stack->frames[i].module,
					 (unsigned long long)stack->frames[i].at);
	}
	return (int)(used < size ? used : size - 1);
}

#endif

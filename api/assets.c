/* The files that besad serves, compiled in: the contract and the dashboard. Paths are relative to the root of the source, where the
 * compiler runs. */
#include "api/assets.h"
#include "api/http.h"

#define BYTES(name, path)                                                                                                          \
	__asm__(".section .rodata\n"                                                                                               \
		".balign 16\nasset_data_" #name "_begin:\n"                                                                        \
		".incbin \"" path "\"\nasset_data_" #name "_end:\n"                                                                \
		".previous\n");                                                                                                    \
	extern const char asset_data_##name##_begin[], asset_data_##name##_end[]

#define HANDLER(name, type)                                                                                                        \
	void asset_##name(const struct request *request, struct response *response)                                                \
	{                                                                                                                          \
		(void)request;                                                                                                     \
		answer(response, type, asset_data_##name##_begin, asset_data_##name##_end);                                        \
	}

static void answer(struct response *response, const char *type, const char *begin, const char *end)
{
	response_static(response, type, begin, (size_t)(end - begin));
	response->page = true;
}

BYTES(openapi, "openapi.yaml");
HANDLER(openapi, "application/yaml")

#define DASHBOARD_FILE(name, path, file, type)                                                                                     \
	BYTES(name, "api/dashboard/" file);                                                                                        \
	HANDLER(name, type "; charset=utf-8")
DASHBOARD_FILES(DASHBOARD_FILE)

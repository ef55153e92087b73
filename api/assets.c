/* The files that besad serves, compiled in: the contract and the dashboard. Paths are relative to the root of the source, where the
 * compiler runs. */
#include "api/http.h"

#define ASSET(name, path)                                                                                                          \
	__asm__(".section .rodata\n"                                                                                               \
		".balign 16\n" #name "_begin:\n"                                                                                   \
		".incbin \"" path "\"\n" #name "_end:\n"                                                                           \
		".previous\n");                                                                                                    \
	extern const char name##_begin[], name##_end[]

ASSET(asset_data_openapi, "openapi.yaml");
ASSET(asset_data_index, "api/dashboard/index.html");
ASSET(asset_data_script, "api/dashboard/app.js");
ASSET(asset_data_style, "api/dashboard/style.css");

static void answer(struct response *response, const char *type, const char *begin, const char *end)
{
	response_static(response, type, begin, (size_t)(end - begin));
	response->page = true;
}

void asset_openapi(const struct request *request, struct response *response)
{
	(void)request;
	answer(response, "application/yaml", asset_data_openapi_begin, asset_data_openapi_end);
}

void asset_index(const struct request *request, struct response *response)
{
	(void)request;
	answer(response, "text/html; charset=utf-8", asset_data_index_begin, asset_data_index_end);
}

void asset_script(const struct request *request, struct response *response)
{
	(void)request;
	answer(response, "text/javascript; charset=utf-8", asset_data_script_begin, asset_data_script_end);
}

void asset_style(const struct request *request, struct response *response)
{
	(void)request;
	answer(response, "text/css; charset=utf-8", asset_data_style_begin, asset_data_style_end);
}

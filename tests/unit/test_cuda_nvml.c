/* NVML as the daemon reads it, from a library that this test builds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cuda/nvml.h"

static const char SOURCE[] =
	"int nvmlInit_v2(void) { return 0; }\n"
	"int nvmlShutdown(void) { return 0; }\n"
	"const char *nvmlErrorString(int code) { return code == 6 ? \"not found\" : \"?\"; }\n"
	"int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device)\n"
	"{ static int it; *device = &it; return bus[5] == '1' ? 0 : 6; }\n"
	"int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) { rates[0] = 73; rates[1] = 40; return 0; }\n"
	"int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory)\n"
	"{ memory[0] = 1000; memory[1] = 400; memory[2] = 600; return 0; }\n"
	"int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = 512500; return 0; }\n"
	"int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) { return 3; }\n";

static char directory[] = "/tmp/test_cuda_nvml.XXXXXX", library[64];

static int build(void **state)
{
	char path[64], command[256];
	(void)state;
	if (!mkdtemp(directory)) return 1;
	snprintf(path, sizeof path, "%s/nvml.c", directory);
	snprintf(library, sizeof library, "%s/libnvml.so", directory);
	FILE *file = fopen(path, "w");
	if (!file) return 1;
	fputs(SOURCE, file);
	if (fclose(file)) return 1;
	snprintf(command, sizeof command, "cc -shared -fPIC -o %s %s", library, path);
	return system(command);
}

static int clean(void **state)
{
	char command[256];
	(void)state;
	snprintf(command, sizeof command, "rm -r %s", directory);
	return system(command);
}

static void test_reading(void **state)
{
	struct nvml *nvml;
	struct nvml_reading reading;
	struct error err;
	(void)state;
	assert_int_equal(nvml_open(library, "0000:1b:00.0", &nvml, &err), STATUS_OK);
	nvml_read(nvml, &reading);
	nvml_close(nvml);
	assert_float_equal(reading.utilisation, 0.73, 1e-9);
	assert_float_equal(reading.watts, 512.5, 1e-9);
	assert_float_equal(reading.memory_used, 600, 0);
	assert_float_equal(reading.memory_total, 1000, 0);
	assert_true(reading.celsius < 0); /* this GPU does not tell */
}

static void test_reasons(void **state)
{
	struct nvml *nvml = NULL;
	struct error err;
	(void)state;
	assert_int_equal(nvml_open(library, "0000:2b:00.0", &nvml, &err), STATUS_UNSUPPORTED);
	assert_non_null(strstr(err.message, "0000:2b:00.0"));
	assert_non_null(strstr(err.message, "not found"));
	assert_int_equal(nvml_open("/nonexistent/libnvml.so", "0000:1b:00.0", &nvml, &err), STATUS_UNSUPPORTED);
	assert_non_null(strstr(err.message, "/nonexistent/libnvml.so"));
	assert_int_equal(nvml_open("libc.so.6", "0000:1b:00.0", &nvml, &err), STATUS_UNSUPPORTED);
	assert_null(nvml);
	nvml_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_reading), cmocka_unit_test(test_reasons)};
	return cmocka_run_group_tests(tests, build, clean);
}

#include "daemon/bar.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { WIDTH = 30 };
static const double REDRAW_SECONDS = 0.1;

struct bar bar_create(void)
{
	return (struct bar){.terminal = isatty(STDERR_FILENO), .loss = NAN};
}

void bar_clear(struct bar *bar)
{
	if (bar->shown) fputs("\r\033[K", stderr);
	bar->shown = false;
}

void bar_line(struct bar *bar, const char *format, ...)
{
	bar_clear(bar);
	va_list args;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static double number(const cJSON *data, const char *key)
{
	return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(data, key));
}

static const char *string(const cJSON *data, const char *key)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(data, key));
	return text ? text : "";
}

void bar_event(struct bar *bar, const char *type, const cJSON *data)
{
	if (strcmp(type, "block.step") == 0 || strcmp(type, "tune.step") == 0) {
		bar->loss = number(data, "loss");
	} else if (strcmp(type, "block.finished") == 0) {
		bar->loss = NAN;
		char loss[32] = ""; /* there is none without a calibration */
		double reconstruction = number(data, "reconstruction");
		if (!isnan(reconstruction)) snprintf(loss, sizeof loss, "loss %.6f, ", reconstruction);
		bar_line(bar, "block %.0f of %.0f: %ssparsity %.4f, %.1f s", number(data, "block") + 1, number(data, "blocks"),
			 loss, number(data, "sparsity"), number(data, "seconds"));
	} else if (strcmp(type, "eval.finished") == 0) {
		bar_line(bar, "%s, %s: perplexity %.4f", string(data, "dataset"), string(data, "model"),
			 number(data, "perplexity"));
	} else if (strcmp(type, "warning") == 0) {
		bar_line(bar, "warning: %s", string(data, "message"));
	}
}

void bar_progress(struct bar *bar, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	char filled[WIDTH + 1], left[32] = "", loss[32] = "";
	if (!bar->terminal) return;
	double now = monotonic_seconds();
	if (bar->shown && now - bar->drawn < REDRAW_SECONDS) return;
	bar->drawn = now;
	bar->shown = true;
	for (int i = 0; i < WIDTH; i++)
		filled[i] = i < (int)(fraction * WIDTH) ? '#' : '.';
	filled[WIDTH] = 0;
	if (eta_seconds >= 0) snprintf(left, sizeof left, ", %.0f:%02d left", floor(eta_seconds / 60), (int)fmod(eta_seconds, 60));
	if (!isnan(bar->loss)) snprintf(loss, sizeof loss, ", loss %.5f", bar->loss);
	fprintf(stderr, "\r\033[K[%s] %3d %% %s, block %d of %d%s%s", filled, (int)(fraction * 100), phase, block + 1, blocks, loss,
		left);
	fflush(stderr);
}

/* The files of the dashboard, each with its handler asset_<name>, the path where it is served, its file in api/dashboard/ and
 * its type. */
#ifndef BESAD_API_ASSETS_H
#define BESAD_API_ASSETS_H

#define SCRIPT(EACH, name) EACH(name, "/" #name ".js", #name ".js", "text/javascript")
#define DASHBOARD_FILES(EACH)                                                                                                      \
	EACH(index, "/", "index.html", "text/html")                                                                                \
	EACH(style, "/style.css", "style.css", "text/css")                                                                         \
	SCRIPT(EACH, main)                                                                                                         \
	SCRIPT(EACH, api)                                                                                                          \
	SCRIPT(EACH, charts)                                                                                                       \
	SCRIPT(EACH, compare)                                                                                                      \
	SCRIPT(EACH, connection)                                                                                                   \
	SCRIPT(EACH, curl)                                                                                                         \
	SCRIPT(EACH, dom)                                                                                                          \
	SCRIPT(EACH, fields)                                                                                                       \
	SCRIPT(EACH, form)                                                                                                         \
	SCRIPT(EACH, heatmap)                                                                                                      \
	SCRIPT(EACH, job)                                                                                                          \
	SCRIPT(EACH, jobs)                                                                                                         \
	SCRIPT(EACH, progress)                                                                                                     \
	SCRIPT(EACH, spec)                                                                                                         \
	SCRIPT(EACH, speedup)                                                                                                      \
	SCRIPT(EACH, stream)                                                                                                       \
	SCRIPT(EACH, studies)                                                                                                      \
	SCRIPT(EACH, try)

#endif

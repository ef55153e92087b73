/* How besactl ends: what a script can tell from its exit status. besactl(1) documents it. */
#ifndef BESAD_CTL_EXIT_H
#define BESAD_CTL_EXIT_H

enum exit_code {
	EXIT_OK = 0,
	EXIT_USAGE = 1,       /* wrong arguments, or a local file that cannot be read or written */
	EXIT_REFUSED = 2,     /* the daemon answered with a problem */
	EXIT_UNREACHABLE = 3, /* no answer from the daemon */
	EXIT_FAILED = 4,      /* the job failed */
	EXIT_CANCELLED = 5,   /* the job was cancelled */
	EXIT_PROTOCOL = 6,    /* an answer that is not besad's */
};

#endif

#ifndef BESAD_DAEMON_NOTIFY_H
#define BESAD_DAEMON_NOTIFY_H

/* Tells systemd, where $NOTIFY_SOCKET says it listens: "READY=1", "STOPPING=1" … (sd_notify(3)). */
void notify(const char *state);

#endif

"""A model of the queue, and whether a history of calls and answers can be one of it.

What belongs to one Idempotency-Key is checked by itself: there is no job under that key, or one, in one state. A call takes effect at one
moment between its beginning and its end, or, where no answer came because besad was killed, at such a moment or never. A history is right
when there is an order of such moments in which the model gives every answer that was got (linearizability, after Wing and Gong). Between
any two, the worker may have moved the job on as it may."""
import collections

# What happens to a job with nobody asking: the worker runs it, and a start behind a crash makes it sound.
BY_ITSELF = {"queued": ("running",), "running": ("queued", "succeeded", "failed"), "cancelling": ("cancelled", "succeeded"),
             "pausing": ("paused", "succeeded", "failed")}
# What is asked for -> {the state it finds: the state it leaves}; 409 in every other.
ASKED = {"cancel": {"queued": "cancelled", "paused": "cancelled", "running": "cancelling", "pausing": "cancelling",
                    "cancelling": "cancelling", "cancelled": "cancelled"},
         "pause": {"queued": "paused", "running": "pausing", "pausing": "pausing", "paused": "paused"},
         "resume": {"paused": "queued", "pausing": "running", "queued": "queued", "running": "running"},
         "retry": {"failed": "queued", "cancelled": "queued"},
         "delete": {"succeeded": None, "failed": None, "cancelled": None}}
# Which event of a job's state may follow which.
EVENTS = {None: ("queued",), "queued": ("started", "cancelled", "paused", "failed"),
          "started": ("succeeded", "failed", "cancelled", "paused", "queued"), "paused": ("queued", "cancelled"),
          "failed": ("queued",), "cancelled": ("queued",), "succeeded": ()}
MOST_STEPS = 300000  # of a search; what takes more is told as undecided

# kind: submit, show, absent or one of ASKED; what: the body's name of a submission, else the job's id; status: of the answer, None: none
# came; state: that the answer tells; id: that it tells.
Call = collections.namedtuple("Call", "kind what begin end status state id", defaults=(None, None))
Job = collections.namedtuple("Job", "id body state")  # id None: the answer that would have told it was lost


def submit(job, call):
    if job is None:
        if call.status is None or (call.status == 201 and call.state == "queued"):
            return [Job(call.id, call.what, "queued")]
        return []
    if call.status is None:
        return [job]
    if job.body != call.what:
        return [job] if call.status == 422 else []
    right = call.status == 201 and job.id in (None, call.id) and job.state == call.state
    return [job._replace(id=call.id)] if right else []


def show(job, call):
    here = job is not None and job.id in (None, call.what)
    if call.status == 404:
        return [job] if job is None or job.id != call.what else []
    return [job._replace(id=call.what)] if here and job.state == call.state else []


def ask(job, call):
    if job is None or job.id not in (None, call.what):
        return [job] if call.status in (404, None) else []
    found, after = job._replace(id=call.what), ASKED[call.kind]
    if call.status == 404:
        return [job] if job.id is None else []
    done = []
    if job.state in after:
        then = after[job.state] and found._replace(state=after[job.state])
        if call.status is None or call.status == 204 or (call.status == 200 and then and then.state == call.state):
            done.append(then)
    elif call.status == 409:
        done.append(found)
    if call.status is None:
        done.append(job)
    return done


def step(job, call):
    """The states that a call may leave behind it, given its answer; none where it cannot have been given so."""
    if call.kind == "submit":
        return submit(job, call)
    if call.kind == "show":
        return show(job, call)
    if call.kind == "absent":
        return [job] if job is None else []
    return ask(job, call)


def moved_on(jobs):
    """Those, and what they may have become by themselves."""
    reached, new = set(jobs), list(jobs)
    while new:
        job = new.pop()
        for state in BY_ITSELF.get(job.state, ()) if job else ():
            later = job._replace(state=state)
            if later not in reached:
                reached.add(later)
                new.append(later)
    return frozenset(reached)


def explain(calls):
    """None where the calls under one key can have been answered so; else why not, with the calls."""
    calls = sorted(calls, key=lambda call: call.begin)
    answered = [n for n, call in enumerate(calls) if call.status is not None]
    first, seen, furthest = (frozenset(), frozenset([None])), set(), frozenset()
    stack = [first]
    while stack:
        done, jobs = stack.pop()
        if len(done) > len(furthest):
            furthest = done
        open_ends = [calls[n].end for n in answered if n not in done]
        if not open_ends:
            return None
        until, since = min(open_ends), max((calls[n].begin for n in done), default=0)
        could = moved_on(jobs)
        for n, call in enumerate(calls):
            if call.begin > until:
                break
            if n in done or call.end < since:  # one without an answer that did nothing
                continue
            after = frozenset(then for job in could for then in step(job, call))
            state = (done | {n}, after)
            if after and state not in seen:
                seen.add(state)
                stack.append(state)
        if len(seen) > MOST_STEPS:
            return "undecided"
    told = "\n".join(f"  {'  ' if n in furthest else '* '}{call}" for n, call in enumerate(calls))
    return f"no order of these calls gives their answers (a star: not in the longest that was found)\n{told}"


def check_events(events):
    """{id: (type, ...)} of one job, as far as they were seen from the first on: no gap, and only what may follow. Returns what is wrong."""
    if sorted(events) != list(range(1, len(events) + 1)):
        return f"the ids of its events have a gap: {sorted(events)}"
    last = None
    for number in range(1, len(events) + 1):
        room, _, name = events[number][0].partition(".")
        if room != "job" and last != "started":
            return f"event {number}, {events[number][0]}, of a job that does not run ({last})"
        if room != "job":
            continue
        if name not in EVENTS[last]:
            return f"event {number}: {name} behind {last}"
        last = name
    return None

#!/usr/bin/env python3
"""schemathesis, with all its checks, against a live besad: what openapi.yaml says is what besad does.

Usage: tests/contract/run.py SCHEMATHESIS [EXAMPLES [SEED]]; SCHEMATHESIS is its program, EXAMPLES how many an
operation gets."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "api"))
from support import ROOT, Daemon, small_model  # noqa: E402

MAX_QUEUE = "100000"  # a full one answers 503 whatever is sent


def main():
    program, examples = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "100"
    daemon = Daemon("--queue-limit", MAX_QUEUE)
    try:
        small_model(daemon, 1)
        daemon.start()
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": os.path.join(HERE, "hooks.py"), "BESAD_TEST_MODEL": "small",
                       "BESAD_TEST_TOKENS": "tokens.safetensors"}
        done = subprocess.run([program, "--config-file", os.path.join(HERE, "schemathesis.toml"), "run",
                               os.path.join(ROOT, "openapi.yaml"), "--url", f"http://127.0.0.1:{daemon.port}", "--checks", "all",
                               "--max-examples", examples, "--seed", sys.argv[3] if len(sys.argv) > 3 else "1"], env=environment, cwd=daemon.directory)
        alive = daemon.process.poll() is None and daemon.get("/readyz").status == 200
        if not alive:
            print(daemon.condition(), file=sys.stderr)
        return done.returncode or not alive
    finally:
        daemon.remove()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""All that is to be learned in the first half hour on a machine with a GPU, in three groups of less than 8 minutes each:

    first_hour.py [--small] [--out DIR] [--results DIR] PART...      PART: 1, 2, 3, or the name of a step

    1   machine conformance sanitizers compare
    2   ops torch blocks
    3   choices ncu fault memory matvec

Every step's result is written as soon as it is there, into RESULTS/group-N.json and group-N.log, and copied to --out ($OUT by default, where it
is set). What is there already is not done again: a group that ran out of its time goes on where it stopped. A tool that is missing or refuses is
"skipped", with the reason; what breaks is "failed", and the next step runs; a wrong number ends the run with status 1. --small is for a machine
without a GPU: the emulator's sizes. Needs Python 3 alone. The page that a person reads is made of the results by first_hour_page.py."""
import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
KIT = os.path.dirname(HERE)
BIN = os.path.join(KIT, "bin")
GROUP_SECONDS = 460
KERNELS = ("bin_kernel", "keys_kernel", "queries_kernel", "forward_kernel", "rank_kernel", "gemm|xmma|nvjet|cutlass")


# What both backends prune the bundled model by: a precision, and a spec in place of BESA.
COMPARED = (("f32", None), ("bf16", None), ("f32", '{"method": "sparsegpt"}'), ("f32", '{"preset": "balanced", "refit": {"method": "global"}}'),
            ("bf16", '{"preset": "balanced", "refit": {"method": "global"}}'),
            ("f32", '{"method": "wanda", "quantization": {"bits": 3, "rounding": "feedback", "format": "dequantized"}}'),
            ("f32", '{"method": "besa", "quantization": {"bits": 3, "format": "dequantized"}, "refit": {"method": "block"}}'))


class Skipped(Exception):
    """Cannot be done here; its text says why."""


class Failed(Exception):
    """Broke, which is no wrong number."""


class Wrong(Exception):
    """A wrong number."""


class OutOfTime(Exception):
    """The group's time is over."""


def library_path():
    """Where cuBLASLt lies, if the loader does not know it."""
    places = [os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "lib64"), "/usr/local/nvidia/lib64"]
    for root in {p for p in sys.path if p.endswith("-packages")}:
        nvidia = os.path.join(root, "nvidia")
        for name in sorted(os.listdir(nvidia)) if os.path.isdir(nvidia) else []:
            places.append(os.path.join(nvidia, name, "lib"))
    return [p for p in places if os.path.isdir(p) and any(n.startswith("libcublasLt.so") for n in os.listdir(p))]


class Hour:
    def __init__(self, args):
        self.args, self.small = args, args.small
        self.deadline = None
        self.log = None
        with open(os.path.join(KIT, "kit.json")) as file:
            self.kit = json.load(file)
        self.emulated = self.kit["kind"] == "emulated"
        self.programs = args.programs or BIN
        self.environment = dict(os.environ)
        known = [os.environ.get("LD_LIBRARY_PATH", ""), *library_path()]
        self.environment["LD_LIBRARY_PATH"] = ":".join(p for p in known if p)
        self.environment["BESAD_TEST_BACKEND"] = "cuda"

    def left(self):
        return self.deadline - time.monotonic()

    def run(self, command, limit, environment=None, merge=True):
        """(exit status, output) of a command, all of its process group ended when its time is over."""
        limit = min(limit, self.left())
        if limit < 5:
            raise OutOfTime()
        self.log.write(f"\n$ {' '.join(map(str, command))}\n")
        self.log.flush()
        process = subprocess.Popen(command, cwd=KIT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if merge else self.log,
                                   env=environment or self.environment, start_new_session=True)
        late = threading.Event()

        def end():
            late.set()
            os.killpg(process.pid, signal.SIGKILL)
        timer = threading.Timer(limit, end)
        timer.start()
        out = process.communicate()[0].decode(errors="replace")
        timer.cancel()
        self.log.write(out[-200000:])
        self.log.flush()
        if late.is_set():
            if self.left() < 5:
                raise OutOfTime()
            raise Failed(f"{os.path.basename(str(command[0]))} did not end within {limit:.0f} s")
        return process.returncode, out

    def program(self, name):
        path = os.path.join(self.programs, name)
        if not os.access(path, os.X_OK):
            raise Skipped(f"{path} is not there")
        return path

    def json_of(self, command, limit, environment=None):
        status, out = self.run(command, limit, environment, merge=False)
        if status == 3:
            raise Skipped(f"{os.path.basename(str(command[1]))} says it cannot run here: see the log")
        if status:
            raise Failed(f"status {status}; the log has the reason")
        return json.loads(out)

    def device_only(self, what):
        if self.emulated:
            raise Skipped(f"{what} needs a device; this kit computes on the emulator")

    # ---- group 1 -------------------------------------------------------------------------------------------------------------------

    def machine(self):
        def said(*command):
            try:
                status, out = self.run(command, 20)
                return out.strip() if status == 0 else f"skipped: {(out.strip().splitlines() or [f'status {status}'])[-1][-200:]}"
            except FileNotFoundError:
                return "skipped: not installed"
        libraries = library_path()
        return {"kit": self.kit, "system": platform.platform(), "glibc": " ".join(platform.libc_ver()), "python": platform.python_version(),
                "processors": os.cpu_count(),
                "gpu": said("nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm,power.limit", "--format=csv"),
                "nvcc": said(shutil.which("nvcc") or os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin", "nvcc"), "--version"),
                "cublaslt": sorted({n for p in libraries for n in os.listdir(p) if n.startswith("libcublasLt.so.")}) or "skipped: not found",
                "cublaslt_in": libraries,
                "torch": said(sys.executable, "-c", "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())"),
                "besad": said(self.program("besad"), "--version")}

    def test(self, name):
        status, out = self.run([self.program(name)], 240)
        failures = re.findall(r"^\[  ?FAILED  ?\] (\w+)$", out, re.M)
        device = re.search(r"^backend \w+: (.*)$", out, re.M)
        result = {"seconds": None, "device": device and device[1], "passed": len(re.findall(r"^\[ +OK \]", out, re.M)),
                  "skipped": len(re.findall(r"^\[? *SKIPPED", out, re.M))}
        if failures:
            raise Wrong(f"{name}: {', '.join(sorted(set(failures)))} failed")
        if status:
            raise Failed(f"{name} ended with status {status}")
        return result

    def tests(self):
        """The kit's, the longest last."""
        return sorted((name for name in os.listdir(BIN) if name.startswith("test_")), key=lambda name: (name == "test_device_sizes", name))

    def conformance(self):
        none = re.search(r"^no backend: (.*)$", self.run([self.program("test_refusals")], 60)[1], re.M)
        if none:
            raise Failed(none[1])  # a test that fails for lack of a device is no wrong number
        results, broken, programs = {}, [], self.tests()
        for name in programs:
            if self.small and name in ("test_conformance_experts", "test_recorded_learning"):
                results[name] = "skipped: takes the emulator too long; make check has it"
                continue
            start = time.monotonic()
            try:
                results[name] = self.test(name)
                results[name]["seconds"] = round(time.monotonic() - start, 1)
            except (Skipped, Failed) as reason:
                results[name] = f"{type(reason).__name__.lower()}: {reason}"
                broken += [name] if isinstance(reason, Failed) else []
        if len(broken) == len(programs):
            raise Failed("no conformance program ran; the log has the reasons")
        return results

    def sanitizers(self):
        tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        self.device_only("compute-sanitizer")
        if not os.access(tool, os.X_OK):
            raise Skipped("compute-sanitizer is not installed")
        results = {}
        for checker in ("memcheck", "racecheck", "synccheck", "initcheck"):
            for name, *sizes in (("cuda_matvec", "64"), ("test_gradients",), ("test_conformance_pruning",), ("test_conformance",)):
                if sizes and checker == "initcheck":
                    continue  # cuBLAS is in it, whose own reads are nobody's finding
                try:
                    status, out = self.run([tool, "--tool", checker, "--error-exitcode", "99", self.program(name), *sizes],
                                           25)
                except Failed as reason:
                    results[f"{checker} {name}"] = f"skipped: {reason}"
                    continue
                summary = re.findall(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", out)
                if not summary:
                    results[f"{checker} {name}"] = f"skipped: it refused: {out.strip()[-200:]}"
                else:
                    results[f"{checker} {name}"] = int("".join(summary[-1]))
        if any(isinstance(n, int) and n for n in results.values()):
            raise Wrong(f"compute-sanitizer found something: {json.dumps(results)}")
        return results

    def compare(self):
        few = ["--samples", "1", "--windows", "1"] if self.small else []
        results = {}
        for precision, spec in COMPARED:
            name = f"{precision} {spec}" if spec else precision
            status, out = self.run([sys.executable, os.path.join(KIT, "tests", "cuda", "compare.py"), self.program("besad"), "--precision",
                                    precision, *few, *(("--spec", spec) if spec else ())], 240)
            lines = re.findall(r"^(\S+ (?:dense|pruned)): cuda ([0-9.]+), cpu ([0-9.]+)", out, re.M)
            if len(lines) < 2:
                raise Failed(f"compare.py, {name}, did not end: {out.strip()[-300:]}")
            results[name] = {which: {"cuda": float(a), "cpu": float(b)} for which, a, b in lines}
            if status:
                raise Wrong(f"{name}: {' '.join(out.split())[-300:]}")
        return results

    # ---- group 2 -------------------------------------------------------------------------------------------------------------------

    def scale(self):
        return ["64"] if self.small else ["1"]

    def ops(self):
        return {name: self.json_of([self.program("cuda_ops"), "cuda", *self.scale(), *pad], 150)
                for name, pad in (("unpadded", []), ("padded", ["--pad", "64"]))}

    def torch(self):
        self.device_only("torch's matmul and attention")
        return self.json_of([sys.executable, os.path.join(HERE, "cuda_torch.py")], 90, dict(os.environ))  # with its own cuBLAS

    def blocks(self):
        rates = self.saved("ops")
        peak = rates["unpadded"]["matmul"]["tflops"] if isinstance(rates, dict) else None
        shapes = ("small",) if self.small else ("llama-7b", "llama-2-70b")
        results = {}
        for shape in shapes:
            sizes = ["--samples", "2", "--length", "32", "--runs", "1"] if self.small else ["--runs", "2" if shape == "llama-7b" else "1"]
            command = [sys.executable, os.path.join(HERE, "cuda_block.py"), "--besad", self.program("besad"), "--shapes", shape, *sizes]
            command += ["--matmul-tflops", str(peak)] if peak else ["--ops", self.program("cuda_ops")]
            results[shape] = self.json_of(command, 240)["blocks"][shape]
        return results

    # ---- group 3 -------------------------------------------------------------------------------------------------------------------

    def choices(self):
        return self.json_of([self.program("cuda_choices"), *self.scale()], 180)

    def ncu(self):
        self.device_only("ncu")
        tool = shutil.which("ncu") or next((p for p in ("/usr/local/cuda/bin/ncu", "/opt/nvidia/nsight-compute/ncu") if os.access(p, os.X_OK)), None)
        if not tool:
            raise Skipped("ncu is not installed")
        metrics = ("gpu__time_duration.sum,sm__throughput.avg.pct_of_peak_sustained_elapsed,dram__throughput.avg.pct_of_peak_sustained_elapsed,"
                   "sm__warps_active.avg.pct_of_peak_sustained_active,launch__registers_per_thread,launch__shared_mem_per_block_dynamic,"
                   "sm__inst_executed_pipe_tensor.sum,l1tex__data_bank_conflicts_pipe_lsu.sum")
        ops = {"bin_kernel": "binned_gradient", "keys_kernel": "attention_backward", "queries_kernel": "attention_backward",
               "forward_kernel": "attention_forward", "rank_kernel": "rank_rows"}
        results = {}
        for kernel in KERNELS:
            status, out = self.run([tool, "--clock-control", "none", "--kernel-name", f"regex:{kernel}", "--launch-skip", "1", "--launch-count",
                                    "1", "--metrics", metrics, "--csv", self.program("cuda_ops"), "cuda", "1", "--only",
                                    ops.get(kernel, "matmul (forward)")], 60)
            rows = [re.findall(r'"([^"]*)"', line) for line in out.splitlines() if line.startswith('"')]
            found = {row[-3]: f"{row[-1]} {row[-2]}".strip() for row in rows[1:]}
            results[kernel] = found or f"skipped: it refused (status {status}): {out.strip()[-200:]}"
        return results

    def fault(self):
        status, out = self.run([self.program("cuda_fault")], 60, merge=False)
        try:
            result = json.loads(out)
        except ValueError as error:
            raise Failed(f"status {status}; the log has the reason") from error
        if status:
            raise Wrong(f"the fault drill: {json.dumps(result)}")
        return result

    def memory(self):
        """What a job is predicted to take, which it says when it is refused, beside what the driver counts while it runs."""
        self.device_only("the memory that a driver counts")
        if not shutil.which("nvidia-smi"):
            raise Skipped("nvidia-smi is not installed")
        sys.path.insert(0, HERE)
        import cuda_block
        results = {}
        for shape in ("llama-7b", "llama-2-70b"):
            with tempfile.TemporaryDirectory() as directory:
                job = cuda_block.prepare(directory, shape, 128, 2048)
                command = [self.program("besad"), "run", "--backend", "cuda", "--model-root", directory, "--data-root", directory,
                           "--output-root", directory]
                out = self.run([*command, "--device-memory", "80M", job], 60)[1]
                predicted = re.search(r"needs (\d+) MiB of device memory", out)
                peak, stop = [0], threading.Event()

                def used():
                    return int(subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], check=True,
                                              stdout=subprocess.PIPE).stdout.split()[0])

                def watch():
                    while not stop.wait(0.1):
                        peak[0] = max(peak[0], used())
                before = used()
                watcher = threading.Thread(target=watch)
                watcher.start()
                try:
                    status = self.run([*command, job], 120)[0]
                finally:
                    stop.set()
                    watcher.join()
                least = predicted and int(predicted[1])
                hidden = cuda_block.SHAPES[shape][0]
                # What is refused would have kept both streams of hidden states on the host, with room for two batches of 4 each.
                streams = 2 * (128 - 2 * 4) * 2048 * hidden * 4 >> 20
                results[shape] = {"predicted_mib": least and least + streams, "before_mib": before, "peak_mib": peak[0], "status": status}
        return results

    def matvec(self):
        """Products of pruned weights as in decoding, beside the best dense ones."""
        status, out = self.run([self.program("cuda_matvec"), *self.scale()], 200, merge=False)
        if status == 4:
            raise Wrong("a product of cuda_matvec is wrong: the log says which")
        if status:
            raise Failed(f"status {status}; the log has the reason")
        return json.loads(out)

    # ---- the groups ----------------------------------------------------------------------------------------------------------------

    GROUPS = {"1": ("machine", "conformance", "sanitizers", "compare"), "2": ("ops", "torch", "blocks"),
              "3": ("choices", "ncu", "fault", "memory", "matvec")}

    def path(self, name):
        return os.path.join(self.args.results, name)

    def read(self, group):
        try:
            with open(self.path(f"group-{group}.json")) as file:
                return json.load(file)
        except FileNotFoundError:
            return {"kind": self.kit["kind"], "small": self.small, "steps": {}}

    def saved(self, step):
        group = next(g for g, steps in self.GROUPS.items() if step in steps)
        return self.read(group)["steps"].get(step, {}).get("result")

    def write(self, group, results):
        temporary = self.path(f"group-{group}.json.new")
        with open(temporary, "w") as file:
            json.dump(results, file, indent=1)
        os.replace(temporary, self.path(f"group-{group}.json"))
        self.log.flush()
        if self.args.out:
            for name in (f"group-{group}.json", f"group-{group}.log"):
                shutil.copyfile(self.path(name), os.path.join(self.args.out, name))

    def do(self, group, steps):
        """Whether no number was wrong."""
        self.deadline = time.monotonic() + self.args.seconds
        results = self.read(group)
        if (results["kind"], results["small"]) != (self.kit["kind"], self.small):
            sys.exit(f"{self.args.results} has results of another kind; name another directory by --results")
        with open(self.path(f"group-{group}.log"), "a") as self.log:
            for step in steps:
                if results["steps"].get(step, {}).get("state") in ("done", "skipped"):
                    print(f"{step}: {results['steps'][step]['state']} before", flush=True)
                    continue
                start = time.monotonic()
                entry = {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
                try:
                    entry |= {"state": "done", "result": getattr(self, step)()}
                except Skipped as reason:
                    entry |= {"state": "skipped", "why": str(reason)}
                except Wrong as reason:
                    entry |= {"state": "wrong", "why": str(reason)}
                except OutOfTime:
                    entry |= {"state": "not done", "why": f"the group's {self.args.seconds} s were over: run it again"}
                except Exception as reason:  # what nobody foresaw fails its own step alone
                    entry |= {"state": "failed", "why": f"{type(reason).__name__}: {reason}"}
                entry["seconds"] = round(time.monotonic() - start, 1)
                results["steps"][step] = entry
                self.write(group, results)
                print(f"{step}: {entry['state']} ({entry['seconds']} s){': ' + entry['why'] if 'why' in entry else ''}", flush=True)
                if entry["state"] == "wrong":
                    return False
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", metavar="PART")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--results", default=os.path.join(KIT, "results"))
    parser.add_argument("--out", default=os.environ.get("OUT"))
    parser.add_argument("--programs", help="a directory of programs in place of the kit's: build/only, where those do not start")
    parser.add_argument("--seconds", type=float, default=GROUP_SECONDS, help="of a group")
    args = parser.parse_args()
    os.makedirs(args.results, exist_ok=True)
    if args.out:
        os.makedirs(args.out, exist_ok=True)
    hour = Hour(args)
    for part in args.parts:
        found = [(g, steps if part == g else (part,)) for g, steps in Hour.GROUPS.items() if part == g or part in steps]
        if not found:
            parser.error(f"no part {part}")
        good = hour.do(*found[0])
        page = os.path.join(args.results, "first-hour.md")
        with open(page, "w") as file:
            subprocess.run([sys.executable, os.path.join(HERE, "first_hour_page.py"), args.results], stdout=file, check=True)
        if args.out:
            shutil.copyfile(page, os.path.join(args.out, "first-hour.md"))
        if not good:
            sys.exit(1)


if __name__ == "__main__":
    main()

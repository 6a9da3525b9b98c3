"""What is measured: the gateway on each of its data paths, and its peers. Each is a row of the tables."""

import json
import pathlib
import shutil
import urllib.request

from machine import Failed, Program, first_line, is_open, wait_until

HERE = pathlib.Path(__file__).resolve().parent
CLIENT, RUNNER, ADMIN = "bench-client", "bench-runner", "bench-admin"
MODEL = "mock-model"
SERVERS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
# Where the gateway's metrics are, from its own port on.
OBSERVABILITY = 2
# Requests at once of one runner that dials in; far above what any test has under way.
SLOTS = 16_384


class Setup:
    """One arrangement of engines and cores, in which rows are started one after the other."""

    def __init__(self, programs, folder, ports, engines, peer_cores, load_cores, file_limit, threads=1, vllm_router=None):
        self.programs = programs
        self.folder = folder
        self.port = ports
        self.engines = range(ports + 100, ports + 100 + engines)
        self.peer_cores, self.load_cores = peer_cores, load_cores
        self.threads = threads
        self.vllm_router = vllm_router
        self.connections = 65_000
        self.file_limit = file_limit

    def program(self, name):
        return self.programs / name

    def start(self, command, cores, log, **options):
        return Program(command, cores, self.folder / f"{log}.log", **options)

    def start_engine(self):
        """The mock engine, on all its ports."""
        taken = [port for port in (*self.engines, self.port) if is_open(port)]
        if taken:
            raise Failed(f"ports {taken[:5]} are in use; is another run going on? else choose others with --ports")
        command = [self.program("rig_engine"), "--ports", f"{self.engines[0]}-{self.engines[-1]}"]
        engine = self.start(command, self.load_cores, "engine")
        wait_until("the mock engine", 20, lambda: is_open(self.engines[-1]), engine)
        return engine

    def totals(self):
        return get(f"http://127.0.0.1:{self.engines[0]}/totals")


def get(url, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return json.loads(answer.read())


def completes(port, headers):
    """Whether a completion comes back."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "@mock chunks=1; hello"}]}).encode()
    headers = dict(header.split(": ", 1) for header in headers) | {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status == 200


class Started:
    """A row that is up: the program whose use of the machine counts, and where it is reached."""

    def __init__(self, setup, program=None, helpers=(), port=None, headers=()):
        self.setup, self.program, self.helpers = setup, program, list(helpers)
        self.port = port or setup.port
        self.headers = list(headers)

    def until_ready(self, seconds=60):
        programs = [one for one in (self.program, *self.helpers) if one]
        wait_until("a completion", seconds, lambda: completes(self.port, self.headers), *programs)

    def cpu_seconds(self):
        return self.program.cpu_seconds() if self.program else 0.0

    def rss_kib(self):
        return self.program.rss_kib() if self.program else 0

    def stop(self):
        for program in (self.program, *self.helpers):
            if program:
                program.stop()


class Direct:
    """No gateway: what mock engine and load cost by themselves."""

    name, ours = "direct", False

    def missing(self, setup):
        return None

    def version(self, setup):
        return None

    def start(self, setup):
        return Started(setup, port=setup.engines[0])


class Proxy:
    """A proxy with a configuration file."""

    ours = False

    def __init__(self, name, version, command):
        self.name, self.arguments, self.command = name, version, command

    def path(self):
        return shutil.which(self.name) or shutil.which(self.name, path=":".join(SERVERS))

    def missing(self, setup):
        return None if self.path() else f"{self.name} is not installed"

    def version(self, setup):
        return first_line(self.path(), self.arguments)

    def start(self, setup):
        (template,) = (HERE / "conf").glob(f"{self.name}.*.in")
        file = setup.folder / template.stem
        file.write_text(render(template.read_text(), setup))
        command = [self.path(), *self.command, file]
        return Started(setup, setup.start(command, setup.peer_cores, self.name))


def render(template, setup):
    """Fills in a template; a line with @ENGINE@ is there once for each engine."""
    values = {
        "@THREADS@": setup.threads,
        "@CONNECTIONS@": min(setup.connections, setup.file_limit // 2 - 100),
        "@PORT@": setup.port,
        "@FOLDER@": setup.folder,
    }
    for name, value in values.items():
        template = template.replace(name, str(value))
    lines = []
    for line in template.splitlines():
        engines = setup.engines if "@ENGINE@" in line else [None]
        lines += [line.replace("@ENGINE@", str(engine)) for engine in engines]
    return "\n".join(lines) + "\n"


class VllmRouter:
    """The router of the vLLM project, from the Python package `vllm-router`."""

    name, ours = "vllm-router", False

    def path(self, setup):
        return setup.vllm_router or shutil.which("vllm-router")

    def missing(self, setup):
        return None if self.path(setup) else "vllm-router is not installed; see --vllm-router"

    def version(self, setup):
        # It does not tell; what pip wrote beside it does.
        installed = pathlib.Path(self.path(setup)).resolve().parents[1].glob("lib/*/site-packages/vllm_router-*.dist-info")
        return next((folder.name.removesuffix(".dist-info") for folder in installed), "of unknown version")

    def start(self, setup):
        urls = [f"http://127.0.0.1:{port}" for port in setup.engines]
        metrics = ["--prometheus-host", "127.0.0.1", "--prometheus-port", setup.port + 1]
        limits = ["--max-concurrent-requests", 100_000, "--log-level", "warning"]
        place = ["--host", "127.0.0.1", "--port", setup.port]
        command = [self.path(setup), *place, "--worker-urls", *urls, "--policy", "round_robin", *metrics, *limits]
        return Started(setup, setup.start(command, setup.peer_cores, self.name))


class Gateway:
    """`standalone`, with authentication, metrics and request logging on, and runners on one data path."""

    ours = True

    def __init__(self, path):
        self.name = self.way = path

    def missing(self, setup):
        return None

    def version(self, setup):
        return None

    def start(self, setup):
        config = setup.folder / "standalone.toml"
        config.write_text(self.config(setup))
        listen = ["--listen", f"127.0.0.1:{setup.port}", "--workers", setup.threads]
        command = [setup.program("standalone"), *listen, "--config", config]
        environment = {"RUST_LOG": "info"}
        program = setup.start(command, setup.peer_cores, "standalone", env=environment)
        started = Started(setup, program, headers=[f"Authorization: Bearer {CLIENT}"])
        try:
            wait_until("standalone", 30, lambda: is_open(setup.port), program)
            started.helpers = self.helpers(setup)
            self.wait_for_runners(setup, len(setup.engines), started)
        except BaseException:
            started.stop()
            raise
        return started

    def config(self, setup):
        lines = [
            f'observability = "127.0.0.1:{setup.port + OBSERVABILITY}"',
            f'client_tokens = ["{CLIENT}"]',
            f'admin_tokens = ["{ADMIN}"]',
            f'runner_token = "{RUNNER}"',
            'strategy = "round-robin"',
            "[limits]",
            f"max_connections = {setup.connections}",
        ]
        for port in setup.engines:
            if self.way == "http":
                lines += ["[[runner]]", f'url = "http://127.0.0.1:{port}"', f'models = ["{MODEL}"]']
            elif self.way == "grpc":
                lines += ["[[grpc.runner]]", f'address = "127.0.0.1:{self.worker(port)}"', f'models = ["{MODEL}"]']
        return "\n".join(lines) + "\n"

    @staticmethod
    def worker(port):
        """The port of the gRPC worker that stands for the engine at `port`."""
        return port + 2000

    def helpers(self, setup):
        """The programs that bring the runners in, on the load's core: they are no part of the gateway."""
        if self.way == "grpc":
            ports = f"{self.worker(setup.engines[0])}-{self.worker(setup.engines[-1])}"
            return [setup.start([setup.program("grpc_worker"), ports, MODEL], setup.load_cores, "grpc-worker")]
        if self.way in ("tunnel", "dial-back"):
            command = [setup.program("rig_runners"), "--gateway", f"ws://127.0.0.1:{setup.port}", "--token", RUNNER]
            command += ["--engines", f"{setup.engines[0]}-{setup.engines[-1]}", "--slots", SLOTS]
            command += ["--dial-back"] if self.way == "dial-back" else []
            return [setup.start(command, setup.load_cores, "runners")]
        return []

    def wait_for_runners(self, setup, count, started):
        def all_there():
            runners = get(f"http://127.0.0.1:{setup.port}/runners", ADMIN)["runners"]
            return sum(runner["health"] == "healthy" for runner in runners) >= count

        if count:
            wait_until(f"{count} runners", 120, all_there, started.program, *started.helpers)


ROWS = [
    Direct(),
    Proxy("nginx", "-v", ["-c"]),
    Proxy("haproxy", "-v", ["-db", "-f"]),
    VllmRouter(),
    Gateway("http"),
    Gateway("dial-back"),
    Gateway("tunnel"),
    Gateway("grpc"),
]

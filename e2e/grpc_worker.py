"""An AiInference worker written from the contract's description alone, with nothing of this project in it.

Says what it sees, one JSON object a line. Times are of the machine's monotonic clock, which all processes share.
"""

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import grpc

from grpc_contract import DIALECTS, stubs

LOADING = "[模型加载]"
# What a worker takes if a parameter is unset, that is zero.
DEFAULTS = {"max_new_tokens": 256, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.0}

_stdout = threading.Lock()


def tell(event: str, **what: object) -> None:
    line = json.dumps({"event": event, "at": time.monotonic(), **what}, ensure_ascii=False)
    with _stdout:
        print(line, flush=True)


class Worker:
    """All that a worker does; the generated servicer's methods by name."""

    def __init__(self, options: argparse.Namespace, messages):
        self.options = options
        self.messages = messages
        self.models = list(options.model)
        self.cold = set(self.models) if options.cold else set()
        self.lock = threading.Lock()
        self.inflight = self.success = self.failed = 0
        # Threads of the server that sleep between two words wake up when it ends.
        self.ending = threading.Event()

    def StreamPredict(self, requests: Iterator, context: grpc.ServicerContext) -> Iterator:
        self.let_in(context)
        request = next(iter(requests), None)
        if request is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream has no request")
        asked = request.generation
        parameters = {name: getattr(asked, name) or default for name, default in DEFAULTS.items()}
        extra = getattr(request.metadata, "extra", {})
        tell(
            "predict",
            model=request.model_id,
            prompt=request.prompt,
            adapter=request.adapter,
            priority=request.priority,
            worker_hint=request.worker_hint,
            sent={name: getattr(asked, name) for name in DEFAULTS},
            parameters=parameters,
            trace_id=request.metadata.trace_id,
            tenant=getattr(request.metadata, "tenant", None),
            extra=dict(extra),
            metadata={key: value for key, value in context.invocation_metadata() if isinstance(value, str)},
            time_remaining=context.time_remaining(),
        )
        with self.lock:
            self.inflight += 1
        ended = {"whole": False}

        def over() -> None:
            tell("ended", whole=ended["whole"], prompt=request.prompt)
            with self.lock:
                self.inflight -= 1
                self.success += ended["whole"]
                self.failed += not ended["whole"]

        # Called as soon as the call is over, by whomever it is ended.
        if not context.add_callback(over):
            over()
            return
        self.may_refuse(request, context)
        yield from self.answer(request, parameters, context)
        ended["whole"] = True

    def may_refuse(self, request, context: grpc.ServicerContext) -> None:
        if request.model_id not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no model {request.model_id}")
        if not request.prompt:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the prompt is empty")
        with self.lock:
            is_full = self.options.slots and self.inflight > self.options.slots
        if is_full:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no memory for another sequence")
        # So that a test can have any status.
        words = request.prompt.split()
        for code in (word.removeprefix("abort:") for word in words if word.startswith("abort:")):
            context.abort(grpc.StatusCode[code], f"told to fail with {code}")

    def answer(self, request, parameters: dict, context: grpc.ServicerContext) -> Iterator:
        trace_id = request.metadata.trace_id
        response = self.messages.StreamPredictResponse
        with self.lock:
            is_cold = request.model_id in self.cold
            self.cold.discard(request.model_id)
        for percent in (0, 50, 100) if is_cold else ():
            yield response(trace_id=trace_id, chunk=f"{LOADING} {request.model_id}: {percent}%\n")
            self.ending.wait(0.02)
        began = time.monotonic()
        words = min(self.options.words, int(parameters["max_new_tokens"]))
        for index in range(words):
            if index or self.options.delay_first:
                self.ending.wait(self.options.delay)
            if not context.is_active() or self.ending.is_set():
                return
            ttft = (time.monotonic() - began) * 1000
            yield response(trace_id=trace_id, chunk=f"word{index} ", index=index, ttft_ms=ttft)
        rate = words / max(time.monotonic() - began, 1e-6)
        yield response(trace_id=trace_id, chunk="", end_of_stream=True, index=words, tokens_per_sec=rate)

    def Control(self, request, context: grpc.ServicerContext):
        self.let_in(context)
        tell("control", command=request.command, payload=dict(request.payload))
        payload = {"status": "ok", "message": ""}
        match request.command:
            case "list_models":
                payload["models"] = ",".join(self.models)
            case "unload_model":
                model = request.payload.get("model_id", "")
                if model in self.models:
                    self.cold.add(model)
                else:
                    payload = {"status": "error", "message": f"there is no model {model}"}
            case "ping":
                payload["message"] = "pong"
            case unknown:
                payload = {"status": "error", "message": f"unknown command: {unknown}"}
        return self.messages.ControlMessage(
            trace_id=request.trace_id, command=f"{request.command}_response", payload=payload
        )

    def Health(self, request, context: grpc.ServicerContext):
        with self.lock:
            metrics = {
                "requests_inflight": str(self.inflight),
                "requests_success": str(self.success),
                "requests_failed": str(self.failed),
                "backend": "python",
                "cuda_available": "False",
            }
        return self.messages.WorkerHealthResponse(healthy=True, metrics=metrics)

    def let_in(self, context: grpc.ServicerContext) -> None:
        """Health is open, all else needs the token if there is one."""
        if not self.options.token:
            return
        told = dict(context.invocation_metadata()).get("authorization")
        if told != f"Bearer {self.options.token}":
            tell("refused", authorization=told)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialect", choices=DIALECTS, default=DIALECTS[0])
    parser.add_argument("--listen", default="127.0.0.1:0", help="host:port or unix:PATH")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--token", default="")
    parser.add_argument("--cold", action="store_true", help="the first answer of a model begins with its loading")
    parser.add_argument("--words", type=int, default=8, help="in each answer, if as many are asked for")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds between two words")
    parser.add_argument("--delay-first", action="store_true", help="and before the first one")
    parser.add_argument("--slots", type=int, default=0)
    options = parser.parse_args()

    messages, service = stubs(options.dialect)
    worker = Worker(options, messages)
    limits = [("grpc.max_receive_message_length", 100 << 20), ("grpc.max_send_message_length", 100 << 20)]
    # Two servers on one port would each get some of the connections, and nobody would notice.
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=32), options=[*limits, ("grpc.so_reuseport", 0)]
    )
    service.add_AiInferenceServicer_to_server(worker, server)
    port = server.add_insecure_port(options.listen)
    server.start()
    address = options.listen if options.listen.startswith("unix:") else f"{options.listen.rpartition(':')[0]}:{port}"
    tell("listening", address=address, dialect=options.dialect)
    asked_to_end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_end.set())
    asked_to_end.wait()
    worker.ending.set()
    server.stop(grace=1).wait()
    sys.exit(0)


if __name__ == "__main__":
    main()

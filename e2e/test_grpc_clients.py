"""Clients written with grpcio call the gateway, which serves them with real engines of other transports."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from grpc_contract import DIALECTS, stubs
from processes import ADMIN_TOKEN, CLIENT_TOKEN, MODEL, PATIENCE, REPOSITORY, Gateway, Programs, until

SERVICES = {"packaged": "cy.llm.AiInference", "plain": "AiInference"}

# How a client reaches the gateway, and how the gateway reaches the engine.
WAYS = {"tcp": "http", "unix": "websocket", "port of the HTTP API": "websocket"}


class Reached:
    """A gateway with one engine, and how it is called."""

    def __init__(self, programs: Programs, folder: Path, way: str, behind: str, config: str = "", slots: int = 4):
        # Short: the path of a Unix socket has room for about a hundred characters.
        listen = {"tcp": "127.0.0.1:0", "unix": f"unix:{folder}/g.sock"}.get(way, "http")
        engine = programs.engine(f"engine-{way}", slots=slots)
        if behind == "http":
            config += f'\n[[runner]]\nurl = "{engine}"\nid = "engine"\nslots = {slots}\n'
        self.gateway: Gateway = programs.gateway(f"gateway-{way}", config, {"GATEWAY_GRPC_LISTEN": listen})
        if behind == "websocket":
            programs.runner("engine", self.gateway, engine)
        self.gateway.wait_for_runners("engine")
        if listen == "http":
            self.target = self.gateway.address
        else:
            self.target = self.gateway.program.until_printed(r"gRPC listening address=(\S+)")[1]
        self.channel = grpc.insecure_channel(self.target)

    def stub(self, dialect: str) -> tuple[ModuleType, object]:
        messages, services = STUBS[dialect]
        return messages, services.AiInferenceStub(self.channel)


STUBS = {dialect: stubs(dialect) for dialect in DIALECTS}


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.split()[0])
def reached(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    folder = tmp_path_factory.mktemp("grpc")
    programs = Programs(folder)
    way = Reached(programs, folder, request.param, WAYS[request.param])
    yield way
    way.channel.close()
    programs.end()


def as_caller(token: str = CLIENT_TOKEN) -> dict:
    return {"metadata": (("authorization", f"Bearer {token}"),), "timeout": PATIENCE}


def asked(messages: ModuleType, tokens: int = 12, **fields: object) -> object:
    generation = messages.GenerationParameters(max_new_tokens=tokens)
    trace = messages.StreamMetadata(trace_id="trace-7")
    fields = {"model_id": MODEL, "prompt": "Hello there", "generation": generation, "metadata": trace} | fields
    return messages.StreamPredictRequest(**fields)


def failure(call: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        list(call) if hasattr(call, "__next__") else call()
    return caught.value


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_request_is_streamed_from_the_engine(reached: Reached, dialect: str) -> None:
    messages, stub = reached.stub(dialect)
    answer = list(stub.StreamPredict(iter([asked(messages)]), **as_caller()))
    *parts, last = answer
    assert parts and all(part.chunk and not part.end_of_stream for part in parts)
    assert (last.chunk, last.end_of_stream) == ("", True)
    assert [part.index for part in answer] == list(range(len(answer)))
    assert {part.trace_id for part in answer} == {"trace-7"}
    assert parts[0].ttft_ms > 0 and last.tokens_per_sec > 0, (parts[0], last)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_requests_of_a_stream_are_served_in_order(reached: Reached, dialect: str) -> None:
    messages, stub = reached.stub(dialect)
    traces = [messages.StreamMetadata(trace_id=f"trace-{number}") for number in range(3)]
    requests = iter([asked(messages, tokens=4, metadata=trace) for trace in traces])
    answer = list(stub.StreamPredict(requests, **as_caller()))
    ends = [part.trace_id for part in answer if part.end_of_stream]
    assert ends == ["trace-0", "trace-1", "trace-2"]
    assert [part.trace_id for part in answer] == sorted(part.trace_id for part in answer)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_wrong_has_its_status(reached: Reached, dialect: str) -> None:
    messages, stub = reached.stub(dialect)
    wrong = failure(stub.StreamPredict(iter([asked(messages)]), **as_caller("wrong")))
    assert wrong.code() == grpc.StatusCode.UNAUTHENTICATED, wrong
    unknown = failure(stub.StreamPredict(iter([asked(messages, model_id="no-such")]), **as_caller()))
    assert unknown.code() == grpc.StatusCode.NOT_FOUND and "no-such" in unknown.details(), unknown
    control = messages.ControlMessage(command="list_models")
    refused = failure(lambda: stub.Control(control, **as_caller("wrong")))
    assert refused.code() == grpc.StatusCode.UNAUTHENTICATED, refused


@pytest.mark.parametrize("dialect", DIALECTS)
def test_control_and_health_tell_of_the_fleet(reached: Reached, dialect: str) -> None:
    messages, stub = reached.stub(dialect)
    listed = stub.Control(messages.ControlMessage(command="list_models", trace_id="t"), **as_caller())
    assert (listed.command, listed.trace_id) == ("list_models_response", "t")
    assert listed.payload["status"] == "ok" and MODEL in listed.payload["models"].split(",")
    pong = stub.Control(messages.ControlMessage(command="ping"), **as_caller())
    assert (pong.payload["status"], pong.payload["message"]) == ("ok", "pong")
    # Without credentials.
    health = stub.Health(messages.WorkerHealthRequest(), timeout=PATIENCE)
    assert health.healthy and health.metrics["runners"] == "1" and int(health.metrics["models"]) >= 1
    assert {"requests_inflight", "requests_success", "requests_failed", "backend", "version"} <= set(health.metrics)


def test_the_standard_health_says_serving(reached: Reached) -> None:
    stub = health_pb2_grpc.HealthStub(reached.channel)
    for service in ("", *SERVICES.values()):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


def test_reflection_tells_the_published_files(reached: Reached, tmp_path: Path) -> None:
    """Without the files a client can call; and they are what was published."""
    database = ProtoReflectionDescriptorDatabase(reached.channel)
    others = {"grpc.health.v1.Health", "inference_gateway.runner.v1.RunnerGateway"}
    assert {*SERVICES.values(), *others} <= set(database.get_services())

    pool = descriptor_pool.DescriptorPool(database)
    method = pool.FindServiceByName("cy.llm.AiInference").FindMethodByName("Health")
    asks, answers = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    call = reached.channel.unary_unary(
        "/cy.llm.AiInference/Health", request_serializer=asks.SerializeToString, response_deserializer=answers.FromString
    )
    assert call(asks(), timeout=PATIENCE).healthy

    protos = REPOSITORY / "gateway-transport-grpc" / "proto"
    for name in ("cy_llm.proto", "ai_inference.proto", "runner_gateway.proto"):
        out = tmp_path / name
        options = [f"-I{protos}", f"--descriptor_set_out={out}", name]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options], check=True)
        published = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
        told = database.FindFileByName(name)
        for file in (published, told):
            for message in [*file.message_type, *(inner for outer in file.message_type for inner in outer.nested_type)]:
                for field in message.field:
                    field.ClearField("json_name")
        assert told == published, name


def test_overload_says_when_to_come_back(programs: Programs, tmp_path: Path) -> None:
    one = Reached(programs, tmp_path, "tcp", "http", "[queue]\nmax_waiting = 0\n", slots=1)
    messages, stub = one.stub("packaged")
    long = stub.StreamPredict(iter([asked(messages, tokens=1500)]), **as_caller())
    next(long)
    refused = failure(stub.StreamPredict(iter([asked(messages)]), **as_caller()))
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, refused
    told = dict(refused.trailing_metadata())
    assert int(told["retry-after"]) >= 1
    assert b"type.googleapis.com/google.rpc.RetryInfo" in told["grpc-status-details-bin"]
    long.cancel()
    one.channel.close()


def test_a_cancel_frees_the_runner(programs: Programs, tmp_path: Path, figures: list[str]) -> None:
    one = Reached(programs, tmp_path, "tcp", "websocket")
    messages, stub = one.stub("plain")
    call = stub.StreamPredict(iter([asked(messages, tokens=1800)]), **as_caller())
    next(call)
    assert one.gateway.runners()["engine"]["in_flight"] == 1
    began = time.monotonic()
    call.cancel()
    until("the slot to be free", lambda: one.gateway.runners()["engine"]["in_flight"] == 0, patience=5)
    took = time.monotonic() - began
    figures.append(f"StreamPredict cancelled by a client of grpcio: slot free after {took * 1000:.0f} ms")
    assert took < 0.5, "100 ms and what looking takes on a busy machine"
    one.channel.close()


def test_draining_ends_what_is_under_way_in_order(programs: Programs, tmp_path: Path) -> None:
    one = Reached(programs, tmp_path, "unix", "http")
    messages, stub = one.stub("packaged")
    health = health_pb2_grpc.HealthStub(one.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    call = stub.StreamPredict(iter([asked(messages, tokens=300)]), **as_caller())
    next(call)
    one.gateway.program.process.send_signal(signal.SIGTERM)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert list(call)[-1].end_of_stream, "an answer under way is not cut"
    assert one.gateway.program.process.wait(PATIENCE) == 0
    assert not (tmp_path / "g.sock").exists()
    one.channel.close()


def test_an_admin_unloads_for_the_fleet_and_a_client_does_not(reached: Reached) -> None:
    messages, stub = reached.stub("packaged")
    unload = messages.ControlMessage(command="unload_model", payload={"model_id": "no-such"})
    refused = failure(lambda: stub.Control(unload, **as_caller()))
    assert refused.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED), refused
    answer = stub.Control(unload, **as_caller(ADMIN_TOKEN))
    assert answer.payload["status"] == "error" and "no-such" in answer.payload["message"]

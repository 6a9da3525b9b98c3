"""The AiInference contract in both dialects, as whoever writes the other side knows it: from the contract's description
alone. Nothing here is taken from this project's own files."""

import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from grpc_tools import protoc

_SERVICE = """
service AiInference {
  rpc StreamPredict(stream StreamPredictRequest) returns (stream StreamPredictResponse);
  rpc Control(ControlMessage) returns (ControlMessage);
  rpc Health(WorkerHealthRequest) returns (WorkerHealthResponse);
}
message StreamPredictRequest {
  string model_id = 1;
  string prompt = 2;
  string adapter = 3;
  int32 priority = 4;
  GenerationParameters generation = 5;
  StreamMetadata metadata = 6;
  string worker_hint = 7;
}
message ControlMessage {
  string trace_id = 1;
  string command = 2;
  map<string, string> payload = 3;
}
message WorkerHealthRequest { string trace_id = 1; }
message WorkerHealthResponse {
  bool healthy = 1;
  map<string, string> metrics = 2;
}
"""

PROTOS = {
    # As it is shipped.
    "packaged": """
syntax = "proto3";
package cy.llm;
message StreamMetadata {
  string trace_id = 1;
  string tenant = 2;
  string player_id = 3;
  string locale = 4;
  map<string, string> extra = 5;
}
message GenerationParameters {
  uint32 max_new_tokens = 1;
  double temperature = 2;
  double top_p = 3;
  double repetition_penalty = 4;
}
message StreamPredictResponse {
  string trace_id = 1;
  string chunk = 2;
  bool end_of_stream = 3;
  uint32 index = 4;
  float ttft_ms = 5;
  float tokens_per_sec = 6;
}
"""
    + _SERVICE,
    # As its document has it.
    "plain": """
syntax = "proto3";
message StreamMetadata { string trace_id = 1; }
message GenerationParameters {
  int32 max_new_tokens = 1;
  float temperature = 2;
  float top_p = 3;
  float repetition_penalty = 4;
}
message StreamPredictResponse {
  string trace_id = 1;
  string chunk = 2;
  bool end_of_stream = 3;
  int32 index = 4;
  float ttft_ms = 5;
  float tokens_per_sec = 6;
}
"""
    + _SERVICE,
}

DIALECTS = tuple(PROTOS)


def stubs(dialect: str) -> tuple[ModuleType, ModuleType]:
    """The messages and the service, compiled now with grpcio-tools."""
    name = f"contract_{dialect}"
    folder = Path(tempfile.mkdtemp(prefix="contract-"))
    (folder / f"{name}.proto").write_text(PROTOS[dialect])
    options = ["", f"-I{folder}", f"--python_out={folder}", f"--grpc_python_out={folder}", f"{name}.proto"]
    if protoc.main(options) != 0:
        raise RuntimeError(f"protoc does not take the {dialect} dialect")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"{name}_pb2"), importlib.import_module(f"{name}_pb2_grpc")
    finally:
        sys.path.remove(str(folder))

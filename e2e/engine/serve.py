"""llama.cpp's HTTP server, out of the xllamacpp wheel. Stays in the foreground until SIGTERM or ctrl-C.

Prints `listening http://127.0.0.1:PORT` when it serves.
"""

import argparse
import os
import signal

import xllamacpp


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("model")
    flags.add_argument("--port", type=int, required=True)
    flags.add_argument("--slots", type=int, default=4, help="requests at once")
    flags.add_argument("--context", type=int, default=2048, help="tokens for each of them")
    flags = flags.parse_args()

    # The server's threads must not get the signals: they are waited for below.
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)

    wanted = xllamacpp.CommonParams()
    wanted.model.path = flags.model
    wanted.model_alias = {"tiny-random"}
    wanted.hostnames = ["127.0.0.1"]
    wanted.port = flags.port
    wanted.n_parallel = flags.slots
    wanted.n_ctx = flags.slots * flags.context
    wanted.n_gpu_layers = 0
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = 1
    wanted.use_jinja = True
    wanted.endpoint_slots = wanted.endpoint_props = wanted.endpoint_metrics = True
    server = xllamacpp.Server(wanted)
    print("listening", server.listening_address, flush=True)
    signal.sigwait(ends)
    # Requests under way would keep the server's destructor waiting.
    os._exit(0)


if __name__ == "__main__":
    main()

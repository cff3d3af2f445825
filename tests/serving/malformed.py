"""Sends a model server requests that nobody should send, by a seed, and watches what it does.

`python -m tests.serving.malformed MODELS --requests 10000` runs it against a server of its own for a folder of models,
which should hold `recommender` and a model whose input is serialized examples.
"""

import argparse
import contextlib
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
PREDICT = "/tensorflow.serving.PredictionService/Predict"
ROW = {"user_id": 7, "history_movie_ids": [1, 2], "history_ratings": [3.0, 4.0]}

# What a status may be: the client's fault in some way, or an answer, since not every mutation makes a request invalid.
REST_STATUSES = {200, 400, 404, 413, 429, 431, 501}
GRPC_CODES = {
    grpc.StatusCode[name]
    for name in ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED")
}

VALUES = [
    *(None, True, 0, -1, 1.5, 2**31, 2**63, 10**400, float("nan"), float("inf"), "", "é", "\ud800", "x" * 3000),
    *([], [[]], [1, [2]], [None], ["a", 1], [[1, 2], [3]], {}, {"b64": "//8="}, {"b64": "%"}, {"b64": 1}),
    *([0] * 2000, [[0] * 300] * 300, json.loads("[" * 65 + "]" * 65), json.loads("[" * 200 + "]" * 200)),
]
SIZES = [-(2**63), -2, -1, 0, 1, 2, 3, 255, 257, 65536, 2**31, 2**40, 2**62, 2**63 - 1]


class Attacker:
    """Makes and sends requests to the ports of a server.

    Args:
      rng: source of all choices.
      port: gRPC port.
      rest_port: REST port.
      examples_model: a model whose only input is `examples`.
    """

    def __init__(self, rng: random.Random, port: int, rest_port: int, examples_model: str):
        self.rng, self.port, self.rest_port = rng, port, rest_port
        self.models = ["recommender", examples_model]
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def send(self) -> None:
        """Sends one request and notes what came back."""
        kind = self.rng.choice([self.json_request, self.rest_path, self.grpc_tensors, self.grpc_bytes, self.raw_bytes])
        outcome = kind()
        self.outcomes[f"{kind.__name__} {outcome}"] += 1

    def json_request(self) -> str:
        model = self.rng.choice(self.models)
        row = dict(ROW) if model == "recommender" else {"examples": "x"}
        document: dict[str, Any]
        if self.rng.random() < 0.5:
            document = {"instances": [dict(row) for _ in range(self.rng.choice([1, 2, 5]))]}
        else:
            document = {"inputs": {name: [value] * 2 for name, value in row.items()}}
        for _ in range(self.rng.choice([1, 1, 2, 4])):
            self.mutate_tree(document)
        body = json.dumps(document).encode()
        if self.rng.random() < 0.3:
            body = self.mutate_bytes(body)
        return self.post(f"/v1/models/{model}:predict", body)

    def rest_path(self) -> str:
        parts = ["v1", "models", "recommender", "ranking", "versions", "labels", "1", "9" * 30, "9" * 5000, "%00", "é"]
        parts += ["metadata", "..", "%ff%fe", ":predict", "recommender:predict", "a:classify", "a:regress", "", "?x=1"]
        path = "/" + "/".join(self.rng.choice(parts) for _ in range(self.rng.randint(0, 6)))
        method = self.rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PREDICT"])
        return self.post(path, b'{"instances": [1]}', method)

    def post(self, path: str, body: bytes, method: str = "POST") -> str:
        head = f"{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.answer(self.rest_port, head.encode() + body, must_answer=True, has_body=method != "HEAD")

    def raw_bytes(self) -> str:
        """Bytes on either port that are no HTTP, or no right HTTP."""
        rng = self.rng
        body = json.dumps({"instances": [ROW]}).encode()
        head = b"POST /v1/models/recommender:predict HTTP/1.1\r\nHost: here\r\n"
        chunks = [b"%x\r\n%s\r\n" % (len(body), body), b"0\r\n\r\n", b"ffffffffffff\r\nx"]
        chunks += [b"-1\r\n", b"zz\r\n", b"\r\n"]
        http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
        data = rng.choice(
            [
                lambda: rng.randbytes(rng.choice([1, 10, 1000, 50_000])),
                lambda: head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(rng.choices(chunks, k=4)),
                lambda: head + b"Content-Length: %d\r\n\r\n" % rng.choice([0, 5, -5, 10**15]) + body,
                lambda: head + b"Content-Length: " + rng.choice([b"0", b"9"]) * 5000 + b"\r\n\r\n" + body,
                lambda: b"POST " + rng.choice([b"http://[::1/x", b"//[", b"http://x:y/"]) + b" HTTP/1.1\r\n\r\n",
                lambda: head + rng.choice([b"A" * 100_000, b"A: b\r\n" * 20_000, b": b\r\n", b"\0: b\r\n"]) + b"\r\n",
                lambda: self.mutate_bytes(head + b"Content-Length: %d\r\n\r\n" % len(body) + body),
                lambda: http2 + self.mutate_bytes(b"\0\0\4\1\4\0\0\0\1" + b"\x82\x86\x84\x41" + rng.randbytes(40)),
                lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(200),
            ]
        )()
        return self.answer(rng.choice([self.port, self.rest_port]), data, must_answer=False)

    def grpc_tensors(self) -> str:
        return self.call(PREDICT, self.tensors_request())

    def grpc_bytes(self) -> str:
        services = [("PredictionService", ["Predict", "GetModelMetadata", "Classify", "No"])]
        services += [("ModelService", ["GetModelStatus", "HandleReloadConfigRequest"]), ("No", ["Predict"])]
        service, methods = self.rng.choice(services)
        message = self.mutate_bytes(self.tensors_request())
        return self.call(f"/tensorflow.serving.{service}/{self.rng.choice(methods)}", message, may_be_unreadable=True)

    def tensors_request(self) -> bytes:
        rng = self.rng
        model = rng.choice([*self.models, *self.models, "nothing", ""])
        request = predict_pb2.PredictRequest(model_spec={"name": model})
        request.model_spec.signature_name = rng.choice(["", "", "", "evaluate", "x" * 5000, "é"])
        request.output_filter.extend(rng.choice([[], [], ["movie_id"], ["title", "title"], ["\0"]]))
        names = ["examples"] if model not in ("recommender", "nothing") else list(ROW)
        for name in [*names, *rng.choices(["age", "", "x" * 3000], k=rng.choice([0, 0, 0, 1]))]:
            request.inputs[name].CopyFrom(self.tensor(name))
        return request.SerializeToString()

    def tensor(self, name: str) -> tensor_pb2.TensorProto:
        rng = self.rng
        types = {"user_id": types_pb2.DT_INT64, "history_movie_ids": types_pb2.DT_INT64}
        types["examples"] = types_pb2.DT_STRING
        tensor = tensor_pb2.TensorProto(dtype=types.get(name, types_pb2.DT_FLOAT))
        if rng.random() < 0.2:
            tensor.dtype = rng.choice([0, 1, 2, 3, 7, 8, 9, 10, 14, 19, 20, 21, 22, 101, 107, 999])
        rank = 1 if name in ("user_id", "examples") else 2
        if rng.random() < 0.2:
            rank = rng.choice([0, 1, 2, 3, 8, 65, 300])
        for _ in range(rank):
            tensor.tensor_shape.dim.add(size=rng.choice(SIZES) if rng.random() < 0.4 else rng.choice([1, 2]))
        tensor.tensor_shape.unknown_rank = rng.random() < 0.05
        count = rng.choice([0, 1, 2, 4, 1000])
        numbers = [rng.choice([0, 1, 7, -1, 2**62]) for _ in range(count)]
        fill = rng.choice(["int64_val", "float_val", "string_val", "tensor_content", "bool_val", "half_val"])
        if rng.random() < 0.7:
            fill = {types_pb2.DT_INT64: "int64_val", types_pb2.DT_STRING: "string_val"}.get(tensor.dtype, "float_val")
        if fill == "tensor_content":
            tensor.tensor_content = rng.randbytes(8 * count)
        elif fill == "string_val":
            tensor.string_val.extend(rng.choice([b"", b"\xff\xff", b"x", rng.randbytes(20)]) for _ in range(count))
        else:
            is_small = fill in ("bool_val", "half_val")
            getattr(tensor, fill).extend(number % 2 if is_small else number for number in numbers)
        return tensor

    def mutate_tree(self, document: dict) -> None:
        """Replaces, removes or adds something in a JSON document."""
        places: list = []
        pending = [document]
        while pending:
            node = pending.pop()
            keys = list(node) if isinstance(node, dict) else range(min(len(node), 20))
            places += [(node, key) for key in keys]
            pending += [node[key] for key in keys if isinstance(node[key], (dict, list)) and node[key]]
        if not places:
            return
        node, key = self.rng.choice(places[:200])
        action = self.rng.random()
        if action < 0.2:
            del node[key]
        elif action < 0.3 and isinstance(node, dict):
            name = self.rng.choice(["instances", "inputs", "signature_name", "b64", "age", "\ud800"])
            node[name] = json.loads(json.dumps(node[key]))
        else:
            node[key] = json.loads(json.dumps(self.rng.choice(VALUES)))

    def mutate_bytes(self, original: bytes) -> bytes:
        data = bytearray(original)
        for _ in range(self.rng.choice([1, 2, 8])):
            place = self.rng.randrange(len(data)) if data else 0
            action = self.rng.random()
            if action < 0.5 and data:
                data[place] = self.rng.randrange(256)
            elif action < 0.7:
                del data[place : place + self.rng.choice([1, 5, 1000])]
            else:
                data[place:place] = self.rng.randbytes(self.rng.choice([1, 5, 50]))
        return bytes(data)

    def answer(self, port: int, data: bytes, must_answer: bool, has_body: bool = True) -> str:
        """Sends bytes, says that no more will come, and reads to the end of the answer."""
        received = b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            with contextlib.suppress(OSError):  # The server may have closed the connection already.
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
            try:
                while part := connection.recv(1 << 16):
                    received += part
            except ConnectionError:
                pass
            except TimeoutError:
                self.wrong.append(f"no end of the answer to {data[:200]!r}")
        if port == self.port:
            return "http2" if received else "closed"
        if not received:
            if must_answer:
                self.wrong.append(f"no answer to {data[:200]!r}")
            return "closed"
        head, _, body = received.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status not in REST_STATUSES or not head.startswith(b"HTTP/1."):
            self.wrong.append(f"{received[:300]!r} to {data[:300]!r}")
        elif status != 200 and has_body:
            try:
                error = json.JSONDecoder().raw_decode(body.decode())[0]["error"]
                assert isinstance(error, str)
                assert error
            except (ValueError, KeyError, AssertionError):
                self.wrong.append(f"{received[:300]!r} to {data[:300]!r}")
        return str(status)

    def call(self, method: str, message: bytes, may_be_unreadable: bool = False) -> str:
        try:
            self.channel.unary_unary(method)(message, timeout=10)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            unreadable = may_be_unreadable and code == grpc.StatusCode.INTERNAL and "Failed to parse" in details
            if not unreadable and (code not in GRPC_CODES or not details):
                self.wrong.append(f"{code.name} {details[:300]!r} to {method} {message[:300]!r}")
            return code.name
        return "OK"


class Server:
    """A model server in a process of its own, whose log and memory can be looked at."""

    def __init__(self, models: Path):
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # Open as long as the server runs.
        command = [sys.executable, "-m", "serving", "--models", str(models), "--ready-line"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, cwd=ROOT
        )
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        self.port, self.rest_port, self.models = ready["port"], ready["rest_port"], ready["models"]

    def megabytes(self) -> float:
        """Resident memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def log_text(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self) -> int:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return self.process.wait(30)


class Bystander(threading.Thread):
    """Asks all the time, over REST and gRPC in turns, as everybody does; notes the longest wait and every failure."""

    def __init__(self, server: Server):
        super().__init__(daemon=True)
        self.server = server
        self.longest, self.answers = 0.0, 0
        self.failures: list[str] = []
        self.end = threading.Event()

    def run(self) -> None:
        request = predict_pb2.PredictRequest(model_spec={"name": "recommender"})
        inputs = {"user_id": np.array([7]), "history_movie_ids": np.zeros([1, 0], np.int64)}
        inputs["history_ratings"] = np.zeros([1, 0], np.float32)
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        body = json.dumps({"instances": [{"user_id": 7, "history_movie_ids": [], "history_ratings": []}]})
        connection = http.client.HTTPConnection("127.0.0.1", self.server.rest_port, timeout=30)
        with grpc.insecure_channel(f"127.0.0.1:{self.server.port}", options=[("bystander", 1)]) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict

            def rest() -> None:
                connection.request("POST", "/v1/models/recommender:predict", body)
                response = connection.getresponse()
                assert response.status == 200, response.read()
                response.read()

            while not self.end.is_set():
                for ask in (rest, lambda: predict(request, timeout=30)):
                    start = time.monotonic()
                    try:
                        ask()
                        self.answers += 1
                    except Exception as error:
                        self.failures.append(repr(error))
                    self.longest = max(self.longest, time.monotonic() - start)
                time.sleep(0.005)


def attack(models: Path, requests: int, seed: int, rounds: int = 2) -> dict:
    """Sends requests to a new server in several rounds.

    Returns:
      `wrong` answers, `outcomes` with their numbers, `megabytes` before and after each round, the `longest` wait of a
      bystander, their `failures`, the server's `log` and its `exit` code.
    """
    server = Server(models)
    examples_model = next(name for name in server.models if name != "recommender")
    try:
        bystander = Bystander(server)
        bystander.start()
        time.sleep(0.5)
        megabytes = [server.megabytes()]
        wrong: list[str] = []
        outcomes: Counter[str] = Counter()
        for number in range(rounds):
            rng = random.Random(f"{seed} {number}")
            attacker = Attacker(rng, server.port, server.rest_port, examples_model)
            for _ in range(requests):
                attacker.send()
            attacker.channel.close()
            megabytes.append(server.megabytes())
            wrong += attacker.wrong
            outcomes += attacker.outcomes
        bystander.end.set()
        bystander.join(60)
    finally:
        code = server.stop()
    return {
        "wrong": wrong,
        "outcomes": outcomes,
        "megabytes": megabytes,
        "longest": bystander.longest,
        "answers": bystander.answers,
        "failures": bystander.failures,
        "log": server.log_text(),
        "exit": code,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, help="folder of models")
    parser.add_argument("--requests", type=int, default=10_000, help="number of requests in each of two rounds")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    result = attack(arguments.models, arguments.requests, arguments.seed)
    for outcome, count in sorted(result["outcomes"].items()):
        print(f"{count:7} {outcome}")  # noqa: T201
    for name in ("megabytes", "longest", "answers", "failures", "exit"):
        print(f"{name}: {result[name]}")  # noqa: T201
    print(f"wrong: {len(result['wrong'])}", *result["wrong"][:20], sep="\n")  # noqa: T201
    print(f"tracebacks: {result['log'].count('Traceback')}; {time.monotonic() - start:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()

"""S1, S7, S9 by construction: what no line of the project may say. Each exception is named here, with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.sources import PRODUCT, WRITTEN_FOR_USERS, calls_of, modules_of, name_of, tree, words_of

MODULES = {
    "pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "dbm", "copyreg", "joblib", "rpyc", "jsonpickle",
    "yaml", "ruamel", "multiprocessing", "concurrent.futures.ProcessPoolExecutor", "xmlrpc", "torch.hub",
    "torch.package", "telnetlib", "pty", "code", "codeop",
}  # fmt: skip
"""That may not be imported: they turn what they read into objects of any class, or into code."""

CALLS = {
    "eval", "exec", "compile", "__import__", "execfile", "input_eval",
    "os.system", "os.popen", "os.spawnl", "os.spawnv", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "tempfile.mktemp", "torch.load", "torch.hub.load", "np.load", "numpy.load",
    "tarfile.open", "shutil.unpack_archive", "types.FunctionType", "types.CodeType", "ssl._create_unverified_context",
}  # fmt: skip
METHODS = {
    "recv_pyobj", "send_pyobj", "recv_serialized", "send_serialized", "extractall", "unsafe_load", "full_load", "eval",
    "create_subprocess_shell", "loads_pickle",
}  # fmt: skip
"""Whoever they belong to."""
KEYWORDS = {
    "shell": "False",
    "trust_remote_code": "False",
    "allow_pickle": "False",
    "weights_only": "True",
    "use_safetensors": "True",
    "verify": "True",
    "autoescape": "True",
}
"""Arguments and the only value that each may be given."""
ANY_ADDRESS = ("tcp://*", "tcp://0.0.0.0", "tcp://[::]")

EXCEPTIONS = {
    ("vfastml/text_engine/decoders/hf_decoder.py", "model.eval"): "torch's word for: not training",
}
IMPORTED_BY_NAME = {
    "vfastml/__init__.py",
    "vfastml/text_engine/attention/choice.py",
    "vfastml/text_engine/attention/flash.py",
    "vfastml/text_engine/attention/varlen.py",
    "vfastml/text_engine/decoders/choice.py",
    "vfastml/text_engine/runner_choice.py",
    "prebuilt_apps/commands.py",
    "prebuilt_apps/extras.py",
    "prebuilt_apps/cli/__main__.py",
    "prebuilt_apps/cli/chat.py",
    "prebuilt_apps/cli/top/__main__.py",
    "vfastml/entrypoints/ledger/choice.py",
    "vfastml/entrypoints/tracing/choice.py",
}
"""Modules of the project's own choosing, imported when they are needed: each name is written in the code."""

HTTP_CLIENTS = {"httpx", "urllib.request", "http.client", "requests", "aiohttp", "ftplib", "huggingface_hub", "fsspec"}
FETCHERS = ("vfastml/model_store/", "prebuilt_apps/cli/")
"""Who may fetch: the store, what the operator has named, and the command line, which is a client."""
REQUESTS_ARE_HANDLED_IN = ("vfastml/entrypoints/", "vfastml/engine/", "vfastml/models_servers/")
OPENERS = {"read_text", "read_bytes", "write_text", "write_bytes", "urlopen", "fromfile", "memmap"}
READS_OPERATORS_FILES = ("vfastml/entrypoints/keys/", "vfastml/entrypoints/ledger/", "vfastml/engine/wire_keys.py")


def wrong_in(path: Path, source: ast.AST) -> Iterator[str]:
    """What the rules forbid in it."""
    for module in modules_of(source):
        if module in MODULES or module.split(".")[0] in MODULES:
            yield f"import of {module}"
    for called, call in calls_of(source):
        last = called.rsplit(".", 1)[-1]
        is_known = (name_of(path), called) in EXCEPTIONS
        if (called in CALLS or ("." in called and last in METHODS)) and not is_known:
            yield f"call of {called}"
        if last == "import_module" and name_of(path) not in IMPORTED_BY_NAME:
            yield "import by name"
        for keyword in call.keywords:
            if ast.unparse(keyword.value) != KEYWORDS.get(keyword.arg or "", ast.unparse(keyword.value)):
                yield f"{keyword.arg}={ast.unparse(keyword.value)}"
    for text in words_of(source):
        if text.startswith(ANY_ADDRESS):
            yield f"{text} as an address"


@pytest.mark.rule("S1")
def test_nothing_that_runs_what_it_reads() -> None:
    found = {name_of(path): list(wrong_in(path, tree(path))) for path in WRITTEN_FOR_USERS}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


HARMFUL = [
    "import pickle",
    "from pickle import loads",
    "import yaml as safe",
    "from multiprocessing import Queue",
    "from concurrent.futures import ProcessPoolExecutor",
    "eval(text)",
    "exec(text)",
    "compile(text, '', 'exec')",
    "socket.recv_pyobj()",
    "torch.load(path)",
    "np.load(path)",
    "np.fromfile(path, allow_pickle=True)",
    "os.system(line)",
    "subprocess.run(line, shell=True)",
    "subprocess.run(line, shell=is_shell)",
    "tempfile.mktemp()",
    "socket.bind('tcp://*:6500')",
    "socket.bind(f'tcp://0.0.0.0:{port}')",
    "AutoModel.from_pretrained(folder, trust_remote_code=True)",
    "import_module(request.model)",
    "archive.extractall(folder)",
]


@pytest.mark.rule("S1")
@pytest.mark.parametrize("line", HARMFUL)
def test_what_is_harmful_would_be_found(line: str) -> None:
    assert list(wrong_in(Path(__file__), ast.parse(line)))


@pytest.mark.rule("S1")
def test_exceptions_are_still_needed() -> None:
    by_name = {name_of(path): path for path in WRITTEN_FOR_USERS}
    for file, called in EXCEPTIONS:
        assert called in {name for name, _ in calls_of(tree(by_name[file]))}
    for file in IMPORTED_BY_NAME:
        assert any(name.endswith("import_module") for name, _ in calls_of(tree(by_name[file]))), file


@pytest.mark.rule("S7")
def test_what_handles_requests_has_no_means_to_fetch() -> None:
    for path in PRODUCT:
        if not name_of(path).startswith(FETCHERS):
            assert not {*modules_of(tree(path))} & HTTP_CLIENTS, path


@pytest.mark.rule("S7")
def test_what_handles_requests_opens_no_file() -> None:
    for path in PRODUCT:
        name = name_of(path)
        if name.startswith(REQUESTS_ARE_HANDLED_IN) and not name.startswith(READS_OPERATORS_FILES):
            called = [call for call, _ in calls_of(tree(path))]
            assert not [one for one in called if one == "open" or one.rsplit(".", 1)[-1] in OPENERS], path


@pytest.mark.rule("S9")
def test_an_assert_only_tells_the_type_checker() -> None:
    """`python -O` leaves them out: nothing that must be refused may be refused by one."""
    for path in PRODUCT:
        if "triton_kernels" in name_of(path):  # about the callers in this package
            continue
        conditions = [ast.unparse(node.test) for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)]
        assert all(one.startswith("isinstance(") or one.endswith(" is not None") for one in conditions), path

"""Rules of the code that no linter knows: where libraries may be imported, sizes, words that are gone."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "rankproof"
FILES = sorted(SOURCE.rglob("*.py"))

ROOMS = {  # a library, and the only places that import it
    "matplotlib": ("report",),
    "transformers": ("models",),
    "timm": ("models",),
    "torchvision": ("models",),
    "httpx": ("wire",),
    "fastapi": ("service",),
    "starlette": ("service",),
    "uvicorn": ("service",),
    "faiss": ("indexes",),
    "psycopg": ("indexes", "service/storage"),
    "pgvector": ("indexes", "service/storage"),
    "onnx": ("models",),
    "onnxruntime": ("models",),
    "onnx2torch": ("models",),
    "ray": ("parallel.py",),
}
MOST_LINES, MOST_PARAMETERS, MOST_UNTYPED = 60, 8, 40
FRONTS = {"smallest_budget", "attack"}  # the function for people, who name the few keywords they need

GONE = {  # identifiers of an earlier dialect, and what is said instead
    "picture": "image", "pictures": "images", "Scene": "AttackContext", "merit": "fitness",
    "strain": "constraint_violation", "emphasis": "penalty_weight", "Found": "MethodOutput",
    "own_copy": "exclude_self", "Seen": "Feedback", "Look": "QueryFn", "Watch": "TrackedItems",
    "Trace": "SearchHistory", "Journal": "what it holds", "Space": "Subspace", "Strong": "MomentumPGD",
    "Thompson": "ThompsonSampling", "yardstick": "reference_method", "Subject": "LoadedTask",
    "Cell": "AuditTask, TableCell, AttackSummary", "sheet": "page", "knobs": "parameters",
    "Lesson": "StepOutput", "Health": "DivergenceMonitor", "borrowed": "global_rng",
    "later_defenses": "act, hm", "aside": "worker_thread", "steady": "batch_invariance",
    "facts": "metadata_store", "intake": "uploads", "refusal": "errors", "guard": "destination",
    "pace": "rate_limit", "stops": "errors", "ledger": "response_cache", "Order": "ReproductionRequest",
    "Workshop": "Worker", "shop": "gallery", "hired": "worker", "LOST": "UNREADABLE", "ABSENT": "NOT_PRINTED",
    "Tell": "ProgressCallback", "Pull": "HingeTerm", "Metered": "BudgetedOracle", "silent": "zero_gradient",
    "divide": "split_by", "Outcome": "Evaluation", "verdict": "metrics", "Bound": "BoundGoal",
}  # fmt: skip
KEPT = {  # an identifier that stays somewhere, and why
}


def functions():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path.relative_to(SOURCE).as_posix(), node


def parameters(node):
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in named if argument.arg not in ("self", "cls", "ctx")]


def imported(node):
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.split(".")[0]]
    return []


def test_libraries_are_imported_in_their_rooms_alone():
    strays = [
        f"{path.relative_to(SOURCE)}:{node.lineno} imports {name}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported(node)
        if name in ROOMS and not path.relative_to(SOURCE).as_posix().startswith(ROOMS[name])
    ]
    assert not strays


@pytest.mark.parametrize("name", ["matplotlib", "transformers", "timm", "torchvision", "ray"])
def test_heavy_libraries_are_imported_at_first_use(name):
    at_once = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if name in imported(node)
    ]
    assert not at_once


def test_no_function_is_longer_than_a_screen():
    # The command line declares its options in signatures: those lines do not count there.
    long = []
    for path, node in functions():
        first = node.body[0].lineno if path.startswith("cli/") else node.lineno
        if path.startswith("cli/") and ast.get_docstring(node):
            first = node.body[0].end_lineno + 1  # the help page
        if (lines := node.end_lineno - first + 1) > MOST_LINES and node.name not in FRONTS:
            long.append(f"{path}: {node.name} has {lines} lines")
    assert not long


def test_no_function_has_more_than_eight_parameters():
    many = [
        f"{path}: {node.name} has {len(parameters(node))}"
        for path, node in functions()
        if len(parameters(node)) > MOST_PARAMETERS and node.name not in FRONTS and not path.startswith("cli/")
    ]
    assert not many


def test_untyped_dictionaries_stay_where_files_are_read_or_written():
    found = {path.relative_to(SOURCE).as_posix(): path.read_text().count("dict[str, Any]") for path in FILES}
    assert sum(found.values()) <= MOST_UNTYPED, {path: count for path, count in found.items() if count}


def test_the_words_of_the_earlier_dialect_are_gone():
    found = []
    for path in FILES:
        text = path.read_text()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and token.string in GONE:
                place = path.relative_to(SOURCE).as_posix()
                if place not in KEPT.get(token.string, {}):
                    found.append(f"{place}:{token.start[0]} {token.string}: say {GONE[token.string]}")
    assert not found


def test_no_goal_is_recognised_by_its_last_character():
    pattern = re.compile(r"""goal\w*(\.\w+)*\.endswith\(|["'][+-]["'] in \w*goal|goal\[-1\]""")
    found = [
        f"{path.relative_to(SOURCE)}: {match[0]}"
        for path in FILES
        for match in pattern.finditer(path.read_text())
    ]
    assert not found

"""Both back-ends keep the contract of backend.py: the same names, parameters and defaults."""

import ast
import importlib
import inspect
import os

import pytest

from ptyguard_core.errors import Unsupported

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BACKENDS = ["ptyguard_posix", "ptyguard_win"]


def parse(name):
    with open(os.path.join(ROOT, name), "rb") as file:
        return ast.parse(file.read(), name)


def signatures(body):
    """name -> ((parameter, default as source) ...) of the public functions in it."""
    return {node.name: signature(node.args) for node in body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")}


def signature(args):
    assert not (args.vararg or args.kwarg or args.kwonlyargs), "a contract has plain parameters"
    names = [arg.arg for arg in args.args]
    defaults = [None] * (len(names) - len(args.defaults)) + [ast.dump(d) for d in args.defaults]
    return tuple(zip(names, defaults))


def contract():
    body = next(node for node in parse("ptyguard_core/backend.py").body
                if isinstance(node, ast.ClassDef) and node.name == "Backend").body
    return body


CONTRACT = signatures(contract())


def test_the_contract_is_found_and_says_what_each_name_promises():
    assert len(CONTRACT) > 40
    assert {"spawn_session", "read_terminal", "try_lock", "find_paths"} <= set(CONTRACT)
    for node in contract():
        if isinstance(node, ast.FunctionDef):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("name", BACKENDS)
def test_a_back_end_has_exactly_the_names_of_the_contract(name):
    assert set(signatures(parse(name + ".py").body)) == set(CONTRACT)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_back_end_takes_exactly_the_parameters_of_the_contract(name):
    assert signatures(parse(name + ".py").body) == CONTRACT


@pytest.mark.parametrize("function", sorted(CONTRACT))
def test_on_a_platform_without_a_back_end_everything_ends_in_one_clear_sentence(function):
    windows = importlib.import_module("ptyguard_win")
    call = getattr(windows, function)
    arguments = [None for parameter in inspect.signature(call).parameters.values()
                 if parameter.default is parameter.empty]
    with pytest.raises(Unsupported) as caught:
        call(*arguments)
    assert caught.value.message and "\n" not in caught.value.message
    assert caught.value.hint


def test_the_back_end_of_another_system_can_be_imported_here():
    with open(os.path.join(ROOT, "ptyguard_win.py"), "rb") as file:
        tree = ast.parse(file.read())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"ptyguard_core.errors"}
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))

"""The house in figures: its folders from top to bottom with their lines, and the longest of what is in it.

python -m bench.house (in tests/) prints it. Lines of code are those without blank lines, comments and
docstrings. A function's length is from its def to its end.
"""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from unit.test_imports import ORDER

import noojee_agi
from bench import table

PACKAGE = Path(noojee_agi.__file__).parent
LONG_MODULE = 250
_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)


def main() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    texts = {module: module.read_text(encoding="utf-8") for module in modules}
    lines = {module: text.count("\n") for module, text in texts.items()}
    code = {module: _lines_of_code(text) for module, text in texts.items()}
    count, sums, of_code = Counter(map(_place, modules)), Counter[str](), Counter[str]()
    for module in modules:
        sums[_place(module)] += lines[module]
        of_code[_place(module)] += code[module]
    rows = [(f"`{name}`", *map(str, (count[name], sums[name], of_code[name]))) for name in ORDER]
    rows += [("all of it", *map(str, (len(modules), sum(lines.values()), sum(code.values()))))]
    print(table.text(("from top to bottom", "modules", "lines", "lines of code"), rows))
    functions = sorted(each for module, text in texts.items() for each in _functions(module, text))
    longest = ", ".join(f"`{name}` {length}" for length, name in reversed(functions[-5:]))
    print(f"\nThe longest functions: {longest}.")
    print(f"The median of {len(functions)}: {statistics.median(length for length, _ in functions):g}.")
    long = [f"`{_name(module)}` {each}" for module, each in lines.items() if each > LONG_MODULE]
    print(f"Modules over {LONG_MODULE} lines: {', '.join(long) or 'none'}.")


def _name(module: Path) -> str:
    return ".".join(module.relative_to(PACKAGE).with_suffix("").parts)


def _place(module: Path) -> str:
    return _name(module).partition(".")[0]


def _lines_of_code(text: str) -> int:
    docstrings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    there = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NO_CODE and token.string
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(there - docstrings)


def _functions(module: Path, text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.end_lineno - node.lineno + 1, f"{_name(module)}.{node.name}"


if __name__ == "__main__":
    main()

"""The command line: `seglosses`, or `python -m seglosses_nb`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seglosses_nb._version import __version__
from seglosses_nb.publish.book import Book, Document, PublishError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    The exit code is 0 when all is well, 1 when something failed, 2 for unusable arguments, 130
    after an interruption.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[0] if given else ""
    try:
        if command == "bench":
            # it has options of its own, which are its own business
            from seglosses_nb.lab import bench

            return bench.main(given[1:]) or 0
        options = _parser().parse_args(given)
        return options.run(options)
    except PublishError as error:
        print(f"seglosses {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        left = "; nothing half-written was left" if command == "build" else ""
        print(f"seglosses {command}: interrupted{left}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader of our output left (`| head`); do not complain again when the stream is closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seglosses",
        description="Losses for image segmentation: the book, its site, and the tools around them.",
    )
    parser.add_argument("--version", action="version", version=f"seglosses_nb {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str, **more: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=help, description=more.pop("description", help), **more
        )
        sub.set_defaults(run=run)
        return sub

    def root(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--root",
            metavar="DIR",
            help="folder of _toc.yml (default: the one you are in, or above)",
        )

    def values(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "-p",
            dest="parameters",
            nargs=2,
            action="append",
            default=[],
            metavar=("NAME", "VALUE"),
            help="a parameter of the chapters, its value as YAML; may be repeated",
        )
        sub.add_argument(
            "--full", action="store_true", help="everything, not the quick form: -p quick false"
        )
        sub.add_argument(
            "--timeout",
            type=_positive(float),
            default=1800.0,
            metavar="SECONDS",
            help="give up on a chapter after this long (default: 1800)",
        )

    build = command(
        "build",
        _build,
        "run the chapters that changed, and build the site",
        description="Run every chapter whose notebook, parameters, package or pins changed, and "
        "build the site from the executed notebooks. Cells are counted from 0 in reports.",
    )
    build.add_argument(
        "--only", nargs="+", default=[], metavar="CHAPTER", help="run only these chapters"
    )
    build.add_argument(
        "--jobs",
        type=_positive(int),
        default=2,
        metavar="N",
        help="chapters at a time (default: 2)",
    )
    build.add_argument(
        "--force", action="store_true", help="run the chapters even if nothing changed"
    )
    build.add_argument(
        "--no-site", dest="site", action="store_false", help="run chapters, leave the site alone"
    )
    build.add_argument(
        "--max-minutes",
        type=_positive(float),
        metavar="M",
        help="fail when all the chapters' times add up to more",
    )
    build.add_argument(
        "--wait", action="store_true", help="wait for another build to finish instead of giving up"
    )
    values(build)
    root(build)

    run = command("run", _run, "run one chapter")
    run.add_argument("chapter", metavar="CHAPTER", help="its name, or the path of a notebook")
    run.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="where to put the executed notebook"
    )
    values(run)
    root(run)

    serve = command("serve", _serve, "show the site on this computer")
    serve.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes any free one")
    root(serve)

    command("list", _list, "list the losses")

    show = command("show", _show, "print what is known about a loss")
    show.add_argument("name", metavar="NAME", help="e.g. dice_loss")

    check = command(
        "check",
        _check,
        "run the battery of checks on a loss, yours or ours",
        description="Run the battery of checks on a loss. The exit code is 1 when a check fails.",
    )
    check.add_argument(
        "loss", metavar="MODULE:NAME", help="e.g. seglosses_nb:dice_loss or my_losses:MyLoss"
    )
    check.add_argument("--family", help="check it as a loss of this family, e.g. region")
    check.add_argument(
        "--only", nargs="+", default=None, metavar="CHECK", help="run only these checks"
    )
    check.add_argument(
        "--skip", nargs="+", default=[], metavar="CHECK", help="leave these out, e.g. compile"
    )

    new = command("new-loss", _new_loss, "scaffold a new loss: function, oracle, tests, chapter")
    new.add_argument("name", metavar="NAME", help="e.g. tversky_loss")
    new.add_argument(
        "family", metavar="FAMILY", help="distribution, region, boundary, compound or beyond"
    )

    commands.add_parser(
        "bench", help="measure speed and memory against torch, MONAI and kornia", add_help=False
    )
    return parser


def _positive(kind: type) -> Any:
    def convert(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


def _values(options: argparse.Namespace) -> dict[str, Any]:
    from seglosses_nb.publish import parameters

    values = parameters.parse(options.parameters)
    if options.full:
        if "quick" in values:
            raise PublishError("--full means -p quick false; give one of the two")
        values["quick"] = False
    return values


def _build(options: argparse.Namespace) -> int:
    from seglosses_nb.publish.build import Build, Options

    chosen = Options(
        only=tuple(options.only),
        jobs=options.jobs,
        parameters=_values(options),
        force=options.force,
        site=options.site,
        max_minutes=options.max_minutes,
        timeout=options.timeout,
        wait=options.wait,
    )
    return Build(Book.locate(options.root), chosen).run()


def _run(options: argparse.Namespace) -> int:
    from seglosses_nb.publish.build import run_one

    path = Path(options.chapter)
    if path.suffix == ".ipynb" and path.is_file():
        # a chapter that was downloaded runs anywhere, without the book
        chapter = Document(path.stem, path.resolve())
        output = Path.cwd() / f"{path.stem}.executed.ipynb"
    else:
        book = Book.locate(options.root)
        chapter = book.chapter(options.chapter)
        output = book.build / "runs" / f"{chapter.name}.ipynb"
    return run_one(chapter, _values(options), (options.output or output).resolve(), options.timeout)


def _serve(options: argparse.Namespace) -> int:
    from seglosses_nb.publish.server import serve

    return serve(Book.locate(options.root), options.port)


def _list(options: argparse.Namespace) -> int:
    from seglosses_nb import LOSSES

    width = max(map(len, LOSSES), default=0)
    for family in dict.fromkeys(info.family for info in LOSSES.values()):
        print(family)
        for name, info in LOSSES.items():
            if info.family == family:
                print(f"  {name:{width}}  {info.summary}")
    return 0


def _show(options: argparse.Namespace) -> int:
    import difflib

    from seglosses_nb import LOSSES

    if options.name not in LOSSES:
        near = difflib.get_close_matches(options.name, LOSSES, n=1)
        hint = f"did you mean {near[0]}?" if near else "`seglosses list` names them all"
        raise PublishError(f"no loss is called {options.name!r}; {hint}")
    info = LOSSES[options.name]
    width = shutil.get_terminal_size().columns
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        head = f"{field.name.replace('_', ' '):17}"
        if field.name == "value_range":
            value = f"[{value[0]:g}, {value[1]:g}]"
        lines = value if isinstance(value, list | tuple) else [value]
        for line in filter(None, map(_plain, lines)):
            # a formula is one word to whoever copies it
            broken = [line] if field.name == "formula" else textwrap.wrap(line, width - len(head))
            for part in broken:
                print(head + part)
                head = " " * len(head)
    return 0


def _plain(value: Any) -> str:
    """A fact as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_plain(each)}" for key, each in value.items())
    if isinstance(value, set | frozenset | list | tuple):
        return ", ".join(sorted(map(_plain, value)))
    if hasattr(value, "statement"):
        return value.statement
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return "" if value is None else str(value)


def _check(options: argparse.Namespace) -> int:
    from seglosses_nb.checks import check_loss

    loss = _import(options.loss)
    try:
        report = check_loss(loss, family=options.family, only=options.only, skip=options.skip)
    except (TypeError, ValueError) as error:
        raise PublishError(f"{options.loss} cannot be checked: {error}") from error
    print(report)
    return 0 if report.passed else 1


def _import(reference: str) -> Any:
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise PublishError(f"{reference!r} is not MODULE:NAME; write e.g. seglosses_nb:dice_loss")
    # the reader's module is usually a file in the folder that the command is called from
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module_name)
    except Exception as error:
        raise PublishError(
            f"cannot import {module_name!r}: {type(error).__name__}: {error}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise PublishError(
                f"module {module_name!r} has no {name!r}; check what stands after the colon"
            )
        found = getattr(found, part)
    return found


def _new_loss(options: argparse.Namespace) -> int:
    from seglosses_nb.publish import scaffold

    return scaffold.main(options.name, options.family) or 0


if __name__ == "__main__":
    sys.exit(main())

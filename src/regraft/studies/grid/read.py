"""Reading a grid: every name and value is checked, and a mistake is told with its line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regraft.data import names as data_names
from regraft.data.catalogue import canonical
from regraft.errors import InputError, suggest
from regraft.studies.grid import options
from regraft.studies.grid.build import build
from regraft.studies.grid.places import Source
from regraft.studies.grid.plan import Plan, check_options
from regraft.studies.study import NAME, Study

TOP = ("name", "title", "about", "data", "base", "grid", "seeds", "reference", "presets")
OF_PRESET = ("base", "grid", "seeds", "cost")
MOST = 100_000

Place = tuple[str | int, ...]


def read_grid(path: Path) -> Study:
    """The study that a YAML file describes.

    Raises:
        FileError: the file cannot be read.
        InputError: no YAML, unknown names (with the nearest ones), values that cannot be used; with the line.
    """
    source = Source(path)
    top = _mapping(source, ())
    for name in top:
        if name not in TOP:
            meant = options.known(str(name))  # YAML has names of any type
            hint = f"it belongs under 'base' or 'grid': {meant}" if meant else suggest(str(name), TOP)
            raise source.error((), f"unknown part {name!r}: {hint}")
    name = _text(source, top, "name", path.stem.lower().replace("_", "-").replace(" ", "-"))
    if not NAME.fullmatch(name):
        raise source.error(
            ("name",), f"the name is {name!r}, but must be lower case letters, digits and hyphens"
        )
    plan = _plan(source, top)
    plans = {"smoke": _quick(plan), "small": plan}
    costs = {"smoke": "one epoch, at most two seeds"}
    given = _mapping(source, ("presets",)) if "presets" in top else {}
    for preset in given:
        plans[preset], costs[preset] = _preset(source, preset, plan)
    reference = _reference(source, top, plan)
    title = _text(source, top, "title", name)
    about = _text(source, top, "about", f"A grid over trainings: '{path.name}'.")
    return build(name, title, about, plans, costs, reference)


def _plan(source: Source, top: Mapping[str, Any]) -> Plan:
    base = _options(source, ("base",)) if "base" in top else {}
    if "data" in top:
        base |= _data(source, top)
    grid = _grid(source, ("grid",)) if "grid" in top else {}
    seeds = _seeds(source, ("seeds",), top["seeds"]) if "seeds" in top else range(5)
    plan = Plan(base, grid, list(seeds))
    _check(source, plan, ())
    return plan


def _preset(source: Source, name: str, whole: Plan) -> tuple[Plan, str]:
    """A preset: the whole grid, where it does not say otherwise."""
    at: Place = ("presets", name)
    changes = _mapping(source, at)
    for part in changes:
        if part not in OF_PRESET:
            raise source.error(at, f"unknown part {part!r}: {suggest(part, OF_PRESET)}")
    base = dict(whole.base) | (_options(source, (*at, "base")) if "base" in changes else {})
    grid = dict(whole.grid) | (_grid(source, (*at, "grid")) if "grid" in changes else {})
    seeds = _seeds(source, (*at, "seeds"), changes["seeds"]) if "seeds" in changes else whole.seeds
    plan = Plan({k: v for k, v in base.items() if k not in grid}, grid, list(seeds))
    _check(source, plan, at)
    return plan, _text(source, changes, "cost", "", at)


def _quick(plan: Plan) -> Plan:
    base = dict(plan.base) if "epochs" in plan.grid else {**plan.base, "epochs": 1}
    grid = {k: [1] if k == "epochs" else v for k, v in plan.grid.items()}
    return Plan(base, grid, list(plan.seeds)[:2])


def _options(source: Source, at: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in _mapping(source, at).items():
        option = _known(source, at, name, found)
        found[option] = _converted(source, (*at, name), name, value)
    return found


def _grid(source: Source, at: Place) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, values in _mapping(source, at).items():
        option = _known(source, at, name, found)
        if not isinstance(values, list) or not values:
            raise source.error(
                (*at, name), f"{values!r} is no list of values: write [{values}], or put it under 'base'"
            )
        made = [_converted(source, (*at, name, i), name, v) for i, v in enumerate(values)]
        twice = next((v for i, v in enumerate(made) if v in made[:i]), None)
        if twice is not None:
            raise source.error((*at, name), f"the value {twice!r} stands there twice")
        found[option] = made
    return found


def _known(source: Source, at: Place, name: str, found: Mapping[str, Any]) -> str:
    option = options.known(name)
    if option is None:
        instead = options.ELSEWHERE.get(name.replace("-", "_"))
        hint = (
            suggest(name.replace("-", "_"), [*options.TYPES, *options.SAME]) if instead is None else instead
        )
        what = "unknown option" if instead is None else "a grid has no option"
        raise source.error((*at, name), f"{what} {name!r}: {hint}")
    if option in found:
        raise source.error((*at, name), f"{name!r} stands there twice, under two names of the same option")
    return option


def _converted(source: Source, at: Place, name: str, value: Any) -> Any:
    option = options.known(name)
    assert option is not None
    try:
        made = options.convert(option, value)
    except InputError as error:
        raise source.error(at, str(error)) from error
    if option == "data":
        _check_data(source, at, made)
    return made


def _data(source: Source, top: Mapping[str, Any]) -> dict[str, Any]:
    """``data: digits``, or a mapping with a name and what is taken of it."""
    if not isinstance(top["data"], Mapping):
        return {"data": _converted(source, ("data",), "data", top["data"])}
    called = {"name": "data", "seed": "data_seed"}
    found = {}
    for name, value in _mapping(source, ("data",)).items():
        option = called.get(name, name.replace("-", "_"))
        if option not in options.DATA:
            known = ["name", "classes", "per_class", "test_per_class", "seed"]
            raise source.error(("data", name), f"unknown option of data {name!r}: {suggest(name, known)}")
        found[option] = _converted(source, ("data", name), option, value)
    return found


def _check_data(source: Source, at: Place, name: str) -> None:
    if canonical(name) is None and not Path(name).expanduser().is_dir():
        raise source.error(
            at, f"unknown data set {name!r}: {suggest(name, data_names())}; or a folder of images"
        )


def _seeds(source: Source, at: Place, value: Any) -> Sequence[int]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise source.error(
            at, f"seeds is {value!r}, but must be a number of seeds or a list of whole numbers"
        )
    if isinstance(value, list):
        if len(set(value)) < len(value):
            raise source.error(at, f"seeds is {value!r}: a seed stands there twice")
        return [int(v) for v in value]
    if not 1 <= value <= MOST:
        raise source.error(at, f"seeds is {value}, but must be 1 to {MOST:,}")
    return range(value)


def _check(source: Source, plan: Plan, at: Place) -> None:
    """Every combination must be a training, before the first of them starts."""
    both = [name for name in plan.grid if name in plan.base]
    if both:
        raise source.error((*at, "grid", both[0]), f"{both[0]!r} is under 'base' too: take one of them out")
    count = len(plan.seeds)
    for values in plan.grid.values():
        count *= len(values)
    if count > MOST:
        raise source.error(
            (*at, "grid"), f"this makes {count:,} trainings, more than {MOST:,}: take fewer values"
        )
    for point in plan.points():
        try:
            check_options({**plan.base, **dict(point)})
        except InputError as error:
            shown = ", ".join(f"{k}={v}" for k, v in point) or "base"
            raise source.error(_blame(str(error), plan, point, at), f"{error} (at {shown})") from error


def _blame(message: str, plan: Plan, point: Sequence[tuple[str, Any]], at: Place) -> Place:
    """The part of the file that a message most likely speaks of."""
    words = message.replace("'", " ").replace(":", " ").split()
    for name, value in point:
        if name in words or repr(value) in message:
            return (*at, "grid", name, list(plan.grid[name]).index(value))
    for name, value in plan.base.items():
        if name in words or repr(value) in message:
            return (*at, "base", name)
    return (*at, "grid")


def _reference(source: Source, top: Mapping[str, Any], plan: Plan) -> dict[str, Any] | None:
    """What the grid's points are compared with: values of some options, the others as they are."""
    if "reference" not in top:
        return None
    found = {}
    for name, value in _mapping(source, ("reference",)).items():
        option = options.known(name)
        at = ("reference", name)
        if option is None or option not in plan.grid:
            raise source.error(at, f"{name!r} does not vary in the grid: {suggest(name, plan.grid)}")
        made = _converted(source, at, name, value)
        if made not in plan.grid[option]:
            raise source.error(at, f"{made!r} is no value of {name!r} in the grid: {list(plan.grid[option])}")
        found[option] = made
    return found


def _mapping(source: Source, at: Place) -> dict[str, Any]:
    value = source.value
    for part in at:
        value = value[part]
    what = f"'{at[-1]}'" if at else "the file"
    if not isinstance(value, dict) or not value:
        raise source.error(
            at, f"{what} holds {_short(value)}, but must be names with values, such as `density: 0.1`"
        )
    odd = next((k for k in value if not isinstance(k, str)), None)
    if odd is not None:
        raise source.error(at, f"{odd!r} is no name: put it in quotes")
    source.check_names(at)
    return value


def _text(source: Source, found: Mapping[str, Any], name: str, default: str, at: Place = ()) -> str:
    value = found.get(name, default)
    if not isinstance(value, str):
        raise source.error((*at, name), f"{name} is {value!r}, but must be text; put it in quotes")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."

"""Rules between the stage of ZeRO, its options and the precision."""

from typing import Any

from ssl_scale.recipe.checking import Checker
from ssl_scale.recipe.entry import Entry
from ssl_scale.recipe.train_plan import TrainPlan
from ssl_scale.recipe.zero_options import ZeroOptions


def check_zero(root: Entry, checker: Checker) -> None:
    """Note what cannot be sharded as it is asked for."""
    train = root.at("train")
    if train is None or not train.is_mapping:
        return
    stage = _scalar(train, "zero", TrainPlan.zero)
    precision = _scalar(train, "precision", TrainPlan.precision)
    if stage == 0 and precision != "fp32":
        entry = train.at("zero") or train
        what = (
            f"must be 1, 2 or 3 with train.precision {precision}, whose fp32 masters DeepSpeed "
            "keeps in these stages only, but is 0"
        )
        checker.faults.add(entry.place, "train.zero", what)
    written = train.at("zero_options")
    if written is None or not written.is_mapping:
        return
    options = _options(written)
    needs = [(name, "3", stage == 3) for name in options.needs_stage_3]
    if options.offload_optimizer:
        needs.append(("offload_optimizer", "1, 2 or 3", stage != 0))
    for name, stages, is_met in needs:
        option = written.at(name)
        if not is_met and option is not None:
            value = str(option.value).lower() if isinstance(option.value, bool) else option.value
            what = f"is {value}, which needs train.zero {stages}, but that is {stage}"
            checker.faults.add(option.place, f"train.zero_options.{name}", what)


def _options(written: Entry) -> ZeroOptions:
    """What is written, as far as it is of the right type; the rest is noted elsewhere."""
    known = ZeroOptions()
    values: dict[str, Any] = {}
    for name, entry in written.items.items():
        default = getattr(known, name, None)
        if default is not None and type(entry.value) is type(default):
            values[name] = entry.value
    return ZeroOptions(**values)


def _scalar(section: Entry, name: str, default: Any) -> Any:
    entry = section.at(name)
    return default if entry is None or entry.value is None else entry.value

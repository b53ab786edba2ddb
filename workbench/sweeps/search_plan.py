"""`sweep --plan`: what a sweep would do. Without torch, without a trial."""

from __future__ import annotations

import shlex
from pathlib import Path

from workbench.sweeps.commands import place_settings, settings, trial_command
from workbench.sweeps.parameters import grid
from workbench.sweeps.sweep_files import Sweep

_SAMPLERS = {
    "grid": "grid: every combination once, in W&B's order",
    "random": "random: Optuna's independent draws",
    "bayes": "bayes: Optuna's TPE, a tree-structured Parzen estimator (W&B itself fits a Gaussian process)",
}


def plan_lines(sweep: Sweep, folder: Path, seeds: int) -> list[str]:
    """Return what would happen, in lines.

    Args:
        sweep: A checked sweep.
        folder: The sweep's folder.
        seeds: Final runs; 0: none.
    """
    combinations = grid(sweep.parameters) if sweep.method == "grid" else []
    count = min([number for number in (len(combinations) or None, sweep.run_cap) if number is not None])
    first = combinations[0] if combinations else {p.name: p.ends()[0] for p in sweep.parameters}
    direction = "more" if sweep.higher_is_better else "less"
    lines = [
        f"sweep:     {sweep.name} ({sweep.path}) in {folder}",
        f"method:    {_SAMPLERS[sweep.method]}",
        f"trials:    {count}" + ("" if combinations or count == 0 else " at most; what was tried is not tried again"),
        f"metric:    {sweep.metric} of the weights that each fit keeps, {direction} is better",
    ]
    lines += [f"  {p.name}: {p.described()}" for p in sweep.parameters]
    if sweep.stopping is not None:
        stopping = sweep.stopping
        times = [stopping.first * stopping.eta**i for i in range(4)]
        times = [time for time in times if stopping.last is None or time < stopping.last]
        judged = "its value then" if stopping.strict else "its best so far"
        lines.append(
            f"stopping:  a trial goes on if {judged} is among the best 1 in {stopping.eta} of those that came so far, "
            f"after {', '.join(map(str, times))}{' ...' if stopping.last is None else ''} values of the metric"
        )
    extra = [*sweep.overrides, *place_settings(folder / "runs" / "0000", sweep.name, "trial")]
    lines.append("a trial:   " + shlex.join(trial_command(sweep.command, sweep.program, settings(first), extra)))
    if seeds:
        lines.append(
            f"final:     the best on the selection split, retrained on train + selection for the same steps, last "
            f"weights, seeds 0 to {seeds - 1}; test opened once per seed"
        )
    return lines

"""When the density falls: before training, in shots or at once, or between trainings."""

from __future__ import annotations

from pictures.canvas import Canvas, Theme
from regraft.prune import paths
from regraft.schedules import Progress

END, SHOTS, ROUNDS, EPOCHS = 0.05, 8, 5, 6


def compute() -> dict[str, list[float]]:
    """Densities after each shot and each round."""
    return {
        "shots": [paths.exponential(1.0, END, Progress(k, SHOTS)) for k in range(SHOTS + 1)],
        "rounds": [paths.exponential(1.0, END, Progress(k, ROUNDS)) for k in range(ROUNDS + 1)],
    }


def draw(made: dict[str, list[float]], theme: Theme) -> Canvas:
    """Three panels: density over time; training tinted."""
    page = Canvas(4.1, theme)
    rounds = made["rounds"]
    panels = (
        ("upfront, one shot: score once, cut once, train", [1.0, END], [ROUNDS * EPOCHS]),
        (f"upfront, {SHOTS} shots: score what is left again after each", made["shots"], [ROUNDS * EPOCHS]),
        (f"in {ROUNDS} rounds: train, cut, rewind the weights, repeat", rounds, [EPOCHS] * (ROUNDS + 1)),
    )
    for row, (title, densities, trainings) in enumerate(panels):
        page.text(0.1, 3.88 - 1.22 * row, title, size=9.5, weight="bold")
        ax = page.plot((0.55, 3.0 - 1.22 * row, 4.3, 0.8))
        x = 0.0
        if row < 2:
            step = 6 / len(densities)
            for density in densities:
                ax.bar(x, density, width=step * 0.8, color=theme["lines"][row], align="edge")
                x += step
            ax.axvspan(x, x + trainings[0], color=theme["paper"], zorder=0)
            ax.bar(x, END, width=trainings[0], color=theme["lines"][row], align="edge", alpha=0.5)
            ax.text(x + 12, 0.45, "training", color=theme["muted"], fontsize=9.5, ha="center")
        else:
            for density in densities:
                ax.axvspan(x, x + 5, color=theme["paper"], zorder=0)
                ax.bar(x, density, width=5, color=theme["lines"][2], align="edge", alpha=0.5)
                ax.text(
                    x + 2.5, density + 0.06, f"{density:.2g}", color=theme["ink"], fontsize=9, ha="center"
                )
                x += 6
        ax.set(xlim=(0, 36), ylim=(0, 1.2 if row == 2 else 1.05), xticks=[], yticks=[0, 1])
        ax.set_yticks([0, 1], ["0", "1"])
        ax.grid(False)
    page.text(0.55, 0.2, "density over time; tinted: training", size=9.5, color="muted")
    return page

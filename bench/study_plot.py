#!/usr/bin/env python3
"""A picture of a study's table: study_plot.py TABLE.csv PICTURE.svg, of what `besactl study show --csv` prints. One field of the grid goes along
the bottom, in the order of its values; where there are two, each value of the first is a line of its own. Upwards goes the perplexity of the
first data set, whose dense value the title has."""
import csv
import sys
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 64, 150, 44, 48
COLORS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700")
FIXED = ("job", "state")


def read(path):
    """(fields of the grid, data set, rows) of the jobs that succeeded."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        sys.exit(f"{path}: no rows")
    names = list(rows[0])
    results = [name for name in names if name.startswith(("perplexity.", "achieved_sparsity"))]
    fields = [name for name in names[:names.index(results[0])] if name not in FIXED] if results else []
    perplexities = [name for name in results if name.startswith("perplexity.") and not name.endswith(".dense")]
    if not fields or len(fields) > 2 or not perplexities:
        sys.exit(f"{path}: wants one or two fields of a grid, and a perplexity")
    return fields, perplexities[0], [row for row in rows if row["state"] == "succeeded" and row[perplexities[0]]]


def ticks(low, high):
    step = 10.0 ** -3
    while (high - low) / step > 6:
        step *= 2 if str(step).strip("0.").startswith(("1", "5")) else 2.5
    first = int(low / step)
    return [step * i for i in range(first, int(high / step) + 2) if low <= step * i <= high]


def draw(fields, perplexity, rows):
    along = list(dict.fromkeys(row[fields[-1]] for row in rows))
    lines = list(dict.fromkeys(row[fields[0]] for row in rows)) if len(fields) == 2 else [None]
    values = [float(row[perplexity]) for row in rows]
    margin = max(0.1 * (max(values) - min(values)), 0.002 * min(values))
    low, high = min(values) - margin, max(values) + margin

    def x(value):
        return LEFT + (along.index(value) + 0.5) * (WIDTH - LEFT - RIGHT) / len(along)

    def y(value):
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    dense = rows[0].get(perplexity + ".dense")
    title = f"Perplexity on {perplexity.partition('.')[2]}" + (f"; dense: {float(dense):.2f}" if dense else "")
    yield (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="sans-serif" font-size="12">')
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    yield f'<text x="{LEFT}" y="24" font-size="14">{escape(title)}</text>'
    for tick in ticks(low, high):
        yield f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>'
        yield f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
    for value in along:
        yield f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{escape(value)}</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(fields[-1])}</text>'
    for number, line in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        points = [(x(row[fields[-1]]), y(float(row[perplexity]))) for row in rows if line is None or row[fields[0]] == line]
        yield (f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}" fill="none" stroke="{color}" stroke-width="2"/>')
        for a, b in points:
            yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{color}"/>'
        if line is not None:
            yield f'<text x="{WIDTH - RIGHT + 12}" y="{TOP + 18 * number + 10}" fill="{color}">{escape(line)}</text>'
    yield "</svg>"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    picture = "\n".join(draw(*read(sys.argv[1]))) + "\n"
    with open(sys.argv[2], "w") as file:
        file.write(picture)


if __name__ == "__main__":
    main()

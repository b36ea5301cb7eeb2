"""Drawings of the register tiles, and the table of their loads, from the tables in dwconv's C headers.

    python docs/tiles.py [folder]       writes *.svg and loads.rst; conf.py does it at every build

What is drawn is what would be compiled: the tables are read from the headers, and loads are counted by walking through a tile's
loops as the C source does.  A table that cannot be found is an error.  SVG is written as text: each drawing is a few dozen
rectangles, for which a plotting library would only be in the way.
"""

import pathlib
import re
import sys

HEADERS = pathlib.Path(__file__).parents[1] / "dwconv"
WIDE, NARROW = 32, 16  # vector registers: AVX-512 and aarch64; AVX2 and SSE2


# ---- the tables ----

def read(header):
    return (HEADERS / header).read_text(encoding="utf-8")


def table(header, name, registers):
    """The rows of one of the tables, as tuples of int: of several the first, that of 32 registers, or the second, AVX2's."""
    found = re.findall(rf"#define {name}\(TILE\)((?:.*\\\n)*.*)", read(header))
    rows = re.findall(r"TILE\(([\d, ]+)\)", found[0 if registers == WIDE or len(found) == 1 else 1])
    assert rows, (header, name)
    return [tuple(map(int, row.split(","))) for row in rows]


def number(name, registers):
    found = re.findall(rf"(?:\b{name} =|#define {name}) (\d+)", read("_tiles.h"))
    return int(found[0 if registers == WIDE or len(found) == 1 else 1])


# ---- what a tile loads ----

def loads(accumulators, taps, x, inputs, multiply_adds, registers, rows, kept):
    """Loads per multiply-add of a tile with `inputs` loads of x, of which `x` vectors are held at a time.

    Weights that find room beside the accumulators are loaded once a tile, or not at all where they are `kept` from tile to
    tile; others once for each of the tile's `rows` of outputs.
    """
    weights = rows * taps if accumulators + taps + x > registers else 0 if kept else taps
    return (inputs + weights) / multiply_adds


def channel(k, s, r, t, order, registers):
    if registers == NARROW and order == 0:  # tap row by tap row, each with its weights
        return f"{r} x {t} pixels", ((t - 1) * s + 2 * k) / (t * k)
    inputs = ((r - 1) * s + k) * ((t - 1) * s + k)
    if registers == NARROW:  # each row of weights when its turn comes
        return f"{r} x {t} pixels", (inputs + k * k) / (r * t * k * k)
    return f"{r} x {t} pixels", loads(r * t, k * k, 1, inputs, r * t * k * k, registers, r, kept=order == 0)


def plane(k, s, t, slide, registers, kept=True):
    if slide:  # one input row after the other: counted for one row of outputs
        rows, inputs = -(-k // s), k * t if s == 1 else s * (2 * t + 1)
        return f"{rows} rows x {t} vectors, sliding", loads(rows * t, k * k, t, inputs, t * k * k, registers, 1, kept)
    rows = number("DW_PLANE_ROWS", registers)
    inputs = ((rows - 1) * s + k) * k * t
    return f"{rows} rows x {t} vectors", loads(rows * t, k * k, t, inputs, rows * t * k * k, registers, rows, kept)


def rows(registers):
    """{(what vectors span, kernel): (tile, loads per multiply-add)} for a number of registers."""
    found = {}
    for k, s, r, t, order, when in table("_tiles.h", "DW_CHANNEL_TILES", registers):
        what = ["channels", "channels, from memory (or stride 2 over 2 KB pixels)", "channels, maps that seven columns fit badly",
                "channels, rows of 7 or 14 outputs (AVX2)"][when]
        found[what, f"{k} x {k}, stride {s}"] = channel(k, s, r, t, order, registers)
    r, t, n = number("DW_ANY_ROWS", registers), number("DW_ANY_COLS", registers), number("DW_RUN", registers)
    found["channels", f"any other, stride 1, {n} taps of a row"] = f"{r} x {t} pixels", (r * (t + n - 1) + n) / (r * t * n)
    planes = table("_tiles.h", "DW_PLANE_UNIT", registers)
    if registers == WIDE:
        planes += table("_tiles.h", "DW_PLANE_TILES", registers)  # those of stride 2
    for k, s, t in table("_tiles.h", "DW_SHIFTED_TILES", registers):  # input rows: counted for one row of outputs
        r = -(-k // s)
        # with 16 registers a load for each tap column instead of a shift, at stride 2 two for each two of them
        inputs = s * (s * t + (k > s)) if registers == WIDE else s * -(-k // s) * s * t
        if registers == WIDE and (k, s) == (7, 1):  # loads, see shifted_inputs
            inputs = k * t
        found["a row of a plane, shifted", f"{k} x {k}, stride {s}"] = (
            f"{r} rows x {t} vectors", loads(r * t, k * k, t, inputs, t * k * k, registers, 1, kept=True))
    for k, s, t, slide in planes:
        found["a row of a plane", f"{k} x {k}, stride {s}"] = plane(k, s, t, slide, registers)
    for k, t in table("_tiles.h", "DW_FLAT_TILES", registers):
        found["a flat row of few channels", f"{k} x {k}, stride 1"] = plane(k, 1, t, 0, registers, kept=False)
    r, t = number("DW_WIDE_ROWS", registers), number("DW_WIDE_VECTORS", registers)
    found["a row of either", "any other, stride 1"] = f"{r} rows x {t} vectors", (r + t) / (r * t)
    for k, parity, t in table("_input_grad_tiles.h", "DW_GRAD_STRIPS", registers):
        if parity == 0:
            found["channels, input gradient", f"{k} x {k}, stride 2"] = f"2 x {t} columns", (k + t + (k - 1) // 2) / (t * k)
    for k, p, q, t in table("_input_grad_tiles.h", "DW_GRAD_BOTH", registers):
        if p == q == 0 and t > 2:  # those of two pairs are for pixels 1 KB apart
            found["channels, input gradient, two rows", f"{k} x {k}, stride 2"] = (
                f"2 rows x 2 x {t} columns", (2 * (t + 1) + k * k) / (t * k * k))
    for p, q in table("_kernel_grad_tiles.h", "DW_SLIDES", registers):
        if (p, q) in ((3, 3), (3, 4), (5, 5), (7, 3)):
            again = q if registers == NARROW and p * q > 9 else 0  # of the oldest gradient
            found["any, kernel gradient", f"{p} x {q} taps of it"] = f"{p} x {q} sums", (q + 1 + again) / (p * q)
    for k, s, t in table("_kernel_grad_tiles.h", "DW_GRAD_SHIFTED_TILES", registers):
        if registers == WIDE:  # one row of outputs: S input rows, and itself once or, for larger kernels, for each that it meets
            vectors, inputs = f"{t} vectors", (s * (s * t + 1) + t * (1 if k == 3 else k)) / t
        else:  # each tap column, at stride 2 two loads for each two of them, and itself for each input row that it meets
            vectors, inputs = "a row", s * -(-k // s) * s + -(-k // s)
        found["a row of a plane, kernel gradient", f"{k} x {k}, stride {s}"] = f"{k} x {k} sums, {vectors}", inputs / (k * k)
    return found


def loads_table():
    """reStructuredText: the tiles for 32 and for 16 registers side by side."""
    wide, narrow = rows(WIDE), rows(NARROW)
    heads = ("A vector spans", "Kernel", f"Tile, {WIDE} registers", "Loads", f"Tile, {NARROW} registers", "Loads")
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for cells in (heads, *((*key, *show(wide.get(key)), *show(narrow.get(key))) for key in dict.fromkeys([*wide, *narrow]))):
        lines += [f"   {'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(cells)]
    return "\n".join(lines) + "\n"


def show(tile):
    return (tile[0], f"{tile[1]:.2f}") if tile else ("by other tiles", "")


# ---- drawings ----

INK, GREY, PALE, BLUE, ORANGE, GREEN = "#222", "#888", "#f2f2f2", "#8fbbe8", "#f5b25d", "#9ad1a0"
PHASES = ("#8fbbe8", "#f5b25d", "#9ad1a0", "#d7a6dc")


class Drawing:
    """Rectangles, words and arrows on a white sheet."""

    def __init__(self, width, height, title):
        height += 12
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
                      f'font-family="sans-serif" font-size="13" role="img"><title>{title}</title>'
                      '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
                      f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
                      f'<rect width="{width}" height="{height}" fill="white"/>']

    def box(self, x, y, w, h, fill=PALE, text="", size=12, edge=GREY):
        self.parts.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{fill}" stroke="{edge}"/>')
        if text:
            self.text(x + w / 2, y + h / 2 + size * 0.36, text, size, "middle")

    def text(self, x, y, text, size=13, anchor="start", weight="normal"):
        text = str(text).replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
                          f'fill="{INK}">{text}</text>')

    def arrow(self, x0, y0, x1, y1):
        self.parts.append(f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{INK}" fill="none" marker-end="url(#tip)"/>')

    def grid(self, x, y, rows, cols, cell, fill=lambda r, c: PALE, text=lambda r, c: ""):
        for r in range(rows):
            for c in range(cols):
                self.box(x + c * cell, y + r * cell, cell, cell, fill(r, c), text(r, c), 11)

    def save(self, path):
        path.write_text("\n".join([*self.parts, "</svg>\n"]), encoding="utf-8")


def draw_vectors(path):
    """What a vector spans in each family, 8 lanes for the sake of the drawing."""
    d, lanes, cell = Drawing(760, 330, "What a vector spans"), 8, 26

    def row(y, title, cells, chosen, note):
        d.text(10, y, title, weight="bold")
        for k, (label, fill) in enumerate(cells):
            d.box(10 + k * cell, y + 10, cell, cell, fill, label, 10)
        d.parts.append(f'<rect x="{10 + chosen * cell}" y="{y + 8}" width="{lanes * cell}" height="{cell + 4}" fill="none" '
                       f'stroke="{INK}" stroke-width="3"/>')
        d.text(10, y + 58, note)

    row(20, "channels_last, many channels: one pixel's neighbouring channels",
        [(f"c{k % 14}", PHASES[k // 14]) for k in range(28)], 14,
        "Memory runs through the channels of a pixel (one colour), then to the next pixel.  Each lane has a weight of its own.")
    row(125, "channels_first: neighbours in a row of one plane",
        [(f"x{k}", BLUE) for k in range(28)], 9,
        "All lanes have the same channel, hence the same weight, which is broadcast; a vector may begin anywhere.")
    row(230, "channels_last, few channels: the row as one flat run",
        [("RGB"[k % 3], PHASES[(1, 2, 0)[k % 3]]) for k in range(28)], 9,
        "Weights repeat with the pixel: w(R) w(G) w(B) w(R) ... is laid out once a call, and no lane stays empty.")
    d.save(path)


def draw_channel(path):
    """One load of the 3x3 tile and what it is multiplied into."""
    k, s, r, t, _, _ = next(row for row in table("_tiles.h", "DW_CHANNEL_TILES", WIDE) if row[:2] == (3, 1) and row[5] == 0)
    rows_in, cols_in, cell = (r - 1) * s + k, (t - 1) * s + k, 44
    at = (1, 3)  # the input vector that is shown
    d = Drawing(60 + (cols_in + t) * cell + 120, 110 + rows_in * cell + 40, f"The {r} x {t} channel tile of a 3x3 kernel")
    x1, y1 = 20, 60
    x2, y2 = x1 + cols_in * cell + 130, y1 + (rows_in - r) * cell / 2

    def reached(i, j):
        p, q = at[0] - i * s, at[1] - j * s
        return (p, q) if 0 <= p < k and 0 <= q < k else None

    d.text(x1, 24, f"x: {rows_in} x {cols_in} pixels, each box a vector of channels", weight="bold")
    d.text(x1, 44, "loaded once each, in row-major order")
    d.text(x2, 24, f"y: {r} x {t} accumulators", weight="bold")
    d.text(x2, 44, "in registers, from bias to store")
    d.grid(x1, y1, rows_in, cols_in, cell, lambda i, j: BLUE if (i, j) == at else PALE)
    d.grid(x2, y2, r, t, cell, lambda i, j: ORANGE if reached(i, j) else PALE,
           lambda i, j: f"w{reached(i, j)[0]}{reached(i, j)[1]}" if reached(i, j) else "")
    d.arrow(x1 + (at[1] + 0.5) * cell, y1 + (at[0] + 0.5) * cell, x2 - 6, y2 + r * cell / 2)
    count = sum(reached(i, j) is not None for i in range(r) for j in range(t))
    d.text(x1, y1 + rows_in * cell + 28, f"This one load feeds {count} multiply-adds y += x * w, with the weights that the boxes "
           f"name; the tile loads {rows_in * cols_in} vectors of x for {r * t * k * k}.")
    d.save(path)


def draw_slide(path):
    """The slide down a plane: each input row is loaded once."""
    k, _, t, _ = next(row for row in table("_tiles.h", "DW_PLANE_UNIT", WIDE) if row[0] == 3)
    d = Drawing(760, 330, "The slide down the rows of a plane")
    d.text(20, 24, "x: one plane, rows downwards", weight="bold")
    d.text(470, 24, f"y: {k} rows of {t} vectors in registers", weight="bold")
    for i in range(7):
        d.box(20, 50 + i * 34, 300, 26, BLUE if i == 3 else PALE, f"row {i}" + (": loaded now" if i == 3 else ""))
    d.text(20, 305, f"A row is loaded {k} times shifted by one number, {t} vectors each:")
    d.text(20, 322, f"{k * t} loads, of which each serves {k} rows of outputs; going down never loads it again.")
    for a in range(k):
        i = 1 + a
        d.box(470, 84 + i * 34, 270, 26, (GREEN, ORANGE, ORANGE)[a],
              f"row {i} += row 3 * (w{3 - i}0, w{3 - i}1, w{3 - i}2)" if i < 4 else "")
        d.arrow(322, 165, 466, 97 + i * 34)
    d.text(470, 232, "row 1 now is complete: stored, and its registers")
    d.text(470, 249, "begin row 4 with the bias.")
    d.save(path)


def draw_planes(path):
    """Planes as channels."""
    d = Drawing(760, 250, "Planes taken as channels")
    for k in range(5):
        d.box(20 + k * 9, 80 - k * 9, 120, 90, PHASES[k % 4], "")
    d.text(20, 195, "16 planes of x, or the rows")
    d.text(20, 212, "of them that fit the scratch")
    d.arrow(190, 115, 250, 115)
    d.text(187, 100, "gather", 12)
    d.text(255, 55, "scratch: pixels of 16 channels", weight="bold")
    for i in range(3):
        for j in range(4):
            d.box(258 + j * 58, 68 + i * 32, 52, 24, PALE)
            for lane in range(8):
                d.box(260 + j * 58 + lane * 6, 71 + i * 32, 6, 18, PHASES[lane % 4], edge="none")
    d.text(255, 195, "16 vectors of 16 numbers are transposed in")
    d.text(255, 212, "registers; channel tiles compute, y beside x")
    d.arrow(500, 115, 560, 115)
    d.text(497, 100, "scatter", 12)
    for k in range(5):
        d.box(580 + k * 9, 80 - k * 9, 120, 90, PHASES[k % 4], "")
    d.text(580, 195, "16 planes of y")
    d.text(20, 240, "For short rows, strides, dilations and large kernels, where vectors along a row would be mostly empty.")
    d.save(path)


def draw_phases(path):
    """The input gradient at stride 2: which taps reach a pixel."""
    t = next(t for *_, t in table("_input_grad_tiles.h", "DW_GRAD_BOTH", WIDE))
    d, cell = Drawing(760, 290, "Phases of the input gradient at stride 2"), 40
    d.text(20, 24, "Gradient for x, 3x3 kernel, stride 2: four phases", weight="bold")

    def phase(i, j):
        return 2 * (i % 2) + j % 2

    taps = {0: "w00 w02 w20 w22", 1: "w01 w21", 2: "w10 w12", 3: "w11"}  # padding 0: row i meets taps of i's parity
    d.grid(20, 40, 5, 8, cell, lambda i, j: PHASES[phase(i, j)], lambda i, j: str(len(taps[phase(i, j)].split())))
    for f in range(4):
        d.box(370, 44 + f * 34, 24, 24, PHASES[f])
        d.text(404, 61 + f * 34, f"{('even', 'odd')[f // 2]} rows, {('even', 'odd')[f % 2]} columns: taps {taps[f]}")
    d.text(370, 200, "A phase is a convolution of stride 1 with those taps only,")
    d.text(370, 217, "whose outputs lie two apart: no multiplication by zero.")
    d.text(20, 266, f"A tile takes both parities of rows and columns, 2 x {2 * t} pixels: a vector of the gradient of y is")
    d.text(20, 283, "loaded once for all, pair of columns by pair of columns.  Padding shifts which taps meet which parity.")
    d.save(path)


def draw_kernel_grad(path):
    """The kernel gradient's tile."""
    k, terms = 3, re.search(r"TERMS = (\d+)", read("_kernel_grad.pxi"))[1]
    assert (k, k) in table("_kernel_grad_tiles.h", "DW_SLIDES", WIDE)
    d, cell = Drawing(760, 300, "The tile of the kernel gradient"), 46
    d.text(20, 24, "x: slides along a row", weight="bold")
    d.grid(20, 40, k, 6, cell, lambda i, j: BLUE if j == 3 else PALE)
    d.text(20, 200, f"a step loads one column: {k} vectors of x ...")
    d.text(330, 24, f"window of the last {k} gradients", weight="bold")
    d.grid(340, 40 + cell, 1, k, cell, lambda i, j: GREEN if j == k - 1 else PALE, lambda i, j: f"g{j + 1}")
    d.text(330, 165, "... and one vector of gradients")
    d.text(560, 24, f"{k} x {k} sums in registers", weight="bold")
    d.grid(570, 40, k, k, cell, lambda i, j: ORANGE, lambda i, j: f"s{i}{j}")
    d.arrow(300, 40 + 1.5 * cell, 334, 40 + 1.5 * cell)
    d.arrow(340 + k * cell + 4, 40 + 1.5 * cell, 564, 40 + 1.5 * cell)
    d.text(20, 240, f"Each sum is one tap: s(i, j) += x(row i) * g({k} - j).  A step is {k + 1} loads and {k * k} multiply-adds: "
           f"{(k + 1) / (k * k):.2f} loads each.")
    d.text(20, 262, f"The sums of a piece, at most {terms} terms each, are then added to those of other pieces pairwise, in an")
    d.text(20, 280, "order that the shapes alone decide, so that the bits do not depend on the number of threads.")
    d.save(path)


def write(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loads.rst").write_text(loads_table(), encoding="utf-8")
    for name, draw in (("vectors", draw_vectors), ("channel", draw_channel), ("slide", draw_slide), ("planes", draw_planes),
                       ("phases", draw_phases), ("kernel_grad", draw_kernel_grad)):
        draw(folder / f"{name}.svg")


if __name__ == "__main__":
    write(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "_generated")

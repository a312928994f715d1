"""The colours of figures, in the light and in the dark theme, by themselves and on the page.

Blue to sky are Okabe and Ito's ("Color Universal Design", 2008, https://jfly.uni-koeln.de/color/), so that no reader depends on
telling red from green.
"""

PAPER, INK, SOFT, GRID = "#fdfdfb", "#1b1b1a", "#6b6b65", "#b9b9b4"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
# Those of the dark theme, which templates/style.css has too.
DARK = {
    PAPER: "#16181a",
    INK: "#e6e4de",
    SOFT: "#a9a8a1",
    GRID: "#46484a",
    BLUE: "#5db4ea",
    VERMILLION: "#f08a4b",
    GREEN: "#3cc69a",
    PURPLE: "#e0a0c5",
    ORANGE: "#f0b840",
    SKY: "#8fd0f5",
}
# What stands for them on the page, whose theme a reader's print may change.
VARIABLES = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    GRID: "var(--rule)",
    BLUE: "var(--blue)",
    VERMILLION: "var(--vermillion)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    ORANGE: "var(--orange)",
    SKY: "var(--sky)",
}
_RULES = "".join(
    f'[style*="{kind}: {light}"]{{{kind}: {dark} !important}}'
    for light, dark in DARK.items()
    for kind in ("fill", "stroke")
)
# The ground of a figure that is shown by itself, as in README.md: transparent, its dark lines would vanish on a dark page.
GROUND = (
    f'<g id="ground"><style>@media (prefers-color-scheme: dark) {{{_RULES}}}</style>'
    f'<rect width="100%" height="100%" style="fill: {PAPER}"/></g>'
)


def on_ground(svg: bytes) -> bytes:
    """Lay a figure on its ground, which follows the reader's light or dark theme.

    Arguments:
        svg: an SVG document as Matplotlib writes it.
    """
    head, opening, rest = svg.partition(b"<svg")
    attributes, end, shapes = rest.partition(b">\n")
    return head + opening + attributes + end + f" {GROUND}\n".encode() + shapes


def themed(svg: str) -> str:
    """Take a figure off its ground, and give it the colours of the page's theme."""
    svg = svg.replace(f" {GROUND}\n", "")
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg
